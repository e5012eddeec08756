"""TensorBoard shows what a run has to show, also of a run that was stopped, and also without the library's help."""

import resource
import signal
import sys
import threading

import pytest
from support.tiny import tiny

from cityscapes.errors import MachineError
from dlv3p.train import train
from dlv3p.training.callbacks import TensorBoardLogger

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

ROW = {"learning_rate": 0.003, "seconds": 1.5, "train_loss": 1.2, "val_loss": 1.3, "val_mIoU": 0.25}


def shown(folder):
    """What TensorBoard shows: for each tag the steps, each once, and their values."""
    events = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert all(len(dict(points)) == len(points) for points in scalars.values()), "a step is shown twice"
    return {tag: dict(points) for tag, points in scalars.items()}


def follow(folder, *, done, until, steps=4, loss=1.0):
    """Take the steps behind `done` up to `until`, in epochs of `steps`."""
    events = TensorBoardLogger(folder, done=done)
    events.on_start(3, steps, done // steps + 1)
    for number in range(done, until):
        events.on_step(number // steps + 1, number % steps + 1, loss)
        if (number + 1) % steps == 0:
            events.on_epoch({"epoch": (number + 1) // steps, **ROW, "train_mIoU": float("nan"), "data_wait": None})
    events.on_failure("stopped")


def test_steps_and_epochs_stand_above_the_number_of_steps(tmp_path):
    follow(tmp_path, done=0, until=9)
    scalars = shown(tmp_path)
    assert scalars["loss/step"] == dict.fromkeys(range(1, 10), 1.0)
    assert scalars["mIoU/val"] == {4: 0.25, 8: 0.25}
    assert scalars["learning_rate"] == pytest.approx({4: 0.003, 8: 0.003})
    assert scalars.keys() == {"loss/step", "loss/train", "loss/val", "mIoU/val", "learning_rate", "seconds"}


def test_steps_that_are_taken_again_are_shown_once(tmp_path):
    follow(tmp_path, done=0, until=7)
    follow(tmp_path, done=5, until=12, loss=2.0)
    scalars = shown(tmp_path)
    assert scalars["loss/step"] == dict.fromkeys(range(1, 6), 1.0) | dict.fromkeys(range(6, 13), 2.0)
    assert scalars["mIoU/val"].keys() == {4, 8, 12}


def test_a_missing_library_is_one_line_before_anything_is_trained(city, workspace, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MachineError, match=r"pip install 'dlv3p\[tensorboard\]'"):
        train(tiny(city, run="a", tensorboard=True))
    assert not (workspace / "saved" / "a" / "checkpoints").exists()
    assert not (workspace / "saved").exists(), "it was noticed only after something else had been prepared"


def test_a_disk_that_takes_no_more_ends_the_curves_and_not_the_training(tmp_path, capsys):
    (tmp_path / "events").write_text("a file stands where the folder would be")
    follow(tmp_path / "events", done=0, until=9)
    assert capsys.readouterr().out.count("warning: ") == 1


def test_a_disk_that_is_full_within_an_epoch_gives_one_line_and_no_traceback(tmp_path, capsys, monkeypatch):
    tracebacks, limits = [], resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(threading, "excepthook", tracebacks.append)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        follow(tmp_path, done=0, until=3000, steps=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert capsys.readouterr().out.count("cannot write events, so the curves end here") == 1
    assert not tracebacks
    assert threading.excepthook == tracebacks.append


def test_a_run_writes_its_curves_where_tensorboard_finds_them(city, workspace):
    result = train(tiny(city, run="a", epochs=1, tensorboard=True))
    scalars = shown(result.folder / "events")
    assert scalars["loss/step"].keys() == {1, 2, 3}
    assert sum(scalars["loss/step"].values()) / 3 == pytest.approx(result.history[0]["train_loss"], rel=1e-5)
    assert scalars["mIoU/val"] == pytest.approx({3: result.history[0]["val_mIoU"]})
