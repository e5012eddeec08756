"""What steps found is read as rarely as on a GPU: the run is the same, diverges at the same step, and stops soon."""

import json
import math
import signal

import pytest
import torch
from support.rare_reads import read_every
from support.tiny import TINY, tiny

from cityscapes.errors import DivergedError, InputError, TerminatedError
from cityscapes.workspace import run_folder
from dlv3p.experiments.replay_step import replay_step
from dlv3p.runs.folders import checkpoint_path
from dlv3p.train import train
from dlv3p.training import divergence
from dlv3p.training.findings import STEPS_PER_READ, UnreadFindings
from dlv3p.training.step import Stepper
from dlv3p.weights.checkpoint import load_checkpoint
from dlv3p.weights.checksums import weights_sha256

SPOILED = "aspp.project.conv.weight"
WHEN = {"seconds", "data_wait", "joules"}


def outcome(parameters):
    """Train, and return the hash of the weights and of the momentum, and the history without what varies."""
    result = train(parameters)
    saved = load_checkpoint(checkpoint_path(parameters.run_name, "last"))
    momentum = {str(key): state["momentum_buffer"] for key, state in saved["optimizer"]["state"].items()}
    history = [{name: value for name, value in row.items() if name not in WHEN} for row in result.history]
    return weights_sha256(saved["model"]), weights_sha256(momentum), repr(history)


@pytest.mark.parametrize("changes", [{}, {"precision": "float16", "average_decay": 0.9, "steps": 5}], ids=str)
def test_a_run_is_the_same_however_often_it_is_read(workspace, city, monkeypatch, changes):
    each = outcome(tiny(city, run="each", **changes))
    read_every(monkeypatch, 2)
    assert outcome(tiny(city, run="rare", **changes)) == each


def test_each_loss_is_told_once_with_its_number(workspace, city, monkeypatch):
    told = []
    monkeypatch.setattr("dlv3p.runtime.callbacks.Callback.on_step", lambda _, *step: told.append(step))
    read_every(monkeypatch, 2)
    train(tiny(city, run="told"))
    assert [step[:2] for step in told] == [(epoch, step) for epoch in (1, 2) for step in (1, 2, 3)]
    assert len({step[2] for step in told}) == 6


def before_step(monkeypatch, number, act):
    """Call `act` with the stepper of a training before it takes a step, counted from 1."""
    genuine = Stepper.__call__

    def step(stepper, *batch, **options):
        if options["step"] + 1 == number:
            act(stepper)
        return genuine(stepper, *batch, **options)

    monkeypatch.setattr(Stepper, "__call__", step)


@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "adamw", "average_decay": 0.9, "class_uniform": 0.5}, {"precision": "float16"}],
    ids=str,
)
def test_the_step_that_diverged_is_named_and_left_although_others_followed_before_it_was_read(
    workspace, city, monkeypatch, changes
):
    weights, scales = {}, []

    def spoil(stepper):
        scales.append(stepper.scaler.get_scale())
        with torch.no_grad():
            dict(stepper.model.named_parameters())[SPOILED].view(-1)[7] = 3e38
        weights.update({name: value.clone() for name, value in stepper.model.state_dict().items()})

    before_step(monkeypatch, 4, spoil)
    read_every(monkeypatch, 10)
    with pytest.raises(DivergedError, match=r"step 4: the .*dlv3p replay run --step 4"):
        train(tiny(city, run="run", **changes))
    done = replay_step("run", 4)
    assert done.origin.layer.startswith("aspp.project")
    assert done.same_bits
    assert not done.otherwise
    left = load_checkpoint(run_folder("run") / "diverged" / "step_4.pt")
    assert weights_sha256(left["model"]) == weights_sha256(weights)
    assert left["scaler"].get("scale", 1.0) == scales[0]
    assert len(json.loads((run_folder("run") / "diverged" / "step_4.json").read_text())["recent_losses"]) == 4


def test_a_crop_that_is_gone_hides_no_divergence(workspace, city, monkeypatch, capsys):
    def gone(*_):
        raise InputError("a.png: is gone")

    monkeypatch.setattr(divergence, "read_batch", gone)
    before_step(monkeypatch, 2, lambda stepper: stepper.model.classifier.weight.data.fill_(math.nan))
    with pytest.raises(DivergedError, match="step 2: the loss is nan"):
        train(tiny(city, run="run"))
    assert "warning: a.png: is gone; the step cannot be replayed" in capsys.readouterr().out


def test_a_process_that_is_alone_stops_after_the_step_in_which_it_was_asked_to(workspace, city, monkeypatch):
    with monkeypatch.context() as patch:
        read_every(patch, 10)
        before_step(patch, 4, lambda _: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(TerminatedError, match="stopped after step 4 of 6"):
            train(tiny(city, run="run"))
    assert outcome(tiny(city, run="run")) == outcome(tiny(city, run="whole"))


SECOND_IS_ASKED = """
import os, signal
from dlv3p.training import divergence
from dlv3p.training.findings import UnreadFindings
from dlv3p.training.progress import TrainingProgress
add_step, make = TrainingProgress.add_step, UnreadFindings.__init__
def make_rarely_read(unread, *words):
    make(unread, *words)
    unread.every = 2
def add_and_ask(progress, **options):
    add_step(progress, **options)
    if progress.done == 1 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
UnreadFindings.__init__, TrainingProgress.add_step = make_rarely_read, add_and_ask
"""


def test_processes_of_which_one_was_asked_stop_together_once_they_read(trainings, workspace, city):
    parameters = {**TINY, "data_root": str(city), "run": "run", "processes": 2}
    status, log, _ = trainings.train(parameters, workspace, fault=SECOND_IS_ASKED)
    assert (status, log) == (143, "error: run='run': stopped after step 2 of 6; run again to continue\n")


def test_on_a_gpu_several_steps_are_read_at_once_and_on_a_cpu_each():
    assert UnreadFindings(4, torch.device("cpu")).every == 1
    assert UnreadFindings(4, torch.device("meta")).every == STEPS_PER_READ > 1
