"""Intervals and paired tests of IoU that hold for images that resemble one another, as those of a drive do.

Neighboring frames fail together, so images are not drawn one by one but in blocks: patients, videos or cities where
there are ten or more of them, else runs of frames that are long compared with the measured autocorrelation. Deleting
one block at a time (the grouped jackknife: Shao and Tu, The Jackknife and Bootstrap, 1995, section 2.3) gives the
standard error of any score of the summed counts, and Student's t with one degree of freedom less than blocks the
interval. Nothing is drawn at random: the same images always give the same interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtr, stdtrit

from dlv3p.evaluation.metrics import class_iou, class_unions

CONFIDENCE = 0.95
FEWEST_BLOCKS = 10
"""With fewer blocks than this there is no interval and no winner."""
FEWEST_SEEDS = 5
"""With fewer seeds of either recipe than this, their spread is shown and nothing is tested."""
RUN_FACTOR = 6
"""Runs of frames are this many times as long as the time in which frames forget one another."""


@dataclass(frozen=True)
class Estimate:
    """A score or a difference of two, and its 95 % interval; nan where there are too few `blocks` for one.

    `p` is that of the two-sided test against zero; among classes it is Holm's, which counts them all.
    """

    value: float
    low: float
    high: float
    p: float
    blocks: int

    @property
    def known(self) -> bool:
        """Whether there are enough blocks for an interval."""
        return not np.isnan(self.low)

    def __str__(self) -> str:
        """Return the interval as in `[-0.31, 1.12]`, or why there is none."""
        if not self.known:
            return f"too few independent images ({self.blocks}) for an interval"
        return f"[{self.low:.4g}, {self.high:.4g}]"

    @property
    def sign(self) -> int:
        """Return 1 or -1 where the value differs from zero by more than chance, else 0."""
        return int(np.sign(self.value)) if self.p < 1 - CONFIDENCE else 0


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same images, candidate minus reference: confusion counts, int (N,C,C) each, and blocks (N,).

    Differences are in points (hundredths) of IoU.
    """

    reference: np.ndarray
    candidate: np.ndarray
    blocks: np.ndarray

    @cached_property
    def mean(self) -> Estimate:
        """The difference of the mean IoU over the classes that occur."""
        (before, after), (before_without, after_without) = (_mean(iou) for iou in self._ious)
        return _estimate(100 * (after - before), 100 * (after_without - before_without))

    @cached_property
    def classes(self) -> list[Estimate]:
        """The difference of each class's IoU, tested with Holm's correction; blocks without a class do not count."""
        (before, after), (before_without, after_without) = self._ious
        everything, without, occurs = 100 * (after - before), 100 * (after_without - before_without), self._occurs
        single = [_estimate(value, without[occurs[:, index], index]) for index, value in enumerate(everything)]
        return correct_for_many(single)

    @cached_property
    def _sums(self) -> tuple[np.ndarray, np.ndarray]:
        """The confusion counts of each block, (B,C,C), of the two networks."""
        return _per_block(self.reference, self.blocks), _per_block(self.candidate, self.blocks)

    @property
    def _occurs(self) -> np.ndarray:
        """Whether a class occurs in a block, in the truth or in a prediction: bool (B,C)."""
        return sum(map(class_unions, self._sums)) > 0

    @cached_property
    def _ious(self) -> tuple[np.ndarray, np.ndarray]:
        """The two networks' IoU by class, over everything (2,C) and without each block (2,B,C)."""
        everything, without = zip(*map(_jackknife, self._sums), strict=True)
        return np.stack(everything), np.stack(without)


def compare(reference: np.ndarray, candidate: np.ndarray, groups: Sequence[str] | None = None) -> Comparison:
    """Compare two networks by their confusion counts of the same images in the same order, int (N,C,C) each.

    `groups` names the patient, video or city of each image; images of one group stand in the order of time. None is one
    sequence. Raises ValueError for counts of different shapes.
    """
    reference, candidate = (np.asarray(counts, np.int64) for counts in (reference, candidate))
    if reference.shape != candidate.shape:
        raise ValueError(f"counts of {reference.shape} and {candidate.shape}: compare two networks on the same images")
    groups = [""] * len(reference) if groups is None else list(groups)
    return Comparison(reference, candidate, find_blocks(groups, _influences(reference, candidate)))


def score_interval(confusions: np.ndarray, groups: Sequence[str] | None = None) -> Estimate:
    """Return the mean IoU of one network, from 0 to 1, with its interval; arguments as for `compare`."""
    confusions = np.asarray(confusions, np.int64)
    groups = [""] * len(confusions) if groups is None else list(groups)
    everything, without = _jackknife(_per_block(confusions, find_blocks(groups, _influence(confusions))))
    return _estimate(_mean(everything), _mean(without))


def compare_seeds(reference: Sequence[float], candidate: Sequence[float]) -> Estimate:
    """Return the difference of the mean scores of two recipes, each trained with several seeds (Welch's t-test).

    `blocks` counts the seeds of the recipe that has fewer; below `FEWEST_SEEDS` there is no interval.
    """
    before, after = (np.asarray(values, float) for values in (reference, candidate))
    value, fewest, nan = float(after.mean() - before.mean()), min(len(before), len(after)), float("nan")
    if fewest < FEWEST_SEEDS:
        return Estimate(value, nan, nan, nan, fewest)
    parts = [values.var(ddof=1) / len(values) for values in (before, after)]
    error = np.sqrt(sum(parts))
    if error == 0:
        return Estimate(value, value, value, float(value == 0), fewest)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (before, after), strict=True))
    width = stdtrit(freedom, (1 + CONFIDENCE) / 2) * error
    p = 2 * stdtr(freedom, -abs(value) / error)
    return Estimate(value, float(value - width), float(value + width), float(p), fewest)


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the interval of a mean over seeds (Student's t); nan below `FEWEST_SEEDS`."""
    if len(values) < FEWEST_SEEDS:
        return float("nan"), float("nan")
    mean, error = np.mean(values), np.std(values, ddof=1) / np.sqrt(len(values))
    width = stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * error
    return float(mean - width), float(mean + width)


def find_blocks(groups: Sequence[str], differences: np.ndarray) -> np.ndarray:
    """Return the block of each image, int (N,): its group, or a run of frames where there are fewer than ten groups.

    Runs end with their group, and are as long as the autocorrelation of the per-image `differences` (N,) asks.
    """
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if group.max(initial=-1) + 1 >= FEWEST_BLOCKS:
        return group
    length = run_length(group, differences)
    blocks, first = np.empty(len(group), np.int64), 0
    for index in range(group.max(initial=-1) + 1):
        members = np.flatnonzero(group == index)
        runs = max(1, round(len(members) / length))
        blocks[members] = first + np.arange(len(members)) * runs // len(members)
        first += runs
    return blocks


def run_length(group: np.ndarray, differences: np.ndarray) -> int:
    """Return the number of frames in a run: 1 where neighbors are not more alike than by chance.

    Else it grows with the sum of the autocorrelations up to the first lag at which there is none.
    """
    centered, count = differences - differences.mean(), len(differences)
    variance = (centered**2).mean()
    if count < 2 or variance <= 1e-18:
        return 1
    shared = 0.0
    for lag in range(1, count):
        same = group[lag:] == group[:-lag]
        correlation = (centered[lag:] * centered[:-lag])[same].sum() / count / variance
        if correlation < (1.96 / np.sqrt(count) if lag == 1 else 0):
            break
        shared += 2 * correlation
    return 1 + int(np.ceil(RUN_FACTOR * shared))


def _estimate(value: float, without: np.ndarray) -> Estimate:
    """Estimate a score or a difference of two from its value over everything, and from those without each block."""
    left_out = without[np.isfinite(without)]
    blocks, nan = len(left_out), float("nan")
    if blocks < FEWEST_BLOCKS or np.isnan(value):
        return Estimate(float(value), nan, nan, nan, blocks)
    error = np.sqrt((blocks - 1) / blocks * ((left_out - left_out.mean()) ** 2).sum())
    width = stdtrit(blocks - 1, (1 + CONFIDENCE) / 2) * error
    p = 2 * stdtr(blocks - 1, -abs(value) / error) if error > 0 else float(value == 0)
    return Estimate(float(value), float(value - width), float(value + width), float(p), blocks)


def correct_for_many(estimates: list[Estimate]) -> list[Estimate]:
    """Correct the p-values of several tests (Holm, 1979): the smallest counts all of them, the next one less."""
    tested = sorted((i for i, one in enumerate(estimates) if one.known), key=lambda i: estimates[i].p)
    corrected, largest = list(estimates), 0.0
    for rank, index in enumerate(tested):
        one = estimates[index]
        largest = max(largest, min(1.0, (len(tested) - rank) * one.p))
        corrected[index] = Estimate(one.value, one.low, one.high, largest, one.blocks)
    return corrected


def _per_block(confusions: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    sums = np.zeros((blocks.max(initial=-1) + 1, *confusions.shape[1:]), np.int64)
    np.add.at(sums, blocks, confusions)
    return sums


def _jackknife(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the IoU of all blocks (B,C,C) together, (C,), and without each of them, (B,C)."""
    total = blocks.sum(axis=0)
    return class_iou(total), class_iou(total - blocks)


def _mean(iou: np.ndarray) -> np.ndarray:
    there = np.isfinite(iou)
    total, count = np.where(there, iou, 0).sum(axis=-1), there.sum(axis=-1)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _influences(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Return how much each image moves the difference of the two mean IoUs: float (N,)."""
    return _influence(candidate) - _influence(reference)


def _influence(confusions: np.ndarray) -> np.ndarray:
    total = confusions.sum(axis=0)
    iou, unions = class_iou(total), class_unions(total)
    there = unions > 0
    hits = np.diagonal(confusions, axis1=1, axis2=2)[:, there]
    return ((hits - iou[there] * class_unions(confusions)[:, there]) / unions[there]).sum(axis=1) / max(1, there.sum())
