"""Draw an annotation into one raster, exactly as the official masks were filled, and look the masks up from it.

One raster of label ids gives the train-id and the color mask through look-up tables; one raster of instance ids gives
the label ids as well. So the masks of a frame always agree. The official masks come from an old imaging library
whose fill rule today's libraries no longer follow; each of them differs from the official files along object edges. The
rule is written out in `_fill_polygons` and reproduces them pixel for pixel, whatever imaging library is installed.
"""

import math
from collections import Counter
from pathlib import Path

import numpy as np

from cityscapes.compiled import compiled
from cityscapes.errors import InputError
from cityscapes.labels import CITYSCAPES, INSTANCES_PER_LABEL, LabelTable
from cityscapes.masks.polygons import Annotation, Polygon


def _fill_polygons(image, points, ends, values):
    """Fill polygons into `image`, uint8 or uint16 (H, W), in order, so that later ones cover earlier ones.

    The vertices of all polygons follow one another in `points`, int32 (P, 2), x and y in pixels; polygon i ends before
    `ends[i]`, int64, and is filled with `values[i]`, of the image's dtype. Vertices may lie outside the image.

    Row y is sampled at y + 0.5. Where the outline crosses that line, x is computed in float32 along the edge in its
    drawn direction. Crossings are sorted and taken in pairs (a, b): pixels ceil(a - 0.5) to floor(b + 0.5) are filled.
    """
    height, width = image.shape
    half, start = np.float32(0.5), 0
    for polygon in range(len(ends)):
        count = ends[polygon] - start
        top, bottom = height, 0
        for i in range(count):
            top, bottom = min(top, points[start + i, 1]), max(bottom, points[start + i, 1])
        top, bottom = max(top, 0), min(bottom, height)
        # First pass: how many crossings each row has, so that the second pass can put them side by side.
        firsts = np.zeros(max(bottom - top, 0) + 1, np.int64)
        for i in range(count):
            y0, y1 = points[start + i, 1], points[start + (i + 1) % count, 1]
            for y in range(max(min(y0, y1), 0), min(max(y0, y1), height)):
                firsts[y - top + 1] += 1
        for row in range(len(firsts) - 1):
            firsts[row + 1] += firsts[row]
        crossings, filled = np.empty(firsts[-1], np.float32), firsts[:-1].copy()
        for i in range(count):
            x0, y0 = points[start + i]
            x1, y1 = points[start + (i + 1) % count]
            if y0 != y1:  # horizontal edges are never crossed
                slope = np.float32(x1 - x0) / np.float32(y1 - y0)
                for y in range(max(min(y0, y1), 0), min(max(y0, y1), height)):
                    crossings[filled[y - top]] = (np.float32(y) + half - np.float32(y0)) * slope + np.float32(x0)
                    filled[y - top] += 1
        for y in range(top, bottom):
            row = crossings[firsts[y - top] : firsts[y - top + 1]]
            gap = len(row) // 2
            while gap > 0:  # Shell sort: most rows have two crossings, but thousands must not take quadratic time
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


FILL_POLYGONS = {
    dtype: compiled(f"void({dtype}[:, ::1], int32[:, ::1], int64[::1], {dtype}[::1])")(_fill_polygons)
    for dtype in ("uint8", "uint16")
}
"""The loop that fills polygons, compiled for each dtype of an image."""


def draw_label_ids(annotation: Annotation) -> np.ndarray:
    """Draw the polygons in file order and return the label ids, uint8 (H, W); undrawn pixels are 0, `unlabeled`.

    Objects with a negative label id (`license plate`) are not drawn.
    """
    drawn = _drawn(annotation)
    return _draw(annotation, drawn, np.array([polygon.label.label_id for polygon in drawn], np.uint8))


def draw_instance_ids(annotation: Annotation) -> np.ndarray:
    """Draw the polygons in file order and return the instance ids of the official files, uint16 (H, W).

    An object of a label with instances is label id x 1000 + its number among that label's objects in the file, from 0,
    even where others hide it. Everything else, and what is annotated as a group (`cargroup`), is its label id. Raises
    InputError where a label has more objects than three digits can number.
    """
    drawn, counts, values = _drawn(annotation), Counter(), []
    for polygon in drawn:
        label = polygon.label
        if label.has_instances and not polygon.is_group:
            values.append(label.label_id * INSTANCES_PER_LABEL + counts[label.name])
            counts[label.name] += 1
        else:
            values.append(label.label_id)
    for name, count in counts.items():
        if count > INSTANCES_PER_LABEL:
            raise InputError(f"{count} objects are labeled {name!r}; instance ids allow at most {INSTANCES_PER_LABEL}")
    return _draw(annotation, drawn, np.array(values, np.uint16))


def draw_with_instances(annotation: Annotation, source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Draw label ids, uint8 (H, W), and instance ids, uint16 (H, W), as one raster; raises InputError with `source`."""
    try:
        instance_ids = draw_instance_ids(annotation)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    return to_label_ids(instance_ids), instance_ids


def to_label_ids(instance_ids: np.ndarray) -> np.ndarray:
    """Map instance ids, uint16 (H, W), to label ids, uint8 (H, W)."""
    label_ids = instance_ids // np.uint16(INSTANCES_PER_LABEL)
    np.copyto(label_ids, instance_ids, where=label_ids == 0)
    return label_ids.astype(np.uint8)


def to_train_ids(label_ids: np.ndarray, *, table: LabelTable = CITYSCAPES) -> np.ndarray:
    """Map label ids, uint8 (H, W), to train ids, uint8 (H, W); 255 where a class is not trained."""
    return np.take(table.label_id_to_train_id, label_ids)


def rgba_of_label_ids(table: LabelTable) -> np.ndarray:
    """Return the opaque color of each label id, uint8 (256, 4)."""
    return np.concatenate([table.label_id_to_color, np.full((256, 1), 255, np.uint8)], axis=1)


def _drawn(annotation: Annotation) -> list[Polygon]:
    return [polygon for polygon in annotation.polygons if polygon.label.label_id >= 0]


def _draw(annotation: Annotation, drawn: list[Polygon], values: np.ndarray) -> np.ndarray:
    image = np.zeros((annotation.height, annotation.width), values.dtype)
    if drawn:
        points = np.concatenate([polygon.points for polygon in drawn], dtype=np.int32)
        ends = np.cumsum([len(polygon.points) for polygon in drawn], dtype=np.int64)
        FILL_POLYGONS[image.dtype.name](image, points, ends, values)
    return image
