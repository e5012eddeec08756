"""Multi-scale inference: sum a network's predictions over scaled, mirrored and windowed views of one image.

The logits of each view, which are small at the network's stride, are read at the pixels of the image, some rows at a
time, turned into probabilities and added to one sum. So memory holds one sum of the image's size and one view's logits,
however many views there are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dlv3p.data.augment import normalize
from dlv3p.parameters.protocols import Protocol
from dlv3p.runtime.devices import LAYOUT

ROWS = 32
"""Rows of the sum that are processed at a time."""

Box = tuple[int, int, int, int]
"""Top, left, height and width of a window, in pixels of a view."""


@dataclass(frozen=True)
class View:
    """An augmented view of an image: resized to `height` x `width`, padded to `padded`, maybe mirrored, in windows."""

    height: int
    width: int
    padded: tuple[int, int]
    flipped: bool
    windows: tuple[Box, ...]

    @property
    def whole(self) -> bool:
        """Whether the network sees exactly this view in one window, without padding."""
        return self.padded == (self.height, self.width) and len(self.windows) == 1


def multi_scale_views(height: int, width: int, protocol: Protocol, *, image_scale: float = 1.0) -> list[View]:
    """List the views of an image; `image_scale` is applied first, unless the protocol fixes the length of a side."""
    views = []
    for scale in protocol.scales:
        square = int((protocol.padded - 1) * scale) + 1 if protocol.padded else 0
        if protocol.long_side:  # cut off, not rounded, as the MindSpore system does
            long = int((protocol.long_side - 1) * scale) + 1
            size = tuple(max(1, long * side // max(height, width)) for side in (height, width))
        else:
            size = tuple(max(1, round(side * (image_scale * scale))) for side in (height, width))
        padded = (max(size[0], square), max(size[1], square))
        rows = _starts(padded[0], protocol.window_height, protocol.overlap)
        columns = _starts(padded[1], protocol.window_width, protocol.overlap)
        windows = tuple((top, left, tall, wide) for (top, tall), (left, wide) in product(rows, columns))
        flips = (False, True) if protocol.flip else (False,)
        views += [View(*size, padded, flipped, windows) for flipped in flips]
    return views


def multi_scale_sum(
    network: Callable[[Tensor], Tensor],
    image: Image.Image,
    views: list[View],
    size: tuple[int, int],
    *,
    align_corners: bool,
    device: torch.device,
) -> Tensor:
    """Sum the predictions of `network`, images (1,3,h,w) to logits (1,C,h',w'), over all views: float32 (C,*size).

    The sum is of probabilities; of a single view it is its logits, which have the same best class. Logits are resized
    bilinearly, as the network does with `align_corners`; where windows overlap, their logits are averaged.
    """
    total = None
    for view in views:
        pieces = _logits_of_windows(network, image, view, device)
        if len(views) > 1 and len(view.windows) == 1:
            ((box, logits),) = pieces
            total = _zeros(logits, size) if total is None else total
            for rows, columns, values in read_scores(logits, box, view, size, align_corners):
                total[:, rows, columns] += values.softmax(dim=0)
            continue
        averaged = None
        for box, logits in pieces:
            averaged = _zeros(logits, size) if averaged is None else averaged
            for rows, columns, values in read_scores(logits, box, view, size, align_corners):
                averaged[:, rows, columns] += values
        averaged /= _counts(view, size).to(device)
        if len(views) == 1:
            return averaged
        total = torch.zeros_like(averaged) if total is None else total
        for first in range(0, size[0], ROWS):
            total[:, first : first + ROWS] += averaged[:, first : first + ROWS].softmax(dim=0)
    return total


def view_batch(image: Image.Image, view: View, device: torch.device) -> Tensor:
    """Return an image as a network takes it, normalized (1,3,h,w), for a view that is neither padded nor mirrored."""
    return normalize(resize(image, view.width, view.height))[None].to(device, memory_format=LAYOUT)


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize an image bilinearly, antialiased where it gets smaller."""
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def _starts(length: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Return start and length of the windows along a side; the last one is moved back to end with the side."""
    if not window or window >= length:
        return [(0, length)]
    stride = window - overlap
    count = ceil((length - window) / stride) + 1
    return [(min(index * stride, length - window), window) for index in range(count)]


def _logits_of_windows(
    network: Callable[[Tensor], Tensor], image: Image.Image, view: View, device: torch.device
) -> Iterator[tuple[Box, Tensor]]:
    """Yield each window's box in the view before mirroring, and its logits (C,h',w'), mirrored back."""
    batch = normalize(resize(image, view.width, view.height))[None]
    height, width = view.padded
    batch = torch.nn.functional.pad(batch, (0, width - view.width, 0, height - view.height))  # 0 is the mean color
    batch = batch.to(device, memory_format=LAYOUT)
    if view.flipped:
        batch = batch.flip(3)
    for top, left, tall, wide in view.windows:
        window = batch[:, :, top : top + tall, left : left + wide].contiguous(memory_format=LAYOUT)
        logits = network(window)[0].float()
        if view.flipped:
            left, logits = width - left - wide, logits.flip(2)
        yield (top, left, tall, wide), logits


def read_scores(
    logits: Tensor, box: Box, view: View, size: tuple[int, int], align_corners: bool
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Read a window's logits at the pixels of an image of `size` that lie in it: rows, columns and values (C,n,m)."""
    top, left, tall, wide = box
    first, above, below, down = _positions(size[0], view.height, top, tall, logits.shape[1], align_corners)
    start, before, after, across = _positions(size[1], view.width, left, wide, logits.shape[2], align_corners)
    columns = slice(start, start + len(before))
    before, after = (torch.from_numpy(index).to(logits.device) for index in (before, after))
    across, down = (torch.from_numpy(share).to(logits.device) for share in (across, down[:, None]))
    for row in range(0, len(above), ROWS):
        part = slice(row, row + ROWS)
        lowest = above[part][0]
        some = logits[:, lowest : below[part][-1] + 1].contiguous()
        wide_rows = torch.lerp(some[:, :, before], some[:, :, after], across)
        upper, lower = (torch.from_numpy(index[part] - lowest).to(logits.device) for index in (above, below))
        values = torch.lerp(wide_rows[:, upper], wide_rows[:, lower], down[part])
        yield slice(first + row, first + row + len(upper)), columns, values


def _positions(
    wanted: int, length: int, start: int, window: int, grid: int, align_corners: bool
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Find which of `wanted` output pixels lie in a window of a side with `length` pixels, and where in its logits.

    The window begins at `start` and is `window` long; its logits are `grid` long. Returns the first pixel that lies in
    it, and for this one and those after it the logits before and after, int64, and the weight of the latter, float32.
    """
    centers = _centers(wanted, length)
    inside = np.flatnonzero(_inside(centers, start, window))
    position = centers[inside] - start
    if align_corners:
        position = np.clip(position - 0.5, 0, window - 1) * ((grid - 1) / max(1, window - 1))
    else:
        position = np.clip(position * (grid / window) - 0.5, 0, grid - 1)
    before = position.astype(np.int64)
    return inside[0], before, np.minimum(before + 1, grid - 1), (position - before).astype(np.float32)


def _centers(wanted: int, length: int) -> np.ndarray:
    """Return the centers of `wanted` output pixels on a side with `length` pixels, whose first center is 0.5."""
    return (np.arange(wanted) + 0.5) * (length / wanted)


def _inside(centers: np.ndarray, start: int, window: int) -> np.ndarray:
    return (centers >= start) & (centers < start + window)


def _counts(view: View, size: tuple[int, int]) -> Tensor:
    """Count the windows that cover each pixel of an image of `size`: float32 (H,W)."""
    counts = np.zeros(size, np.float32)
    for top, left, tall, wide in view.windows:
        left = view.padded[1] - left - wide if view.flipped else left
        rows = _inside(_centers(size[0], view.height), top, tall)
        counts += np.outer(rows, _inside(_centers(size[1], view.width), left, wide))
    return torch.from_numpy(counts)


def _zeros(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.zeros((len(logits), *size), device=logits.device)
