"""Crops are functions of their generator; images and masks stay aligned; padding is mean color and 255."""

import numpy as np
import pytest
import torch
from PIL import Image

from dlv3p.data.augment import LUMA, MEAN, STD, Augmentation, blur_crop, jitter_crop, normalize

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


def test_what_lies_outside_the_image_is_mean_color_and_ignored():
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


@pytest.mark.parametrize(("distribution", "mean"), [("log_uniform", 1.5 / np.log(4)), ("uniform", 1.25)])
def test_scales_have_the_mean_of_their_distribution(distribution, mean):
    augmentation = Augmentation(64, 64, scale_low=0.5, scale_high=2.0, scale_distribution=distribution)
    windows = [augmentation.window(1000, 1000, generator(key)) for key in range(2000)]
    scales = [window.width / (window.right - window.left) for window in windows]
    assert np.mean(scales) == pytest.approx(mean, abs=0.04)
    assert min(scales) == pytest.approx(0.5, abs=0.01)
    assert max(scales) == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("key", range(20))
def test_a_window_around_a_pixel_holds_it_and_stays_inside_the_image(key):
    rng = generator(key)
    center = int(rng.integers(100)), int(rng.integers(200))
    window = Augmentation(48, 64).window(100, 200, generator(key), center)
    assert 0 <= window.top <= center[0] <= window.bottom <= 100
    assert 0 <= window.left <= center[1] <= window.right <= 200
    if window.top > 0 and window.bottom < 99:
        assert abs((window.top + window.bottom) / 2 - center[0]) <= 2
    if window.left > 0 and window.right < 199:
        assert abs((window.left + window.right) / 2 - center[1]) <= 2


def jittered(pixels, factors):
    out = np.empty((3, *pixels.shape[:2]), np.float32)
    jitter_crop(pixels, np.array(factors, np.float32), out)
    return out.transpose(1, 2, 0) * STD + MEAN


def test_jitter_changes_brightness_contrast_and_saturation_within_range():
    pixels = generator().integers(0, 256, (4, 5, 3), dtype=np.uint8)
    colors = (pixels / 255).astype(np.float32)
    assert jittered(pixels, (1, 1, 1)) == pytest.approx(colors, abs=1e-6)
    assert jittered(pixels, (0.7, 1, 1)) == pytest.approx(0.7 * colors, abs=1e-6)
    mean = (colors @ LUMA).mean()
    assert jittered(pixels, (1, 0.6, 1)) == pytest.approx((colors - mean) * 0.6 + mean, abs=1e-6)
    gray = (colors @ LUMA)[..., None]
    assert jittered(pixels, (1, 1, 1.4)) == pytest.approx(((colors - gray) * 1.4 + gray).clip(0, 1), abs=1e-6)


@pytest.mark.parametrize("blur", [0.0, 2.0])
def test_jitter_and_blur_leave_all_other_choices_alone(blur):
    image, mask = picture(64, 96)
    _, plain = Augmentation(32, 48)(image, mask, generator(7))
    _, other = Augmentation(32, 48, color_jitter=0.5, blur=blur)(image, mask, generator(7))
    assert torch.equal(plain, other)


def test_every_second_crop_is_blurred_and_no_mask():
    image, mask = picture(32, 48)
    augmentation = Augmentation(32, 48, scale_low=1.0, scale_high=1.0, blur=3.0)
    changed = 0
    for key in range(100):
        (crop, truth), (sharp, ids) = augmentation(image, mask, generator(key)), PLAIN(image, mask, generator(key))
        assert torch.equal(truth, ids)
        changed += not torch.equal(crop, sharp)
    assert 30 < changed < 70


def test_blur_spreads_a_dot_and_keeps_its_sum():
    dot = np.zeros((31, 31, 3), np.uint8)
    dot[15, 15] = 255
    spread = blur_crop(dot, 1.5).astype(int)
    assert spread[15, 15, 0] < 40
    assert spread[..., 0].sum() == pytest.approx(255, rel=0.15)


def test_normalize_gives_zero_for_the_mean_color_and_scales_the_size():
    mean = Image.fromarray(np.broadcast_to(np.round(255 * MEAN), (40, 60, 3)).astype(np.uint8))
    image = normalize(mean, image_scale=0.5)
    assert image.shape == (3, 20, 30)
    assert image.abs().max() < 0.01
