"""Runs are exact: two are equal, and one that was stopped and continued equals one that was not."""

import csv
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from support.exactness import TIMES
from support.tiny import tiny

from cityscapes.errors import BusyError, DivergedError, IntegrityError, MissingInputError, ParameterError
from cityscapes.workspace import run_folder
from dlv3p.data import loader
from dlv3p.data.roots import open_split
from dlv3p.data.write_shards import write_shards
from dlv3p.runs.folders import HISTORY_COLUMNS, checkpoint_path, find_run, hold_run, list_runs
from dlv3p.runs.imported import save_run
from dlv3p.train import train
from dlv3p.training import checkpoints, recovery, step
from dlv3p.weights.checkpoint import load_checkpoint
from dlv3p.weights.checksums import weights_sha256
from dlv3p.weights.loading import build_recognized
from dlv3p.weights.reading import read_weights
from dlv3p.weights.recognition import recognize


def saved_by_epoch(city, **changes):
    """Parameters of a run of three epochs, saved after each; its optimizer has two moments."""
    return tiny(city, **{"optimizer": "adamw", "epochs": 3, "checkpoint_minutes": 10.0, **changes})


def final_hash(run):
    saved = load_checkpoint(checkpoint_path(run, "last"))
    optimizer = {
        f"{index} {name}": value
        for index, group in saved["optimizer"]["state"].items()
        for name, value in group.items()
    }
    return weights_sha256(saved["model"]), weights_sha256(optimizer)


@pytest.fixture(scope="module")
def uninterrupted(city, tmp_path_factory):
    """The hash of a run that nothing disturbed, and its history without seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(tmp_path_factory.mktemp("uninterrupted")))
        result = train(saved_by_epoch(city, run="whole"))
        return final_hash("whole"), without_seconds(result.history)


def without_seconds(history):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in history]


class Stop(Exception):
    pass


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_same_run_gives_the_same_weights_with_any_number_of_workers(city, workspace, uninterrupted, workers):
    result = train(saved_by_epoch(city, run="again", workers=workers))
    assert (final_hash("again"), without_seconds(result.history)) == uninterrupted


def test_another_seed_gives_other_weights(city, workspace, uninterrupted):
    train(saved_by_epoch(city, run="other", seed=1))
    assert final_hash("other")[0] != uninterrupted[0][0]


@pytest.mark.parametrize("saves", [0, 1, 2, 3])  # three epochs save four times at least: "best" and "last" of the first
def test_a_run_that_dies_in_any_save_continues_to_the_same_weights(city, workspace, uninterrupted, monkeypatch, saves):
    done = []

    def dies(path, content):
        if len(done) == saves:
            raise Stop
        done.append(path)
        save(path, content)

    save = checkpoints.save_checkpoint
    monkeypatch.setattr(checkpoints, "save_checkpoint", dies)
    with pytest.raises(Stop):
        train(saved_by_epoch(city, run="stopped"))
    monkeypatch.setattr(checkpoints, "save_checkpoint", save)
    result = train(saved_by_epoch(city, run="stopped", workers=1))
    assert (final_hash("stopped"), without_seconds(result.history)) == uninterrupted


def test_a_finished_run_returns_at_once_says_so_and_touches_nothing(city, workspace, monkeypatch, capsys):
    first = train(tiny(city, run="done", epochs=1))
    before = {path: path.stat().st_mtime_ns for path in run_folder("done").rglob("*") if path.name != ".lock"}
    monkeypatch.setattr(loader, "training_loader", None)
    capsys.readouterr()
    again = train(tiny(city, run="done", epochs=1, progress="lines"))
    assert capsys.readouterr().out == f"finished before, nothing is left to train: {first.summary}\n"
    assert again.history == first.history
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_run_folder_holds_what_the_next_notebook_needs(city, workspace):
    result = train(tiny(city, epochs=2))
    assert result.folder == run_folder(result.run)
    assert {path.name for path in result.folder.iterdir()} >= {"run.json", "metrics.csv", "model.safetensors"}
    with open(result.folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == HISTORY_COLUMNS
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["val_mIoU"]) == result.history[1]["val_mIoU"]
    record = json.loads((result.folder / "run.json").read_text())
    assert record["parameters"] == tiny(city, epochs=2).as_dict()
    assert len(record["data"]["train"]["fingerprint"]) == 64
    assert torch.__version__.startswith(record["versions"]["torch"])
    best = max(row["val_mIoU"] for row in result.history)
    assert result.best_mean_iou == best
    assert load_checkpoint(checkpoint_path(result.run, "best"))["epoch"] == result.best_epoch


def test_the_learning_rate_follows_the_poly_schedule(city, workspace):
    result = train(tiny(city, learning_rate=0.01, epochs=2))
    steps = 2 * (6 // 2)
    expected = [0.01 * (1 - (epoch * 3 - 1) / steps) ** 0.9 for epoch in (1, 2)]
    assert [row["learning_rate"] for row in result.history] == pytest.approx(expected)


def test_a_damaged_last_checkpoint_falls_back_to_the_best_one(city, workspace, capsys):
    first = train(saved_by_epoch(city, run="hurt"))
    path = checkpoint_path("hurt", "last")
    path.write_bytes(path.read_bytes()[:1000])
    again = train(saved_by_epoch(city, run="hurt"))
    assert "resuming from the best checkpoint" in capsys.readouterr().out
    assert without_seconds(again.history) == without_seconds(first.history)


def test_a_run_without_any_good_checkpoint_is_never_started_afresh(city, workspace):
    train(tiny(city, run="lost", epochs=1))
    for name in ("last", "best"):
        checkpoint_path("lost", name).write_bytes(b"")
    with pytest.raises(IntegrityError):
        train(tiny(city, run="lost", epochs=1))


def test_other_parameters_under_the_same_name_are_refused_with_the_difference(city, workspace):
    train(tiny(city, run="mine", epochs=1))
    with pytest.raises(ParameterError, match=r"epochs=1 \(asked for 2\)"):
        train(tiny(city, run="mine", epochs=2))


def test_a_run_that_another_process_holds_is_refused(city, workspace):
    with hold_run("held"), pytest.raises(BusyError, match="another process"):
        train(tiny(city, run="held"))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(city, workspace, monkeypatch):
    train(tiny(city, run="nan", epochs=1))
    before = checkpoint_path("nan", "last").read_bytes()
    monkeypatch.setattr(recovery, "refuse_other_parameters", lambda *_: None)
    monkeypatch.setattr(step, "make_loss", lambda *_, **__: lambda logits, mask: logits.sum() * math.nan)
    with pytest.raises(DivergedError, match="loss is nan"):
        train(tiny(city, run="nan", epochs=2))
    assert checkpoint_path("nan", "last").read_bytes() == before


def test_a_gradient_that_is_not_finite_in_the_last_step_spoils_no_checkpoint(city, workspace, monkeypatch):
    train(tiny(city, run="inf", epochs=1))
    before = checkpoint_path("inf", "last").read_bytes()
    monkeypatch.setattr(recovery, "refuse_other_parameters", lambda *_: None)
    # The root is 0 and steeper than any number there: a loss that is finite, and a gradient that is not.
    monkeypatch.setattr(step, "make_loss", lambda *_, **__: lambda logits, mask: (logits - logits).sum().sqrt())
    with pytest.raises(DivergedError, match="gradient norm is nan"):
        train(tiny(city, run="inf", epochs=2))
    assert checkpoint_path("inf", "last").read_bytes() == before


def test_an_imported_network_does_not_go_on_as_a_run(city, workspace):
    result = train(tiny(city, run="trained", epochs=1))
    found = recognize(read_weights(result.folder / "model.safetensors"))
    save_run(found, build_recognized(found), run="imported", data_root=str(city))
    with pytest.raises(ParameterError, match=r"'imported' was imported.*initial_weights='.*model.safetensors'"):
        train(tiny(city, run="imported"))
    train(tiny(city, run="on", epochs=1, initial_weights=str(run_folder("imported") / "model.safetensors")))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "learning_rate": 0.01},
        {"loss": "focal"},
        {"class_weights": "none"},
        {"precision": "bfloat16"},
        {"architecture": "deeplabv3", "output_stride": 8},
        {"image_scale": 0.5},
        {"batch_size": 100},
    ],
)
def test_every_choice_trains(city, workspace, changes):
    result = train(tiny(city, epochs=1, **changes))
    assert math.isfinite(result.history[0]["train_loss"])
    assert 0 <= result.best_mean_iou <= 1


def test_find_run_names_the_runs_there_are(city, workspace):
    with pytest.raises(MissingInputError, match="no run yet"):
        find_run("")
    for run in ("first", "second"):
        train(tiny(city, run=run, epochs=1))
    assert list_runs() == ["first", "second"]
    assert find_run("") == "second"
    with pytest.raises(MissingInputError, match="did you mean 'first'"):
        find_run("frist")


def test_a_run_from_shards_here_or_behind_a_url_ends_with_the_weights_of_one_from_files(city, uninterrupted, workspace):
    for split in ("train", "val"):
        write_shards(open_split(city, split), workspace / "shards", samples=4)
    for run, root in (("folder", workspace / "shards"), ("url", (workspace / "shards").as_uri())):
        train(saved_by_epoch(root, run=run))
        assert final_hash(run)[0] == uninterrupted[0][0]


def test_a_plain_folder_trains_with_its_own_classes(city, workspace):
    folder = workspace / "mine"
    for name in ("train", "val"):
        split = open_split(city, name)
        for kind in ("images", "masks"):
            (folder / kind / name).mkdir(parents=True)
        for index in range(len(split)):
            split.image(index).save(folder / "images" / name / f"{index}.png")
            mask = np.where(split.mask(index) == 255, 255, split.mask(index) % 3).astype(np.uint8)
            Image.fromarray(mask).save(folder / "masks" / name / f"{index}.png")
    (folder / "classes.csv").write_text("id,name\n0,one\n1,two\n2,three\n")
    train(tiny(folder, run="mine", epochs=1))
    state = load_checkpoint(checkpoint_path("mine", "last"))
    assert list(state["class_names"]) == ["one", "two", "three"]
    assert state["model"]["classifier.weight"].shape[0] == 3


@pytest.mark.parametrize("command", [["dlv3p", "train"], ["dlv3p.train"]], ids=" ".join)
def test_help_answers_before_torch_is_imported(command):
    module = {"dlv3p": "dlv3p.__main__"}.get(command[0], command[0])
    code = (
        f"import sys\nfrom {module} import main\n"
        f"try: main({[*command[1:], '--help']!r})\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "--config" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 False"
