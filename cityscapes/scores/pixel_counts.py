"""Count one image's pixels by truth and prediction, and by object, as the official scores need them."""

from dataclasses import dataclass

import numpy as np

from cityscapes.compiled import compiled
from cityscapes.errors import InputError
from cityscapes.labels import LABEL_BY_ID, LABELS

NUM_IDS: int = 1 + max(LABEL_BY_ID)
"""Label ids are 0 to `NUM_IDS` - 1; the official matrix has a row and a column for each."""

_DRAWN = tuple(label for label in LABELS if label.label_id >= 0)
OBJECT_CATEGORIES: dict[str, list[int]] = {
    category: [label.label_id for label in _DRAWN if label.category == category]
    for category in dict.fromkeys(label.category for label in LABELS)
    if all(label.has_instances for label in _DRAWN if label.category == category)
}
"""The categories whose classes all have instances, with their label ids, including those of ignored classes."""

_ROW = "Array({}, 1, 'C', readonly=True)"
_BYTES, _WORDS, _TABLE = _ROW.format("uint8"), _ROW.format("uint16"), "int64[:, ::1]"


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """What one image adds to the scores.

    `confusion` is int64 (NUM_IDS, NUM_IDS), truth by prediction, in label ids. `instances` is int64 (N, 4), a row an
    object by rising id: instance id, pixels, pixels predicted as its class, pixels predicted as any class of its
    category; None where the truth has no instance ids.
    """

    confusion: np.ndarray
    instances: np.ndarray | None


def count_pixels(
    name: str,
    truth: np.ndarray,
    prediction: np.ndarray,
    instances: np.ndarray | None = None,
    *,
    label_ids: np.ndarray | None = None,
) -> PixelCounts:
    """Count the pixels of one image, in one pass over runs of equal pixels that lets other threads work.

    `truth` and `prediction` are integer (H, W) label ids, `instances` integer (H, W) instance ids. `label_ids`, uint8
    (256,), translates the ids of the prediction first, for example train ids. Raises InputError, which `name` begins,
    for shapes that differ, for ids outside the label table and for objects of a class that has none.
    """
    arrays = {"truth": truth, "prediction": prediction, "instance ids": instances}
    for what, array in arrays.items():
        if array is None:
            continue
        if array.ndim != 2 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
            raise InputError(f"{name}: the {what} must be integer (H, W), found {array.dtype} {array.shape}")
        if array.shape != truth.shape:
            raise InputError(
                f"{name}: the {what} has {array.shape[1]} x {array.shape[0]} pixels, "
                f"the truth {truth.shape[1]} x {truth.shape[0]}"
            )
    translation = np.arange(256, dtype=np.uint8) if label_ids is None else label_ids
    confusion, objects = np.zeros((256, NUM_IDS), np.int64), np.zeros((1000 * NUM_IDS, 3), np.int64)
    flat = np.zeros(0, np.uint16) if instances is None else _flat(name, instances, "instance ids", np.uint16)
    wrong_prediction, wrong_instance = _count(
        _flat(name, truth, "truth", np.uint8),
        _flat(name, prediction, "prediction", np.uint8),
        flat,
        translation,
        _groups(),
        confusion,
        objects,
    )
    if wrong_prediction >= 0:
        raise InputError(f"{name}: the prediction holds the id {wrong_prediction}, which is not in the label table")
    unknown = np.flatnonzero(confusion[NUM_IDS:].any(axis=1))
    if unknown.size:
        raise InputError(f"{name}: the truth holds the id {unknown[0] + NUM_IDS}, which is not in the label table")
    known = confusion[:NUM_IDS].copy()  # a view would keep the other rows too, for each of thousands of images
    return PixelCounts(known, None if instances is None else _objects(name, objects, wrong_instance))


def _groups() -> np.ndarray:
    """Return which of OBJECT_CATEGORIES a label id belongs to, counted from 1, uint8 (256,); 0 for none."""
    groups = np.zeros(256, np.uint8)
    for number, ids in enumerate(OBJECT_CATEGORIES.values(), 1):
        groups[ids] = number
    return groups


def _flat(name: str, ids: np.ndarray, what: str, dtype: type) -> np.ndarray:
    """Return the ids as one contiguous row of `dtype`, without a copy where they are that already."""
    if ids.dtype != dtype:
        low, high = int(ids.min()), int(ids.max())
        if what == "instance ids":
            ids = np.maximum(ids, 0)  # negative ids are of classes that are not drawn
        elif low < 0:
            raise InputError(f"{name}: the {what} holds the id {low}, which is not in the label table")
        if high > np.iinfo(dtype).max:
            raise InputError(f"{name}: the {what} holds the id {high}, which is not in the label table")
    return np.ascontiguousarray(ids, dtype).reshape(-1)


def _objects(name: str, objects: np.ndarray, beyond: int) -> np.ndarray:
    if beyond >= 0:
        raise InputError(f"{name}: the instance id {beyond} belongs to no class; they are label id * 1000 + number")
    ids = np.flatnonzero(objects[:, 0])
    labels = [LABEL_BY_ID[label_id] for label_id in (ids // 1000).tolist()]
    for instance, label in zip(ids.tolist(), labels, strict=True):
        if not label.ignored and not label.has_instances:
            raise InputError(f"{name}: the instance id {instance} is of {label.name}, a class without instances")
    scored = np.array([not label.ignored for label in labels], bool)
    return np.column_stack([ids, objects[ids]])[scored]


@compiled(f"UniTuple(int64, 2)({_BYTES}, {_BYTES}, {_WORDS}, {_BYTES}, {_BYTES}, {_TABLE}, {_TABLE})")
def _count(truth, prediction, instances, label_ids, groups, confusion, objects):
    """Add every run of equal pixels to `confusion` and `objects`; return ids that are out of range, -1 for none.

    A run ends where the truth, its instance or the prediction changes; street scenes have few. Instance ids above 1000
    are objects, of label id `instance // 1000`; smaller ids are areas and groups of objects.
    """
    wrong_prediction, wrong_instance, start, columns = -1, -1, 0, confusion.shape[1]
    with_objects = len(instances) > 0
    while start < len(truth):
        value, predicted, end = truth[start], prediction[start], start + 1
        if with_objects:
            instance = np.int64(instances[start])
            while (
                end < len(truth) and truth[end] == value and prediction[end] == predicted and instances[end] == instance
            ):
                end += 1
        else:
            instance = 0
            while end < len(truth) and truth[end] == value and prediction[end] == predicted:
                end += 1
        label, length = label_ids[predicted], end - start
        if label >= columns:
            wrong_prediction = predicted
        else:
            confusion[value, label] += length
            if instance > 1000:
                if instance >= len(objects):
                    wrong_instance = instance
                else:
                    own = instance // 1000
                    objects[instance, 0] += length
                    if label == own:
                        objects[instance, 1] += length
                    if groups[label] == groups[own]:
                        objects[instance, 2] += length
        start = end
    return wrong_prediction, wrong_instance
