"""Tell the ids of masks apart: label ids or train ids, which are foreign to either, and what those look like.

Nothing in a PNG file says what its ids are, and the wrong reading trains and scores without a word. Some ids exist in
one encoding only: 19 to 33 are label ids, 255 is a train id. Below 19 both are possible, but as label ids most of those
classes are not scored, so that hardly anyone predicts them.
"""

from collections.abc import Collection, Mapping

import numpy as np

from cityscapes.labels import IGNORE, LABEL_BY_ID, LABELS, NUM_CLASSES, TRAINED_LABELS

ENCODINGS = ("label", "train")

EVALUATED_IDS = frozenset(label.label_id for label in TRAINED_LABELS)
TABLE_IDS = frozenset(label_id for label_id in LABEL_BY_ID if label_id >= 0)
ALLOWED_IDS: Mapping[str, frozenset[int]] = {"label": TABLE_IDS, "train": frozenset({*range(NUM_CLASSES), IGNORE})}
_TABLES = {"label": "label ids are 0 to 33", "train": f"train ids are 0 to {NUM_CLASSES - 1} and {IGNORE}"}
_GRAYS = frozenset(
    (299 * red + 587 * green + 114 * blue + 500) // 1000 + step
    for red, green, blue in (label.color for label in LABELS)
    for step in (-1, 0, 1)
)
"""The official colors as a picture turned to gray shows them, and a step beside."""


def looks_like_train_ids(ids: Collection[int]) -> bool:
    """Tell from the ids of a file, or of all files together; 0, a class left open, says nothing."""
    return set(ids) <= ALLOWED_IDS["train"] and not set(ids) <= EVALUATED_IDS | {0}


def looks_like_label_ids(ids: Collection[int]) -> bool:
    """Tell whether there are ids that only label ids have."""
    return set(ids) <= TABLE_IDS and not set(ids) <= ALLOWED_IDS["train"]


def recognize(files: Mapping[str, Collection[int]]) -> tuple[str | None, str]:
    """Tell the one encoding of all files, from the ids that each holds, and why; None where they mix or cannot tell."""
    label = [name for name, ids in files.items() if looks_like_label_ids(ids)]
    train = [name for name, ids in files.items() if looks_like_train_ids(ids)]
    if label and train:
        return None, (
            f"{len(label)} files look like label ids (such as {label[0]}) and {len(train)} like train ids "
            f"(such as {train[0]}); make all alike, or say which they are: --ids label or --ids train"
        )
    if label:
        return "label", "ids from 19 to 33 occur, which only label ids have"
    if train:
        return "train", "no id from 19 to 33 occurs, but ids of classes that nobody scores as label ids do"
    return None, "the ids fit label ids as well as train ids; say which they are: --ids label or --ids train"


def explain_prediction(ids: Collection[int], encoding: str) -> str | None:
    """Say which ids of a prediction an encoding does not have, with a hint at the other one; None where all is well.

    `encoding` is label, train, or auto for either.
    """
    allowed = TABLE_IDS | ALLOWED_IDS["train"] if encoding == "auto" else ALLOWED_IDS[encoding]
    if foreign := sorted(set(ids) - allowed):
        known = "; ".join(_TABLES.values()) if encoding == "auto" else _TABLES[encoding]
        hint = ""
        if encoding == "label" and looks_like_train_ids(ids):
            hint = "; these look like train ids: --ids train"
        elif encoding == "train" and looks_like_label_ids(ids):
            hint = "; these look like label ids: --ids label"
        return f"holds the ids {list_ids(foreign)}, but {known}{hint}"
    if encoding == "auto" and not any(set(ids) <= allowed for allowed in ALLOWED_IDS.values()):
        return "holds 255, which is a train id, beside 19 to 33, which are label ids only"
    return None


def foreign_ids(mask: np.ndarray, num_classes: int = NUM_CLASSES) -> list[int]:
    """List the ids of a mask, uint8, that are neither one of its classes, counted from 0, nor 255."""
    return np.unique(mask[(mask >= num_classes) & (mask != IGNORE)]).tolist()


def explain_mask(mask: np.ndarray, num_classes: int = NUM_CLASSES) -> str | None:
    """Say which ids of a mask, uint8, are not classes counted from 0, and what they look like; None where all are."""
    foreign = foreign_ids(mask, num_classes)
    if not foreign:
        return None
    hint = resemblance(np.unique(mask).tolist(), num_classes=num_classes)
    return (
        f"holds the ids {list_ids(foreign)}; the {num_classes} classes are 0 to {num_classes - 1}, and {IGNORE} is "
        f"ignored{hint}"
    )


def resemblance(ids: Collection[int], encoding: str = "train", *, num_classes: int = NUM_CLASSES) -> str:
    """Say what all ids of a mask, some foreign to the encoding, look like: the end of a sentence, empty for nothing."""
    allowed = TABLE_IDS if encoding == "label" else {*range(num_classes), IGNORE}
    foreign = set(ids) - allowed
    if encoding == "train" and foreign == {num_classes}:
        return f"; {num_classes} looks like a number for unlabeled pixels: store {IGNORE} there instead"
    if encoding == "train" and num_classes == NUM_CLASSES and foreign <= TABLE_IDS:
        return "; these look like Cityscapes label ids: store train ids"
    if encoding == "label" and set(ids) <= ALLOWED_IDS["train"]:
        return "; these look like train ids: store label ids"
    if encoding == "label" and foreign == {IGNORE}:
        return f"; {IGNORE} may stand for -1, the license plate, which official masks do not hold"
    if set(ids) <= _GRAYS:
        return "; these look like a color mask turned to gray: store class ids, not colors"
    if len(foreign) > 20:
        return "; so many look like the gray values of a picture: store class ids, not colors"
    return ""


def list_ids(ids: Collection[int]) -> str:
    """List up to ten ids in words."""
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return ", ".join(map(str, sorted(ids)[:10])) + more
