"""Load the checkpoints of a run, and refuse one that is not of the run whose run.json lies beside it.

Each file has a checksum, but two files that were swapped between runs still have theirs.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from cityscapes.errors import IntegrityError
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import checkpoint_path
from dlv3p.runs.record import read_record
from dlv3p.weights.checkpoint import load_checkpoint


def load_run_checkpoint(run: str, name: str = "best") -> dict[str, Any]:
    """Read a run's checkpoint, `name` being "last" or "best", as `read_run_checkpoint` does."""
    return read_run_checkpoint(checkpoint_path(run, name))


def read_run_checkpoint(path: Path) -> dict[str, Any]:
    """Read the file of a run's checkpoint, as `load_checkpoint` does.

    Raises IntegrityError, too, where run.json describes another training. A record that is missing or cannot be read
    says nothing; `dlv3p runs check` names it.
    """
    state = load_checkpoint(path)
    refuse_other_record(path, state)
    return state


def refuse_other_record(path: Path, state: Mapping[str, Any]) -> None:
    """Raise IntegrityError where the run.json beside the checkpoint at `path` describes another training."""
    record: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        record = read_record(path.parents[1] / "run.json")
    if problem := next(differences_from_record(record, state), ""):
        raise IntegrityError(
            f"{path}: {problem}; one of the two was changed, or belongs to another run: restore it, and see what "
            f"`dlv3p runs check {path.parents[1].name}` says of the others"
        )


def differences_from_record(record: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[str]:
    """Yield in what a checkpoint differs from a run.json; from what that does not hold, it differs in nothing."""
    if "class_names" in record and list(state["class_names"]) != record["class_names"]:
        yield "its class_names are not those of run.json"
    if isinstance(recorded := record.get("parameters"), dict):
        ours, theirs = TrainParameters.recorded(recorded), TrainParameters.recorded(state["parameters"])
        names = [item.name for item in fields(TrainParameters) if item.name not in TrainParameters.NOT_IDENTITY]
        if differing := [name for name in names if ours[name] != theirs[name]]:
            yield f"its parameters are not those of run.json: {', '.join(differing)}"
