"""Scores against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from dlv3p.evaluation.metrics import confusion_matrix, scores


def test_confusion_counts_truth_in_rows_and_leaves_ignored_pixels_out():
    truth = torch.tensor([[0, 0, 1], [2, 255, 255]], dtype=torch.uint8)
    prediction = torch.tensor([[0, 1, 1], [0, 2, 0]])
    assert confusion_matrix(truth, prediction, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_scores_of_a_confusion_worked_out_by_hand():
    found = scores(torch.tensor([[6, 2, 0], [1, 1, 0], [0, 0, 0]]))
    assert found.iou[:2] == pytest.approx([6 / 9, 1 / 4])
    assert found.dice[:2] == pytest.approx([12 / 15, 2 / 5])
    assert found.accuracy[:2] == pytest.approx([6 / 8, 1 / 2])
    assert found.pixel_accuracy == pytest.approx(7 / 10)
    assert math.isnan(found.iou[2])
    assert found.mean_iou == pytest.approx((6 / 9 + 1 / 4) / 2)


def test_a_class_that_is_only_predicted_counts_as_zero():
    found = scores(np.array([[5, 5], [0, 0]]))
    assert found.iou[1] == 0
    assert found.mean_iou == pytest.approx(0.25)
    assert found.mean_accuracy == pytest.approx(0.5)


def test_nothing_labeled_gives_nan_without_a_warning(recwarn):
    found = scores(np.zeros((3, 3), np.int64))
    assert all(math.isnan(value) for value in found.means().values())
    assert not recwarn.list


def test_counts_beyond_float32_stay_exact():
    big = 2**40
    assert scores(np.array([[big + 1, 1], [0, big]])).iou[0] == (big + 1) / (big + 2)
