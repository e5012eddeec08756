"""Execute a run again from its run.json alone, and say whether it is identical, or the first thing that differs.

    dlv3p replay RUN
    dlv3p replay RUN --step 57

The training runs in a process of its own, in an empty workspace: it has neither the run's checkpoints nor any cache.
What notebooks made of the run, its masks for example, is then made again there, and compared byte by byte.
"""

import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from dlv3p.experiments.differences import KINDS, Difference, compare_checkpoint, compare_records, in_order
from dlv3p.parameters.data_roots import EMBEDDED
from dlv3p.parameters.training import TrainParameters

if TYPE_CHECKING:
    import pandas as pd

    from dlv3p.experiments.made_again import Compared

METRICS = "metrics.csv"
TIMES = ("seconds", "data_wait", "joules")
"""Columns of metrics.csv that differ from run to run."""


class NotIdenticalError(UserError):
    """A replay that ended otherwise than the run."""


@dataclass(frozen=True)
class Replay:
    """How a replay compares with its run: what differs in the records, and in the results, "" where nothing does.

    `trained` are the results of the training, `made` those of the notebooks that used it, and `left_out` says why some
    of these are not compared. `histories` are the epochs of the run and of its replay, as in metrics.csv.
    """

    run: str
    differences: Sequence[Difference]
    trained: Mapping[str, str]
    made: Mapping[str, str]
    left_out: Mapping[str, str]
    histories: tuple[Sequence[Mapping[str, float]], Sequence[Mapping[str, float]]]

    @property
    def results(self) -> Mapping[str, str]:
        """The results of the training and those of the notebooks."""
        return {**self.trained, **self.made}

    @property
    def identical(self) -> bool:
        """Whether all results that are compared are equal to the bit; metrics without their times."""
        return not any(self.results.values())

    @property
    def verdict(self) -> str:
        """The answer in one line, with the first thing that differs."""
        first = f"{self.differences[0]}" if self.differences else ""
        others = f", and {len(self.differences) - 1} more" if len(self.differences) > 1 else ""
        if self.identical:
            although = f", although something differs ({first}{others})" if first else ""
            epochs = len(self.histories[0])
            names = [*self.trained, f"metrics of {epochs} epoch{'s' * (epochs > 1)}", *self.made]
            names.remove("metrics")
            return f"{self.run}: identical: {', '.join(names)}{although}{self._not_compared()}"
        result = next(f"{name}: {told}" for name, told in self.results.items() if told)
        varies = "the computation itself varies, as on a GPU"
        either = varies if any(self.trained.values()) else f"the file was changed or made in another way, or {varies}"
        cause = first or f"nothing that is recorded, so {either}"
        return f"{self.run}: not identical ({result}); the first thing that differs: {cause}{others}"

    def _not_compared(self) -> str:
        """Return which results are not compared, those for the same reason together."""
        whys = {why: [name for name, other in self.left_out.items() if other == why] for why in self.left_out.values()}
        return "".join(f"; not compared: {', '.join(names)} ({why})" for why, names in whys.items())

    def table(self) -> "pd.DataFrame":
        """Return a row per kind of field in the record, and one per result: how many fields differ, and the first."""
        import pandas as pd

        rows = []
        for kind in KINDS:
            found = [one for one in self.differences if one.kind == kind]
            rows.append({"compared": kind, "same": not found, "first difference": _after_kind(found)})
        rows += [{"compared": name, "same": not told, "first difference": told} for name, told in self.results.items()]
        rows += [
            {"compared": name, "same": "", "first difference": f"not compared: {why}"}
            for name, why in self.left_out.items()
        ]
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

        differences = compare_checkpoint(record, folder) + compare_records(record, read_record(made / "run.json"))
        then, now = (_results(one, record) for one in (folder, made))
        histories = read_history(folder / METRICS), read_history(made / METRICS)
        trained = {name: _first_difference(then[name], now[name]) for name in then}
        made_again = _make_again(folder, workspace, made, trained, rounded="stored" in record, quiet=quiet)
    return Replay(run, in_order(differences), trained, *made_again, histories)


def train_small_run(*, progress: str = "auto") -> str:
    """Train a run of seconds on the embedded city, unless it is finished, and return its name."""
    from dlv3p.train import train

    small = {"run": "small", "channels": 16, "image_scale": 0.25, "crop_height": 33, "crop_width": 64, "epochs": 3}
    machine = {"batch_size": 8, "warmup_steps": 10, "workers": 0, "threads": 1, "device": "cpu", "progress": progress}
    return train(TrainParameters(**small, **machine)).run


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
    _execute(words, folder, workspace, quiet=quiet)
    return workspace / "saved" / parameters.run_name


def _make_again(
    folder: Path, workspace: Path, made: Path, trained: Mapping[str, str], *, rounded: bool, quiet: bool
) -> "Compared":
    """Make again what notebooks made of a run, where its training came to the same; see `made_again.make_again`.

    They use the network that was trained again. Only that of a stored run, whose weights were rounded, is lent to them.
    """
    from dlv3p.experiments.made_again import PRODUCTS, Compared, make_again

    if any(trained.values()):
        return Compared({}, dict.fromkeys(PRODUCTS, "the training came to another end"))
    if rounded:
        shutil.rmtree(made / "checkpoints")
        (made / "checkpoints").symlink_to((folder / "checkpoints").resolve())
    made.rename(made.with_name(folder.name))  # of a run that was renamed since
    return make_again(folder.name, workspace, partial(_execute, folder=folder, workspace=workspace, quiet=quiet))


def _execute(words: Sequence[str], folder: Path, workspace: Path, *, quiet: bool) -> None:
    """Execute a command in a process with `workspace`; raises MachineError with its last line where it fails."""
    environment = os.environ | {WORKSPACE_VARIABLE: str(workspace)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    last, told = "", False
    with subprocess.Popen(words, env=environment, **options) as process:
        try:
            for line in process.stdout:
                last = line.strip() or last
                told = told or line.startswith("saved/")  # and what to do next, which is no advice for a copy
                if not (quiet or told):
                    print(line.replace(f"{workspace}/", ""), end="", flush=True)
        except KeyboardInterrupt:
            process.wait()
            raise StoppedError(
                f"replay of {folder.name!r} stopped; the run is unchanged, and the next replay starts over"
            ) from None
    if process.returncode:
        raise MachineError(f"run={folder.name!r}: cannot be run again: {last.removeprefix('error: ')}")


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay each run, and print its verdict; status 1 where one is not identical."""
    parser = argparse.ArgumentParser(
        prog="dlv3p replay",
        description="Execute a finished run again from its run.json alone, in an empty workspace, and say whether "
        "weights, metrics, and the evaluation, masks, zip and animation that notebooks made of it are identical, or "
        "the first thing that differs: code, lock, data, seed, threads, parameters, hardware, libraries, settings.",
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
