"""Find, lock and write run folders: `saved/<run>/` with run.json, metrics.csv and checkpoints/."""

import csv
import difflib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from cityscapes.errors import BusyError, MissingInputError, ParameterError
from cityscapes.files.atomic import write_text
from cityscapes.files.checksums import HASH_KEY, read_json, record_path, with_checksum, write_recorded
from cityscapes.files.leftovers import LEFTOVER, remove_leftovers
from cityscapes.files.locks import holder_of, is_lock, lock_folder
from cityscapes.files.untrusted import given_path
from cityscapes.workspace import output_folder, run_folder
from dlv3p.parameters.base import Parameters
from dlv3p.parameters.training import TRAINED_RUN, TrainParameters, check_run_name

HISTORY_COLUMNS = (
    "epoch",
    "learning_rate",
    "seconds",
    "data_wait",
    "joules",
    *(f"{split}_{name}" for split in ("train", "val") for name in ("loss", "mIoU", "mDice", "mPA", "pixel_accuracy")),
)
"""The columns of metrics.csv, a line per epoch; `joules` is empty where no counter could be read."""
LATER_COLUMNS = ("data_wait", "joules")
"""Columns that runs of earlier versions lack."""
METRICS = "metrics.csv"
STOP_REQUEST = "stop_requested"
"""The empty file that asks the process that trains a run to stop, on whichever machine it is."""
TRAIN_IMAGES = "train_images.txt"
"""The list of the images that a run trains on, where a list or a fold has chosen them."""
STARTED = ("run.json", TRAIN_IMAGES, STOP_REQUEST)
"""The files that a run has before its first checkpoint."""
PRUNED = Path("pruning", "settings.json")
"""The file of a run that was pruned: from which run, and how."""
QUANTIZED = "quantization.json"
"""The file that marks a folder of quantized networks, `saved/<run>-int8/`."""


def checkpoint_path(run: str, name: str) -> Path:
    """Return the path of a run's checkpoint, `name` being "last" or "best"."""
    return run_folder(run) / "checkpoints" / f"{name}.pt"


def describe_last(run: str) -> str:
    """Say that a run's last checkpoint is older than what is wrong with the run now, or that there is none."""
    path = checkpoint_path(run, "last")
    return f"the last checkpoint, {path}, is older" if path.is_file() else "no checkpoint was written before it"


def film_folder(run: str) -> Path:
    """Return where a training with `film=True` puts a picture after each validation."""
    return output_folder(run) / "film"


def cut_film(run: str, epoch: int) -> None:
    """Remove the pictures of this epoch and later ones, which an earlier training under the same name left."""
    for path in film_folder(run).glob("epoch_*.png"):
        number = path.stem.removeprefix("epoch_")
        if number.isdecimal() and int(number) >= epoch:
            path.unlink()


def list_runs() -> list[str]:
    """List the trained runs that have a checkpoint, the newest last.

    Imported networks, which have no metrics.csv, are not listed; `find_run` finds them by name.
    """
    saved = run_folder("").resolve()
    paths = sorted(saved.glob("*/checkpoints/best.pt"), key=lambda path: path.stat().st_mtime_ns)
    runs = [path.parents[1].name for path in paths if path.is_file() and (path.parents[1] / METRICS).is_file()]
    return [run for run in runs if run != TRAINED_RUN] or runs


def dense_of(run: str) -> str:
    """Return the run that a run was pruned from; "" for any other run, and where that one is no longer there."""
    try:
        dense = str(read_json(run_folder(run) / PRUNED)["run"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
    return dense if checkpoint_path(dense, "best").is_file() else ""


def find_run(run: str, *, parameter: str = "run") -> str:
    """Return `run`, or the newest run for ""; raises MissingInputError that names the parameter and the existing runs.

    A folder of quantized networks is not a run, since torch cannot load them.
    """
    runs = list_runs()
    if not run and runs:
        return runs[-1]
    if run and checkpoint_path(run, "best").is_file():
        return run
    if run and (run_folder(run) / QUANTIZED).is_file():
        source = run.removesuffix("-int8")
        raise MissingInputError(
            f"{parameter}={run!r}: holds quantized networks, not a run; give {source!r}, which it was made from, or "
            f"load it in Python: dlv3p.compression.quantization.load_quantized({source!r})"
        )
    if not runs:
        asked = f"{parameter}={run!r}: no such run; " if run else ""
        raise MissingInputError(f"{asked}{run_folder('').resolve()}: no run yet; run train.ipynb first")
    raise MissingInputError(f"{parameter}={run!r}: no such run; {name_runs(run, runs)}")


def find_named_runs(parameters: Parameters) -> None:
    """Raise as `find_run` does for a run that is one of several, or stands beside the run, and is not there.

    Where a file or a folder may stand for a run, it is left to whoever reads it.
    """
    for parameter in ("runs", "candidates", "compared_with", "teacher"):
        for name in getattr(parameters, parameter, "").split():
            if not run_folder(name).is_dir() and not given_path(name).exists():
                find_run(name, parameter=parameter)


def name_runs(run: str, runs: Sequence[str]) -> str:
    """Return which of the existing runs is meant, if one is, and all of them."""
    near = difflib.get_close_matches(run, runs, n=1)
    hint = f"did you mean {near[0]!r}? E" if near else "e"
    return f"{hint}xisting runs: {', '.join(runs) or 'none'}"


@contextmanager
def hold_run(run: str) -> Iterator[Path]:
    """Create the run's folder and lock it for this process; raises BusyError when another process holds it.

    The lock dies with its process; temporary files of a killed one are removed, and so is a request to stop it. A run
    that fails before it has anything but its record leaves no folder, unless there was one before.
    """
    folder = run_folder(run)
    new = not folder.exists()
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(folder))
        except BusyError as error:
            raise BusyError(f"run={run!r}: another process is training it; {error}") from error
        remove_leftovers(folder, locked=True)
        (folder / STOP_REQUEST).unlink(missing_ok=True)
        try:
            yield folder
        except BaseException:
            if new:
                _remove_start(folder)
            raise


def _remove_start(folder: Path) -> None:
    """Remove what a run has in its folder before its first checkpoint, if nothing else is there."""
    if holds_only_a_start(folder):
        with suppress(OSError):
            for name in STARTED:
                (folder / name).unlink(missing_ok=True)
            for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
                path.rmdir()


def holds_only_a_start(folder: Path) -> bool:
    """Return whether a run's folder has nothing from which it could go on, as where its start was killed."""
    return all(
        path.is_dir()
        or is_lock(path.name)
        or LEFTOVER.fullmatch(path.name)
        or (path.parent == folder and path.name in STARTED)
        for path in folder.rglob("*")
    )


def request_stop(run: str) -> str:
    """Ask the process that trains a run to stop after its current step, with a checkpoint; return who that is.

    It may be on any machine that shares the folder. Raises MissingInputError where nobody trains the run.
    """
    check_run_name(run)
    folder = run_folder(run)
    if not run or not folder.is_dir():
        raise MissingInputError(f"run={run!r}: no such run; the runs and their states: dlv3p runs list")
    if not (holder := holder_of(folder)):
        raise MissingInputError(f"run={run!r}: nobody is training it; the runs and their states: dlv3p runs list")
    write_text(folder / STOP_REQUEST, "")
    return holder


def refuse_busy(folder: Path) -> None:
    """Raise BusyError where a process trains the run of a folder, whose files then change while they are read."""
    if holder := holder_of(folder):
        raise BusyError(f"{folder}: {holder} is training it; wait until training has ended")


def refuse_other_parameters(run: str, recorded: dict[str, Any], parameters: TrainParameters) -> None:
    """Raise ParameterError, which lists the differences, for a run that was started with other parameters.

    A parameter that is newer than the run counts as having had its first default.
    """
    asked = parameters.as_dict()
    recorded = TrainParameters.recorded(recorded)
    differing = [
        f"{name}={recorded.get(name)!r} (asked for {value!r})"
        for name, value in asked.items()
        if name not in TrainParameters.NOT_IDENTITY and recorded.get(name) != value
    ]
    if differing:
        raise ParameterError(
            f"run={run!r} was trained with {', '.join(differing)}; choose another run name, or the same parameters"
        )


def write_metrics(folder: Path, history: list[dict[str, float]]) -> None:
    """Write metrics.csv with its record, a line per epoch, numbers in full precision, unless it is up to date."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    path, content = folder / METRICS, text.getvalue().encode()
    if not record_path(path).is_file() or not path.is_file() or path.read_bytes() != content:
        write_recorded(path, content)


def write_json(path: Path, content: Mapping[str, Any], *, key: str | None = HASH_KEY) -> None:
    """Write an indented JSON file with its checksum under `key`, None for none.

    Raises ValueError for NaN, which is not JSON.
    """
    content = with_checksum(content, key) if key else content
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")
