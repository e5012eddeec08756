"""Tell whether a prediction holds label ids, as the server wants them, or train ids, as networks give them.

Nothing in a PNG file says so, and the wrong reading scores without a word. Some ids exist in one encoding only: 19 to
33 are label ids, 255 is a train id. Below 19 both are possible, but as label ids most of those classes are not scored,
so that hardly anyone predicts them.
"""

from collections.abc import Collection, Mapping

from cityscapes.labels import IGNORE, LABEL_BY_ID, NUM_CLASSES, TRAINED_LABELS

ENCODINGS = ("label", "train")

EVALUATED_IDS = frozenset(label.label_id for label in TRAINED_LABELS)
TABLE_IDS = frozenset(label_id for label_id in LABEL_BY_ID if label_id >= 0)
ALLOWED_IDS: Mapping[str, frozenset[int]] = {"label": TABLE_IDS, "train": frozenset({*range(NUM_CLASSES), IGNORE})}


def looks_like_train_ids(ids: Collection[int]) -> bool:
    """Tell from the ids of a file, or of all files together; 0, a class left open, says nothing."""
    return set(ids) <= ALLOWED_IDS["train"] and not set(ids) <= EVALUATED_IDS | {0}


def looks_like_label_ids(ids: Collection[int]) -> bool:
    """Tell whether there are ids that only label ids have."""
    return set(ids) <= TABLE_IDS and not set(ids) <= ALLOWED_IDS["train"]


def wrong_ids(ids: Collection[int], encoding: str) -> str | None:
    """Say which ids an encoding does not have, with a hint at the other one; None where all is well.

    `encoding` is label, train, or auto for either.
    """
    allowed = TABLE_IDS | ALLOWED_IDS["train"] if encoding == "auto" else ALLOWED_IDS[encoding]
    if wrong := sorted(set(ids) - allowed):
        listed = ", ".join(map(str, wrong[:10]))
        tables = {"label": "label ids are 0 to 33", "train": f"train ids are 0 to {NUM_CLASSES - 1} and {IGNORE}"}
        known = "; ".join(tables.values()) if encoding == "auto" else tables[encoding]
        hint = ""
        if encoding == "label" and looks_like_train_ids(ids):
            hint = "; these look like train ids: --ids train"
        elif encoding == "train" and looks_like_label_ids(ids):
            hint = "; these look like label ids: --ids label"
        return f"holds the ids {listed}, but {known}{hint}"
    if encoding == "auto" and not any(set(ids) <= allowed for allowed in ALLOWED_IDS.values()):
        return "holds 255, which is a train id, beside 19 to 33, which are label ids only"
    return None


def recognise(files: Mapping[str, Collection[int]]) -> tuple[str | None, str]:
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
