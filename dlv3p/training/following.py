"""Follow a training that another process is doing: running the cell again attaches to it instead of refusing.

That is what a person wants who has closed the browser, or opens the notebook a second time. Commands and papermill
still get BusyError, since two jobs for one run are a mistake.
"""

import os
import re
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from cityscapes.errors import StoppedError
from cityscapes.files.locks import holder_of
from cityscapes.workspace import run_folder
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import METRICS, refuse_other_parameters
from dlv3p.runs.listing import FINISHED, RunState, read_history, read_state
from dlv3p.runs.record import read_record
from dlv3p.runtime.callbacks import Callback, failure_reported
from dlv3p.runtime.progress import make_progress, preparing, resolve_mode

SECONDS_BETWEEN_LOOKS = 0.5
HOLDER = re.compile(r"process (?P<process>\d+) on (?P<machine>\S+)")
"""How a lock names who holds it."""


def follow_elsewhere(parameters: TrainParameters) -> None:
    """Follow the run until it is finished if another process trains it and a person watches; else return at once.

    Raises ParameterError when that training has other parameters, and StoppedError when it ended early, or when this
    cell was interrupted, which leaves the training alone.
    """
    run = parameters.run_name
    if resolve_mode(parameters.progress) != "widgets" or not (holder := holder_of(run_folder(run))):
        return
    print(f"{holder} is training this run; this cell follows it. Stop asks it to stop, with a checkpoint.", flush=True)
    with preparing(parameters.progress, "waiting for the first epoch") as begun:
        state = _wait_for_record(parameters)
        progress = make_progress(parameters.progress, stop=partial(_ask_to_stop, holder))
        begun()
        progress.on_start(state.epochs or parameters.epochs, 1, state.epoch + 1)
        with failure_reported(progress):
            state = _follow(run, progress)
            if state.state != FINISHED:
                raise StoppedError(
                    f"run={run!r}: stopped elsewhere after epoch {state.epoch} of {state.epochs}; run again"
                )
        progress.on_finish("the training that this cell followed has finished")


def _wait_for_record(parameters: TrainParameters) -> RunState:
    """Return the state of the run once it is recorded, or once nobody trains it."""
    folder = run_folder(parameters.run_name)
    while holder_of(folder) and not (folder / "run.json").is_file():
        _wait()
    with suppress(FileNotFoundError):
        refuse_other_parameters(folder.name, read_record(folder / "run.json")["parameters"], parameters)
    return read_state(folder.name)


def _follow(run: str, progress: Callback) -> RunState:
    """Pass every finished epoch on until the process that trains the run has ended; return how it left the run."""
    folder, shown, training = run_folder(run), 0, True
    while training:
        training = bool(holder_of(folder))  # before the last look, or its epochs could be missed
        with suppress(OSError, ValueError):  # a table that is being replaced
            for row in read_history(folder / METRICS)[shown:]:
                progress.on_step(int(row["epoch"]), 1, row["train_loss"])
                progress.on_epoch(row)
                shown += 1
        if training:
            _wait()
    return read_state(run)


def _wait() -> None:
    try:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        raise StoppedError("stopped following; the training itself goes on; run again to follow it") from None


def _ask_to_stop(holder: str, kill: Callable[[int, int], None] = os.kill) -> None:
    """Interrupt the process that trains, as Ctrl-C would; on another machine that is impossible."""
    named = HOLDER.match(holder)
    if named and named["machine"] == socket.gethostname():
        with suppress(ProcessLookupError, PermissionError):
            kill(int(named["process"]), signal.SIGINT)
    else:
        print(f"{holder} cannot be stopped from here; stop it there", flush=True)
