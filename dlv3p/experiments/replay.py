"""Execute a run again from its run.json alone, and say whether it is identical, or the first thing that differs.

    dlv3p replay RUN
    dlv3p replay RUN --step 57

The training runs in a process of its own, in an empty workspace: it has neither the run's checkpoints nor any cache.
"""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cityscapes.errors import (
    InputError,
    IntegrityError,
    MachineError,
    MissingInputError,
    StoppedError,
    UserError,
    reason,
    run_command,
)
from cityscapes.files.atomic import write_text
from cityscapes.files.leftovers import temporary_folder
from cityscapes.workspace import WORKSPACE_VARIABLE, run_folder
from dlv3p.parameters.data_roots import EMBEDDED
from dlv3p.parameters.training import TrainParameters

if TYPE_CHECKING:
    import pandas as pd

KINDS = {
    "code": ("git.commit", "git.changed", "git.diff_sha256"),
    "lock": ("lock_sha256",),
    "data": ("data.", "class_names", "parameters.data_root"),
    "seed": ("parameters.seed", "determinism.seed"),
    "threads": ("parameters.threads", "parameters.processes", "determinism.threads", "determinism.interop_threads")
    + ("determinism.processes",),
    "parameters": ("parameters.",),
    "hardware": ("hardware.",),
    "libraries": ("versions.",),
    "settings": ("determinism.",),
}
"""What can make a run another one, likely causes first, and the beginnings of its fields in run.json."""

METRICS = "metrics.csv"
TIMES = ("seconds", "data_wait", "joules")
"""Columns of metrics.csv that differ from run to run."""


class Difference(NamedTuple):
    """A field of run.json that was recorded with one value and is another now; `steps` after a resumption, else 0."""

    kind: str
    field: str
    then: Any
    now: Any
    steps: int = 0

    def __str__(self) -> str:
        since = f" (since step {self.steps})" if self.steps else ""
        return f"{self.kind}: {self.field} was {_short(self.then)}{since}, is {_short(self.now)}"


class NotIdenticalError(UserError):
    """A replay that ended otherwise than the run."""


@dataclass(frozen=True)
class Replay:
    """How a replay compares with its run: what differs in the records, and in the results, "" where nothing does.

    `histories` are the epochs of the run and of its replay, as in metrics.csv.
    """

    run: str
    differences: Sequence[Difference]
    results: Mapping[str, str]
    histories: tuple[Sequence[Mapping[str, float]], Sequence[Mapping[str, float]]]

    @property
    def identical(self) -> bool:
        """Whether weights and metrics, without times, are equal to the bit."""
        return not any(self.results.values())

    @property
    def verdict(self) -> str:
        """The answer in one line, with the first thing that differs."""
        first = f"{self.differences[0]}" if self.differences else ""
        others = f", and {len(self.differences) - 1} more" if len(self.differences) > 1 else ""
        if self.identical:
            although = f", although something differs ({first}{others})" if first else ""
            epochs = len(self.histories[0])
            length = f"{epochs} epoch{'s' * (epochs > 1)}"
            return f"{self.run}: identical: {', '.join(self.results)} of {length}{although}"
        result = next(f"{name}: {told}" for name, told in self.results.items() if told)
        cause = first or "nothing that is recorded, so the computation itself varies, as on a GPU"
        return f"{self.run}: not identical ({result}); the first thing that differs: {cause}{others}"

    def table(self) -> "pd.DataFrame":
        """Return a row per kind of field in the record, and one per result: how many fields differ, and the first."""
        import pandas as pd

        rows = []
        for kind in KINDS:
            found = [one for one in self.differences if one.kind == kind]
            rows.append({"compared": kind, "same": not found, "first difference": _after_kind(found)})
        rows += [{"compared": name, "same": not told, "first difference": told} for name, told in self.results.items()]
        return pd.DataFrame(rows).set_index("compared")


def replay(run: str, *, quiet: bool = False) -> Replay:
    """Execute a finished run again, and compare; the run itself is only read.

    Raises MissingInputError where there is no such run, InputError for one that cannot be replayed, IntegrityError
    where its run.json was changed, and MachineError where the process could not train.
    """
    folder = run_folder(run)
    record = read_finished(folder)
    with temporary_folder("dlv3p-replay") as workspace:
        made = _train(record, folder, workspace, quiet=quiet)
        from dlv3p.runs.listing import read_history
        from dlv3p.runs.record import read_record

        differences = _against_checkpoint(record, folder) + compare_records(record, read_record(made / "run.json"))
        then, now = (_results(one, record) for one in (folder, made))
        histories = read_history(folder / METRICS), read_history(made / METRICS)
    results = {name: _first_difference(then[name], now[name]) for name in then}
    return Replay(run, _in_order(differences), results, histories)


def train_small_run(*, progress: str = "auto") -> str:
    """Train a run of seconds on the embedded city, unless it is finished, and return its name."""
    from dlv3p.train import train

    small = {"run": "small", "channels": 16, "image_scale": 0.25, "crop_height": 33, "crop_width": 64, "epochs": 3}
    machine = {"batch_size": 8, "warmup_steps": 10, "workers": 0, "threads": 1, "device": "cpu", "progress": progress}
    return train(TrainParameters(**small, **machine)).run


def name_altered_fields(record: Mapping[str, Any]) -> "pd.DataFrame":
    """Return a row per recorded field that is compared: alter it alone, and see which kind and field are named."""
    import pandas as pd

    rows = []
    for field, value in _leaves(record).items():
        if _kind(field):
            named = compare_records(_leaves(record) | {field: f"{value} altered"}, record)
            rows.append({"kind": _kind(field), "altered": field, "named": ", ".join(one.field for one in named)})
    return pd.DataFrame(rows)


def read_finished(folder: Path) -> dict[str, Any]:
    """Read the record of a finished run; raises a user's error for any other."""
    from dlv3p.runs.listing import read_history, read_state
    from dlv3p.runs.record import planned_epochs, read_unchanged_record, record_problems

    state = read_state(folder.name)
    try:
        record = read_unchanged_record(folder / "run.json")
    except FileNotFoundError:
        raise MissingInputError(f"{folder}: has no run.json, so that nothing says how it was made") from None
    except IntegrityError:
        raise
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{folder / 'run.json'}: cannot be read: {reason(error)}") from error
    if "imported" in record:
        raise InputError(f"run={folder.name!r}: was imported from a file, so there is no training to replay")
    if problem := next(record_problems(record), ""):
        raise IntegrityError(f"{folder / 'run.json'}: {problem}; restore it from a backup")
    if not read_history(folder / METRICS) or not (folder / "model.safetensors").is_file():
        raise InputError(
            f"run={folder.name!r}: is not finished, epoch {state.epoch} of {planned_epochs(record)}; finish it first"
        )
    return record


def compare_records(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Return the fields of two records that differ, likely causes first; what only later versions record is left out.

    A run that was resumed elsewhere has several environments, which are all compared.
    """
    found = list(_compared(_leaves(then), _leaves(now)))
    for part in then.get("continued", ()):
        known = {(one.field, str(one.then)) for one in found}
        later = _compared(_leaves(part), _leaves(now), part.get("after_steps", 0))
        found += [one for one in later if (one.field, str(one.then)) not in known]
    return _in_order(found)


def _in_order(differences: Sequence[Difference]) -> list[Difference]:
    return sorted(differences, key=lambda one: list(KINDS).index(one.kind))


def _compared(then: Mapping[str, Any], now: Mapping[str, Any], steps: int = 0) -> Iterator[Difference]:
    for field, value in then.items():
        if (
            (kind := _kind(field))
            and field in now
            and now[field] != value
            and not _same_place(field, value, now[field])
        ):
            yield Difference(kind, field, value, now[field], steps)


def _kind(field: str) -> str:
    """Return the kind of a field, "" for what may differ without making another run, such as the time of its start."""
    if field.endswith((".root", ".list")) or field in ("parameters.run", "parameters.train_list"):
        return ""
    return next((kind for kind, fields in KINDS.items() if field.startswith(fields)), "")


def _same_place(field: str, then: Any, now: Any) -> bool:
    """Return whether a data root is the same folder, or the same embedded data, whatever its path."""
    from dlv3p.data.roots import resolve_data_root

    if field != "parameters.data_root" or then in EMBEDDED:
        return False
    with suppress(MissingInputError):
        return str(resolve_data_root(then)) == str(now)
    return False


def _leaves(record: Mapping[str, Any], inside: str = "") -> dict[str, Any]:
    """Return the values of a record by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        found |= _leaves(value, f"{inside}{name}.") if isinstance(value, dict) else {f"{inside}{name}": value}
    return found


def _against_checkpoint(record: Mapping[str, Any], folder: Path) -> list[Difference]:
    """Return the parameters in which run.json differs from the run's checkpoint, which says how it was trained."""
    from dlv3p.weights.checkpoint import load_checkpoint

    recorded, inside = TrainParameters.recorded(record["parameters"]), {}
    with suppress(MissingInputError):
        inside = TrainParameters.recorded(load_checkpoint(folder / "checkpoints" / "best.pt")["parameters"])
    names = [name for name in inside if name in recorded and name not in (*TrainParameters.NOT_IDENTITY, "data_root")]
    found = [(f"parameters.{name}", recorded[name], inside[name]) for name in names]
    return [Difference(_kind(field), field, then, now) for field, then, now in found if then != now]


def _train(record: Mapping[str, Any], folder: Path, workspace: Path, *, quiet: bool) -> Path:
    """Train in a new process with `workspace`, and return the folder of the run that it made."""
    from dlv3p.runs.folders import TRAIN_IMAGES

    values = TrainParameters.recorded(record["parameters"])
    places = {"data_root": _data_root(record, values["data_root"])}
    places |= {"train_list": str(folder / TRAIN_IMAGES)} if values["train_list"] else {}
    parameters = TrainParameters.from_mapping(values | places)
    if parameters.teacher and run_folder(parameters.teacher).is_dir():
        (workspace / "saved").mkdir()
        (workspace / "saved" / parameters.teacher).symlink_to(run_folder(parameters.teacher).resolve())
    write_text(workspace / "parameters.json", json.dumps(parameters.as_dict()), durable=False)
    words = [sys.executable, "-m", "dlv3p.train", "--config", str(workspace / "parameters.json"), "--no-estimate"]
    environment = os.environ | {WORKSPACE_VARIABLE: str(workspace)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    last = ""
    with subprocess.Popen(words, env=environment, **options) as process:
        try:
            for line in process.stdout:
                last = line.strip() or last
                if not quiet and not line.startswith("saved/"):
                    print(line.replace(f"{workspace}/", ""), end="", flush=True)
        except KeyboardInterrupt:
            process.wait()
            raise StoppedError(
                f"replay of {folder.name!r} stopped; the run is unchanged, and the next replay starts over"
            ) from None
    if process.returncode:
        raise MachineError(f"run={folder.name!r}: cannot be run again: {last.removeprefix('error: ')}")
    return workspace / "saved" / parameters.run_name


def _data_root(record: Mapping[str, Any], data_root: str) -> str:
    """Return where a run's data is: where its parameter leads from here, else where it was found then."""
    from dlv3p.data.roots import resolve_data_root

    if data_root in EMBEDDED:
        return data_root
    with suppress(MissingInputError):
        return str(resolve_data_root(data_root))
    return next(iter(record["data"].values()))["root"]


def _results(folder: Path, record: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what a run ended with, as lines that two runs either share or not; a stored run has rounded weights."""
    from dlv3p.runs.trained import halved
    from dlv3p.weights.checkpoint import load_checkpoint
    from dlv3p.weights.checksums import weights_sha256

    found = {}
    for name in ("best", "last"):
        with suppress(MissingInputError):
            weights = load_checkpoint(folder / "checkpoints" / f"{name}.pt")["model"]
            weights = halved(weights) if "stored" in record else weights
            if name == "best" or "stored" not in record:
                found[f"weights of the {name} epoch"] = [weights_sha256(weights)]
    rows = list(csv.DictReader(io.StringIO((folder / METRICS).read_text(encoding="utf-8"))))
    kept = [name for name in rows[0] if name not in TIMES]
    return found | {"metrics": [",".join(kept), *(",".join(row[name] for name in kept) for row in rows)]}


def _first_difference(then: list[str], now: list[str]) -> str:
    """Return where two results first differ, "" where they do not."""
    if then == now:
        return ""
    if len(then) == 1:
        return "not the same bits"
    if len(then) != len(now):
        return f"{len(then) - 1} epochs, now {len(now) - 1}"
    epoch = next(number for number, (one, other) in enumerate(zip(then, now, strict=True)) if one != other)
    columns = zip(then[0].split(","), then[epoch].split(","), now[epoch].split(","), strict=False)
    name, was, is_now = next(one for one in columns if one[1] != one[2])
    return f"{name} of epoch {epoch} was {was}, is {is_now}"


def _after_kind(found: Sequence[Difference]) -> str:
    return str(found[0]).removeprefix(f"{found[0].kind}: ") if found else ""


def _short(value: Any) -> str:
    text = value[:12] if isinstance(value, str) and len(value) in (40, 64) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay each run, and print its verdict; status 1 where one is not identical."""
    parser = argparse.ArgumentParser(
        prog="dlv3p replay",
        description="Execute a finished run again from its run.json alone, in an empty workspace, and say whether "
        "weights and metrics are identical, or the first thing that differs: code, lock, data, seed, threads, "
        "parameters, hardware, libraries, settings.",
        epilog="Exit status: 0 identical, 1 not, 3 a run that cannot be replayed, 6 a run.json that was changed.",
    )
    parser.add_argument("run_name", metavar="RUN", help="folder below saved/")
    parser.add_argument("--quiet", action="store_true", help="without a line per epoch")
    step = "only take a diverged step again, from saved/RUN/diverged/, and name the layer where it began"
    parser.add_argument("--step", type=int, metavar="N", help=step)
    options = parser.parse_args(arguments)
    if options.step is not None:
        from dlv3p.experiments.replay_step import replay_step

        print(replay_step(Path(options.run_name).name, options.step))
        return 0
    done = replay(Path(options.run_name).name, quiet=options.quiet)
    for difference in done.differences:
        print(difference)
    if not done.identical:
        raise NotIdenticalError(done.verdict)
    print(done.verdict)
    return 0


if __name__ == "__main__":
    run_command(main)
