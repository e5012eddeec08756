"""The Cityscapes label table as data, and the look-up tables derived from it.

The facts are those of the data set's published definition (`cityscapesscripts/helpers/labels.py`). Other polygon data
sets bring a table of their own, see `cityscapes/label_files.py`.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from cityscapes.errors import InputError

IGNORE = 255
"""The train id of pixels that neither the loss nor a score counts."""

INSTANCES_PER_LABEL = 1000
"""An instance id is label id x 1000 + a number below 1000; smaller ids are label ids, of what has no instances."""

_LARGEST_WITH_INSTANCES = 2**16 // INSTANCES_PER_LABEL - 1


class Label(NamedTuple):
    """One class of a data set: a row of the label table. The consequences of each field are documented below it."""

    name: str
    """Its name in polygon files. A name that is not in the table and ends in `group` stands for the name without it."""

    label_id: int
    """What `*_labelIds.png` holds and what the evaluation server expects: never renumber it. 0 to 255, once each; 0 is
    also the class of pixels that no polygon covers. A negative id means that its objects are not drawn."""

    train_id: int
    """What networks are trained on and `*_labelTrainIds.png` holds: 0, 1, 2, ... without a gap. Labels that share one
    are trained as one class, which a submission writes as the first of them. 255 leaves the class out of training:
    neither the loss nor a score sees its pixels. -1 is for what is not drawn."""

    category: str
    """Classes of one category are counted as one in the category scores."""

    has_instances: bool
    """Whether objects are separate: they get instance ids, and the class an iIoU. Needs a label id of 1 to 64, so
    that instance ids fit into 16 bits."""

    ignored: bool
    """Whether the official scores leave the class out, as truth and in the average."""

    color: tuple[int, int, int]
    """RGB, 0 to 255, of color masks and legends. Classes may share a color; nothing is ever read back from it."""


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


@dataclass(frozen=True, eq=False)
class LabelTable:
    """The classes of one data set and what follows from them; raises InputError where they contradict each other.

    The look-up tables are read-only. `label_id_to_train_id[mask]` maps a whole mask.
    """

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        check_labels(self.labels)

    def __reduce__(self):
        return LabelTable, (self.labels,)  # derived tables are not pickled for other processes

    @cached_property
    def by_name(self) -> dict[str, Label]:
        """The labels by name."""
        return {label.name: label for label in self.labels}

    @cached_property
    def by_id(self) -> dict[int, Label]:
        """The labels by label id, with those that are not drawn."""
        return {label.label_id: label for label in self.labels}

    @cached_property
    def trained(self) -> tuple[Label, ...]:
        """The trained classes in the order of their train ids; where labels share one, the first of them."""
        first = {label.train_id: label for label in reversed(self.labels) if 0 <= label.train_id < IGNORE}
        return tuple(first[train_id] for train_id in sorted(first))

    @cached_property
    def label_id_to_train_id(self) -> np.ndarray:
        """uint8 (256,): `label_id_to_train_id[label_ids]` is the train-id mask; ids outside the table become 255."""
        return _lookup({i: label.train_id for i, label in self.by_id.items() if i >= 0}, IGNORE)

    @cached_property
    def train_id_to_label_id(self) -> np.ndarray:
        """uint8 (256,): the label id that the server expects for each train id; 255 and unknown ids become 0."""
        return _lookup({label.train_id: label.label_id for label in self.trained}, 0)

    @cached_property
    def label_id_to_color(self) -> np.ndarray:
        """uint8 (256, 3): RGB of each label id; black outside the table."""
        return _lookup({i: label.color for i, label in self.by_id.items() if i >= 0}, (0, 0, 0))

    @cached_property
    def train_id_to_color(self) -> np.ndarray:
        """uint8 (256, 3): RGB of each train id; black for 255."""
        return _lookup({label.train_id: label.color for label in self.trained}, (0, 0, 0))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the table, in hexadecimal: masks are stamped with it."""
        return hashlib.sha256(repr([tuple(label) for label in self.labels]).encode()).hexdigest()


def check_labels(
    labels: Sequence[Label], place: Callable[[int], str] = lambda index: f"label table: row {index + 1}"
) -> None:
    """Raise InputError for the first label that contradicts itself or another; `place(index)` names its row."""
    for index, column, problem in _problems(labels):
        raise InputError(f"{place(index)}, column {column}: {problem}")


def _problems(labels: Sequence[Label]) -> Iterator[tuple[int, str, str]]:
    names: dict[str, int] = {}
    ids: dict[int, str] = {}
    for index, label in enumerate(labels):
        if not label.name or label.name != label.name.strip():
            yield index, "name", f"{label.name!r} is empty or begins or ends with a space"
        if names.setdefault(label.name, index) != index:
            yield index, "name", f"{label.name!r} is a duplicate name; give every label its own"
        if not -255 <= label.label_id <= 255:
            yield (
                index,
                "label_id",
                f"{label.label_id} does not fit into a mask; choose 0 to 255, or -1 if not drawn",
            )
        if ids.setdefault(label.label_id, label.name) != label.name:
            yield index, "label_id", f"{label.label_id} is also the id of {ids[label.label_id]!r}"
        if not -1 <= label.train_id <= 255:
            yield index, "train_id", f"{label.train_id} is not a train id; choose 0 to 254, or 255 for not trained"
        if label.train_id == -1 and label.label_id >= 0:
            yield index, "train_id", "-1 is for labels that are not drawn; choose 255 for not trained"
        if label.label_id < 0 <= label.train_id < IGNORE:
            yield index, "train_id", f"{label.train_id} cannot be trained: a negative label_id is not drawn; choose -1"
        if not label.category:
            yield index, "category", "is empty; use 'void' for labels without a category of their own"
        if label.has_instances and not 1 <= label.label_id <= _LARGEST_WITH_INSTANCES:
            problem = f"the instance ids of label_id {label.label_id} would not fit 16 bits, or would be label ids"
            yield index, "has_instances", f"{problem}; give it a label_id of 1 to {_LARGEST_WITH_INSTANCES}"
        if len(label.color) != 3 or not all(0 <= value <= 255 for value in label.color):
            yield index, "color", f"{label.color} is not red, green and blue of 0 to 255"
    if 0 not in ids:
        last = max(len(labels) - 1, 0)
        yield last, "label_id", "no label has the id 0, which pixels outside all polygons get; add one ('unlabeled')"
    trained = sorted({label.train_id for label in labels if 0 <= label.train_id < IGNORE})
    for expected, train_id in enumerate(trained):
        if train_id != expected:
            index = next(i for i, label in enumerate(labels) if label.train_id == train_id)
            yield index, "train_id", f"{train_id} comes without a {expected}; count 0, 1, 2, ... without a gap"


def _lookup(values: dict[int, int] | dict[int, tuple[int, int, int]], other: int | tuple[int, int, int]) -> np.ndarray:
    table = np.tile(np.array(other, np.uint8), (256, *[1] * np.ndim(other)))
    for index, value in values.items():
        table[index] = value
    table.flags.writeable = False
    return table


CITYSCAPES = LabelTable(LABELS)
"""The default table everywhere; the names below are its parts."""

LABEL_BY_ID: dict[int, Label] = CITYSCAPES.by_id

TRAINED_LABELS: tuple[Label, ...] = CITYSCAPES.trained
NUM_CLASSES: int = len(TRAINED_LABELS)
CLASS_NAMES: tuple[str, ...] = tuple(label.name for label in TRAINED_LABELS)

LABEL_ID_TO_TRAIN_ID: np.ndarray = CITYSCAPES.label_id_to_train_id
TRAIN_ID_TO_LABEL_ID: np.ndarray = CITYSCAPES.train_id_to_label_id
LABEL_ID_TO_COLOR: np.ndarray = CITYSCAPES.label_id_to_color
TRAIN_ID_TO_COLOR: np.ndarray = CITYSCAPES.train_id_to_color
