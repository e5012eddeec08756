"""The confidence interval of a change in mIoU: a paired bootstrap over the images of a split.

Images are drawn with replacement, the same ones for both networks, and the mIoU is recomputed from the summed counts of
each draw, as on the whole split. Pairing matters: two networks fail on the same hard images, so their difference varies
much less than either score.
"""

from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95


class Change(NamedTuple):
    """A change of mIoU in points (hundredths) and its 95 % confidence interval.

    The bounds are nan for a single image.
    """

    points: float
    low: float
    high: float


def change_of_mean_iou(
    reference: np.ndarray, candidate: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Change:
    """Compare the confusion matrices of two networks on the same images, both int (N,C,C): candidate minus reference.

    The bounds of the interval are percentiles of `resamples` draws; `seed` makes them repeatable.
    """
    images = len(reference)
    everything = np.ones((1, images))
    points = _difference(reference, candidate, everything)[0]
    if images < 2:
        return Change(points, float("nan"), float("nan"))
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    outside = 100 * (1 - CONFIDENCE) / 2
    low, high = np.nanpercentile(_difference(reference, candidate, draws.astype(float)), (outside, 100 - outside))
    return Change(float(points), float(low), float(high))


def _difference(reference: np.ndarray, candidate: np.ndarray, draws: np.ndarray) -> np.ndarray:
    return 100 * (_mean_iou(candidate, draws) - _mean_iou(reference, draws))


def _mean_iou(confusions: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return the mIoU (B,) of each draw (B,N), the number of times that each image was drawn."""
    hits = draws @ np.diagonal(confusions, axis1=1, axis2=2)
    union = draws @ (confusions.sum(axis=1) + confusions.sum(axis=2)) - hits
    there = union > 0  # a class that neither occurs nor is predicted is in no mean
    iou = np.divide(hits, union, out=np.zeros_like(union, dtype=float), where=there)
    with np.errstate(invalid="ignore"):
        return iou.sum(axis=1) / there.sum(axis=1)
