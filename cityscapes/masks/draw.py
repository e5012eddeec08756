"""Draw an annotation into one raster, and look the masks up from it.

One raster of label ids gives the train-id and the colour mask through look-up tables; one raster of instance ids gives
the label ids as well. So the masks of a frame cannot disagree.
"""

from collections import Counter

import numpy as np

from cityscapes.errors import InputError
from cityscapes.labels import CITYSCAPES, INSTANCES_PER_LABEL, LabelTable
from cityscapes.masks.polygons import Annotation, Polygon
from cityscapes.masks.raster import fill_polygons


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
    label_ids = instance_ids // np.uint16(INSTANCES_PER_LABEL)
    np.copyto(label_ids, instance_ids, where=label_ids == 0)
    return label_ids.astype(np.uint8)


def to_train_ids(label_ids: np.ndarray, *, table: LabelTable = CITYSCAPES) -> np.ndarray:
    """Map label ids, uint8 (H, W), to train ids, uint8 (H, W); 255 where a class is not trained."""
    return np.take(table.label_id_to_train_id, label_ids)


def to_rgba(label_ids: np.ndarray, *, table: LabelTable = CITYSCAPES) -> np.ndarray:
    """Map label ids, uint8 (H, W), to the colours of the official files, opaque RGBA, uint8 (H, W, 4)."""
    rgba = np.take(rgba_of_label_ids(table).view(np.uint32)[:, 0], label_ids)
    return rgba.view(np.uint8).reshape(*label_ids.shape, 4)


def rgba_of_label_ids(table: LabelTable) -> np.ndarray:
    """The opaque colour of each label id, uint8 (256, 4)."""
    return np.concatenate([table.label_id_to_color, np.full((256, 1), 255, np.uint8)], axis=1)


def _drawn(annotation: Annotation) -> list[Polygon]:
    return [polygon for polygon in annotation.polygons if polygon.label.label_id >= 0]


def _draw(annotation: Annotation, drawn: list[Polygon], values: np.ndarray) -> np.ndarray:
    image = np.zeros((annotation.height, annotation.width), values.dtype)
    if drawn:
        points = np.concatenate([polygon.points for polygon in drawn], dtype=np.int32)
        ends = np.cumsum([len(polygon.points) for polygon in drawn], dtype=np.int64)
        fill_polygons(image, points, ends, values)
    return image
