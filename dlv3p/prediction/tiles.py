"""Predict a large image in overlapping tiles, whose scores fade into each other, with memory for one row of overlaps.

A tile counts with a weight that rises linearly from its edge, over the overlap, to 1; edges of the image itself do not
fade. Where tiles overlap, the weights are divided by their sum. So no score jumps at the edge of a tile, and where all
tiles agree, so does the result. Tiles are spread evenly and begin at multiples of `ALIGNED` pixels, where the grid of
the logits of a tile is that of the whole image.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor

ALIGNED = 32
"""Pixels that the beginnings of tiles are multiples of: the largest output stride."""

Span = tuple[int, int]
"""The first pixel of a side that a tile covers, and the one after its last."""
Box = tuple[Span, Span]
"""The rows and the columns of a tile."""


@dataclass(frozen=True)
class Tiling:
    """How an image of `height` x `width` pixels is cut into tiles of about `side` pixels that share `overlap` or more.

    An image that is not longer than a tile is one tile along that side.
    """

    height: int
    width: int
    side: int
    overlap: int

    @property
    def rows(self) -> list[Span]:
        """The rows of the tiles, from top to bottom."""
        return spread(self.height, self.side, self.overlap)

    @property
    def columns(self) -> list[Span]:
        """The columns of the tiles, from left to right."""
        return spread(self.width, self.side, self.overlap)


def spread(length: int, side: int, overlap: int) -> list[Span]:
    """Spread tiles evenly over a side of an image; all are of one length, less than `ALIGNED` pixels above `side`."""
    if length <= side:
        return [(0, length)]
    steps = (length - side) // ALIGNED
    long = length - steps * ALIGNED
    count = ceil(steps / ((side - overlap) // ALIGNED)) + 1
    starts = sorted({steps * index // max(1, count - 1) * ALIGNED for index in range(count)})
    return [(start, start + long) for start in starts]


def fade(span: Span, length: int, overlap: int) -> np.ndarray:
    """Return the weight of each pixel of a tile along one side, float32: below 1 near edges inside the image."""
    start, end = span
    distance = np.arange(end - start) + 0.5
    weight = np.ones(end - start)
    if start > 0:
        weight = np.minimum(weight, distance / overlap)
    if end < length:
        weight = np.minimum(weight, distance[::-1] / overlap)
    return weight.astype(np.float32)


def blend(scores: Callable[[Box], Tensor], tiling: Tiling) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield the blended scores (C,n,m) of the whole image piece by piece, with the rows and columns of each piece.

    `scores` returns those of a tile, float32 (C,h,w). The sums of the overlap with the next row of tiles are kept, and
    nothing else of the image.
    """
    rows, columns = tiling.rows, tiling.columns
    down = [fade(span, tiling.height, tiling.overlap) for span in rows]
    across = [fade(span, tiling.width, tiling.overlap) for span in columns]
    total_down, total_across = _total(rows, down, tiling.height), _total(columns, across, tiling.width)
    below = None
    for row, (top, bottom) in enumerate(rows):
        above = rows[row - 1][1] - top if row else 0
        next_top = rows[row + 1][0] if row + 1 < len(rows) else bottom
        beside = None
        for column, (left, right) in enumerate(columns):
            sums = scores(((top, bottom), (left, right)))
            sums *= torch.from_numpy(np.outer(down[row], across[column])).to(sums.device)
            if beside is not None:
                sums[:, :, : beside.shape[2]] += beside
            until = columns[column + 1][0] if column + 1 < len(columns) else right
            beside = sums[:, :, until - left :].clone()
            ready = sums[:, :, : until - left]
            if below is None:
                below = _nothing_below(rows, tiling.width, sums)
            if above:
                ready[:, :above] += below[:, :above, left:until]
            if bottom > next_top:
                below[:, : bottom - next_top, left:until] = ready[:, next_top - top :]
            piece = ready[:, : next_top - top]
            piece /= _outer(total_down[top:next_top], total_across[left:until], piece)
            yield slice(top, next_top), slice(left, until), piece


def _nothing_below(rows: list[Span], width: int, like: Tensor) -> Tensor:
    """Return room for the sums of the largest overlap of two rows of tiles."""
    overlap = max((first[1] - second[0] for first, second in zip(rows, rows[1:], strict=False)), default=0)
    return torch.zeros((len(like), overlap, width), device=like.device)


def _total(spans: list[Span], weights: list[np.ndarray], length: int) -> np.ndarray:
    total = np.zeros(length, np.float32)
    for (start, end), weight in zip(spans, weights, strict=True):
        total[start:end] += weight
    return total


def _outer(down: np.ndarray, across: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.outer(down, across)).to(like.device)
