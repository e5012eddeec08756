"""Confident learning in a stream of pixels: equal to cleanlab, whatever the parts, and blind to ignored pixels."""

import numpy as np
import pytest

from cityscapes.labels import IGNORE
from dlv3p.evaluation.confident_learning import ConfidentJoint, Thresholds

CLASSES = 5


def noisy_pixels(seed: int, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Labels, an eighth of them wrong, and probabilities of an unsure network, which knows class 0 best.

    Class 4 has no label.
    """
    random = np.random.default_rng(seed)
    truth = random.integers(0, CLASSES - 1, count)
    logits = random.normal(0, 1, (count, CLASSES))
    logits[np.arange(count), truth] += random.uniform(0, 2, count) * np.where(truth, 1, 2.5)
    powers = np.exp(logits)
    given = np.where(random.random(count) < 0.125, random.integers(0, CLASSES - 1, count), truth)
    return given.astype(np.uint8), powers / powers.sum(axis=1, keepdims=True)


def learn(
    given: np.ndarray, probabilities: np.ndarray, parts: int = 1
) -> tuple[Thresholds, ConfidentJoint, np.ndarray]:
    """Stream pixels in parts through both passes; return the suggested classes as well."""
    pieces = list(zip(np.array_split(given, parts), np.array_split(probabilities, parts), strict=True))
    thresholds = Thresholds(CLASSES)
    for piece in pieces:
        thresholds.add(*piece)
    joint = ConfidentJoint(thresholds.values)
    return thresholds, joint, np.concatenate([joint.add(*piece).suggested for piece in pieces])


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_joint_and_errors_are_those_of_cleanlab(seed: int) -> None:
    count = pytest.importorskip("cleanlab.count")
    from cleanlab.filter import find_label_issues

    given, probabilities = noisy_pixels(seed)
    thresholds, joint, suggested = learn(given, probabilities)
    labels = given.astype(np.int64)
    theirs = count.get_confident_thresholds(labels, probabilities)
    known = np.isfinite(thresholds.values)
    assert known.tolist() == [True] * 4 + [False]
    np.testing.assert_allclose(thresholds.values[known], theirs[known], rtol=1e-12)
    expected = count.compute_confident_joint(labels, probabilities, calibrate=False)
    expected[4, 4] = 0  # cleanlab puts an example into every class, one without labels, too
    np.testing.assert_array_equal(joint.counts, expected)
    issues = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    assert 100 < issues.sum() < 1500
    confident = probabilities >= theirs
    assert (probabilities.argmax(axis=1) != confident.argmax(axis=1))[confident.sum(axis=1) > 1].any()
    likeliest = probabilities.argmax(axis=1) == given
    assert (confident.any(axis=1) & (confident.argmax(axis=1) != given) & likeliest).any()
    np.testing.assert_array_equal(suggested != IGNORE, issues)


def test_the_parts_of_a_stream_do_not_matter_and_ignored_pixels_do_not_count() -> None:
    given, probabilities = noisy_pixels(7)
    whole, in_parts = learn(given, probabilities), learn(given, probabilities, parts=13)
    np.testing.assert_allclose(in_parts[0].values, whole[0].values, rtol=1e-12)
    np.testing.assert_array_equal(in_parts[1].counts, whole[1].counts)
    np.testing.assert_array_equal(in_parts[2], whole[2])
    order = np.random.default_rng(0).permutation(2 * len(given))
    more = np.concatenate([given, np.full_like(given, IGNORE)])[order]
    with_ignored = learn(more, np.concatenate([probabilities, probabilities[::-1]])[order], parts=3)
    np.testing.assert_array_equal(with_ignored[1].counts, whole[1].counts)
    assert (with_ignored[2][more == IGNORE] == IGNORE).all()
    assert np.bincount(with_ignored[2]).tolist() == [
        *np.bincount(whole[2])[:-1],
        (whole[2] == IGNORE).sum() + len(given),
    ]


def test_odds_are_those_of_the_suggested_class_and_bounded() -> None:
    joint = ConfidentJoint(np.array([0.5, 0.5, 0.5]))
    probabilities = np.array([[0.2, 0.8, 0.0], [0.0, 0.0, 1.0], [0.9, 0.1, 0.0], [0.4, 0.3, 0.3]])
    doubts = joint.add(np.array([0, 0, 0, 1], np.uint8), probabilities)
    assert doubts.suggested.tolist() == [1, 2, IGNORE, IGNORE]
    np.testing.assert_allclose(np.exp(doubts.log_odds), [4, 1000, 1, 1], rtol=1e-5)
    assert doubts.disagreeing == 3
