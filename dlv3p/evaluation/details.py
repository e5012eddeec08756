"""Score what a mean hides: edges, distances from them, the size of objects, and how sure a network is of its errors.

`score_details` takes a run and a split; `score` takes anyone's masks, as arrays or as folders of PNGs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cityscapes.dataset import CityscapesSplit, Split
from cityscapes.errors import InputError, MissingInputError, ParameterError
from cityscapes.files.atomic import write_text
from cityscapes.files.images import read_ids
from cityscapes.files.listing import files_below
from cityscapes.files.untrusted import given_path
from cityscapes.labels import IGNORE
from cityscapes.scores.truth_files import truth_of_frames
from dlv3p.data.fingerprints import ContentHash, shared_images
from dlv3p.data.roots import open_split
from dlv3p.evaluation.calibration import FITTED_PIXELS, Reliability, fit_temperature, softmax
from dlv3p.evaluation.edges import (
    DISTANCES,
    OBJECT_SIZES,
    boundary_counts,
    boundary_width,
    distance_counts,
    object_counts,
)
from dlv3p.evaluation.evaluate import refuse_other_classes
from dlv3p.evaluation.inference import Predictor
from dlv3p.evaluation.metrics import Scores, scores
from dlv3p.evaluation.results import MadeFrom
from dlv3p.models.upsampling import upsample_argmax
from dlv3p.parameters.notebooks import EvaluateParameters
from dlv3p.runs.folders import write_json
from dlv3p.runtime.devices import SCORING_ADVICE, explain_out_of_memory
from dlv3p.runtime.progress import track

MOST_CHANNELS = 4
"""An array whose last axis is no longer than this is a picture, not a stack of masks."""

LEAST_SURE = 0.1
"""The share of pixels, those of least confidence, among which errors are looked for."""


@dataclass
class Details:
    """Counts from which every table follows, added up image by image; `objects` and `reliability` may be missing.

    `boundary` is (2, C), `bands` (B, C, C), `objects` (S, C, 3) and `object_numbers` (S, C): see `edges.py`.
    `made_from` names the network and the bytes that were scored; it is empty for anyone's masks.
    """

    class_names: Sequence[str]
    boundary: np.ndarray
    bands: np.ndarray
    objects: np.ndarray | None = None
    object_numbers: np.ndarray | None = None
    reliability: Reliability | None = None
    temperature: float | None = None
    tempered: Reliability | None = None
    made_from: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def empty(cls, class_names: Sequence[str]) -> "Details":
        """Begin with no image."""
        classes = len(class_names)
        bands = np.zeros((len(DISTANCES) + 1, classes, classes), np.int64)
        return cls(class_names, np.zeros((2, classes), np.int64), bands)

    def add(self, truth: np.ndarray, prediction: np.ndarray, objects: np.ndarray | None = None) -> None:
        """Add an image: train ids (H, W) of truth and prediction, and a number for each object where there are any."""
        classes = len(self.class_names)
        self.boundary += boundary_counts(truth, prediction, classes, boundary_width(truth.shape))
        self.bands += distance_counts(truth, prediction, classes)
        if objects is not None:
            counts, numbers = object_counts(truth, prediction, objects, classes)
            self.objects = counts if self.objects is None else self.objects + counts
            self.object_numbers = numbers if self.object_numbers is None else self.object_numbers + numbers

    @property
    def known(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.bands.sum())

    @property
    def scores(self) -> Scores:
        """The usual scores of all pixels."""
        return scores(self.bands.sum(axis=0))

    def classes(self) -> pd.DataFrame:
        """Return a row per class: IoU, boundary IoU, and what the boundary lacks; nan where a class does not occur."""
        with np.errstate(invalid="ignore"):
            boundary = self.boundary[0] / self.boundary[1]
        columns = {"IoU": self.scores.iou, "boundary IoU": boundary, "difference": self.scores.iou - boundary}
        return pd.DataFrame(columns, index=pd.Index(self.class_names, name="class"))

    def means(self) -> dict[str, float]:
        """Return one number each: mIoU, mean boundary IoU, frequency-weighted IoU, and the calibration errors."""
        table = self.classes()
        found = {
            "mIoU": self.scores.mean_iou,
            "mean boundary IoU": float(table["boundary IoU"].mean()),
            "frequency-weighted IoU": self.scores.frequency_weighted_iou,
        }
        if self.reliability is not None:
            found |= {"calibration error (ECE)": self.reliability.error}
        if self.tempered is not None:
            found |= {"ECE with a temperature": self.tempered.error, "temperature": self.temperature}
        return found

    def by_distance(self) -> pd.DataFrame:
        """Return a row per distance to the nearest edge: share of the pixels, mIoU, and pixel accuracy."""
        limits = ["1", *(str(limit + 1) for limit in DISTANCES)]
        names = [f"{low} to {high}" for low, high in zip(limits, DISTANCES, strict=False)] + [f"{limits[-1]} and more"]
        each = [scores(band) for band in self.bands]
        columns = {
            "share of pixels": self.bands.sum(axis=(1, 2)) / max(1, self.bands.sum()),
            "mIoU": [one.mean_iou for one in each],
            "pixel accuracy": [one.pixel_accuracy for one in each],
        }
        return pd.DataFrame(columns, index=pd.Index(names, name="pixels from an edge"))

    def by_size(self) -> pd.DataFrame:
        """Return a row per size of objects and class: objects and IoU; no row where the data has no objects."""
        if self.objects is None or self.object_numbers is None:
            return pd.DataFrame(columns=["size", "class", "objects", "IoU"])
        small, large = OBJECT_SIZES
        titles = (f"small, below {small} pixels", "medium", f"large, {large} pixels and more")
        hits, totals = self.objects[..., 0], self.objects.sum(axis=2)
        rows = [
            (titles[size], self.class_names[index], self.object_numbers[size, index], hits[size, index] / total)
            for (size, index), total in np.ndenumerate(totals)
            if total
        ]
        return pd.DataFrame(rows, columns=["size", "class", "objects", "IoU"])

    def errors_among_least_sure(self) -> float:
        """Return the share of all errors that lies among the `LEAST_SURE` pixels; nan without confidence."""
        if self.reliability is None or not (pixels := self.reliability.pixels).sum():
            return float("nan")
        wrong = pixels - self.reliability.right
        covered = np.concatenate([[0], np.cumsum(pixels) / pixels.sum()])
        found = np.concatenate([[0], np.cumsum(wrong) / max(1, wrong.sum())])
        return float(np.interp(LEAST_SURE, covered, found))

    def save(self, path: Path) -> list[Path]:
        """Write every table as CSV beside `path`, whose stem begins their names, and a record; return the paths."""
        if not self.known:
            return []
        tables = {"classes": self.classes(), "distances": self.by_distance(), "objects": self.by_size()}
        if self.reliability is not None:
            tables["reliability"] = self.reliability.table()
        paths = [path.with_name(f"{path.stem}_{name}.csv") for name in tables]
        for one, table in zip(paths, tables.values(), strict=True):
            write_text(one, table.to_csv(index=table.index.name is not None))
        record = path.with_suffix(".json")
        write_json(record, {"made_from": dict(self.made_from)})
        return [*paths, record]


def chosen_details(predictor: Predictor, split: Split, config: EvaluateParameters) -> Details:
    """Score what a notebook's parameters ask for; without `details`, that is nothing."""
    if not config.details:
        return Details.empty(predictor.class_names)
    other = open_split(split.root, config.temperature_split) if config.temperature_split else None
    return score_details(predictor, split, temperature_split=other, progress=config.progress)


@explain_out_of_memory(SCORING_ADVICE)
def score_details(
    predictor: Predictor, split: Split, *, temperature_split: Split | None = None, progress: str = "auto"
) -> Details:
    """Score what a mean hides, on whole images at a single scale, at the size of the masks.

    A temperature is fitted on `temperature_split`. Raises ParameterError when that is the scored split, or when the
    classes are not those of the run.
    """
    refuse_other_classes(predictor, split)
    details = Details.empty(predictor.class_names)
    details.reliability = Reliability()
    if temperature_split is not None:
        details.temperature = _temperature(predictor, temperature_split, split, progress)
        details.tempered = Reliability()
    objects, hashed = _objects(split), ContentHash()
    for index in track(range(len(split)), total=len(split), title=f"details {split.split}", mode=progress):
        (image, truth), numbers = split.pair(index), objects(index)
        hashed.add(split, index, truth)
        logits = predictor.whole_logits(image)
        align = predictor.model.align_corners
        prediction = upsample_argmax(logits[None], truth.shape, align_corners=align)[0].cpu().numpy()
        details.add(truth, prediction, numbers)
        for part, values in predictor.pixel_logits(logits, image):
            counted = truth[part].ravel() != IGNORE
            right = (prediction[part] == truth[part]).ravel()[counted]
            details.reliability.add(softmax(values[counted]).max(axis=1), right)
            if details.tempered is not None:
                details.tempered.add(softmax(values[counted], details.temperature).max(axis=1), right)
    scored = {"run": predictor.run, "data_root": str(split.root), "split": split.split}
    fitted = {"temperature_split": temperature_split.split} if temperature_split is not None else {}
    made = MadeFrom.of(split, hashed, checkpoint=predictor.weights_sha256)
    details.made_from = scored | fitted | made.as_dict()
    return details


def score(truth: Any, prediction: Any, *, num_classes: int | None = None, class_names: Sequence[str] = ()) -> Details:
    """Score masks of ids, 255 ignored: two arrays (H, W), two sequences of arrays, or two folders of PNGs.

    Files belong together by their path in the folder. The classes are those named, or `num_classes`, or as many as the
    largest id says. Raises InputError for sizes, types, and ids that do not fit, and MissingInputError for a missing
    file.
    """
    folders = {isinstance(one, str | Path) for one in (truth, prediction)}
    if len(folders) > 1:
        raise InputError("score: masks on one side and a folder on the other; give two of a kind")
    pairs = _FolderPairs(truth, prediction) if True in folders else _pairs(truth, prediction)
    if class_names and num_classes not in (None, len(class_names)):
        raise InputError(f"score: {len(class_names)} class_names and num_classes={num_classes}; give one of them")
    if not (class_names or num_classes):
        largest = (int(mask[mask != IGNORE].max(initial=0)) for pair in pairs for mask in pair)
        num_classes = 1 + max(largest, default=0)
    if max(len(class_names), num_classes or 0) > IGNORE:
        most = max(len(class_names), num_classes or 0) - 1
        raise InputError(f"score: the largest id is {most}; ids are 0 to {IGNORE - 1}, or {IGNORE}, ignored")
    names = tuple(class_names) or tuple(f"class {index}" for index in range(num_classes or 0))
    details = Details.empty(names)
    for number, (one, other) in enumerate(pairs):
        _check_pair(one, other, len(names), f"image {number + 1}")
        details.add(one, other)
    return details


@dataclass(frozen=True)
class _FolderPairs:
    """The masks of two folders, read anew each time, so that memory holds one pair."""

    truth: str | Path
    prediction: str | Path

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        truth, prediction = given_path(self.truth), given_path(self.prediction)
        paths = files_below(truth, ".png")
        if not paths:
            raise MissingInputError(f"{truth}: holds no PNG; give the folder of the true masks")
        for path in paths:
            other = prediction / path.relative_to(truth)
            if not other.is_file():
                raise MissingInputError(f"{other}: is missing; predictions are named as the masks in {truth} are")
            yield read_ids(path), read_ids(other)


def _pairs(truth: Any, prediction: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    first, second = _masks(truth), _masks(prediction)
    if len(first) != len(second) or not first:
        raise InputError(f"score: {len(first)} true masks and {len(second)} predictions; give as many of both")
    return list(zip(first, second, strict=True))


def _masks(given: Any) -> list[np.ndarray]:
    """Return the masks of an array (H, W), of a stack (N, H, W), or of a sequence; raises InputError for others."""
    try:
        masks = [np.asarray(one) for one in ([given] if getattr(given, "ndim", 0) == 2 else given)]
    except (TypeError, ValueError) as error:
        raise InputError(f"score: {type(given).__name__} is no mask; give arrays (H, W), or two folders") from error
    if getattr(given, "ndim", 0) == 3 and given.shape[2] <= MOST_CHANNELS:
        raise InputError(f"score: shape {tuple(given.shape)} looks like (H, W, channels); give ids (H, W)")
    for number, mask in enumerate(masks, start=1):
        if mask.dtype.kind not in "bui":
            raise InputError(f"image {number}: holds {mask.dtype}; a mask holds ids, which are whole numbers")
    return masks


def _check_pair(truth: np.ndarray, prediction: np.ndarray, num_classes: int, where: str) -> None:
    if truth.shape != prediction.shape or truth.ndim != 2:
        raise InputError(f"{where}: shapes {truth.shape} and {prediction.shape}; both must be the same (H, W)")
    strange = np.setdiff1d(truth, [*range(num_classes), IGNORE])
    judged = np.setdiff1d(prediction[truth != IGNORE], range(num_classes))
    for what, ids, more in (("truth", strange, ", or 255, ignored"), ("prediction", judged, "; only truth is ignored")):
        if ids.size:
            raise InputError(f"{where}: the {what} holds id {ids[0]}; ids are 0 to {num_classes - 1}{more}")


def _temperature(predictor: Predictor, fitted: Split, scored: Split, progress: str) -> float:
    if shared_images(fitted, scored):
        raise ParameterError(f"temperature_split={fitted.split!r}: holds images that are scored; name another split")
    some, labels, generator = [], [], np.random.default_rng(0)
    for index in track(range(len(fitted)), total=len(fitted), title=f"temperature {fitted.split}", mode=progress):
        image, truth = fitted.pair(index)
        logits = predictor.whole_logits(image)
        share = FITTED_PIXELS / truth.size
        for part, values in predictor.pixel_logits(logits, image):
            chosen = generator.random(len(values)) < share
            some.append(values[chosen])
            labels.append(truth[part].ravel()[chosen])
    return fit_temperature(np.concatenate(some), np.concatenate(labels))


def _objects(split: Split) -> Any:
    """Return a function from an index to the object numbers (H, W), or to None where the data has no objects."""
    if not isinstance(split, CityscapesSplit):
        return lambda index: None
    files = truth_of_frames(split.frames, split.root, split.generated, split.foreign)
    if files is None:  # such as labelTrainIds alone, which know no objects
        return lambda index: None

    def read(index: int) -> np.ndarray | None:
        _, instances = files[split.name(index)].read()
        if instances is None:
            return None
        # An id below 1000 is that of a class without objects, or of a group of them.
        return np.where(instances >= 1000, instances, 0).astype(np.int64)

    return read
