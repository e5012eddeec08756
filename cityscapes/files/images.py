"""Read the images and id masks of any data set strictly: a bad file is a one-line error that names it."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from cityscapes.errors import InputError, MissingInputError, reason

FORMATS = ("PNG", "JPEG")
"""The formats that may be opened; Pillow's other decoders never see an untrusted file."""


def read_image(path: Path) -> Image.Image:
    """Read an image as RGB; raises InputError for a file that cannot be decoded, MissingInputError for none."""
    return open_image(path).convert("RGB")


def read_ids(path: Path) -> np.ndarray:
    """Read a mask's ids, uint8 (H,W); those of a palette image are its indices, never its colors.

    Raises InputError for an image of more channels, and for a damaged one.
    """
    from cityscapes.files.png_read import decode_gray_png  # loads numba, which images do not need

    with suppress(OSError):
        ids = decode_gray_png(path.read_bytes(), bits=8)
        if ids is not None:
            return ids
    image = open_image(path)
    if image.mode not in ("L", "P"):
        raise InputError(f"{path}: has mode {image.mode}; a mask is an 8-bit PNG with one channel of ids (mode L or P)")
    return np.array(image)


def open_image(path: Path) -> Image.Image:
    """Read an image as it is stored, whatever its mode; raises as `read_image` does."""
    try:
        image = Image.open(path, formats=FORMATS)
        image.load()
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file") from error
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as an image ({reason(error)}); replace the file") from error
    return image
