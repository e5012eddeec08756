"""Resize a crop window of an image in Pillow's arithmetic, without decoding or resizing the rest of it.

Pillow needs a whole image in its own layout. Here the pixels may be a memory map, of which only the window is
read, or an upper left corner, of which the rest was never decoded. The arithmetic is Pillow's: triangle weights in
fixed point, columns first, rounded to 8 bits between the two passes. Results are identical, except for wide flat
windows, where recent versions of Pillow take rows first: there a value may differ by one level. Sums are of integers,
so the order of addition does not change a sample. Floats, which RGB never is, are resized by Pillow itself.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cityscapes.compiled import compiled

PRECISION = 22
"""Fractional bits of the weights in `weigh_rows` and `weigh_columns`: 255 times their sum still fits in int32."""

_PIXELS = "Array(uint8, 3, 'C', readonly=True)"  # also of memory maps


@compiled(f"void({_PIXELS}, int64[::1], int32[:, ::1], uint8[:, :, ::1])")
def weigh_columns(pixels: np.ndarray, starts: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Make each column of `out`, uint8 (h,w,3), from the weighted columns of `pixels`, uint8 (h,W,3), from its start.

    `starts` is int64 (w,), `weights` int32 (w,k) in units of 2^-22.
    """
    height, width = out.shape[:2]
    taps = weights.shape[1]
    for y in range(height):
        for x in range(width):
            red = green = blue = 1 << (PRECISION - 1)
            for k in range(taps):
                weight = weights[x, k]
                if weight != 0:  # the last ones may lie beyond the image's edge
                    red += weight * pixels[y, starts[x] + k, 0]
                    green += weight * pixels[y, starts[x] + k, 1]
                    blue += weight * pixels[y, starts[x] + k, 2]
            out[y, x, 0], out[y, x, 1], out[y, x, 2] = red >> PRECISION, green >> PRECISION, blue >> PRECISION


@compiled("void(uint8[:, ::1], int64[::1], int32[:, ::1], uint8[:, ::1])")
def weigh_rows(rows: np.ndarray, starts: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """Make each row of `out`, uint8 (h,n), from the weighted rows of `rows`, uint8 (H,n); see `weigh_columns`."""
    height, width = out.shape
    sums = np.empty(width, np.int32)
    for y in range(height):
        sums[:] = 1 << (PRECISION - 1)
        for k in range(weights.shape[1]):
            weight = weights[y, k]
            if weight != 0:
                row = rows[starts[y] + k]
                for x in range(width):
                    sums[x] += weight * np.int32(row[x])
        for x in range(width):
            out[y, x] = sums[x] >> PRECISION


@compiled("void(Array(uint8, 2, 'C', readonly=True), int64[::1], int64[::1], int64[:, ::1])")
def pick(ids: np.ndarray, rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
    """Copy the ids, uint8 (H,W), at `rows` x `columns`, int64 (h,) and (w,), to `out`, int64 (h,w) or larger."""
    for y in range(len(rows)):
        row = ids[rows[y]]
        for x in range(len(columns)):
            out[y, x] = row[columns[x]]


@compiled(f"void({_PIXELS}, float32[:, ::1], float32[:, :, ::1])")
def finish(pixels: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """Look pixels, uint8 (h,w,3), up by channel in `table`, float32 (3,256), into `out`, float32 (3,H,W)."""
    height, width, _ = pixels.shape
    for y in range(height):
        for x in range(width):
            for i in range(3):
                out[i, y, x] = table[i, pixels[y, x, i]]


@compiled(f"void({_PIXELS}, float32[::1], float32[:, ::1], float32, float32[::1], float32[::1], float32[:, :, ::1])")
def finish_saturated(
    pixels: np.ndarray, table: np.ndarray, gray: np.ndarray, saturation: np.float32, mean, std, out: np.ndarray
) -> None:
    """Do as `finish`, with colors from `table`, float32 (256,), which `saturation` moves away from their `gray`, (h,w).

    The result is clipped to 0..1 and normalized by `mean` and `std`, float32 (3,).
    """
    height, width, _ = pixels.shape
    low, high = np.float32(0), np.float32(1)
    for y in range(height):
        for x in range(width):
            for i in range(3):
                color = (table[pixels[y, x, i]] - gray[y, x]) * saturation + gray[y, x]
                out[i, y, x] = (min(max(color, low), high) - mean[i]) / std[i]


@dataclass(frozen=True)
class Window:
    """A box in an image of `image_height` x `image_width` pixels, which becomes `height` x `width` pixels.

    `left`, `top`, `right` and `bottom` are in pixels of the image, with fractions.
    """

    image_height: int
    image_width: int
    left: float
    top: float
    right: float
    bottom: float
    height: int
    width: int

    def corner(self) -> tuple[int, int]:
        """Return how many of the image's rows and columns, from the upper left, resizing reads."""
        down, across = (self.bottom - self.top) / self.height, (self.right - self.left) / self.width
        rows, columns = self.bottom + max(1.0, down) + 1, self.right + max(1.0, across) + 1
        return min(self.image_height, math.ceil(rows)), min(self.image_width, math.ceil(columns))


def resize_pixels(pixels: np.ndarray, window: Window, *, flip: bool = False) -> np.ndarray:
    """Resize a window of an image, uint8 (H,W,3), to uint8 (h,w,3), bilinear and antialiased; `flip` swaps its sides.

    `pixels` may be a corner of at least `window.corner()` rows and columns. Float32 (H,W,n) becomes float32 (h,w,n).
    """
    if pixels.dtype == np.float32:
        return _resize_floats(pixels, window, flip)
    starts, weights = _weights(window.image_width, window.left, window.right, window.width)
    if flip:
        starts, weights = np.ascontiguousarray(starts[::-1]), np.ascontiguousarray(weights[::-1])
    row_starts, row_weights = _weights(window.image_height, window.top, window.bottom, window.height)
    first = int(row_starts[0])
    last = int(row_starts[-1]) + row_weights.shape[1]
    columns = np.empty((min(last, window.image_height) - first, window.width, 3), np.uint8)
    weigh_columns(pixels[first : first + len(columns)], starts, weights, columns)
    resized = np.empty((window.height, 3 * window.width), np.uint8)
    weigh_rows(columns.reshape(len(columns), -1), row_starts - first, row_weights, resized)
    return resized.reshape(window.height, window.width, 3)


def _resize_floats(pixels: np.ndarray, window: Window, flip: bool) -> np.ndarray:
    """Resize each channel with the same weights, without rounding; hardly more than the window is read."""
    rows, columns = window.corner()
    down, across = (window.bottom - window.top) / window.height, (window.right - window.left) / window.width
    top, left = (
        max(0, math.floor(low - max(1, step)) - 1) for low, step in ((window.top, down), (window.left, across))
    )
    part = np.asarray(pixels[top:rows, left:columns])
    size, box = (window.width, window.height), (window.left, window.top, window.right, window.bottom)
    box = tuple(edge - start for edge, start in zip(box, (left, top, left, top), strict=True))
    channels = [Image.fromarray(one).resize(size, Image.Resampling.BILINEAR, box) for one in np.moveaxis(part, 2, 0)]
    resized = np.stack(channels, axis=2)
    return resized[:, ::-1] if flip else resized


def resize_ids(ids: np.ndarray, window: Window, out: np.ndarray, *, flip: bool = False) -> None:
    """Pick the nearest ids, uint8 (H,W), of a window into the upper left corner of `out`, int64 (h,w) or larger."""
    columns = _nearest(window.left, window.right, window.width)
    rows = _nearest(window.top, window.bottom, window.height)
    pick(ids, rows, np.ascontiguousarray(columns[::-1]) if flip else columns, out)


def _nearest(low: float, high: float, count: int) -> np.ndarray:
    step = _span(low, high) / count
    steps = np.full(count, step)
    steps[0] = float(np.float32(low)) + step * 0.5
    return np.cumsum(steps).astype(np.int64)  # accumulated, as in Pillow


def _weights(size: int, low: float, high: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pixel, int64 (count,), and the weights, int32 (count,k) in units of 2^-22, of each output."""
    scale = _span(low, high) / count
    reach = max(scale, 1.0)
    centers = float(np.float32(low)) + (np.arange(count) + 0.5) * scale
    starts = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    ends = np.minimum((centers + reach + 0.5).astype(np.int64), size)
    offsets = np.arange(int((ends - starts).max()))
    distance = np.abs((offsets + starts[:, None] - centers[:, None] + 0.5) * (1.0 / reach))
    weights = np.where((distance < 1) & (offsets < (ends - starts)[:, None]), 1 - distance, 0.0)
    total = np.zeros(count)
    for column in weights.T:  # in this order, to get the same last bits
        total += column
    return starts, (0.5 + weights / total[:, None] * (1 << PRECISION)).astype(np.int32)


def _span(low: float, high: float) -> float:
    # Pillow stores a box in single precision.
    return float(np.float32(high) - np.float32(low))
