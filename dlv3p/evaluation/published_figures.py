"""Read what other systems have published, figure by figure, each with its source and the protocol that it belongs to.

`published_figures.csv` has a row per figure, to which rows can be added; the fields of `Figure` are its columns. Every
row is checked when it is read, because a figure under a wrong protocol is worse than none.
"""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from cityscapes.errors import InputError, ParameterError, reason
from cityscapes.files.untrusted import check_row
from dlv3p.parameters import network
from dlv3p.parameters.protocols import PUBLISHED

FIGURES = Path(__file__).with_name("published_figures.csv")

SCORES = {"mIoU": "mIoU", "mean accuracy": "mPA", "pixel accuracy": "pixel_accuracy", "mDice": "mDice"}
"""The scores that an evaluation of ours has, too, with their keys in `evaluation.json`."""

UNITS = {
    **dict.fromkeys((*SCORES, "IoU", "iIoU", "category IoU", "category iIoU", "agreement"), ("%",)),
    **{"loss": ("",), "parameters": ("M",), "GMACs": ("G",), "energy": ("J/image",)},
    **{"latency": ("ms",), "end to end": ("ms",), "throughput": ("images/s",), "memory": ("MiB", "MB")},
    **{"training memory": ("GB",), "training throughput": ("images/s",), "training step": ("s",)},
    **{"training time": ("min",)},
}
"""The known metrics, with the units in which each is given."""

_NAMES = (("resnet", "ResNet-"), ("densenet", "DenseNet-"), ("vovnet", "VoVNet-"), ("mobilenet_v2", "MobileNetV2"))


@dataclass(frozen=True)
class Figure:
    """One published figure, and where it is from.

    `table` is one of the system's, `details` say what sets the network apart, `variant` how it was trained. `protocol`
    is a name of `PUBLISHED`, or says in words what was done instead: then nothing of ours compares. `training` are the
    images that the network saw, and `part` is the class or split of a score that is not over all. `value` is in `unit`;
    `written` has the published digits. `recipe` trains the network, with `changes` as in `backbone=resnet18; ...`, and
    `command` fills the cell where training and evaluation would not; it may hold {run}.
    """

    system: str
    table: str
    architecture: str
    backbone: str
    output_stride: int
    details: str
    variant: str
    data: str
    protocol: str
    training: str
    part: str
    metric: str
    value: float
    written: str
    unit: str
    machine: str
    recipe: str
    changes: str
    command: str
    source: str
    note: str

    @property
    def network(self) -> str:
        """The network in words, "" where the figure is of none."""
        if not self.architecture:
            return ""
        name = network_name(self.architecture, self.backbone, self.output_stride)
        return f"{name}, {self.details}" if self.details else name

    @property
    def origin(self) -> str:
        """The system, and how the network was trained there."""
        return f"{self.system}, {self.variant}" if self.variant else self.system

    @property
    def is_score(self) -> bool:
        """Whether an evaluation of ours can have the same: a score over all classes by a protocol that we have."""
        return self.metric in SCORES and not self.part and self.protocol in PUBLISHED


COLUMNS = tuple(item.name for item in fields(Figure) if item.name != "written")
"""The columns of `published_figures.csv`."""


def network_name(architecture: str, backbone: str, output_stride: int) -> str:
    """Return a network in words, as in `DeepLabV3+ ResNet-101 stride 16`."""
    for short, long in _NAMES:
        backbone = backbone.replace(short, long)
    words = {"deeplabv3": "DeepLabV3", "deeplabv3plus": "DeepLabV3+"}[architecture]
    return f"{words} {backbone} stride {output_stride}"


def published_figures(path: Path = FIGURES) -> tuple[Figure, ...]:
    """Read published figures, in their order; raises InputError for the first row that is not one, with its line."""
    return _read(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> tuple[Figure, ...]:
    figures: dict[tuple[Any, ...], Figure] = {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, restval="")
            if tuple(rows.fieldnames or ()) != COLUMNS:
                raise InputError(f"{path}: not a table with the columns {', '.join(COLUMNS)}")
            for row in rows:
                where = f"{path}, line {rows.line_num}"
                check_row(row, where)
                figure = _figure(row, where)
                if figures.setdefault(_key(figure), figure) is not figure:
                    raise InputError(f"{where}: {figure.metric} of {figure.network or figure.table} is there already")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a table of published figures: {reason(error)}") from error
    return tuple(figures.values())


def _figure(row: dict[str, str], where: str) -> Figure:
    """Check one row; raises InputError for what is wrong with it."""
    stride = row["output_stride"]
    if missing := [name for name in ("system", "table", "protocol", "source") if not row[name].strip()]:
        raise InputError(f"{where}: {missing[0]} is empty; every figure names its system, table, protocol and source")
    if row["unit"] not in UNITS.get(row["metric"], ()):
        allowed = "; ".join(f"{metric} in {' or '.join(units) or 'no unit'}" for metric, units in UNITS.items())
        raise InputError(f"{where}: {row['metric']!r} in {row['unit']!r}; allowed are {allowed}")
    if row["architecture"]:
        _check_network(row, where)
    _check_protocol(row, where)
    try:
        value = float(row["value"])
    except ValueError:
        value = math.nan
    if not 0 <= value < (100 if row["unit"] == "%" else math.inf):
        raise InputError(f"{where}: value={row['value']!r}: not a number in {row['unit'] or 'no unit'}")
    return Figure(**row | {"output_stride": int(stride or 0), "value": value, "written": row["value"]})


def _check_network(row: dict[str, str], where: str) -> None:
    if row["architecture"] not in network.ARCHITECTURES or row["output_stride"] not in map(str, network.OUTPUT_STRIDES):
        raise InputError(
            f"{where}: {row['architecture']} at output stride {row['output_stride']!r}; allowed are "
            f"{', '.join(network.ARCHITECTURES)} at {', '.join(map(str, network.OUTPUT_STRIDES))}"
        )
    try:
        network.find(row["backbone"])
    except ParameterError as error:
        raise InputError(f"{where}: {error}") from None


def _check_protocol(row: dict[str, str], where: str) -> None:
    """Check that a protocol is one of ours, or is told in words: a misspelled name would silently compare with none."""
    if re.fullmatch(r"\w+", row["protocol"]) and row["protocol"] not in PUBLISHED:
        raise InputError(f"{where}: unknown protocol {row['protocol']!r}; known are {', '.join(PUBLISHED)}")
    if row["protocol"] in PUBLISHED and not (row["data"] and row["training"]):
        raise InputError(f"{where}: a score by {row['protocol']} names its data and what the network was trained on")


def _key(figure: Figure) -> tuple[Any, ...]:
    names = ("system", "table", "network", "variant", "data", "protocol", "training", "part", "metric", "machine")
    return tuple(getattr(figure, name) for name in names)


def choose(figures: Sequence[Figure], **values: Any) -> list[Figure]:
    """Return the figures whose fields have these values."""
    return [one for one in figures if all(getattr(one, name) == value for name, value in values.items())]
