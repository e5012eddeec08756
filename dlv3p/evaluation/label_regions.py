"""Regions of doubtful labels: connected pixels of one given and one suggested class that no shift of a border explains.

Borders are uncertain: fill rules differ by a pixel, and annotators and networks by a few. So a pixel is explained where
the suggested class, or an ignored region, is given within `border` pixels; what is left must be large enough.

Regions are ranked by how much more probable an error of the label is than one of the network: the higher, the larger
the odds are, and the more of its object a region has, since an annotator gives a whole outline the wrong class where a
network errs on parts of it; the lower, the more often networks make this mistake, in this image and with these classes.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from cityscapes.labels import IGNORE
from dlv3p.annotations.correct import connected_regions
from dlv3p.evaluation.confident_learning import LEAST

AROUND = np.ones((3, 3), bool)


class LabelRegion(NamedTuple):
    """A region of an image: its given and its suggested class, where it is, and how clearly its label is wrong.

    `log_odds` is the mean of its pixels, `coverage` the share of its given object that it has, and `score` what regions
    are ranked by. `top` and `left` are the corner of its box of `shape`, (height, width), `packed` its pixels in it.
    """

    score: float
    image: int
    given: int
    suggested: int
    pixels: int
    log_odds: float
    coverage: float
    top: int
    left: int
    shape: tuple[int, int]
    packed: bytes

    @property
    def place(self) -> tuple[slice, slice]:
        """The rows and columns of its box."""
        return slice(self.top, self.top + self.shape[0]), slice(self.left, self.left + self.shape[1])

    def mask(self) -> np.ndarray:
        """Return its pixels within its box: bool (h,w)."""
        bits = np.unpackbits(np.frombuffer(self.packed, np.uint8), count=self.shape[0] * self.shape[1])
        return bits.reshape(self.shape).astype(bool)


def find_regions(
    image: int,
    given: np.ndarray,
    suggested: np.ndarray,
    log_odds: np.ndarray,
    mistakes: np.ndarray,
    *,
    border: int,
    smallest: int,
) -> Iterator[LabelRegion]:
    """Yield the regions of an image: masks (H,W) of given and suggested classes, 255 without a doubt, and the odds.

    `mistakes` says how usual it is that a network takes one class for the other here, (C,C): see `usual_mistakes`.
    A region has at least `smallest` pixels that no border explains; those beside them belong to it as well.
    """
    pairs = np.where(suggested == IGNORE, 0, 1 + given.astype(np.int32) * 256 + suggested)
    objects = _Objects(given)
    codes, numbers = np.unique(pairs, return_inverse=True)
    for code, place in zip(codes.tolist(), ndimage.find_objects(numbers.reshape(pairs.shape) + 1), strict=True):
        if not code:
            continue
        classes, near = divmod(code - 1, 256), _wider(place, border)
        doubted = pairs[near] == code
        for part, core in connected_regions(doubted & ~_explained(given[near], classes[1], border)):
            if core.sum() >= smallest:
                wider = _wider(part, border)
                region = _grown(doubted[wider], core, part, wider, border)
                corner = [whole.start + side.start for whole, side in zip(near, wider, strict=True)]
                odds = float(log_odds[near][wider][region].mean())
                box = tuple(slice(start, start + side) for start, side in zip(corner, region.shape, strict=True))
                start = [whole.start + side.start for whole, side in zip(near, part, strict=True)]
                coverage = objects.coverage(classes[0], np.argwhere(core)[0] + start, box, region)
                facts = (int(region.sum()), odds, coverage, *corner, region.shape, np.packbits(region).tobytes())
                score = odds + math.log(coverage) / 2 - math.log(mistakes[classes])
                yield LabelRegion(score, image, *classes, *facts)


def usual_mistakes(confusion: np.ndarray, disagreeing: float) -> np.ndarray:
    """Return how usual it is that a network takes one class for another in an image, (C,C), neither of two parts 0.

    These are the share of the image's pixels of which it does not believe the label, `disagreeing`, and the root of the
    share of a class that it takes for the other one anywhere, from the `confusion` of labels and predictions, (C,C).
    """
    shares = confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True))
    return max(LEAST, disagreeing) * np.sqrt(np.maximum(LEAST, shares))


def _wider(place: tuple[slice, slice], border: int) -> tuple[slice, slice]:
    rows, columns = (slice(max(0, side.start - border), side.stop + border) for side in place)
    return rows, columns


def _explained(given: np.ndarray, suggested: int, border: int) -> np.ndarray:
    """Return the pixels (h,w) that a shift of a border by `border` pixels would give the suggested class."""
    there = (given == suggested) | (given == IGNORE)
    return ndimage.binary_dilation(there, AROUND, iterations=border) if border else there


def _grown(
    doubted: np.ndarray, core: np.ndarray, part: tuple[slice, slice], wider: tuple[slice, slice], border: int
) -> np.ndarray:
    """Return the doubted pixels (h,w) within `border` of a core, which has its own place, a part of the wider one."""
    region = np.zeros(doubted.shape, bool)
    rows, columns = (
        slice(one.start - other.start, one.stop - other.start) for one, other in zip(part, wider, strict=True)
    )
    region[rows, columns] = core
    return ndimage.binary_dilation(region, AROUND, iterations=border) & doubted if border else region


class _Objects:
    """The connected pixels of each given class in a mask (H,W); a class is looked through when it is asked for."""

    def __init__(self, given: np.ndarray) -> None:
        self._given = given
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def coverage(self, class_id: int, inside: np.ndarray, box: tuple[slice, slice], region: np.ndarray) -> float:
        """Return the share of an object that a region (h,w) in its box has; `inside` is a pixel of both.

        A region grows over its border, where it may reach pixels of another object: they do not count.
        """
        if class_id not in self._found:
            numbers, _ = ndimage.label(self._given == class_id)
            self._found[class_id] = numbers, np.bincount(numbers.ravel())
        numbers, sizes = self._found[class_id]
        number = numbers[tuple(inside)]
        return float((region & (numbers[box] == number)).sum() / sizes[number])


@dataclass
class BestRegions:
    """Keep the regions of the highest scores, at most `count`, whatever the number that is added."""

    count: int
    found: int = 0
    _heap: list[LabelRegion] = field(default_factory=list)

    def add(self, region: LabelRegion) -> None:
        """Take a region into account."""
        self.found += 1
        if len(self._heap) < self.count:
            heapq.heappush(self._heap, region)
        elif region > self._heap[0]:
            heapq.heapreplace(self._heap, region)

    def ranked(self) -> list[LabelRegion]:
        """Return the regions that were kept, the highest score first."""
        return sorted(self._heap, reverse=True)
