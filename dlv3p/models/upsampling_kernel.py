"""The compiled core of `upsampling.py`: rows of logits to rows of labels, in exactly the arithmetic of torch's kernels.

Numba does not fuse a product and a sum by default; where torch fuses them, `fused` rounds once as well. Each function
of `ORDERS` blends the four neighbors of a pixel: upper left and right, lower left and right.
"""

import numba
import numpy as np
from numba.extending import intrinsic

from cityscapes.compiled import compiled

TILE = 512
"""Columns at a time: their data, for all classes of Cityscapes, fits into a processor's second-level cache."""

ROUNDING = np.float32(4e-6)
"""Upper bound of the rounding of two blended values, as a share of the largest logit: some 30 float32 epsilons."""

_IMAGE = "Array(float32, 3, 'A', readonly=True)"
_POSITIONS = "Tuple((int64[::1], int64[::1], float32[::1], float32[::1]))"


@intrinsic
def fused(typing_context, factor, other, addend):  # called by the compiler, with types instead of values
    """Return factor * other + addend of float32 with one rounding."""
    return numba.float32(*3 * (numba.float32,)), lambda context, builder, signature, values: builder.fma(*values)


@numba.njit
def columns_first(top, top_right, bottom, bottom_right, left, right, above, below):
    """Blend left and right in both rows, then the rows: torch's way for planes, one per class."""
    upper = fused(left, top, right * top_right)
    return fused(above, upper, below * fused(left, bottom, right * bottom_right))


@numba.njit
def lower_first(top, top_right, bottom, bottom_right, left, right, above, below):
    """Add the four weighted neighbors from below: torch's way for the classes that fill vector registers."""
    lower = fused(below * right, bottom_right, (below * left) * bottom)
    return fused(above * left, top, fused(above * right, top_right, lower))


@numba.njit
def upper_first(top, top_right, bottom, bottom_right, left, right, above, below):
    """Add the four weighted neighbors from above: torch's way for the classes left over by vector registers."""
    upper = fused(above * left, top, (above * right) * top_right)
    return fused(below * right, bottom_right, fused(below * left, bottom, upper))


ORDERS = (columns_first, lower_first, upper_first)
"""Identified by index: numba does not cache functions that take a function as an argument."""


@numba.njit
def blended(order, *terms):
    """Blend in the order of this number."""
    if order == 0:
        return columns_first(*terms)
    if order == 1:
        return lower_first(*terms)
    return upper_first(*terms)


@numba.njit
def challenge(order, c, top, top_right, bottom, bottom_right, above, below, tile):
    """Set the pixels of a tile to class `c`, blended in one of `ORDERS`, where it is the best so far.

    The tile's four parts, in one array so that the compiler sees that they do not overlap, are the best value, its
    class, and the weights of the left and the right neighbor.
    """
    challenger = np.float32(c)
    for x in range(len(top)):
        left, right = tile[2 * TILE + x], tile[3 * TILE + x]
        value = blended(order, top[x], top_right[x], bottom[x], bottom_right[x], left, right, above, below)
        better = value > tile[x]
        tile[x] = value if better else tile[x]
        tile[TILE + x] = challenger if better else tile[TILE + x]


@compiled(f"void({_IMAGE}, {_POSITIONS}, {_POSITIONS}, int64[::1], uint8[:, ::1])")
def upsample_rows(image, rows, columns, orders, labels):
    """Fill rows of `labels`, uint8 (H,W), with the best class of the logits `image`, float32 (C,h,w) of any strides.

    `rows` and `columns` are the positions of these pixels, from `source_positions`; `orders` has an index of `ORDERS`
    for every class. Classes whose largest logit around a tile is below another class's smallest are skipped.
    """
    classes, (height, width) = len(image), labels.shape
    logits = np.empty((2, classes, image.shape[2]), np.float32)  # of two source rows, even ones first
    lowest, highest = np.empty((2, classes), np.float32), np.empty((2, classes), np.float32)
    spread = np.empty((2, 2, classes, TILE), np.float32)  # row, left or right neighbor, class, pixel of the tile
    is_spread, tile = np.empty((2, classes), np.bool_), np.empty(4 * TILE, np.float32)
    for start in range(0, width, TILE):
        size = min(TILE, width - start)
        before, after = columns[0][start : start + size], columns[1][start : start + size]
        for x in range(size):
            tile[2 * TILE + x], tile[3 * TILE + x] = columns[2][start + x], columns[3][start + x]
        first, held = before[0], np.full(2, -1)
        for y in range(height):
            for row in (rows[0][y], rows[1][y]):
                i = row % 2
                if held[i] == row:
                    continue
                held[i], is_spread[i] = row, False
                for c in range(classes):
                    low = high = image[c, row, first]
                    for x in range(first, after[size - 1] + 1):
                        logit = image[c, row, x]
                        logits[i, c, x - first] = logit
                        low, high = min(low, logit), max(high, logit)
                    lowest[i, c], highest[i, c] = low, high
            i, j = rows[0][y] % 2, rows[1][y] % 2
            certain, largest = np.float32(-np.inf), np.float32(0)
            for c in range(classes):
                low, high = min(lowest[i, c], lowest[j, c]), max(highest[i, c], highest[j, c])
                certain, largest = max(certain, low), max(largest, max(-low, high))
            tile[:TILE], tile[TILE : 2 * TILE] = -np.inf, 0
            for c in range(classes):
                if max(highest[i, c], highest[j, c]) < certain - ROUNDING * largest:
                    continue
                for k in (i, j):
                    if not is_spread[k, c]:
                        is_spread[k, c] = True
                        source, left, right = logits[k, c], spread[k, 0, c], spread[k, 1, c]
                        for x in range(size):
                            left[x], right[x] = source[before[x] - first], source[after[x] - first]
                top, top_right = spread[i, 0, c][:size], spread[i, 1, c][:size]
                bottom, bottom_right = spread[j, 0, c][:size], spread[j, 1, c][:size]
                above, below = rows[2][y], rows[3][y]
                challenge(orders[c], c, top, top_right, bottom, bottom_right, above, below, tile)
            for x in range(size):
                labels[y, start + x] = np.uint8(tile[TILE + x])


@compiled(f"void({_IMAGE}, {_POSITIONS}, {_POSITIONS}, int64, float32[:, :, ::1])")
def blend(image, rows, columns, order, values):
    """Fill `values` (C,H,W) with the logits `image` (C,h,w), blended in one of `ORDERS`."""
    for c in range(len(values)):
        for y in range(values.shape[1]):
            top, bottom, above, below = image[c, rows[0][y]], image[c, rows[1][y]], rows[2][y], rows[3][y]
            for x in range(values.shape[2]):
                i, j, left, right = columns[0][x], columns[1][x], columns[2][x], columns[3][x]
                values[c, y, x] = blended(order, top[i], top[j], bottom[i], bottom[j], left, right, above, below)
