"""Running the cell again follows a training of another process in front of a person; everywhere else it is refused."""

import threading
import time

import pytest
from support.after_steps import around_each_step
from support.tiny import tiny

from cityscapes.errors import BusyError, MissingInputError, ParameterError, StoppedError
from cityscapes.files.locks import lock_folder
from dlv3p.runs.folders import STOP_REQUEST, hold_run, request_stop
from dlv3p.runtime.callbacks import Callback
from dlv3p.train import train
from dlv3p.training import following, interruption


class Shown(Callback):
    """What a person sees of a training."""

    def __init__(self):
        self.epochs, self.spent, self.end = [], 0.0, ""

    def begin(self, mode, *, stop, history, spent):
        self.epochs, self.spent = [int(row["epoch"]) for row in history], spent
        return self

    def on_epoch(self, row):
        self.epochs.append(int(row["epoch"]))

    def on_finish(self, message=""):
        self.end = message

    def on_stop(self, message=""):
        self.end = message


@pytest.fixture
def shown(monkeypatch):
    """A person in front of the notebook."""
    shown = Shown()
    monkeypatch.setattr(following, "resolve_mode", lambda mode: "widgets")
    monkeypatch.setattr(following, "make_progress", shown.begin)
    monkeypatch.setattr(following, "SECONDS_BETWEEN_LOOKS", 0.05)
    return shown


class Elsewhere(threading.Thread):
    """Hold the folder of a run, as the process that trains it does, until it is let go."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.held, self.done = folder, threading.Event(), threading.Event()
        self.start()
        assert self.held.wait(60)

    def end(self):
        """Let it go, and wait until it is."""
        self.done.set()
        self.join()

    def run(self):
        with lock_folder(self.folder):
            self.held.set()
            self.done.wait(60)


def test_without_a_person_a_run_that_is_trained_elsewhere_is_refused(trained, city):
    other = Elsewhere(trained.folder)
    try:
        with pytest.raises(BusyError, match="another process is training it"):
            train(tiny(city, run="done", image_scale=0.5))
    finally:
        other.end()


def test_the_epochs_of_the_other_process_are_shown_until_it_has_finished(trained, city, shown, capsys):
    other = Elsewhere(trained.folder)
    threading.Timer(0.5, other.done.set).start()
    result = train(tiny(city, run="done", image_scale=0.5))
    assert shown.epochs == [1, 2]
    told = f"the training that this cell followed has finished: best val mIoU {trained.best_mean_iou:.4f}"
    assert shown.end == told
    assert len(result.history) == 2
    said = capsys.readouterr().out
    assert "is training this run; this cell follows it" in said
    assert "finished before" not in said


def test_a_training_that_ended_early_elsewhere_is_no_result(trained, city, shown):
    weights = trained.folder / "model.safetensors"
    metrics = trained.folder / "metrics.csv"
    kept, table = weights.read_bytes(), metrics.read_text()
    weights.unlink()
    metrics.write_text("".join(table.splitlines(keepends=True)[:2]))
    other = Elsewhere(trained.folder)
    threading.Timer(0.5, other.done.set).start()
    try:
        with pytest.raises(StoppedError, match="stopped elsewhere after epoch 1 of 2"):
            following.follow_elsewhere(tiny(city, run="done", image_scale=0.5))
    finally:
        weights.write_bytes(kept)
        metrics.write_text(table)
    assert shown.epochs == [1]
    assert shown.end == "Stopped elsewhere after epoch 1 of 2. Run this cell again to resume."


def test_another_training_under_the_same_name_is_refused_as_before(trained, city, shown):
    other = Elsewhere(trained.folder)
    try:
        with pytest.raises(ParameterError, match="was trained with seed=0 .asked for 5."):
            train(tiny(city, run="done", image_scale=0.5, seed=5))
    finally:
        other.end()


def test_an_interrupt_leaves_the_other_process_alone(trained, city, shown, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    other = Elsewhere(trained.folder)
    try:
        monkeypatch.setattr(time, "sleep", interrupt)
        with pytest.raises(StoppedError, match="stopped following; the training itself goes on"):
            following.follow_elsewhere(tiny(city, run="done", image_scale=0.5))
    finally:
        other.end()


def test_the_stop_button_asks_through_the_folder_which_every_machine_sees(trained, city, shown):
    other = Elsewhere(trained.folder)
    try:
        following._ask_to_stop("done")
        assert (trained.folder / STOP_REQUEST).is_file()
    finally:
        other.end()
    following._ask_to_stop("done")  # which has ended
    with pytest.raises(MissingInputError, match="run='none': no such run; .* dlv3p runs list"):
        request_stop("none")
    with pytest.raises(MissingInputError, match="run='done': nobody is training it; .* dlv3p runs list"):
        request_stop("done")
    with hold_run("done"):
        assert not (trained.folder / STOP_REQUEST).exists()  # what nobody followed does not stop the next training


def test_a_request_in_the_folder_stops_a_training_with_a_checkpoint(city, workspace, monkeypatch):
    monkeypatch.setattr(interruption, "SECONDS_BETWEEN_LOOKS", 0.0)
    asked = tiny(city, run="asked")
    with monkeypatch.context() as patch:
        around_each_step(patch, before=lambda run: run.progress.done == 2 and request_stop("asked"))
        with pytest.raises(StoppedError, match="stopped after step 2 of 6"):
            train(asked)
    assert len(train(asked).history) == 2


def test_watching_shows_a_run_that_is_trained_and_one_that_is_not(trained, city, shown, capsys):
    other = Elsewhere(trained.folder)
    threading.Timer(0.5, other.done.set).start()
    assert following.run_to_watch("") == "done"
    assert following.watch("done").state == "finished"
    told = "done is finished, after epoch 2 of 2"
    assert (shown.epochs, shown.end) == ([1, 2], told)
    assert shown.spent > 0
    assert "is training done. Stop asks it to stop" in capsys.readouterr().out
    other.join()
    assert following.watch("done").epoch == 2
    assert capsys.readouterr().out == f"{told}; nobody is training it\n"
    with pytest.raises(MissingInputError, match="run='nothing': no such run"):
        following.watch("nothing")
