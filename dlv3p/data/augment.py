"""Augment an image and its mask into a training crop, and normalize pixels for a network.

Every random choice comes from the generator that is passed in, never from a global state: a sample is a function of
(seed, epoch, index), whatever process makes it. Of RGB, color jitter and normalization are one pass over the pixels:
everything that maps one color value to another is a table of 256 entries, and only saturation mixes the three channels.
Other channels are floats, which no table holds.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from cityscapes.files.channels import ChannelImage, PixelRule
from cityscapes.labels import IGNORE
from dlv3p.data.resample import Window, finish, finish_saturated, resize_ids, resize_pixels

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
"""Mean and standard deviation of ImageNet's RGB in 0..1, as torchvision's weights expect."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R 601 weights of red, green and blue in a pixel's brightness."""

LEVELS = np.arange(256).astype(np.float32) / 255
NORMALIZED = np.ascontiguousarray(((LEVELS[:, None] - MEAN) / STD).T)
"""The normalized value of each level of each channel, float32 (3,256)."""


def normalize_crop(pixels: np.ndarray, out: np.ndarray) -> None:
    """Normalize pixels, uint8 (h,w,3), into the upper left corner of `out`, float32 (3,H,W)."""
    finish(pixels, NORMALIZED, out)


def jitter_crop(pixels: np.ndarray, factors: np.ndarray, out: np.ndarray) -> None:
    """Change brightness, contrast and saturation by `factors`, float32 (3,), then normalize as `normalize_crop` does.

    Contrast pulls each color to the crop's mean brightness, saturation to the pixel's own. The result is clipped to
    0..1.
    """
    brightness, contrast, saturation = factors
    table = LEVELS * brightness
    colors = np.take(table, pixels)
    mean = np.float32((colors @ LUMA).mean())
    table = (table - mean) * contrast + mean
    gray = np.take(table, pixels, out=colors, mode="clip") @ LUMA  # unlike "raise", "clip" needs no buffer
    finish_saturated(pixels, table, gray, saturation, MEAN, STD, out)


def finish_channels(pixels: np.ndarray, rule: PixelRule, factors: np.ndarray | None, out: np.ndarray) -> None:
    """Normalize pixels, float32 (h,w,n), by a rule into the upper left corner of `out`, float32 (n,H,W).

    `factors` change brightness and contrast as `jitter_crop` does, alike in all channels; channels have no saturation.
    """
    height, width, _ = pixels.shape
    if factors is not None:
        brightness, contrast, _ = factors
        pixels = pixels * brightness
        mean = np.float32(pixels.mean(dtype=np.float64))
        pixels = ((pixels - mean) * contrast + mean).clip(0, 1)
    for index, (factor, offset) in enumerate(zip(*rule.normalization, strict=True)):
        out[index, :height, :width] = pixels[..., index] * np.float32(factor) + np.float32(offset)


def blur_crop(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Blur pixels, uint8 (h,w,3) or float32 (h,w,n), by a Gaussian of `sigma` pixels; edges are continued."""
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))
    reach = math.ceil(4 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-6)) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (0, 1):  # Pillow blurs no floats
        length = pixels.shape[axis]
        longer = pixels.take(np.arange(-reach, length + reach).clip(0, length - 1), axis=axis)
        pixels = sum(w * longer.take(range(k, k + length), axis=axis) for k, w in enumerate(weights))
    return pixels


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, flip, color jitter and blur, as in DeepLabV3 section 4.1 (jitter as in the VainF recipe).

    The scale is drawn from `scale_low` to `scale_high`, on top of the fixed `image_scale`: log-uniformly as in
    chenxi116/DeepLabv3.pytorch, so that halving is as likely as doubling, or uniformly as in VainF's recipe and in the
    MindSpore system, whose crops are larger on average. With `blur` above 0, every second crop is blurred by a Gaussian
    of 0 to `blur` pixels.
    """

    crop_height: int
    crop_width: int
    image_scale: float = 1.0
    scale_low: float = 0.5
    scale_high: float = 2.0
    color_jitter: float = 0.0
    scale_distribution: str = "log_uniform"
    blur: float = 0.0
    rule: PixelRule | None = None

    def __call__(self, image: Image.Image, mask: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return a crop: image float32 (3,h,w) normalized, mask int64 (h,w); padding is the mean color and 255."""
        return self.crop(np.asarray(image), mask, self.window(image.height, image.width, rng), rng)

    def window(
        self, height: int, width: int, rng: np.random.Generator, center: tuple[int, int] | None = None
    ) -> Window:
        """Choose the window of an image of `height` x `width` pixels that becomes a crop.

        `center`, row and column of a pixel, centers the window there, as far as the image's edges allow.
        """
        scale = self.image_scale * self._scale(rng)
        scaled_height, scaled_width = max(1, round(height * scale)), max(1, round(width * scale))
        crop_height, crop_width = min(self.crop_height, scaled_height), min(self.crop_width, scaled_width)
        left = int(rng.integers(scaled_width - crop_width + 1))
        top = int(rng.integers(scaled_height - crop_height + 1))
        across, down = width / scaled_width, height / scaled_height
        if center is not None:
            top = _around(center[0] / down, crop_height, scaled_height)
            left = _around(center[1] / across, crop_width, scaled_width)
        right, bottom = min((left + crop_width) * across, width), min((top + crop_height) * down, height)
        return Window(height, width, left * across, top * down, right, bottom, crop_height, crop_width)

    def crop(
        self, pixels: np.ndarray, mask: np.ndarray, window: Window, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Make the crop of a window: `pixels`, uint8 (H,W,3), may be a corner (see `Window`); `mask` is uint8 (H,W).

        With a rule, `pixels` are its shares, float32 (H,W,n).
        """
        flip = bool(rng.random() < 0.5)
        colors = resize_pixels(pixels, window, flip=flip)
        factors = rng.uniform(1 - self.color_jitter, 1 + self.color_jitter, size=3).astype(np.float32)
        if self.blur and rng.random() < 0.5:
            colors = blur_crop(colors, rng.uniform(0, self.blur))
        size = (self.crop_height, self.crop_width)
        crop, truth = np.empty((colors.shape[2], *size), np.float32), np.empty(size, np.int64)
        for outside in (crop[:, window.height :], crop[:, :, window.width :]):
            outside[...] = 0  # the mean color, after normalizing
        for outside in (truth[window.height :], truth[:, window.width :]):
            outside[...] = IGNORE
        resize_ids(np.ascontiguousarray(mask), window, truth, flip=flip)
        if self.rule is not None:
            finish_channels(colors, self.rule, factors if self.color_jitter else None, crop)
        elif self.color_jitter:
            jitter_crop(colors, factors, crop)
        else:
            normalize_crop(colors, crop)
        return torch.from_numpy(crop), torch.from_numpy(truth)

    def _scale(self, rng: np.random.Generator) -> float:
        if self.scale_distribution == "uniform":
            return float(rng.uniform(self.scale_low, self.scale_high))
        return float(np.exp(rng.uniform(np.log(self.scale_low), np.log(self.scale_high))))


def _around(center: float, length: int, available: int) -> int:
    return min(max(round(center - length / 2), 0), available - length)


def normalize(image: Image.Image | ChannelImage, *, image_scale: float = 1.0) -> Tensor:
    """Convert an image to the input of a network: float32 (3,h,w), scaled by `image_scale`, ImageNet-normalized.

    An image of channels becomes (n,h,w), normalized by its rule.
    """
    if image_scale != 1.0:
        size = (max(1, round(image.width * image_scale)), max(1, round(image.height * image_scale)))
        image = image.resize(size, Image.Resampling.BILINEAR)
    if isinstance(image, ChannelImage):
        out = np.empty((image.rule.channels, image.height, image.width), np.float32)
        finish_channels(image.pixels, image.rule, None, out)
        return torch.from_numpy(out)
    out = np.empty((3, image.height, image.width), np.float32)
    normalize_crop(np.asarray(image), out)
    return torch.from_numpy(out)
