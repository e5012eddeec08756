"""The report of a run that makes masks: counts, errors with their place, and agreement with provided masks.

It also records which data set the masks of a folder were made from: all data sets share one default folder, and where
two have frames of equal names, their masks would overwrite one another.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import InputError
from cityscapes.files.atomic import write_text
from cityscapes.files.untrusted import regular
from cityscapes.findings import print_problems
from cityscapes.layout import (
    INSTANCE_IDS_SUFFIX,
    LABEL_IDS_SUFFIX,
    POLYGONS_SUFFIX,
    TRAIN_IDS_SUFFIX,
    Frame,
    find_frames,
)
from cityscapes.masks.frame import Result
from cityscapes.parallel import number_of_workers

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class MaskReport:
    """The result of a run: counts of frames, and the problems with their files.

    `failed` and `warnings` hold (polygon file, one line). `compared` frames were drawn now and have provided masks
    beside their polygons; `differing_pixels` of `total_pixels` differ there, all kinds of masks together, in the frames
    of `differing`, (polygon file, pixels), worst first. `by_kind` holds (suffix, differing pixels, all pixels).
    """

    written: int = 0
    up_to_date: int = 0
    failed: tuple[tuple[Path, str], ...] = ()
    warnings: tuple[tuple[Path, str], ...] = ()
    compared: int = 0
    differing_pixels: int = 0
    total_pixels: int = 0
    differing: tuple[tuple[Path, int], ...] = ()
    seconds: float = 0.0
    by_kind: tuple[tuple[str, int, int], ...] = ()

    @property
    def percent_equal(self) -> float:
        """The share of compared pixels that equal the provided masks, 0 to 100; nan where nothing was compared."""
        return 100 * (1 - self.differing_pixels / self.total_pixels) if self.total_pixels else float("nan")


class Tally:
    """Collect results in any order; of single frames only problems and differences are kept."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._failed: list[tuple[Path, str]] = []
        self._warnings: list[tuple[Path, str]] = []
        self._differing: list[tuple[Path, int]] = []
        self._pixels: Counter[str] = Counter()
        self._differing_pixels: Counter[str] = Counter()

    def add(self, result: Result) -> None:
        """Count one frame."""
        self._counts.update(written=result.written, compared=bool(result.compared))
        if result.problem:
            self._failed.append((result.path, result.problem))
        self._warnings += [(result.path, warning) for warning in result.warnings]
        for suffix, (differing, pixels) in result.compared.items():
            self._differing_pixels[suffix] += differing
            self._pixels[suffix] += pixels
        if differing := sum(differing for differing, _ in result.compared.values()):
            self._differing.append((result.path, differing))

    def report(self, *, up_to_date: int, seconds: float) -> MaskReport:
        """Return the report; frames are sorted, so that it does not depend on the order of work."""
        return MaskReport(
            written=self._counts["written"],
            up_to_date=up_to_date,
            failed=tuple(sorted(self._failed)),
            warnings=tuple(sorted(self._warnings, key=lambda item: item[0])),
            compared=self._counts["compared"],
            differing_pixels=self._differing_pixels.total(),
            total_pixels=self._pixels.total(),
            differing=tuple(sorted(self._differing, key=lambda item: (-item[1], item[0]))),
            seconds=seconds,
            by_kind=tuple((suffix, self._differing_pixels[suffix], self._pixels[suffix]) for suffix in self._pixels),
        )


def print_report(report: MaskReport, root: Path, output: Path, *, limit: int = 50) -> None:
    """Print warnings and errors to stderr, a line each and at most `limit` of a kind, and the figures to stdout."""
    for kind, items in (("warning", report.warnings), ("error", report.failed)):
        print_problems(kind, [line for _, line in items], limit)
    sys.stderr.flush()
    rows = [
        ("polygons from", root),
        ("masks in", output),
        ("frames written", report.written),
        ("frames up to date", report.up_to_date),
        ("frames failed", len({path for path, _ in report.failed})),
        ("compared with provided masks", f"{report.compared} frames written now"),
    ]
    if report.compared:
        rows.append(("pixels differing", f"{report.differing_pixels:,} of {report.total_pixels:,}"))
        rows += [(f"  {suffix[1:]}", f"{differing:,} of {pixels:,}") for suffix, differing, pixels in report.by_kind]
        rows.append(("pixels equal", f"{report.percent_equal:.6f} %"))
    rows += [("  differs most", f"{path.name}: {pixels:,}") for path, pixels in report.differing[:10]]
    rows.append(("seconds", f"{report.seconds:.1f}"))
    for name, value in rows:
        print(f"{name:30}{value}")


COMPARED = (LABEL_IDS_SUFFIX, TRAIN_IDS_SUFFIX, INSTANCE_IDS_SUFFIX)
"""The masks that are compared, where both sides have them."""


@dataclass(frozen=True)
class Agreement:
    """One mask that both sides have: how many of its pixels differ; `problem` says why they cannot be compared."""

    frame: Frame
    suffix: str
    official: Path
    ours: Path
    differing: int = 0
    total: int = 0
    problem: str = ""

    def read(self) -> "tuple[np.ndarray, np.ndarray]":
        """Read the official mask and ours, integer (H, W) each and of one size; raises InputError."""
        from cityscapes.files.png_read import read_instance_image, read_label_image  # they load numpy

        read = read_instance_image if self.suffix == INSTANCE_IDS_SUFFIX else read_label_image
        ours = read(self.ours)
        return read(self.official, size=ours.shape), ours


def compare_masks(
    root: str | Path, splits: Sequence[str], generated: str | Path, *, workers: int = 0
) -> Iterator[Agreement]:
    """Compare every mask below `generated` with the provided one of the same frame and kind, in order.

    `workers` is the number of threads, 0 for one per core. Raises MissingInputError for a split without polygons; a
    damaged mask is a `problem`.
    """
    root, generated = Path(root), Path(generated)
    pairs = [
        Agreement(frame, suffix, official, ours)
        for split in splits
        for frame in find_frames(root, split, suffix=POLYGONS_SUFFIX)
        for suffix in COMPARED
        if (official := frame.annotation(root, suffix)).is_file()
        and (ours := frame.generated(generated, suffix)).is_file()
    ]
    with ThreadPoolExecutor(number_of_workers(workers)) as pool:
        yield from pool.map(_compare, pairs)


def _compare(pair: Agreement) -> Agreement:
    try:
        official, ours = pair.read()
    except InputError as error:
        return Agreement(pair.frame, pair.suffix, pair.official, pair.ours, problem=str(error))
    differing = int((official != ours).sum())
    return Agreement(pair.frame, pair.suffix, pair.official, pair.ours, differing, ours.size)


RECORD = ".made_from.json"
"""The file in the output folder: an object from `<split>/<city>` to the root of the data set."""


def refuse_another_source(output: Path, stale: Iterable[Frame], root: Path) -> None:
    """Raise InputError when one of the stale masks was made from another data set that still exists."""
    sources = _read(output)
    for frame in stale:
        source = sources.get(f"{frame.split}/{frame.city}", "")
        if source and source != str(root.resolve()) and Path(source).is_dir():
            raise InputError(
                f"{output / frame.split / frame.city}: holds masks made from {source}, which has frames of the same "
                f"names as {root}; give each data set its own folder with --output, or replace the masks with --force"
            )


def cities_of_others(output: Path, split: str, root: Path) -> frozenset[str]:
    """Return the cities of a split whose masks in `output` were made from another data set that still exists."""
    sources = {Path(place): source for place, source in _read(output).items()}
    ours = str(root.resolve())
    return frozenset(
        place.name
        for place, source in sources.items()
        if str(place.parent) == split and source != ours and Path(source).is_dir()
    )


def record_source(output: Path, frames: Iterable[Frame], root: Path) -> None:
    """Record that the masks of these frames are made from `root`; the caller holds the folder's lock."""
    sources = _read(output)
    known = dict(sources)
    sources.update({f"{frame.split}/{frame.city}": str(root.resolve()) for frame in frames})
    if sources != known:
        write_text(output / RECORD, json.dumps(sources, indent=1, sort_keys=True) + "\n", durable=False)


def _read(output: Path) -> dict[str, str]:
    with suppress(
        OSError, ValueError, RecursionError
    ):  # without a valid record, stale masks are still refused one by one
        sources = json.loads(regular(output / RECORD).read_text(encoding="utf-8"))
        if isinstance(sources, dict) and all(isinstance(source, str) for source in sources.values()):
            return sources
    return {}
