"""Compare the records of two runs field by field, and name what differs, likely causes first."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cityscapes.errors import MissingInputError
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


def name_altered_fields(record: Mapping[str, Any]) -> "pd.DataFrame":
    """Return a row per recorded field that is compared: alter it alone, and see which kind and field are named."""
    import pandas as pd

    rows = []
    for field, value in _leaves(record).items():
        if _kind(field):
            named = compare_records(_leaves(record) | {field: f"{value} altered"}, record)
            rows.append({"kind": _kind(field), "altered": field, "named": ", ".join(one.field for one in named)})
    return pd.DataFrame(rows)


def compare_records(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Return the fields of two records that differ, likely causes first; what only later versions record is left out.

    A run that was resumed elsewhere has several environments, which are all compared.
    """
    found = list(_compared(_leaves(then), _leaves(now)))
    for part in then.get("continued", ()):
        known = {(one.field, str(one.then)) for one in found}
        later = _compared(_leaves(part), _leaves(now), part.get("after_steps", 0))
        found += [one for one in later if (one.field, str(one.then)) not in known]
    return in_order(found)


def in_order(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences with the likely causes first."""
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


def compare_checkpoint(record: Mapping[str, Any], folder: Path) -> list[Difference]:
    """Return the parameters in which run.json differs from the run's checkpoint, which says how it was trained."""
    from dlv3p.weights.checkpoint import load_checkpoint

    recorded, inside = TrainParameters.recorded(record["parameters"]), {}
    with suppress(MissingInputError):
        inside = TrainParameters.recorded(load_checkpoint(folder / "checkpoints" / "best.pt")["parameters"])
    names = [name for name in inside if name in recorded and name not in (*TrainParameters.NOT_IDENTITY, "data_root")]
    found = [(f"parameters.{name}", recorded[name], inside[name]) for name in names]
    return [Difference(_kind(field), field, then, now) for field, then, now in found if then != now]


def _short(value: Any) -> str:
    text = value[:12] if isinstance(value, str) and len(value) in (40, 64) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
