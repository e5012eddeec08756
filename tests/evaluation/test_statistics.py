"""Intervals hold what they promise for images that resemble their neighbors, and nobody wins by chance."""

from functools import cache

import numpy as np
import pytest

from dlv3p.evaluation.metrics import scores
from dlv3p.evaluation.statistics import Comparison, compare, find_blocks, run_length, score_interval

CLASSES = 3


def autocorrelated(random, repetitions, frames, correlation):
    """Draw an AR(1) process of unit variance: float (repetitions, frames)."""
    steps = random.standard_normal((repetitions, frames))
    steps[:, 1:] *= np.sqrt(1 - correlation**2)
    for frame in range(1, frames):
        steps[:, frame] += correlation * steps[:, frame - 1]
    return steps


def drives(random, repetitions, frames, correlation, *, harder=0.15):
    """Draw the confusion counts of two networks on drives, int64 (repetitions, frames, C, C) each.

    What is in a scene, how hard it is, and what each network fails at change slowly; the second fails more by `harder`.
    """
    hard, *shares = (autocorrelated(random, repetitions, frames, correlation) for _ in range(CLASSES))
    weights = np.exp(np.stack([np.zeros_like(hard), *(0.6 * share - 0.8 for share in shares)], axis=-1))
    truth = random.multinomial(2000, weights / weights.sum(axis=-1, keepdims=True))
    both = []
    for offset in (0.0, harder):
        own = autocorrelated(random, repetitions, frames, correlation)
        rate = 1 / (1 + np.exp(2 - 0.6 * hard - 0.5 * own - offset))
        counts = np.zeros((repetitions, frames, CLASSES, CLASSES), np.int64)
        for index in range(CLASSES):
            wrong = random.binomial(truth[..., index], rate)
            first = random.binomial(wrong, 0.6)
            counts[..., index, index] = truth[..., index] - wrong
            counts[..., index, (index + 1) % CLASSES] = first
            counts[..., index, (index + 2) % CLASSES] = wrong - first
        both.append(counts)
    return both


@cache
def true_change(correlation):
    """The change of the mean IoU, in points, that drives have in the long run."""
    long = drives(np.random.default_rng(9), 1, 300_000, correlation)
    first, second = (scores(one[0].sum(axis=0)).mean_iou for one in long)
    return 100 * (second - first)


def coverage(repetitions, frames, correlation, *, blocks=None):
    """Return the share of intervals that hold the true change, and the median number of blocks."""
    truth, random = true_change(correlation), np.random.default_rng(1)
    held, counted = [], []
    for _ in range(repetitions // 50):
        for reference, candidate in zip(*drives(random, 50, frames, correlation), strict=True):
            comparison = compare(reference, candidate)
            if blocks is not None:
                comparison = Comparison(reference, candidate, blocks)
            held.append(comparison.mean.low <= truth <= comparison.mean.high)
            counted.append(comparison.mean.blocks)
    return np.mean(held), np.median(counted)


def test_an_interval_holds_the_true_change_of_frames_that_resemble_their_neighbors():
    held, blocks = coverage(300, 1200, 0.7)
    assert blocks >= 20
    assert 0.91 <= held <= 0.985  # 95 % of 300, give or take three standard errors


def test_frames_drawn_one_by_one_hold_far_less_than_they_say():
    """So the simulation can fail: with runs of one frame the same intervals are much too narrow."""
    held, _ = coverage(100, 1200, 0.7, blocks=np.arange(1200))
    assert held < 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "correlation"), [(60, 0.0), (1200, 0.5), (2000, 0.8)])
def test_intervals_hold_95_of_100(frames, correlation):
    held, blocks = coverage(2000, frames, correlation)
    assert blocks >= 20
    assert 0.93 <= held <= 0.97


def test_identical_runs_never_win_and_swapping_flips_the_sign_and_nothing_else():
    reference, candidate = (one[0] for one in drives(np.random.default_rng(2), 1, 400, 0.5))
    same = compare(reference, reference)
    assert (same.mean.value, same.mean.low, same.mean.high, same.mean.sign) == (0, 0, 0, 0)
    assert [one.sign for one in same.classes] == [0] * CLASSES
    there, back = compare(reference, candidate), compare(candidate, reference)
    assert there.mean.sign == -1
    for one, other in zip([there.mean, *there.classes], [back.mean, *back.classes], strict=True):
        assert (other.value, other.low, other.high) == (-one.value, -one.high, -one.low)
        assert (other.p, other.blocks, other.sign) == (one.p, one.blocks, -one.sign)


def test_the_value_is_that_of_the_summed_counts():
    reference, candidate = (one[0] for one in drives(np.random.default_rng(3), 1, 50, 0.0))
    before, after = (scores(counts.sum(axis=0)) for counts in (reference, candidate))
    comparison = compare(reference, candidate)
    assert comparison.mean.value == pytest.approx(100 * (after.mean_iou - before.mean_iou), abs=1e-9)
    assert [one.value for one in comparison.classes] == pytest.approx(100 * (after.iou - before.iou), abs=1e-9)
    alone = score_interval(reference)
    assert alone.value == pytest.approx(before.mean_iou, abs=1e-12)
    assert alone.low < before.mean_iou < alone.high


def test_with_fewer_than_ten_blocks_there_is_no_interval_and_no_winner():
    reference, candidate = (one[0] for one in drives(np.random.default_rng(4), 1, 9, 0.0, harder=3.0))
    for estimate in (compare(reference, candidate).mean, score_interval(reference)):
        assert not estimate.known
        assert str(estimate) == "too few independent images (9) for an interval"
    assert compare(reference, candidate).mean.sign == 0


def test_a_class_counts_only_the_blocks_in_which_it_occurs():
    reference, candidate = (one[0] for one in drives(np.random.default_rng(5), 1, 30, 0.0, harder=2.0))
    for counts in (reference, candidate):
        counts[6:, 2] = counts[6:, :, 2] = 0
    common, *_, rare = compare(reference, candidate).classes
    assert (common.blocks, common.sign) == (30, -1)
    assert (rare.blocks, rare.sign) == (6, 0)


def test_classes_are_tested_with_holms_correction():
    """By hand: the smallest of three p-values counts three times, the next twice, and none is below an earlier one."""
    comparison = compare(*(one[0] for one in drives(np.random.default_rng(6), 1, 60, 0.0, harder=0.1)))
    everything, without = comparison._ious
    alone = [compare_alone(everything[:, index], without[:, :, index]) for index in range(CLASSES)]
    order = np.argsort(alone)
    expected = np.maximum.accumulate(np.minimum(1, np.array([3, 2, 1]) * np.array(alone)[order]))
    assert [comparison.classes[index].p for index in order] == pytest.approx(expected)


def compare_alone(everything, without):
    """The uncorrected p-value of the jackknife, by scipy's own distribution."""
    from scipy.stats import t

    left_out, blocks = without[1] - without[0], without.shape[1]
    error = np.sqrt((blocks - 1) / blocks * ((left_out - left_out.mean()) ** 2).sum())
    return 2 * t.sf(abs(everything[1] - everything[0]) / error, blocks - 1)


def test_ten_groups_are_the_blocks_and_fewer_are_cut_into_runs_that_end_with_them():
    noise = np.random.default_rng(7).standard_normal(120)
    for count in (10, 12):
        patients = [f"patient {index % count}" for index in range(120)]
        assert len(set(zip(patients, find_blocks(patients, noise).tolist(), strict=True))) == count
    cities = ["aachen"] * 50 + ["bochum"] * 70
    assert len(set(find_blocks(cities, noise).tolist())) == 120, "white noise needs no runs"
    drift = np.repeat(np.random.default_rng(8).standard_normal(24), 5)
    blocks = find_blocks(cities, drift)
    assert len(set(blocks.tolist())) < 30
    assert set(blocks[:50].tolist()).isdisjoint(blocks[50:].tolist())
    assert (np.diff(blocks) >= 0).all()


def test_runs_grow_with_what_neighbors_share():
    random = np.random.default_rng(10)
    group = np.zeros(5000, int)
    lengths = [run_length(group, autocorrelated(random, 1, 5000, r)[0]) for r in (0.3, 0.6, 0.9)]
    assert lengths == sorted(lengths)
    assert run_length(group, np.full(5000, 3.0)) == 1
    shared = [2 * r / (1 - r) for r in (0.3, 0.6, 0.9)]
    assert np.array(lengths) == pytest.approx(6 * np.array(shared), rel=0.3, abs=4)


def test_other_images_cannot_be_compared():
    with pytest.raises(ValueError, match="the same images"):
        compare(np.zeros((3, 2, 2), int), np.zeros((4, 2, 2), int))
