"""Ignored pixels neither add to a loss nor dilute it."""

import math

import pytest
import torch
from torch.nn import functional

from dlv3p.losses import inverse_log_weights, make_loss
from dlv3p.training_parameters import LOSSES


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 5, generator=generator)
    mask = torch.randint(0, 4, (2, 6, 5), generator=generator)
    return logits, mask


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_change_nothing(name, batch):
    logits, mask = batch
    loss = make_loss(name)
    wider_logits = torch.cat([logits, 100 * torch.randn(2, 4, 6, 7)], dim=3)
    wider_mask = torch.cat([mask, torch.full((2, 6, 7), 255)], dim=2)
    assert loss(wider_logits, wider_mask).item() == pytest.approx(loss(logits, mask).item(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5, 1.0])])
def test_a_batch_without_a_label_gives_zero_and_a_finite_gradient(name, weights, batch):
    logits, mask = batch
    logits.requires_grad_(True)
    value = make_loss(name, weights)(logits, torch.full_like(mask, 255))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_cross_entropy_is_the_mean_over_valid_pixels(batch):
    logits, mask = batch
    mask[0, 0] = 255
    assert make_loss("cross_entropy")(logits, mask).item() == pytest.approx(
        functional.cross_entropy(logits, mask, ignore_index=255).item(), rel=1e-6
    )


def test_class_weights_weigh_as_torch_does(batch):
    logits, mask = batch
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    expected = functional.cross_entropy(logits, mask, weight=weights).item()
    assert make_loss("cross_entropy", weights)(logits, mask).item() == pytest.approx(expected, rel=1e-6)


def test_focal_loss_of_one_pixel_is_as_computed_by_hand():
    logits = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1)
    truth = torch.tensor([[[1]]])
    assert make_loss("focal")(logits, truth).item() == pytest.approx(0.25**2 * -math.log(0.75), rel=1e-5)


def test_rare_classes_weigh_more_and_the_mean_over_a_pixel_is_one():
    counts = torch.tensor([900, 90, 10, 0])
    weights = inverse_log_weights(counts)
    assert torch.all(weights[1:] > weights[:-1])
    assert (weights * counts).sum().item() / 1000 == pytest.approx(1)
    assert (weights.max() / weights.min()).item() < 50
