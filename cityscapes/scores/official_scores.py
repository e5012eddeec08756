"""The official scores of the Cityscapes benchmark, added up image by image.

Follows `cityscapesscripts/evaluation/evalPixelLevelSemanticLabeling.py` in every number, and in what it leaves out:
pixels whose true class is ignored count nowhere, but an ignored class that is predicted costs the class that was there.
iIoU weights an object's pixels by the average size of its class over its own, so that far objects count like near ones.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cityscapes.errors import InputError, ParameterError
from cityscapes.labels import LABEL_BY_ID, LABELS, TRAINED_LABELS
from cityscapes.scores.pixel_counts import NUM_IDS, OBJECT_CATEGORIES, PixelCounts, count_pixels

AVERAGE_OBJECT_PIXELS: Mapping[str, float] = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
"""Pixels of an average object of each scored class in the training set, as the official script states them."""

_DRAWN = tuple(label for label in LABELS if label.label_id >= 0)
_CATEGORIES = {
    category: [label.label_id for label in _DRAWN if label.category == category and not label.ignored]
    for category in dict.fromkeys(label.category for label in LABELS)
}
_COUNTED = np.array([not LABEL_BY_ID[label_id].ignored for label_id in range(NUM_IDS)])


@dataclass(frozen=True)
class ImageScores:
    """The scores of one image: counted pixels, those of them that are right, the same for ignored pixels, and its IoU.

    `mean_iou` is the mean over the classes that occur in this image, nan where there is none.
    """

    name: str
    pixels: int
    correct: int
    ignored_pixels: int
    ignored_correct: int
    mean_iou: float


@dataclass(frozen=True, eq=False)
class OfficialScores:
    """The scores of a set of images, 0 to 1; nan for a class that occurs nowhere, which is in no mean.

    `confusion` is int64 (34, 34), truth by prediction, in label ids. The iIoU are None unless every image came with
    instance ids: without them they would be wrong, not just rough. `images` are sorted by name.
    """

    confusion: np.ndarray
    class_iou: Mapping[str, float]
    class_iiou: Mapping[str, float] | None
    category_iou: Mapping[str, float]
    category_iiou: Mapping[str, float] | None
    images: tuple[ImageScores, ...]

    @property
    def averages(self) -> dict[str, float | None]:
        """The four numbers of the official ranking, by their names in the official result file."""
        return {
            "averageScoreClasses": _mean(self.class_iou),
            "averageScoreInstClasses": None if self.class_iiou is None else _mean(self.class_iiou),
            "averageScoreCategories": _mean(self.category_iou),
            "averageScoreInstCategories": None if self.category_iiou is None else _mean(self.category_iiou),
        }

    def as_official_json(self) -> dict[str, Any]:
        """Return the content of the official result file, ready for `json.dumps`.

        Every key is there, ignored classes too. None replaces the official file's NaN, which is not JSON. Under
        `perImageScores`, `nbNotIgnoredPixels` and `nbCorrectPixels` are as in the official script: the number of
        ignored pixels and how many of those differ. The counts that these names promise are added beside them.
        """
        totals, everything = self.confusion.sum(axis=1).tolist(), int(self.confusion.sum())
        return {
            "confMatrix": self.confusion.tolist(),
            "labels": {label.name: label.label_id for label in _DRAWN},
            "priors": {label.name: totals[label.label_id] / everything for label in _DRAWN},
            "classScores": {label.name: _or_none(self.class_iou, label.name) for label in _DRAWN},
            "classInstScores": {label.name: _or_none(self.class_iiou, label.name) for label in _DRAWN},
            "categoryScores": {name: _or_none(self.category_iou, name) for name in _CATEGORIES},
            "categoryInstScores": {name: _or_none(self.category_iiou, name) for name in _CATEGORIES},
            **{name: _or_none(self.averages, name) for name in self.averages},
            "perImageScores": {
                image.name: {
                    "nbNotIgnoredPixels": image.ignored_pixels,
                    "nbCorrectPixels": image.ignored_pixels - image.ignored_correct,
                    "countedPixels": image.pixels,
                    "countedCorrectPixels": image.correct,
                    "averageScoreClasses": None if math.isnan(image.mean_iou) else image.mean_iou,
                }
                for image in self.images
            },
        }


@dataclass(frozen=True)
class _Image:
    """An image's own scores, and what its objects add: (weighted right, weighted wrong) by class and by category."""

    scores: ImageScores
    objects: Mapping[str, tuple[float, float]] | None


@dataclass
class ScoreAccumulator:
    """Add up images one by one, in any order, without keeping pixels; the result depends only on the images."""

    _confusion: np.ndarray = field(default_factory=lambda: np.zeros((NUM_IDS, NUM_IDS), np.int64))
    _images: dict[str, _Image] = field(default_factory=dict)

    def add(self, name: str, truth: np.ndarray, prediction: np.ndarray, instances: np.ndarray | None = None) -> None:
        """Add one image: integer (H, W) label ids of truth and prediction, and instance ids for iIoU.

        Raises InputError for shapes or ids that do not fit (see `count_pixels`), ParameterError for a name seen before.
        """
        self.add_counts(name, count_pixels(name, truth, prediction, instances))

    def add_counts(self, name: str, counts: PixelCounts) -> None:
        """Add one image that was counted before, perhaps by another thread."""
        if name in self._images:
            raise ParameterError(f"{name}: already added; every image counts once")
        confusion = counts.confusion
        right, whole = np.diag(confusion), confusion.sum(axis=1)
        pixels, correct = int(whole[_COUNTED].sum()), int(right[_COUNTED].sum())
        scores = ImageScores(
            name,
            pixels,
            correct,
            int(whole.sum()) - pixels,
            int(right.sum()) - correct,
            _mean(_class_iou(confusion)),
        )
        self._images[name] = _Image(scores, None if counts.instances is None else _weigh(counts.instances))
        self._confusion += confusion

    def merge(self, other: "ScoreAccumulator") -> None:
        """Add all images of another accumulator; raises ParameterError when both have an image of one name."""
        if both := sorted(self._images.keys() & other._images.keys()):
            raise ParameterError(f"{both[0]}: is in both accumulators; every image counts once")
        self._confusion += other._confusion
        self._images |= other._images

    def result(self) -> OfficialScores:
        """Compute the scores; raises InputError when no image was added."""
        if not self._images:
            raise InputError("no images to score; add some first")
        images = [self._images[name] for name in sorted(self._images)]
        objects = [image.objects for image in images if image.objects is not None]
        complete = len(objects) == len(images)
        return OfficialScores(
            confusion=self._confusion.copy(),
            class_iou=_class_iou(self._confusion),
            class_iiou=_class_iiou(self._confusion, objects) if complete else None,
            category_iou=_category_iou(self._confusion),
            category_iiou=_category_iiou(self._confusion, objects) if complete else None,
            images=tuple(image.scores for image in images),
        )


def _weigh(instances: np.ndarray) -> dict[str, tuple[float, float]]:
    """Sum objects by class and by category: pixels that are right and that are wrong, each weighted for its object."""
    sums: dict[str, list[tuple[float, float]]] = {}
    for instance, pixels, right, right_category in instances.tolist():
        label = LABEL_BY_ID[instance // 1000]
        weight = AVERAGE_OBJECT_PIXELS[label.name] / pixels
        for name, hits in ((label.name, right), (label.category, right_category)):
            sums.setdefault(name, []).append((hits * weight, (pixels - hits) * weight))
    return {name: _add(pairs) for name, pairs in sums.items()}


def _add(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Sum pairs exactly, so that neither the order of images nor the number of threads shows in the last digits."""
    return math.fsum(hits for hits, _ in pairs), math.fsum(misses for _, misses in pairs)


def _class_iou(confusion: np.ndarray) -> dict[str, float]:
    right, whole, wrong = np.diag(confusion), confusion.sum(axis=1), _false_positives(confusion)
    ids = {label.name: label.label_id for label in TRAINED_LABELS}
    return {name: _ratio(int(right[i]), int(whole[i]) + int(wrong[i])) for name, i in ids.items()}


def _class_iiou(confusion: np.ndarray, objects: list[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    wrong, result = _false_positives(confusion), {}
    for label in TRAINED_LABELS:
        if label.has_instances:
            hits, misses = _add([image[label.name] for image in objects if label.name in image])
            result[label.name] = _ratio(hits, hits + int(wrong[label.label_id]) + misses)
    return result


def _category_iou(confusion: np.ndarray) -> dict[str, float]:
    result = {}
    for category, ids in _CATEGORIES.items():
        if ids:
            right, whole = int(confusion[np.ix_(ids, ids)].sum()), int(confusion[ids].sum())
            result[category] = _ratio(right, whole + _category_false_positives(confusion, category, ids))
    return result


def _category_iiou(confusion: np.ndarray, objects: list[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    result = {}
    for category, ids in OBJECT_CATEGORIES.items():
        hits, misses = _add([image[category] for image in objects if category in image])
        result[category] = _ratio(hits, hits + _category_false_positives(confusion, category, ids) + misses)
    return result


def _false_positives(confusion: np.ndarray) -> np.ndarray:
    """Return for each label id how many pixels of other classes that count were predicted as it."""
    counted = confusion[_COUNTED].sum(axis=0)
    return counted - np.where(_COUNTED, np.diag(confusion), 0)


def _category_false_positives(confusion: np.ndarray, category: str, ids: list[int]) -> int:
    rows = [label.label_id for label in _DRAWN if not label.ignored and label.category != category]
    return int(confusion[np.ix_(rows, ids)].sum())


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _mean(values: Mapping[str, float]) -> float:
    known = [value for value in values.values() if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _or_none(values: Mapping[str, float | None] | None, name: str) -> float | None:
    value = None if values is None else values.get(name)
    return None if value is None or math.isnan(value) else value
