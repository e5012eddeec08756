"""A start that fails leaves no run behind, and nothing that has a result is ever removed for it."""

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.tiny import tiny

from cityscapes.errors import BusyError, IntegrityError, MachineError, ParameterError, UserError
from cityscapes.files.locks import LOCK, lock_folder
from cityscapes.workspace import run_folder
from dlv3p.runs.folders import checkpoint_path, describe_last, hold_run
from dlv3p.runs.listing import all_runs, read_state, remove_run
from dlv3p.runs.record import read_unchanged_record, write_record
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


def killed_start(city, run: str) -> Path:
    """Leave what a start that is killed after its record leaves: nothing but that has a checkpoint's folder."""
    folder = run_folder(run)
    (folder / "checkpoints").mkdir(parents=True)
    write_record(folder / "run.json", {"format": 1, "parameters": tiny(city, run=run).as_dict()})
    (folder / "train_images.txt").write_text("a.png\n")
    (folder / LOCK).touch()
    (folder / ".run.json.12345678-4321.0a1b2c3d.tmp").touch()
    return folder


def test_a_killed_start_is_replaced_by_the_next_one_whatever_its_parameters(city, workspace):
    folder = killed_start(city, "killed")
    assert read_state("killed").state == "not started"
    train(tiny(city, run="killed", seed=5, epochs=1))
    assert read_unchanged_record(folder / "run.json")["parameters"]["seed"] == 5
    assert not (folder / "train_images.txt").exists()
    assert not list(folder.rglob("*.tmp"))
    (folder / "metrics.csv").unlink()
    with pytest.raises(ParameterError, match="was trained with seed=5"):
        train(tiny(city, run="killed", seed=6, epochs=1))


@pytest.mark.parametrize("name", ["checkpoints/best.pt", "pruning/start.safetensors"])
def test_a_start_with_anything_to_go_on_from_keeps_its_parameters(city, workspace, name):
    path = killed_start(city, "begun") / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises((ParameterError, IntegrityError)):
        train(tiny(city, run="begun", seed=5))


def test_a_killed_start_can_be_removed(city, workspace):
    folder = killed_start(city, "killed")
    (folder / "run.json").unlink()
    (folder / "checkpoints").rmdir()
    remove_run("killed")
    assert not folder.exists()


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


def test_what_is_left_of_a_run_that_diverged_is_said_as_it_is(workspace):
    path = checkpoint_path("run", "last")
    assert describe_last("run") == "no checkpoint was written before it"
    path.parent.mkdir(parents=True)
    path.touch()
    assert describe_last("run") == f"the last checkpoint, {path}, is older"
