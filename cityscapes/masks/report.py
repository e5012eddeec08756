"""What a run that makes masks tells: counts, what was wrong where, and how the masks compare with provided ones."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cityscapes.masks.frame import Result
from cityscapes.problems import print_problems


@dataclass(frozen=True)
class Report:
    """What a run did: counts of frames, and what was wrong where.

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
    """Results as they come, in any order; keeps counts, and of single frames only what is to be told about them."""

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

    def report(self, *, up_to_date: int, seconds: float) -> Report:
        """Sum up; frames come sorted, so that it does not tell which was done first."""
        return Report(
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


def print_report(report: Report, root: Path, output: Path, *, most: int = 50) -> None:
    """Print warnings and errors to stderr, a line each and at most so many of a kind, and the figures to stdout."""
    for kind, items in (("warning", report.warnings), ("error", report.failed)):
        print_problems(kind, [line for _, line in items], most)
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
