"""From an image and its mask to a training crop, and from an image to what a network takes.

Every random choice comes from the generator that is passed in, never from a global state: a sample is a function of
(seed, epoch, index), whatever process makes it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cityscapes.labels import IGNORE

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
"""Of ImageNet's RGB in 0..1: what torchvision's weights expect."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R 601 weights of red, green and blue in a pixel's brightness."""


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, flip and colour jitter, as in DeepLabV3 section 4.1 (jitter as in the VainF recipe).

    The scale is drawn log-uniformly from `scale_low` to `scale_high`, on top of the fixed `image_scale`.
    """

    crop_height: int
    crop_width: int
    image_scale: float = 1.0
    scale_low: float = 0.5
    scale_high: float = 2.0
    color_jitter: float = 0.0

    def __call__(self, image: Image.Image, mask: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return a crop: image float32 (3,h,w) normalised, mask int64 (h,w); padding is the mean colour and 255."""
        scale = self.image_scale * float(np.exp(rng.uniform(np.log(self.scale_low), np.log(self.scale_high))))
        pixels, ids = self._crop(image, Image.fromarray(mask), scale, rng)
        if rng.random() < 0.5:
            pixels, ids = pixels[:, ::-1], ids[:, ::-1]
        colors = jitter(pixels.astype(np.float32) / 255, self.color_jitter, rng)
        crop = np.zeros((self.crop_height, self.crop_width, 3), np.float32)  # zero after normalising is the mean colour
        truth = np.full((self.crop_height, self.crop_width), IGNORE, np.int64)
        crop[: ids.shape[0], : ids.shape[1]] = (colors - MEAN) / STD
        truth[: ids.shape[0], : ids.shape[1]] = ids
        return torch.from_numpy(crop.transpose(2, 0, 1).copy()), torch.from_numpy(truth)

    def _crop(
        self, image: Image.Image, mask: Image.Image, scale: float, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Resize only the window that is kept, which costs far less than resizing the whole image first."""
        width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        crop_width, crop_height = min(self.crop_width, width), min(self.crop_height, height)
        left, top = int(rng.integers(width - crop_width + 1)), int(rng.integers(height - crop_height + 1))
        across, down = image.width / width, image.height / height
        box = (
            left * across,
            top * down,
            min((left + crop_width) * across, image.width),
            min((top + crop_height) * down, image.height),
        )
        size = (crop_width, crop_height)
        pixels = image.resize(size, Image.Resampling.BILINEAR, box=box)
        ids = mask.resize(size, Image.Resampling.NEAREST, box=box)
        return np.asarray(pixels), np.asarray(ids)


def jitter(colors: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast and saturation by random factors in 1-strength to 1+strength; colours are 0 to 1."""
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, size=3).astype(np.float32)
    if strength == 0:
        return colors
    colors = colors * brightness
    mean = np.float32((colors @ LUMA).mean())
    colors = (colors - mean) * contrast + mean
    gray = (colors @ LUMA)[..., None]
    return np.clip((colors - gray) * saturation + gray, 0, 1)


def normalize(image: Image.Image, *, image_scale: float = 1.0) -> Tensor:
    """Turn an RGB image into what a network takes: float32 (3,h,w), scaled by `image_scale`, ImageNet-normalised."""
    if image_scale != 1.0:
        size = (max(1, round(image.width * image_scale)), max(1, round(image.height * image_scale)))
        image = image.resize(size, Image.Resampling.BILINEAR)
    colors = (np.asarray(image, np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(colors.transpose(2, 0, 1).copy())
