"""Compute scores from a confusion matrix `confusion[truth, prediction]`, int64 (C,C), summed over a split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def confusion_matrix(truth: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """Count pixels: int64 (C,C). Pixels whose truth is not a class (255) are left out, whatever is predicted there.

    They are counted in a cell of their own: a mask as an index, or bincount, would make the host wait for a GPU.
    """
    left_out = num_classes**2
    cells = torch.where(truth < num_classes, truth.long() * num_classes + prediction, left_out).flatten()
    counts = torch.zeros(left_out + 1, dtype=torch.int64, device=cells.device)
    counts.scatter_add_(0, cells, counts.new_ones(()).expand_as(cells))
    return counts[:left_out].reshape(num_classes, num_classes)


@dataclass(frozen=True)
class Scores:
    """Per-class and mean scores, 0 to 1. A class absent from both truth and prediction is nan, and in no mean.

    `iou` is intersection over union (Jaccard), `dice` is 2TP / (2TP + FP + FN), `accuracy` is recall: TP / (TP + FN).
    `frequency_weighted_iou` weights each class by its pixels in the truth.
    """

    iou: np.ndarray
    dice: np.ndarray
    accuracy: np.ndarray
    pixel_accuracy: float
    frequency_weighted_iou: float

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that occur (mIoU)."""
        return _mean(self.iou)

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the classes that occur (mDice)."""
        return _mean(self.dice)

    @property
    def mean_accuracy(self) -> float:
        """Mean class accuracy over the classes that occur in the truth (mPA)."""
        return _mean(self.accuracy)

    def means(self) -> dict[str, float]:
        """Return the four numbers that a training epoch logs, by their column names."""
        return {
            "mIoU": self.mean_iou,
            "mDice": self.mean_dice,
            "mPA": self.mean_accuracy,
            "pixel_accuracy": self.pixel_accuracy,
        }


def describe_one_class(pixels: Sequence[int] | np.ndarray, class_names: Sequence[str], split: str) -> str:
    """Return what to say with a mean score where one class alone occurs, given the split's pixels by class; else ""."""
    found = [name for name, count in zip(class_names, pixels, strict=False) if count]
    return f" (over one class: only {found[0]} occurs in {split})" if len(found) == 1 else ""


def class_unions(confusions: np.ndarray) -> np.ndarray:
    """Return the pixels of each class in the truth, the prediction or both: (...,C) of confusion counts (...,C,C)."""
    return confusions.sum(axis=-1) + confusions.sum(axis=-2) - np.diagonal(confusions, axis1=-2, axis2=-1)


def class_iou(confusions: np.ndarray) -> np.ndarray:
    """Return the IoU of each class, (...,C) of confusion counts (...,C,C); nan for one that is nowhere."""
    return _ratio(np.diagonal(confusions, axis1=-2, axis2=-1), class_unions(confusions))


def scores(confusion: Tensor | np.ndarray) -> Scores:
    """Compute the scores of a confusion matrix."""
    counts = np.asarray(confusion).astype(np.float64)
    hits, truth, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return Scores(
        iou=class_iou(counts),
        dice=_ratio(2 * hits, truth + predicted),
        accuracy=_ratio(hits, truth),
        pixel_accuracy=float(_ratio(hits.sum(), counts.sum())),
        frequency_weighted_iou=float(_ratio(np.nansum(class_iou(counts) * truth), counts.sum())),
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.divide(part, whole)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
