"""An image that is decoded no further than it is looked at: its size from the header, its pixels down to a corner."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cityscapes.files.png_crops import decode_corner, png_size
from dlv3p.data.split import Split


class LazyImage(NamedTuple):
    """An image's size, and `corner(rows, columns)`, its upper left corner or more of it, uint8 (h,w,3)."""

    height: int
    width: int
    corner: Callable[[int, int], np.ndarray]


def open_image(split: Split, index: int) -> LazyImage:
    """Open an image of a split; raises InputError, here or when its pixels are asked for, if it is damaged."""
    content = _content(split, index)
    size = png_size(content)
    if size is None:
        return decoded(np.asarray(split.image(index)))

    def corner(rows: int, columns: int) -> np.ndarray:
        pixels = decode_corner(content, rows, columns)
        return np.asarray(split.image(index)) if pixels is None else pixels

    return LazyImage(*size, corner)


def decoded(pixels: np.ndarray) -> LazyImage:
    """Return an image whose pixels, uint8 (H,W,3), are at hand or in a memory map."""
    return LazyImage(*pixels.shape[:2], lambda rows, columns: pixels)


def _content(split: Split, index: int) -> bytes:
    if hasattr(split, "image_bytes"):  # shards have files within files
        return split.image_bytes(index)
    try:
        return split.image_path(index).read_bytes()
    except OSError:  # left to `split.image`, which finds the words
        return b""
