"""Crops are functions of their generator; images and masks stay aligned; padding is mean colour and 255."""

import numpy as np
import pytest
import torch
from PIL import Image

from dlv3p.transforms import MEAN, STD, Augmentation, jitter, normalize

PLAIN = Augmentation(32, 48, scale_low=1.0, scale_high=1.0)


def generator(key=0):
    return np.random.Generator(np.random.Philox(key=key))


def picture(height, width):
    """An image whose red channel is its mask, so that any misalignment of the two shows."""
    mask = generator().integers(0, 19, (height, width), dtype=np.uint8)
    pixels = np.stack([mask, mask, mask], axis=-1) * 10
    return Image.fromarray(pixels), mask


def test_the_same_generator_gives_the_same_crop_and_another_another():
    image, mask = picture(64, 96)
    augmentation = Augmentation(32, 48, color_jitter=0.4)
    first, again, other = (augmentation(image, mask, generator(key)) for key in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("key", range(8))
def test_image_and_mask_stay_aligned_through_crop_and_flip(key):
    image, mask = picture(64, 96)
    crop, truth = PLAIN(image, mask, generator(key))
    red = crop[0].numpy() * STD[0] + MEAN[0]
    assert np.array_equal(np.round(red * 25.5), truth.numpy())


def test_half_of_the_crops_are_flipped():
    mask = np.tile(np.arange(48, dtype=np.uint8) // 3, (32, 1))
    image = Image.fromarray(np.zeros((32, 48, 3), np.uint8))
    flipped = sum(int(PLAIN(image, mask, generator(key))[1][0, 0] > 0) for key in range(200))
    assert 70 < flipped < 130


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_labels_are_never_mixed_when_they_are_scaled(scale):
    mask = np.where(generator().random((64, 96)) < 0.5, 3, 17).astype(np.uint8)
    augmentation = Augmentation(32, 48, image_scale=scale, scale_low=1.0, scale_high=1.0)
    _, truth = augmentation(Image.fromarray(np.zeros((64, 96, 3), np.uint8)), mask, generator())
    assert set(truth.unique().tolist()) == {3, 17}


def test_what_lies_outside_the_image_is_mean_colour_and_ignored():
    image, mask = picture(20, 30)
    crop, truth = PLAIN(image, mask, generator())
    assert (truth[20:] == 255).all()
    assert (truth[:, 30:] == 255).all()
    assert (crop[:, 20:] == 0).all()
    assert (truth[:20, :30] != 255).all()


def test_scales_cover_their_range_evenly_in_logarithm():
    """A bright dot's spread tells the scale: the shares of scales below 1 and above 1 are equal for 0.5 to 2."""
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 1
    augmentation = Augmentation(64, 64, scale_low=0.5, scale_high=2.0)
    image = Image.fromarray(np.zeros((64, 64, 3), np.uint8))
    smaller = sum(int((augmentation(image, mask, generator(key))[1] == 255).any()) for key in range(300))
    assert 110 < smaller < 190


def test_jitter_of_strength_zero_changes_nothing_and_more_changes_within_bounds():
    colors = generator().random((4, 5, 3)).astype(np.float32)
    assert jitter(colors, 0.0, generator()) is colors
    changed = jitter(colors, 0.5, generator(3))
    assert not np.allclose(changed, colors)
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_jitter_draws_as_often_at_any_strength():
    one, other = generator(), generator()
    jitter(np.zeros((1, 1, 3), np.float32), 0.0, one)
    jitter(np.zeros((1, 1, 3), np.float32), 0.5, other)
    assert one.random() == other.random()


def test_normalize_gives_zero_for_the_mean_colour_and_scales_the_size():
    mean = Image.fromarray(np.broadcast_to(np.round(255 * MEAN), (40, 60, 3)).astype(np.uint8))
    image = normalize(mean, image_scale=0.5)
    assert image.shape == (3, 20, 30)
    assert image.abs().max() < 0.01
