"""List runs with their state, epochs, score, time left, data, and what differs between them; remove and rename runs.

Reads run.json and metrics.csv alone, so that a run in progress can be watched from anywhere, without torch.
"""

import csv
import io
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cityscapes.errors import BusyError, MachineError, MissingInputError, ParameterError, reason
from cityscapes.files.atomic import explain_refusal, write_text
from cityscapes.files.checksums import read_recorded
from cityscapes.files.leftovers import LEFTOVER
from cityscapes.files.listing import walk
from cityscapes.files.locks import LOCK, holder_of, lock_folder
from cityscapes.files.untrusted import regular
from cityscapes.workspace import output_folder, run_folder
from dlv3p.parameters.training import TRAINED_RUN, TrainParameters, check_run_name
from dlv3p.runs.folders import METRICS, QUANTIZED, checkpoint_path, hold_run, holds_only_a_start, name_runs
from dlv3p.runs.record import add_to_record, planned_epochs, read_record, read_unchanged_record
from dlv3p.runtime.lines import format_duration

TRAINING, FINISHED, STOPPED, NEW = "training", "finished", "stopped", "not started"
IMPORTED, INT8, DAMAGED = "imported", "8 bits", "damaged"

RECENT_EPOCHS = 5
"""The time left follows from the seconds of the last epochs, since the first ones are slower."""
COLUMNS = ("run", "state", "epoch", "val mIoU", "left", "data", "differs in")


@dataclass(frozen=True)
class RunState:
    """The state of a run folder; `parameters` is empty where run.json cannot be read."""

    run: str
    state: str
    epoch: int
    epochs: int | None
    best_mean_iou: float | None
    seconds_left: float | None
    parameters: dict[str, Any]

    def row(self, differing: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the cells of the run's line; `differing` has the parameters to show."""
        trained = self.state in (TRAINING, FINISHED, STOPPED)
        return (
            self.run,
            self.state,
            f"{self.epoch}/{'?' if self.epochs is None else self.epochs}" if trained else "-",
            "-" if self.best_mean_iou is None else f"{self.best_mean_iou:.3f}",
            "-" if self.seconds_left is None else format_duration(self.seconds_left),
            str(self.parameters.get("data_root", "-")),
            ", ".join(f"{name}={value}" for name, value in differing.items()) or "-",
        )


def all_runs() -> list[str]:
    """Return the names of the folders below saved/ in alphabetical order, without hidden and temporary ones."""
    names = (path.name for path in run_folder("").glob("*") if path.is_dir())
    return sorted(name for name in names if not (name.startswith(".") or LEFTOVER.fullmatch(name)))


def read_state(run: str) -> RunState:
    """Return the state of a run; raises MissingInputError where there is no such folder."""
    folder = run_folder(run)
    if not folder.is_dir():
        raise MissingInputError(f"run={run!r}: no such run in {folder.parent.resolve()}; {name_runs(run, all_runs())}")
    try:
        record = read_unchanged_record(folder / "run.json")
        history = read_history(folder / METRICS)
        parameters = TrainParameters.recorded(record["parameters"])
    except FileNotFoundError:
        kind = INT8 if (folder / QUANTIZED).is_file() else TRAINING if holder_of(folder) else NEW
        return RunState(run, kind, 0, None, None, None, {})
    except (OSError, ValueError, LookupError, TypeError):
        return RunState(run, DAMAGED, 0, None, None, None, {})
    planned, epoch = planned_epochs(record), len(history)
    known = [score for row in history if (score := row.get("val_mIoU")) is not None and score == score]
    finished = (folder / "model.safetensors").is_file() or (planned is not None and epoch >= planned)
    begun = epoch or checkpoint_path(run, "last").is_file()  # it may have been stopped within its first epoch
    state = IMPORTED if "imported" in record else FINISHED if finished else STOPPED if begun else NEW
    if holder_of(folder) and state != IMPORTED:
        state = TRAINING
    left = _seconds_left(history, planned) if state == TRAINING else None
    return RunState(run, state, epoch, planned, max(known, default=None), left, parameters)


def read_history(path: Path) -> list[dict[str, float]]:
    """Return the epochs in a metrics.csv, none if there is no such file; raises ValueError for a changed one."""
    if not path.is_file():
        return []
    text = io.StringIO(read_recorded(path).decode("utf-8"), newline="")
    return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(text)]


def _seconds_left(history: Sequence[Mapping[str, float]], planned: int | None) -> float | None:
    recent = [row["seconds"] for row in history[-RECENT_EPOCHS:] if "seconds" in row]
    return sum(recent) / len(recent) * (planned - len(history)) if recent and planned else None


def differing_parameters(runs: Sequence[RunState]) -> list[str]:
    """Return the parameters, apart from the data and those of the machine, in which some of the runs differ."""
    known = [one.parameters for one in runs if one.parameters]
    left_out = {"data_root", *TrainParameters.NOT_IDENTITY}
    names = [name for name in TrainParameters().as_dict() if name not in left_out]
    return [name for name in names if len({repr(parameters.get(name)) for parameters in known}) > 1]


def differences(runs: Sequence[RunState]) -> list[dict[str, Any]]:
    """Return for each run the parameters in which it differs from most others; all values where none is usual."""
    usual = {name: _usual(name, runs) for name in differing_parameters(runs)}
    known = [{name: one.parameters[name] for name in usual if name in one.parameters} for one in runs]
    return [{name: value for name, value in one.items() if repr(value) != usual[name]} for one in known]


def _usual(name: str, runs: Sequence[RunState]) -> str | None:
    """Return the value that more than half of the runs share, None for none."""
    values = [repr(one.parameters.get(name)) for one in runs if one.parameters]
    value, count = Counter(values).most_common(1)[0]
    return value if 2 * count > len(values) else None


def format_runs(runs: Sequence[RunState]) -> list[str]:
    """Return the lines of a table of runs, the head first."""
    rows = [COLUMNS, *(one.row(differing) for one, differing in zip(runs, differences(runs), strict=True))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def remove_run(run: str, *, outputs: bool = False) -> list[Path]:
    """Delete a run's folder, and with `outputs` what was made from it; return what was deleted.

    Raises BusyError while a process trains it, or writes what is to be deleted, and MissingInputError where there is no
    such run.
    """
    _require_run(run)
    folders = [run_folder(run), *([output_folder(run)] if outputs and output_folder(run).is_dir() else [])]
    with hold_run(run):
        for path in walk(folders[-1], hidden=True) if len(folders) > 1 else ():
            if path.name == LOCK and (holder := holder_of(path.parent)):
                raise BusyError(f"{path.parent}: {holder} is writing here; wait for it, or leave out --outputs")
        for folder in folders:
            try:
                shutil.rmtree(folder)
            except OSError as error:
                explain_refusal(error, folder)
                raise MachineError(f"{folder}: cannot be removed ({reason(error)}); delete it by hand") from error
    return folders


def rename_run(run: str, name: str) -> list[Path]:
    """Rename a run's folder, its record, and the folders of what was made from it; return the new folders.

    The record is written first and the run's own folder moves last, so that the same call completes a rename that was
    killed. Raises ParameterError for a name that is taken or is not the name of a folder, and BusyError while the run
    is trained or its quantized networks are written.
    """
    _require_run(run)
    check_run_name(name)
    if not name or TRAINED_RUN in (run, name):
        raise ParameterError(
            f"{run!r} cannot become {name!r}: give a name, and leave {TRAINED_RUN!r} to the suite's run"
        )
    if read_state(run).state == INT8:
        raise ParameterError(f"{run!r} holds quantized networks, which are renamed together with their run")
    pairs = _made_from(run, name)
    with ExitStack() as held:
        folder = held.enter_context(hold_run(run))
        record = _record_to_rename(folder, pairs)  # before anything moves
        _refuse_taken(pairs, record.get("run") if record else None, run, name)
        for quantized in (old for old, _ in pairs if (old / QUANTIZED).is_file()):
            held.enter_context(lock_folder(quantized))
        if record is not None and record.get("run") != name:
            add_to_record(folder / "run.json", record, run=name)
        moved = [_move(old, new) for old, new in pairs[:-1] if old.is_dir()]
        for copy in [*output_folder(name).glob("*.ipynb"), *folder.glob("*.ipynb")]:
            _relink(copy, run, name)
        return [*moved, _move(*pairs[-1])]


def _made_from(run: str, name: str) -> list[tuple[Path, Path]]:
    """Return the folders that a run's name is in, and what they become; the run's own is last."""
    quantized = run_folder(f"{run}-int8")
    own = (quantized / QUANTIZED).is_file() or not quantized.exists()  # else it is a run that is called so
    known = [(quantized, run_folder(f"{name}-int8"))] if own else []
    return [(output_folder(run), output_folder(name)), *known, (run_folder(run), run_folder(name))]


def _record_to_rename(folder: Path, pairs: Sequence[tuple[Path, Path]]) -> dict[str, Any] | None:
    """Return the record of a run, which remembers a rename; None for a run without one that is a single folder."""
    path = folder / "run.json"
    if path.exists():
        return read_record(path)
    if also := [old for old, _ in pairs[:-1] if old.is_dir()]:
        raise MissingInputError(
            f"{path}: does not exist, and without it {also[0]} cannot safely be renamed as well; restore it first"
        )
    return None


def _refuse_taken(pairs: Sequence[tuple[Path, Path]], recorded: str | None, run: str, name: str) -> None:
    """Raise ParameterError where a new folder is another run's; an interrupted rename may have moved some already."""
    for old, new in pairs:
        moved = recorded == name and not old.exists()
        if new.exists() and not moved:
            raise ParameterError(f"{new}: exists already; choose another name, or remove that run first")
    left = output_folder(recorded) if recorded not in (None, run, name) else None
    if left and left.is_dir() and not run_folder(recorded).exists() and not pairs[0][0].exists():
        raise ParameterError(
            f"{left}: holds what was made from {run!r}, which was called {recorded!r} or was to be; "
            f"first: dlv3p runs rename {run} {recorded}"
        )


def _relink(copy: Path, run: str, name: str) -> None:
    """Let the links of an executed notebook lead to the folders of a run under its new name."""
    text = regular(copy).read_text(encoding="utf-8")
    changed = text
    for kind in ("saved", "outputs"):
        for end in (")", "/"):
            changed = changed.replace(f"](../../{kind}/{run}{end}", f"](../../{kind}/{name}{end}")
    changed = changed.replace(f"[saved/{run}/](", f"[saved/{name}/](")
    if changed != text:
        write_text(copy, changed)


def _move(old: Path, new: Path) -> Path:
    """Move a folder within its parent; raises MachineError where the system refuses."""
    try:
        return old.rename(new)
    except OSError as error:
        explain_refusal(error, new)
        raise MachineError(f"{old}: cannot be renamed to {new.name} ({reason(error)}); run the same again") from error


def _require_run(run: str) -> None:
    """Raise for a name that is not that of a run folder: nothing else is to be deleted or moved."""
    check_run_name(run)
    folder, state = run_folder(run), read_state(run)
    known = state.state != NEW or state.parameters or (folder / "checkpoints").is_dir() or holds_only_a_start(folder)
    if not run or not known:
        raise MissingInputError(f"{run_folder(run)}: holds no run, and is left as it is")
