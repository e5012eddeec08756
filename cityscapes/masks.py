"""Draw polygons into a label image exactly as the official Cityscapes masks were drawn, and encode it three ways.

The official masks come from an old imaging library whose fill rule today's libraries no longer follow; each of them
differs from the official files along object edges. The rule is written out in `_fill_polygons` and reproduces them
pixel for pixel. One raster of label ids gives the train-id and the colour mask through look-up tables.
"""

import math
import threading
from functools import lru_cache

import numpy as np

from cityscapes.labels import LABEL_ID_TO_COLOR, LABEL_ID_TO_TRAIN_ID
from cityscapes.polygons import Annotation

_RGBA = np.concatenate([LABEL_ID_TO_COLOR, np.full((256, 1), 255, np.uint8)], axis=1)

_COMPILING = threading.Lock()


def draw_label_ids(annotation: Annotation) -> np.ndarray:
    """Draw the polygons in file order and return the label ids, uint8 (H, W); undrawn pixels are 0, `unlabeled`.

    Objects with a negative label id (`license plate`) are not drawn.
    """
    image = np.zeros((annotation.height, annotation.width), np.uint8)
    polygons = [polygon for polygon in annotation.polygons if polygon.label.label_id >= 0]
    if polygons:
        points = np.concatenate([polygon.points for polygon in polygons], dtype=np.int32)
        ends = np.cumsum([len(polygon.points) for polygon in polygons], dtype=np.int64)
        values = np.array([polygon.label.label_id for polygon in polygons], np.uint8)
        with _COMPILING:
            fill = _compile_fill()
        fill(image, points, ends, values)
    return image


def to_train_ids(label_ids: np.ndarray) -> np.ndarray:
    """Map label ids, uint8 (H, W), to train ids, uint8 (H, W); 255 where a class is not trained."""
    return np.take(LABEL_ID_TO_TRAIN_ID, label_ids)


def to_rgba(label_ids: np.ndarray) -> np.ndarray:
    """Map label ids, uint8 (H, W), to the colours of the official files, opaque RGBA, uint8 (H, W, 4)."""
    return np.take(_RGBA.view(np.uint32)[:, 0], label_ids).view(np.uint8).reshape(*label_ids.shape, 4)


@lru_cache(maxsize=1)
def _compile_fill():
    """Compile the fill rule to machine code, once a process; kept on disk where there is a place for it."""
    import numba

    signature = "void(uint8[:, ::1], int32[:, ::1], int64[::1], uint8[::1])"
    try:
        return numba.njit(signature, cache=True, nogil=True)(_fill_polygons)
    except Exception:  # a cache that cannot be written or read costs two seconds, not the masks
        return numba.njit(signature, nogil=True)(_fill_polygons)


def _fill_polygons(image, points, ends, values):
    """Fill each polygon with its value: the rule, compiled by numba.

    Row y is sampled at y + 0.5. Where the outline crosses that line, x is computed in float32 along the edge in its
    drawn direction. Crossings are sorted and taken in pairs (a, b): pixels ceil(a - 0.5) to floor(b + 0.5) are filled.
    """
    height, width = image.shape
    half, start = np.float32(0.5), 0
    for polygon in range(len(ends)):
        count = ends[polygon] - start
        # First pass: how many crossings each row has, so that the second pass can put them side by side.
        firsts = np.zeros(height + 1, np.int64)
        for i in range(count):
            y0, y1 = points[start + i, 1], points[start + (i + 1) % count, 1]
            for y in range(max(min(y0, y1), 0), min(max(y0, y1), height)):
                firsts[y + 1] += 1
        for y in range(height):
            firsts[y + 1] += firsts[y]
        crossings, filled = np.empty(firsts[height], np.float32), firsts[:-1].copy()
        for i in range(count):
            x0, y0 = points[start + i]
            x1, y1 = points[start + (i + 1) % count]
            if y0 != y1:  # horizontal edges never take part
                slope = np.float32(x1 - x0) / np.float32(y1 - y0)
                for y in range(max(min(y0, y1), 0), min(max(y0, y1), height)):
                    crossings[filled[y]] = (np.float32(y) + half - np.float32(y0)) * slope + np.float32(x0)
                    filled[y] += 1
        for y in range(height):
            row = crossings[firsts[y] : firsts[y + 1]]
            gap = len(row) // 2
            while gap > 0:  # Shell sort: two crossings are the rule, thousands must not take quadratic time
                for i in range(gap, len(row)):
                    value, j = row[i], i
                    while j >= gap and row[j - gap] > value:
                        row[j] = row[j - gap]
                        j -= gap
                    row[j] = value
                gap //= 2
            for i in range(0, len(row) - 1, 2):
                left, right = math.ceil(row[i] - 0.5), math.floor(row[i + 1] + 0.5)
                image[y, max(left, 0) : max(min(right, width - 1) + 1, 0)] = values[polygon]
        start = ends[polygon]
