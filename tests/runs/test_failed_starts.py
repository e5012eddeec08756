"""A start that fails leaves no run behind, and nothing that has a result is ever removed for it."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.tiny import tiny

from cityscapes.errors import BusyError, MachineError, UserError
from cityscapes.files.locks import lock_folder
from cityscapes.workspace import run_folder
from dlv3p.runs.folders import hold_run
from dlv3p.runs.listing import all_runs
from dlv3p.train import train


def fail_after(run: str, *names: str) -> Path:
    """Hold a run, write files of these names into its folder, and fail; return the folder."""
    with pytest.raises(MachineError):
        fail_with(hold_run(run), *(run_folder(run) / name for name in names))
    return run_folder(run)


def fail_with(held: AbstractContextManager, *written: Path) -> None:
    """Write files while something is held, and fail."""
    with held:
        for path in written:
            path.parent.mkdir(exist_ok=True)
            path.touch()
        raise MachineError("full")


@pytest.mark.parametrize("point", ["build_for_training", "opened_batches"])
def test_a_training_that_fails_at_its_start_leaves_no_run(city, workspace, monkeypatch, point):
    def fails(*arguments: object) -> None:
        raise MachineError("no room")

    module = {"build_for_training": "dlv3p.training.recovery", "opened_batches": "dlv3p.data.loader"}[point]
    recorded = []
    monkeypatch.setattr("dlv3p.training.recording.write_record", lambda path, content: recorded.append(path.touch()))
    monkeypatch.setattr(f"{module}.{point}", fails)
    with pytest.raises(MachineError, match="no room"):
        train(tiny(city, run="started"))
    assert len(recorded) == (point == "opened_batches")
    assert all_runs() == []


@pytest.mark.parametrize("names", [(), ("run.json", "train_images.txt"), ("stop_requested",)])
def test_what_a_start_writes_is_removed_when_it_fails(workspace, names):
    assert not fail_after("started", *names).exists()


@pytest.mark.parametrize(
    "name", ["metrics.csv", "checkpoints/last.pt", "diverged/step_1.pt", "processes.log", "a/run.json"]
)
def test_whatever_else_is_there_stays_with_the_record(workspace, name):
    folder = fail_after("started", "run.json", name)
    assert (folder / name).is_file()
    assert (folder / "run.json").is_file()


def test_a_folder_that_was_there_before_stays(workspace):
    run_folder("before").mkdir(parents=True)
    assert (fail_after("before", "run.json") / "run.json").is_file()


def test_any_folder_that_a_writer_created_and_left_empty_goes_when_it_fails(tmp_path):
    for name, written in (("empty", ()), ("kept", (tmp_path / "kept" / "result",))):
        with pytest.raises(MachineError):
            fail_with(lock_folder(tmp_path / name), *written)
        assert (tmp_path / name).is_dir() == bool(written)
    with lock_folder(tmp_path / "done"):
        pass
    assert (tmp_path / "done").is_dir()


def test_a_folder_that_vanishes_while_it_is_locked_is_not_taken_for_locked(tmp_path, monkeypatch):
    def locked_too_late(file, folder):
        shutil.rmtree(folder)

    monkeypatch.setattr("cityscapes.files.locks._lock", locked_too_late)
    with pytest.raises(BusyError, match="has just removed it; run again"), lock_folder(tmp_path / "gone"):
        raise AssertionError("not locked")
    assert issubclass(BusyError, UserError)
