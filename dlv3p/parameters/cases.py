"""Parse the lists of a profile into the cases to measure, without torch."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import product
from typing import Any, TypeVar

from cityscapes.errors import ParameterError
from dlv3p.parameters.choices import PRECISIONS
from dlv3p.parameters.network import OUTPUT_STRIDES, find

Value = TypeVar("Value")

NETWORKS = ("run", "vovnet_system", "notebook_system")
"""Where the network's switches come from: the run, or a system in `published.py`."""
SWITCH = {"off": False, "on": True}
SMALLEST, HIGHEST, WIDEST = 33, 4096, 8192
LARGEST_BATCH = 256


@dataclass(frozen=True)
class Case:
    """A case to measure: a network's backbone and output stride, and how it is run.

    Height and width are those of the image, in pixels; `compiled` means torch.compile.
    """

    backbone: str
    output_stride: int
    height: int
    width: int
    batch_size: int = 1
    precision: str = "float32"
    compiled: bool = False

    @property
    def title(self) -> str:
        """A short title, for a progress bar."""
        words = [f"{self.backbone}, stride {self.output_stride}, {self.batch_size} x {self.height} x {self.width}"]
        words += [self.precision] if self.precision != "float32" else []
        words += ["compiled"] if self.compiled else []
        return ", ".join(words)

    def as_dict(self) -> dict[str, Any]:
        """Return names and values as plain JSON."""
        return asdict(self)


def case_of(row: Mapping[str, Any]) -> Case:
    """Return the case that a row of a sweep belongs to."""
    return Case(**{item.name: row[item.name] for item in fields(Case)})


def list_cases(
    backbones: str, output_strides: str, sizes: str, batch_sizes: str, precisions: str, compiles: str
) -> list[Case]:
    """Return every combination of the lists, each a text of values separated by spaces, the last one varying fastest.

    Raises ParameterError for an invalid value and for an empty list; duplicates count once.
    """
    lists = [
        _values("backbones", backbones, _backbone),
        _values("output_strides", output_strides, _output_stride),
        _values("sizes", sizes, _size),
        _values("batch_sizes", batch_sizes, _batch_size),
        _values("precisions", precisions, _choice(PRECISIONS)),
        _values("compiles", compiles, _choice(tuple(SWITCH))),
    ]
    return [
        Case(backbone, stride, *size, batch, precision, SWITCH[switch])
        for backbone, stride, size, batch, precision, switch in product(*lists)
    ]


def _values(name: str, text: str, read: Callable[[str], Value]) -> list[Value]:
    words = text.split()
    if not words:
        raise ParameterError(f"{name}={text!r}: give at least one value, several separated by spaces")
    try:
        return list(dict.fromkeys(read(word) for word in words))
    except ParameterError as error:
        remedy = "; separate values by spaces, not by commas" if "," in text else ""
        raise ParameterError(f"{name}={text!r}: {error}{remedy}") from None


def _backbone(word: str) -> str:
    find(word)
    return word


def _output_stride(word: str) -> int:
    return int(_choice(tuple(map(str, OUTPUT_STRIDES)))(word))


def _size(word: str) -> tuple[int, int]:
    height, by, width = word.partition("x")
    if not by or not _within(height, SMALLEST, HIGHEST) or not _within(width, SMALLEST, WIDEST):
        raise ParameterError(
            f"{word!r} is not height x width, such as 1024x2048; allowed are {SMALLEST} to {HIGHEST} by {SMALLEST} to "
            f"{WIDEST} pixels"
        )
    return int(height), int(width)


def _batch_size(word: str) -> int:
    if not _within(word, 1, LARGEST_BATCH):
        raise ParameterError(f"{word!r} is not a batch size; allowed are 1 to {LARGEST_BATCH}")
    return int(word)


def _within(word: str, low: int, high: int) -> bool:
    return word.isascii() and word.isdecimal() and len(word) < 10 and low <= int(word) <= high


def _choice(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def read(word: str) -> str:
        if word not in allowed:
            raise ParameterError(f"{word!r} is unknown; allowed are {', '.join(allowed)}")
        return word

    return read
