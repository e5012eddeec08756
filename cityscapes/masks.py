"""Draw an annotation into one raster, and look the masks up from it.

One raster of label ids gives the train-id and the colour mask through look-up tables; one raster of instance ids gives
the label ids as well. So the masks of a frame cannot disagree.
"""

from collections import Counter

import numpy as np

from cityscapes.errors import InputError
from cityscapes.labels import LABEL_ID_TO_COLOR, LABEL_ID_TO_TRAIN_ID
from cityscapes.polygons import Annotation, Polygon
from cityscapes.raster import fill_polygons

INSTANCES_PER_LABEL = 1000
"""An instance id is label id x 1000 + a number below 1000; smaller ids are label ids, of what has no instances."""

_RGBA = np.concatenate([LABEL_ID_TO_COLOR, np.full((256, 1), 255, np.uint8)], axis=1)

_INSTANCE_ID_TO_LABEL_ID = np.arange(2**16)
_INSTANCE_ID_TO_LABEL_ID[INSTANCES_PER_LABEL:] //= INSTANCES_PER_LABEL
_INSTANCE_ID_TO_LABEL_ID = _INSTANCE_ID_TO_LABEL_ID.astype(np.uint8)


def draw_label_ids(annotation: Annotation) -> np.ndarray:
    """Draw the polygons in file order and return the label ids, uint8 (H, W); undrawn pixels are 0, `unlabeled`.

    Objects with a negative label id (`license plate`) are not drawn.
    """
    drawn = _drawn(annotation)
    return _draw(annotation, drawn, np.array([polygon.label.label_id for polygon in drawn], np.uint8))


def draw_instance_ids(annotation: Annotation) -> np.ndarray:
    """Draw the polygons in file order and return the instance ids of the official files, uint16 (H, W).

    An object of a label with instances is label id x 1000 + its number among that label's objects in the file, from 0,
    also where others hide it. Everything else, and what is annotated as a group (`cargroup`), is its label id. Raises
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
            raise InputError(f"{count} objects are a {name!r}; instance ids can number {INSTANCES_PER_LABEL} at most")
    return _draw(annotation, drawn, np.array(values, np.uint16))


def to_label_ids(instance_ids: np.ndarray) -> np.ndarray:
    """Map instance ids, uint16 (H, W), to label ids, uint8 (H, W)."""
    return np.take(_INSTANCE_ID_TO_LABEL_ID, instance_ids)


def to_train_ids(label_ids: np.ndarray) -> np.ndarray:
    """Map label ids, uint8 (H, W), to train ids, uint8 (H, W); 255 where a class is not trained."""
    return np.take(LABEL_ID_TO_TRAIN_ID, label_ids)


def to_rgba(label_ids: np.ndarray) -> np.ndarray:
    """Map label ids, uint8 (H, W), to the colours of the official files, opaque RGBA, uint8 (H, W, 4)."""
    return np.take(_RGBA.view(np.uint32)[:, 0], label_ids).view(np.uint8).reshape(*label_ids.shape, 4)


def _drawn(annotation: Annotation) -> list[Polygon]:
    return [polygon for polygon in annotation.polygons if polygon.label.label_id >= 0]


def _draw(annotation: Annotation, drawn: list[Polygon], values: np.ndarray) -> np.ndarray:
    image = np.zeros((annotation.height, annotation.width), values.dtype)
    if drawn:
        points = np.concatenate([polygon.points for polygon in drawn], dtype=np.int32)
        ends = np.cumsum([len(polygon.points) for polygon in drawn], dtype=np.int64)
        fill_polygons(image, points, ends, values)
    return image
