"""Score a run on a labeled split by a protocol: at the size of the masks, ignored pixels left out.

On Cityscapes the official scores are accumulated along the way, from the same predictions and without files: they add
iIoU and categories, and the official class IoU equals the mIoU, since the network predicts evaluated classes only.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from cityscapes.dataset import CityscapesSplit, Split
from cityscapes.errors import ParameterError
from cityscapes.files.atomic import write_text
from cityscapes.files.checksums import read_json
from cityscapes.freed_memory import keep_freed_memory
from cityscapes.labels import CLASS_NAMES, TRAIN_ID_TO_LABEL_ID
from cityscapes.scores.official_scores import OfficialScores, ScoreAccumulator
from cityscapes.scores.pixel_counts import count_pixels
from cityscapes.scores.truth_files import TruthFiles, truth_of_frames
from dlv3p.data.classes import numbered_otherwise
from dlv3p.data.fingerprints import ContentHash
from dlv3p.evaluation.benchmarks import data_name
from dlv3p.evaluation.image_counts import ImageCounts
from dlv3p.evaluation.inference import Predictor
from dlv3p.evaluation.metrics import Scores, confusion_matrix, describe_one_class, scores
from dlv3p.evaluation.results import MadeFrom, means_otherwise, result_path, split_word
from dlv3p.evaluation.statistics import Estimate, score_interval
from dlv3p.parameters.protocols import WHOLE_IMAGE, Protocol
from dlv3p.runs.folders import write_json
from dlv3p.runtime.devices import SCORING_ADVICE, explain_out_of_memory
from dlv3p.runtime.progress import track


@dataclass(frozen=True)
class Evaluation:
    """The scores of one checkpoint on one split by one protocol; `images` has a row per image, worst mIoU first.

    `counts` are the confusion counts of each image, from which runs are compared, and `made_from` says of which bytes
    they are. `official` are the scores of the
    Cityscapes server, None for other data and for images that are not scored whole.
    """

    predictor: Predictor
    split: Split
    protocol: Protocol
    confusion: np.ndarray
    scores: Scores
    images: pd.DataFrame
    official: OfficialScores | None
    counts: ImageCounts
    made_from: MadeFrom

    @cached_property
    def mean_iou_interval(self) -> Estimate:
        """The mIoU with its interval, from blocks of images that fail together: see `statistics.py`."""
        return score_interval(self.counts.confusions(), self.counts.groups)

    def classes(self) -> pd.DataFrame:
        """Return a table with a row per class: IoU, Dice, accuracy, and the share of the split's labeled pixels."""
        pixels = self.confusion.sum(axis=1)
        columns = {
            "IoU": self.scores.iou,
            "Dice": self.scores.dice,
            "accuracy": self.scores.accuracy,
            "share of pixels": pixels / max(1, pixels.sum()),
        }
        return pd.DataFrame(columns, index=pd.Index(self.predictor.class_names, name="class"))

    @property
    def caution(self) -> str:
        """What to say with the mean scores where one class alone occurs in the split; else ""."""
        return describe_one_class(self.confusion.sum(axis=1), self.predictor.class_names, self.split.split)

    @property
    def footer(self) -> str:
        """What a figure of these scores is of, in a line: run, epoch, images, and protocol."""
        return self._footer(self.protocol)

    @property
    def details_footer(self) -> str:
        """What a figure of the details is of, which are scored on whole images whatever the protocol."""
        return self._footer(WHOLE_IMAGE)

    def _footer(self, protocol: Protocol) -> str:
        return f"{self.predictor.name} · {data_name(self.split)} · {protocol.name}"

    def official_tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the official tables, IoU and iIoU by class and by category; the last row of each is the average."""
        if self.official is None:
            empty = pd.DataFrame(columns=["IoU", "iIoU"])
            return empty, empty
        scores, averages = self.official, list(self.official.averages.values())
        return (
            _table("class", scores.class_iou, scores.class_iiou, averages[:2]),
            _table("category", scores.category_iou, scores.category_iiou, averages[2:]),
        )

    def scored_pair(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """Return an image and its mask as they were scored."""
        return scored_pair(self.split, index, self.protocol)

    def path(self, name: str) -> Path:
        """Return where a file about this evaluation belongs, such as `class_iou.png`: see `result_path`."""
        return result_path(self.predictor, self.split, name, self.protocol)

    def details_path(self, name: str) -> Path:
        """Return where a file about the details belongs: that of whole images, whatever the protocol."""
        return result_path(self.predictor, self.split, name, WHOLE_IMAGE)

    def save(self) -> Path:
        """Write `outputs/<run>/evaluation.json` and return its path; a class that does not occur is null there.

        That name is for the best checkpoint on the run's validation split, whole images at a single scale; any other
        protocol, split, checkpoint or data is added to it, as in `evaluation_six_scales_flip_last.json`. `made_from`
        holds the hashes of the checkpoint that was loaded, the images and the masks: see `MadeFrom`. `official` holds
        the content of the official result file, null for data that is not Cityscapes.
        """
        classes = {
            name: {key: _json(value) for key, value in row.items()}
            for name, row in self.classes().to_dict("index").items()
        }
        content = {
            "run": self.predictor.run,
            "checkpoint": self.predictor.checkpoint.name,
            "epoch": self.predictor.epoch,
            "made_from": self.made_from.as_dict(),
            "data_root": str(self.split.root),
            "split": self.split.split,
            "images": len(self.split),
            "data": data_name(self.split),
            "protocol": str(self.protocol),
            "protocol_name": self.protocol.name,
            "protocol_switches": self.protocol.as_dict(),
            "image_scale": self.predictor.parameters.image_scale,
            **self.scores.means(),
            "classes_that_occur": int((self.confusion.sum(axis=1) > 0).sum()),
            "mIoU_interval": {
                "low": _json(self.mean_iou_interval.low),
                "high": _json(self.mean_iou_interval.high),
                "blocks": self.mean_iou_interval.blocks,
            },
            "classes": classes,
            "confusion": self.confusion.tolist(),
            "confusion_axes": ["truth", "prediction"],
            "official": None if self.official is None else self.official.as_official_json(),
        }
        path = self.path("evaluation.json")
        self._remove_former()
        self.counts.save(self.path("evaluation_images.npz"))
        write_text(self.path("evaluation_images.csv"), self.counts.table().to_csv(index=False))
        write_json(path, content)
        return path

    def _remove_former(self) -> None:
        """Remove what an earlier version stored of the same split under a name that another split may have as well."""
        path = self.path("evaluation.json")
        former = path.with_name(path.name.replace(split_word(self.split.split), self.split.split.replace("/", "-")))
        with suppress(OSError, ValueError, AttributeError):
            if former != path and read_json(former).get("split") == self.split.split:
                former.unlink()


@explain_out_of_memory(SCORING_ADVICE)
@keep_freed_memory()
def evaluate(
    predictor: Predictor, split: Split, protocol: Protocol = WHOLE_IMAGE, *, progress: str = "auto"
) -> Evaluation:
    """Predict and score every image of a split; raises ParameterError when its number of classes is not the run's."""
    refuse_other_classes(predictor, split)
    num_classes = len(predictor.class_names)
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    truth, official = _official_truth(predictor, split, protocol), ScoreAccumulator()
    # Kept one by one, they would lie between the freed pixels, and the heap would grow by an image each time.
    every = np.zeros((len(split), num_classes, num_classes), np.int64)
    rows, hashed = [], ContentHash()
    for index in track(range(len(split)), total=len(split), title=f"evaluate {split.split}", mode=progress):
        name, (image, mask) = split.name(index), scored_pair(split, index, protocol)
        hashed.add(split, index, mask)
        prediction = predictor.predict(image, protocol).cpu()
        counts = confusion_matrix(torch.from_numpy(mask), prediction, num_classes)
        confusion += counts
        every[index] = counts.numpy()
        one = scores(counts)
        rows.append({"image": name, "mIoU": one.mean_iou, "pixel_accuracy": one.pixel_accuracy})
        if truth:
            label_ids, instances = truth[name].read()
            train_ids = prediction.numpy().astype(np.uint8, copy=False)
            pixels = count_pixels(name, label_ids, train_ids, instances, label_ids=TRAIN_ID_TO_LABEL_ID)
            official.add_counts(name, pixels)
    images = pd.DataFrame(rows).sort_values("mIoU", kind="stable").reset_index(drop=True)
    result = official.result() if truth else None
    counts = ImageCounts.of(split, every, predictor.class_names)
    made = MadeFrom.of(split, hashed, checkpoint=predictor.weights_sha256)
    return Evaluation(predictor, split, protocol, confusion.numpy(), scores(confusion), images, result, counts, made)


def refuse_other_classes(predictor: Predictor, split: Split) -> None:
    """Raise ParameterError for a split with other classes than a run's: another number of them, or another order.

    Ids would mean something else; so they would if the table of the run's own data was changed since. Names alone may
    be written in another way, which is said.
    """
    ours, theirs = tuple(predictor.class_names), tuple(split.class_names)
    if len(theirs) != len(ours):
        raise ParameterError(
            f"data_root: {split.root} has {len(theirs)} classes and the run {predictor.run!r} {len(ours)}; "
            "score it on data with its own classes"
        )
    if moved := numbered_otherwise(ours, theirs):
        index, mine, other = moved
        raise ParameterError(
            f"data_root: {split.root} numbers the classes of the run {predictor.run!r} in another way: id {index} is "
            f"{other!r} and in the run {mine!r}; score it on data with its own classes"
        )
    if means_otherwise(predictor.parameters.data_root, predictor.meaning, split):
        raise ParameterError(
            f"data_root: {split.root} says of the masks' values or colors that they are other classes than when the "
            f"run {predictor.run!r} was trained; restore its table of classes, or train another run"
        )
    renamed = [(index, *pair) for index, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
    if not renamed:
        return
    index, mine, other = renamed[0]
    print(
        f"warning: {split.root} names {len(renamed)} of {len(ours)} classes otherwise than the run {predictor.run!r}, "
        f"id {index} {other!r} instead of {mine!r}; ids are taken as they are",
        flush=True,
    )


def _json(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def scored_pair(split: Split, index: int, protocol: Protocol) -> tuple[Image.Image, np.ndarray]:
    """Read an image and its mask, both center-cropped where the protocol says so."""
    image, mask = split.pair(index)
    if not protocol.center_crop:
        return image, mask
    size, box = _center(image.size, protocol.center_crop)
    return image.resize(size, Image.Resampling.BILINEAR).crop(box), _scored_part(mask, protocol)


def hash_scored(split: Split, protocol: Protocol, *, progress: str = "auto") -> ContentHash:
    """Hash images and masks as `evaluate` does, without decoding an image; raises as reading them does."""
    hashed, title = ContentHash(), f"check {split.split}"
    for index in track(range(len(split)), total=len(split), title=title, mode=progress):
        hashed.add(split, index, _scored_part(split.mask(index), protocol))
    return hashed


def _scored_part(mask: np.ndarray, protocol: Protocol) -> np.ndarray:
    if not protocol.center_crop:
        return mask
    size, box = _center(mask.shape[::-1], protocol.center_crop)
    return np.array(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST).crop(box))


def _center(whole: tuple[int, int], side: int) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """Return the size to which an image of that size is resized, and the box of its center square."""
    # Short side and rounding as in torchvision's Resize and CenterCrop, which VainF/DeepLabV3Plus-Pytorch uses.
    width, height = (side * length // min(whole) for length in whole)
    left, top = (round((length - side) / 2) for length in (width, height))
    return (width, height), (left, top, left + side, top + side)


def scores_apply(predictor: Predictor, split: Split) -> bool:
    """Return whether a network predicts the classes of a split, so that a score is meaningful."""
    return tuple(predictor.class_names) == tuple(split.class_names)


def _official_truth(predictor: Predictor, split: Split, protocol: Protocol) -> dict[str, TruthFiles] | None:
    if (
        protocol.center_crop
        or not isinstance(split, CityscapesSplit)
        or tuple(predictor.class_names) != tuple(CLASS_NAMES)
    ):
        return None
    return truth_of_frames(split.frames, split.root, split.generated, split.foreign)


def _table(
    kind: str, iou: Mapping[str, float], iiou: Mapping[str, float] | None, averages: Sequence[float | None]
) -> pd.DataFrame:
    table = pd.DataFrame({"IoU": pd.Series(iou), "iIoU": pd.Series(iiou or {}, dtype=float)}, index=list(iou))
    table.loc["average"] = [np.nan if value is None else value for value in averages]
    return table.rename_axis(kind)
