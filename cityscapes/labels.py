"""The Cityscapes label table as data, and the look-up tables that follow from it.

The facts are those of the data set's published definition (`cityscapesscripts/helpers/labels.py`).
"""

from typing import NamedTuple

import numpy as np

IGNORE = 255
"""The train id of pixels that neither the loss nor a score counts."""


class Label(NamedTuple):
    """One class of the data set.

    `label_id` is what `*_labelIds.png` holds and what the evaluation server expects: never renumber it. A negative id
    means "not drawn". `train_id` is what networks are trained on, 255 where the class is not trained. `category` groups
    classes for the category scores. `has_instances` says whether single objects are told apart (only these have an
    iIoU). `ignored` classes are left out of every score. `color` is RGB, 0 to 255, for the colour masks.
    """

    name: str
    label_id: int
    train_id: int
    category: str
    has_instances: bool
    ignored: bool
    color: tuple[int, int, int]


# fmt: off
LABELS: tuple[Label, ...] = (
    #     name                    id  train  category        instances ignored color
    Label("unlabeled",             0,  255, "void",          False, True,  (0, 0, 0)),
    Label("ego vehicle",           1,  255, "void",          False, True,  (0, 0, 0)),
    Label("rectification border",  2,  255, "void",          False, True,  (0, 0, 0)),
    Label("out of roi",            3,  255, "void",          False, True,  (0, 0, 0)),
    Label("static",                4,  255, "void",          False, True,  (0, 0, 0)),
    Label("dynamic",               5,  255, "void",          False, True,  (111, 74, 0)),
    Label("ground",                6,  255, "void",          False, True,  (81, 0, 81)),
    Label("road",                  7,    0, "flat",          False, False, (128, 64, 128)),
    Label("sidewalk",              8,    1, "flat",          False, False, (244, 35, 232)),
    Label("parking",               9,  255, "flat",          False, True,  (250, 170, 160)),
    Label("rail track",           10,  255, "flat",          False, True,  (230, 150, 140)),
    Label("building",             11,    2, "construction",  False, False, (70, 70, 70)),
    Label("wall",                 12,    3, "construction",  False, False, (102, 102, 156)),
    Label("fence",                13,    4, "construction",  False, False, (190, 153, 153)),
    Label("guard rail",           14,  255, "construction",  False, True,  (180, 165, 180)),
    Label("bridge",               15,  255, "construction",  False, True,  (150, 100, 100)),
    Label("tunnel",               16,  255, "construction",  False, True,  (150, 120, 90)),
    Label("pole",                 17,    5, "object",        False, False, (153, 153, 153)),
    Label("polegroup",            18,  255, "object",        False, True,  (153, 153, 153)),
    Label("traffic light",        19,    6, "object",        False, False, (250, 170, 30)),
    Label("traffic sign",         20,    7, "object",        False, False, (220, 220, 0)),
    Label("vegetation",           21,    8, "nature",        False, False, (107, 142, 35)),
    Label("terrain",              22,    9, "nature",        False, False, (152, 251, 152)),
    Label("sky",                  23,   10, "sky",           False, False, (70, 130, 180)),
    Label("person",               24,   11, "human",         True,  False, (220, 20, 60)),
    Label("rider",                25,   12, "human",         True,  False, (255, 0, 0)),
    Label("car",                  26,   13, "vehicle",       True,  False, (0, 0, 142)),
    Label("truck",                27,   14, "vehicle",       True,  False, (0, 0, 70)),
    Label("bus",                  28,   15, "vehicle",       True,  False, (0, 60, 100)),
    Label("caravan",              29,  255, "vehicle",       True,  True,  (0, 0, 90)),
    Label("trailer",              30,  255, "vehicle",       True,  True,  (0, 0, 110)),
    Label("train",                31,   16, "vehicle",       True,  False, (0, 80, 100)),
    Label("motorcycle",           32,   17, "vehicle",       True,  False, (0, 0, 230)),
    Label("bicycle",              33,   18, "vehicle",       True,  False, (119, 11, 32)),
    Label("license plate",        -1,   -1, "vehicle",       False, True,  (0, 0, 142)),
)
# fmt: on

LABEL_BY_NAME: dict[str, Label] = {label.name: label for label in LABELS}
LABEL_BY_ID: dict[int, Label] = {label.label_id: label for label in LABELS}

TRAINED_LABELS: tuple[Label, ...] = tuple(
    sorted((label for label in LABELS if 0 <= label.train_id < IGNORE), key=lambda label: label.train_id)
)
NUM_CLASSES: int = len(TRAINED_LABELS)
CLASS_NAMES: tuple[str, ...] = tuple(label.name for label in TRAINED_LABELS)


def _table(values: dict[int, int], other: int) -> np.ndarray:
    table = np.full(256, other, np.uint8)
    for index, value in values.items():
        table[index] = value
    table.flags.writeable = False
    return table


LABEL_ID_TO_TRAIN_ID: np.ndarray = _table({i: label.train_id for i, label in LABEL_BY_ID.items() if i >= 0}, IGNORE)
"""uint8 (256,): `LABEL_ID_TO_TRAIN_ID[label_ids]` is the train-id mask; ids outside the table become 255."""

TRAIN_ID_TO_LABEL_ID: np.ndarray = _table({label.train_id: label.label_id for label in TRAINED_LABELS}, 0)
"""uint8 (256,): the label id that the server expects for each train id; 255 and everything unknown become 0."""


def _colors(labels: dict[int, Label]) -> np.ndarray:
    table = np.zeros((256, 3), np.uint8)
    for index, label in labels.items():
        table[index] = label.color
    table.flags.writeable = False
    return table


LABEL_ID_TO_COLOR: np.ndarray = _colors({i: label for i, label in LABEL_BY_ID.items() if i >= 0})
"""uint8 (256, 3): RGB of each label id; black outside the table."""

TRAIN_ID_TO_COLOR: np.ndarray = _colors({label.train_id: label for label in TRAINED_LABELS})
"""uint8 (256, 3): RGB of each train id; black for 255."""
