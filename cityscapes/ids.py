"""Tell whether masks hold label ids or train ids, which ids are invalid in either, and what those look like.

Nothing in a PNG file says what its ids are, and reading them wrongly trains and scores without an error. Some ids exist
in one encoding only: 19 to 33 are label ids, 255 is a train id. Below 19 both are possible, but as label ids most of
those classes are not scored, so hardly anyone predicts them.
"""

from collections.abc import Collection, Mapping

import numpy as np

from cityscapes.compiled import compiled
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
"""The official colors converted to gray, and one level to either side."""


def looks_like_train_ids(ids: Collection[int]) -> bool:
    """Tell whether ids, of one file or of all together, can only be train ids; 0 fits both and decides nothing."""
    return set(ids) <= ALLOWED_IDS["train"] and not set(ids) <= EVALUATED_IDS | {0}


def looks_like_label_ids(ids: Collection[int]) -> bool:
    """Tell whether there are ids that only label ids have."""
    return set(ids) <= TABLE_IDS and not set(ids) <= ALLOWED_IDS["train"]


def recognize(files: Mapping[str, Collection[int]]) -> tuple[str | None, str]:
    """Return the encoding that all files share, by the ids of each, and why; None if they are mixed or undecided."""
    label = [name for name, ids in files.items() if looks_like_label_ids(ids)]
    train = [name for name, ids in files.items() if looks_like_train_ids(ids)]
    if label and train:
        return None, (
            f"{len(label)} files look like label ids (such as {label[0]}) and {len(train)} like train ids "
            f"(such as {train[0]}); use one encoding for all, or choose with --ids label or --ids train"
        )
    if label:
        return "label", "ids from 19 to 33 occur, which only label ids have"
    if train:
        return "train", "no id from 19 to 33 occurs, but ids that as label ids are not scored"
    return None, "the ids fit both label ids and train ids; choose with --ids label or --ids train"


def explain_prediction(ids: Collection[int], encoding: str) -> str | None:
    """Explain which ids of a prediction are invalid in an encoding, with a hint at the other; None where all are valid.

    `encoding` is label, train, or auto for either.
    """
    allowed = TABLE_IDS | ALLOWED_IDS["train"] if encoding == "auto" else ALLOWED_IDS[encoding]
    if invalid := sorted(set(ids) - allowed):
        known = "; ".join(_TABLES.values()) if encoding == "auto" else _TABLES[encoding]
        hint = ""
        if encoding == "label" and looks_like_train_ids(ids):
            hint = "; these look like train ids: --ids train"
        elif encoding == "train" and looks_like_label_ids(ids):
            hint = "; these look like label ids: --ids label"
        return f"holds the ids {list_ids(invalid)}, but {known}{hint}"
    if encoding == "auto" and not any(set(ids) <= allowed for allowed in ALLOWED_IDS.values()):
        return "holds 255, which is a train id, beside 19 to 33, which are label ids only"
    return None


def ids_in(ids: np.ndarray) -> frozenset[int]:
    """Return the ids that occur in a mask, uint8 (H, W), ten times as fast as `np.unique`."""
    found = np.zeros(256, bool)
    _mark(ids.ravel(), found)
    return frozenset(np.flatnonzero(found).tolist())


def invalid_ids(mask: np.ndarray, num_classes: int = NUM_CLASSES) -> list[int]:
    """List the ids of a mask, uint8, that are neither a class, counted from 0, nor 255."""
    return sorted(index for index in ids_in(mask) if index >= num_classes and index != IGNORE)


def explain_mask(mask: np.ndarray, num_classes: int = NUM_CLASSES) -> str | None:
    """Explain which ids of a mask, uint8, are not classes counted from 0, and what they look like; None if all are."""
    invalid = invalid_ids(mask, num_classes)
    if not invalid:
        return None
    hint = resemblance(sorted(ids_in(mask)), num_classes=num_classes)
    return (
        f"holds the ids {list_ids(invalid)}; the {num_classes} classes are 0 to {num_classes - 1}, and {IGNORE} is "
        f"ignored{hint}"
    )


def resemblance(ids: Collection[int], encoding: str = "train", *, num_classes: int = NUM_CLASSES) -> str:
    """Explain what the ids of a mask, some of them invalid, look like: the end of a sentence, or an empty string."""
    allowed = TABLE_IDS if encoding == "label" else {*range(num_classes), IGNORE}
    invalid = set(ids) - allowed
    if encoding == "train" and invalid == {num_classes}:
        return f"; {num_classes} looks like an id for unlabeled pixels: store {IGNORE} there instead"
    if encoding == "train" and num_classes == NUM_CLASSES and invalid <= TABLE_IDS:
        return "; these look like Cityscapes label ids: store train ids"
    if encoding == "label" and set(ids) <= ALLOWED_IDS["train"]:
        return "; these look like train ids: store label ids"
    if encoding == "label" and invalid == {IGNORE}:
        return f"; {IGNORE} may stand for -1, the license plate, which official masks do not hold"
    if set(ids) <= _GRAYS:
        return "; these look like a color mask converted to gray: store class ids, not colors"
    if len(invalid) > 20:
        return "; that many ids look like the gray levels of an image: store class ids, not colors"
    return ""


def list_ids(ids: Collection[int]) -> str:
    """Format up to ten ids as text, and the number of others."""
    more = f" and {len(ids) - 10} more" if len(ids) > 10 else ""
    return ", ".join(map(str, sorted(ids)[:10])) + more


@compiled("void(Array(uint8, 1, 'C', readonly=True), boolean[::1])")
def _mark(ids, found):
    for i in range(len(ids)):
        found[ids[i]] = True
