"""The loss band by band is the loss of the full-size logits, in value and in gradient, without keeping them."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cityscapes.errors import ParameterError
from dlv3p.parameters.choices import LOSSES, PIXEL_MEANS
from dlv3p.training import losses as chunked_loss
from dlv3p.training.activation_checkpointing import saved_bytes
from dlv3p.training.losses import make_chunked_loss, make_loss


@pytest.fixture(autouse=True)
def narrow_bands(monkeypatch):
    """Bands of a few rows, so that small images have many."""
    monkeypatch.setattr(chunked_loss, "BAND_PIXELS", 150)


def batch(size, mask_size, *, dtype=torch.float64, seed=0):
    """Logits (2,4,*size) that want a gradient and a mask (2,*mask_size) with ignored pixels, unevenly spread."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((2, 4, *size), generator=generator, dtype=dtype).requires_grad_()
    mask = torch.randint(0, 4, (2, *mask_size), generator=generator)
    mask[:, : mask_size[0] // 3] = 255
    mask[0, -1, -2:] = 255
    return logits, mask


def value_and_gradient(loss, logits, mask, scale=1.0):
    value = loss(logits, mask)
    (gradient,) = torch.autograd.grad(scale * value, logits)
    return value.detach(), gradient


@pytest.mark.parametrize("name", PIXEL_MEANS)
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("size", "mask_size"), [((6, 8), (24, 32)), ((7, 5), (29, 19)), ((9, 9), (5, 4)), ((1, 3), (7, 9))]
)
def test_value_and_gradient_are_those_of_the_full_size_loss(name, weights, align_corners, size, mask_size):
    logits, mask = batch(size, mask_size)

    def plain(logits, mask):
        upsampled = functional.interpolate(logits, mask.shape[-2:], mode="bilinear", align_corners=align_corners)
        return make_loss(name, weights)(upsampled, mask)

    expected, expected_gradient = value_and_gradient(plain, logits, mask, 3.0)
    chunked = make_chunked_loss(name, weights, align_corners=align_corners)
    value, gradient = value_and_gradient(chunked, logits, mask, 3.0)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (gradient - expected_gradient).norm() <= 1e-6 * expected_gradient.norm()


@pytest.mark.parametrize("name", PIXEL_MEANS)
def test_float32_agrees_to_a_millionth_at_the_real_size_of_bands(name, monkeypatch):
    monkeypatch.undo()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 19, 65, 65, generator=generator).requires_grad_()
    mask = torch.randint(0, 19, (2, 257, 257), generator=generator)

    def plain(logits, mask):
        upsampled = functional.interpolate(logits, mask.shape[-2:], mode="bilinear", align_corners=False)
        return make_loss(name)(upsampled, mask)

    expected, expected_gradient = value_and_gradient(plain, logits, mask)
    value, gradient = value_and_gradient(make_chunked_loss(name), logits, mask)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert (gradient - expected_gradient).norm() <= 1e-6 * expected_gradient.norm()


@pytest.mark.parametrize("name", PIXEL_MEANS)
def test_a_batch_without_a_label_gives_zero_and_no_gradient(name):
    logits, mask = batch((6, 8), (24, 32))
    value, gradient = value_and_gradient(make_chunked_loss(name), logits, torch.full_like(mask, 255))
    assert value == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_a_validation_loss_needs_no_gradient():
    logits, mask = batch((6, 8), (24, 32))
    with torch.no_grad():
        value = make_chunked_loss("cross_entropy")(logits, mask)
    assert value == make_chunked_loss("cross_entropy")(logits, mask).detach()
    assert not value.requires_grad


def test_a_gradient_can_follow_a_value_without_one_of_the_same_size():
    logits, mask = batch((7, 5), (28, 20), dtype=torch.float32)
    loss = make_chunked_loss("cross_entropy")
    with torch.inference_mode():
        value = loss(logits.detach(), mask)
    assert value_and_gradient(loss, logits, mask)[0].item() == pytest.approx(value.item(), rel=1e-6)


def test_nothing_of_full_size_is_saved_for_the_backward_pass():
    logits, mask = batch((6, 8), (24, 32))
    chunked = saved_bytes(lambda: make_chunked_loss("cross_entropy")(2 * logits, mask), nn.Identity())
    assert 0 < chunked <= logits.nbytes


def test_a_focal_loss_takes_its_gamma_along():
    logits, mask = batch((6, 8), (24, 32))
    loss = make_loss("focal", focal_gamma=1.0)
    upsampled = functional.interpolate(logits, mask.shape[-2:], mode="bilinear")
    value = make_chunked_loss("focal", focal_gamma=1.0)(logits, mask)
    assert value.item() == pytest.approx(loss(upsampled, mask).item(), rel=1e-6)
    assert value.item() != pytest.approx(make_chunked_loss("focal")(logits, mask).item(), rel=0.01)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - set(PIXEL_MEANS)))
def test_losses_that_need_all_pixels_at_once_are_refused(name):
    with pytest.raises(ParameterError, match="needs all pixels at once; allowed are cross_entropy and focal"):
        make_chunked_loss(name)
