"""Follow a training that another process is doing, on this machine or on one that shares the folder.

A person who runs the training cell again, after the browser was closed, follows the training that is going on. Commands
and papermill get BusyError, since two jobs for one run are a mistake.
"""

import time
from contextlib import suppress
from functools import partial

from cityscapes.errors import MissingInputError, StoppedError
from cityscapes.files.locks import holder_of
from cityscapes.workspace import run_folder
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import METRICS, find_run, refuse_other_parameters, request_stop
from dlv3p.runs.listing import FINISHED, RunState, all_runs, read_history, read_state
from dlv3p.runs.record import read_record
from dlv3p.runtime.callbacks import Callback, failure_reported
from dlv3p.runtime.progress import make_progress, preparing, resolve_mode

SECONDS_BETWEEN_LOOKS = 0.5


def follow_elsewhere(parameters: TrainParameters) -> bool:
    """Follow the run until it is finished if another process trains it and a person watches; return whether it was so.

    Raises ParameterError when that training has other parameters, and StoppedError when it ended early, or when this
    cell was interrupted, which leaves the training alone.
    """
    run, mode = parameters.run_name, parameters.progress
    if resolve_mode(mode) != "widgets" or not (holder := holder_of(run_folder(run))):
        return False
    print(f"{holder} is training this run; this cell follows it. Stop asks it to stop, with a checkpoint.", flush=True)
    _wait_for_record(run, mode)
    with suppress(FileNotFoundError):
        refuse_other_parameters(run, read_record(run_folder(run) / "run.json")["parameters"], parameters)
    progress, shown = _begin(run, mode)
    with failure_reported(progress):
        state = _follow(run, progress, shown)
        if state.state != FINISHED:
            raise StoppedError(f"run={run!r}: stopped elsewhere after epoch {state.epoch} of {state.epochs}; run again")
    best = "" if state.best_mean_iou is None else f": best val mIoU {state.best_mean_iou:.4f}"
    progress.on_finish(f"the training that this cell followed has finished{best}")
    return True


def run_to_watch(run: str) -> str:
    """Return `run`; for "" the run that somebody trains, the last by name, else the newest that is finished."""
    trained = [name for name in all_runs() if holder_of(run_folder(name))]
    return run or (trained[-1] if trained else find_run(run))


def watch(run: str, *, progress: str = "auto") -> RunState:
    """Show the epochs of a run as they come, while a process trains it here or on a machine that shares the folder.

    Returns the state in which the run is then; a run that nobody trains is told in a line. Raises MissingInputError
    where there is no such run, and StoppedError when this cell was interrupted, which leaves the training alone.
    """
    shown = None
    if holder := holder_of(run_folder(run)):
        print(f"{holder} is training {run}. Stop asks it to stop, with a checkpoint.", flush=True)
        _wait_for_record(run, progress)
        shown, epochs = _begin(run, progress)
        with failure_reported(shown):
            _follow(run, shown, epochs)
    state = read_state(run)
    told = f"{run} is {state.state}, after epoch {state.epoch} of {state.epochs}"
    if shown is None:
        print(f"{told}; nobody is training it", flush=True)
    else:
        (shown.on_finish if state.state == FINISHED else shown.on_stop)(told)
    return state


def _begin(run: str, mode: str) -> tuple[Callback, int]:
    """Return what shows the progress of a training elsewhere, with a button that stops it, and the epochs until now."""
    rows, epochs = _epochs_of(run), read_state(run).epochs
    spent = sum(row.get("seconds", 0.0) for row in rows)
    progress = make_progress(mode, stop=partial(_ask_to_stop, run), history=rows, spent=spent)
    progress.on_start(epochs or max(1, len(rows)), 1, len(rows) + 1)
    return progress, len(rows)


def _wait_for_record(run: str, mode: str) -> None:
    """Wait until the run is recorded, or until nobody trains it."""
    with preparing(mode, "waiting for the first epoch"):
        while holder_of(run_folder(run)) and not (run_folder(run) / "run.json").is_file():
            _wait()


def _follow(run: str, progress: Callback, shown: int) -> RunState:
    """Pass every epoch after those `shown` on until the process that trains the run has ended; return its state."""
    training = True
    while training:
        training = bool(holder_of(run_folder(run)))  # before the last look, or its epochs could be missed
        for row in _epochs_of(run)[shown:]:
            progress.on_epoch(row)
            shown += 1
        if training:
            _wait()
    return read_state(run)


def _epochs_of(run: str) -> list[dict[str, float]]:
    """Return the epochs of a run that are known, none while their table is being replaced."""
    with suppress(OSError, ValueError):
        return read_history(run_folder(run) / METRICS)
    return []


def _wait() -> None:
    try:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        raise StoppedError("stopped following; the training itself goes on; run again to follow it") from None


def _ask_to_stop(run: str) -> None:
    with suppress(MissingInputError):  # it has just ended
        request_stop(run)
