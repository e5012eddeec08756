"""From a crop's 8-bit pixels to what a network takes: colour jitter and normalisation, in one pass over the pixels.

Everything that maps one colour value to another is a table of 256 entries; only saturation mixes the three channels.
"""

import numpy as np
from PIL import Image, ImageFilter

from dlv3p.data.kernels import finish, finish_saturated

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
"""Of ImageNet's RGB in 0..1: what torchvision's weights expect."""

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R 601 weights of red, green and blue in a pixel's brightness."""

LEVELS = np.arange(256).astype(np.float32) / 255
NORMALIZED = np.ascontiguousarray(((LEVELS[:, None] - MEAN) / STD).T)
"""What each level of each channel becomes, float32 (3,256)."""


def normalize_crop(pixels: np.ndarray, out: np.ndarray) -> None:
    """Normalise pixels, uint8 (h,w,3), into the upper left corner of `out`, float32 (3,H,W)."""
    finish(pixels, NORMALIZED, out)


def jitter_crop(pixels: np.ndarray, factors: np.ndarray, out: np.ndarray) -> None:
    """Change brightness, contrast and saturation by `factors`, float32 (3,), then do as `normalize_crop`.

    Contrast pulls each colour to the crop's mean brightness, saturation to the pixel's own; the result is cut to 0..1.
    """
    brightness, contrast, saturation = factors
    table = LEVELS * brightness
    colors = np.take(table, pixels)
    mean = np.float32((colors @ LUMA).mean())
    table = (table - mean) * contrast + mean
    gray = np.take(table, pixels, out=colors, mode="clip") @ LUMA  # unlike "raise", "clip" needs no buffer
    finish_saturated(pixels, table, gray, saturation, MEAN, STD, out)


def blur_crop(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Blur pixels, uint8 (h,w,3), by a Gaussian of `sigma` pixels."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))
