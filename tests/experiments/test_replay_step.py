"""A step that diverged is taken again from what it left: the same bits, and the layer where it began."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support.after_steps import around_each_step
from support.tiny import tiny

from cityscapes.errors import DivergedError, IntegrityError, MachineError, MissingInputError
from cityscapes.workspace import run_folder
from dlv3p.data.loader import make_samples
from dlv3p.data.roots import open_split
from dlv3p.experiments.replay import main
from dlv3p.experiments.replay_step import replay_step
from dlv3p.runs.folders import checkpoint_path
from dlv3p.train import train
from dlv3p.training import divergence

SPOILED = "aspp.project.conv.weight"
"""The weight that something happens to after the fourth step."""


def diverge(patch, city, value, **changes):
    """Train until step 5 diverges, because a layer's weight has become `value`."""

    def spoil(run):
        if run.progress.done == 4:
            with torch.no_grad():
                dict(run.stepper.model.named_parameters())[SPOILED].view(-1)[7] = value

    around_each_step(patch, after=spoil)
    with pytest.raises(DivergedError, match=r"dlv3p replay run --step 5"):
        train(tiny(city, run="run", **changes))
    return run_folder("run") / "diverged"


@pytest.mark.parametrize("value", [math.inf, 3e38], ids=["infinite", "too large"])
def test_the_layer_that_something_happened_to_is_named_with_the_same_bits(city, workspace, monkeypatch, value):
    diverge(monkeypatch, city, value, class_uniform=0.5, average_decay=0.9)
    done = replay_step("run", 5)
    assert done.origin.layer.startswith("aspp.project")
    assert done.same_bits
    assert not done.otherwise


@pytest.mark.parametrize("changes", [{"precision": "float16"}, {"accumulation": 2, "activation_checkpointing": True}])
def test_the_same_bits_in_other_ways_to_compute(city, workspace, monkeypatch, changes):
    diverge(monkeypatch, city, 3e38, **changes)
    done = replay_step("run", 5)
    assert done.origin is not None
    assert done.same_bits


def test_the_names_are_those_of_the_images_that_the_crops_were_cut_from(city, workspace, monkeypatch):
    told = json.loads((diverge(monkeypatch, city, math.inf, class_uniform=1.0) / "step_5.json").read_text())
    samples = make_samples(tiny(city, class_uniform=1.0), open_split(city, "train"))
    order = [samples.split.name(index) for index in range(6)]
    assert told["samples"] == list(replay_step("run", 5).samples)
    assert told["samples"] != order[2:4]
    assert told["seed"] == 0


def test_crops_that_have_changed_are_said(city, workspace, monkeypatch, tmp_path):
    mine = shutil.copytree(city, tmp_path / "mine")
    diverge(monkeypatch, mine, math.inf)
    for path in mine.rglob("*_leftImg8bit.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert replay_step("run", 5).otherwise == ["the crops, so images or masks have changed"]


def test_the_command_says_where_it_began_and_what_came_before(city, workspace, monkeypatch, capsys):
    diverge(monkeypatch, city, 3e38)
    capsys.readouterr()
    assert main(["run", "--step", "5"]) == 0
    shown = capsys.readouterr().out
    assert "run, step 5: loss nan, gradient norm nan, the same bits as in the run\nbegan in aspp.project" in shown
    assert shown.count("before, largest output of ") == 6
    with pytest.raises(MissingInputError, match=r"step_4\.pt does not exist; it left 5"):
        main(["run", "--step", "4"])


def test_what_no_step_left_is_refused_and_not_listed(city, workspace):
    train(tiny(city, run="run", epochs=1))
    folder = workspace / "saved" / "run" / "diverged"
    folder.mkdir()
    shutil.copy(checkpoint_path("run", "best"), folder / "step_2.pt")
    (folder / "step_of_mine.pt").touch()
    with pytest.raises(MissingInputError, match="it left 2$"):
        replay_step("run", 3)
    with pytest.raises(IntegrityError, match="step_2.pt: lacks keys, samples, .*; restore it"):
        replay_step("run", 2)


def test_a_disk_that_takes_no_weights_hides_no_divergence(city, workspace, monkeypatch, capsys):
    def full(*_):
        raise MachineError("no space left")

    monkeypatch.setattr(divergence, "save_checkpoint", full)
    folder = diverge(monkeypatch, city, math.inf)
    assert [path.name for path in folder.iterdir()] == ["step_5.json"]
    assert "the step cannot be replayed" in capsys.readouterr().out
