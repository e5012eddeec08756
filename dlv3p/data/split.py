"""The interface of a data set: one split, image by image."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image


class Split(Protocol):
    """The images of one split and, where they exist, their masks, by index; every kind of data set has such a class.

    `root` and `split` say what was opened. Classes are numbered 0 to `num_classes` - 1 as in `class_names`; `colors`,
    uint8 (256,3), is RGB by class, black where there is none. A split whose paths are no files, as in shards, also has
    `fingerprint`, a str that names its content, `source_fingerprint`, that of the files it was made from, and
    `image_bytes(index)`, an image's file as it would be.
    """

    root: Path
    split: str
    class_names: Sequence[str]
    colors: np.ndarray
    num_classes: int

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return the name of an image, unique in its split and without a suffix."""

    def image_path(self, index: int) -> Path:
        """Return where an image's file lies."""

    def mask_path(self, index: int) -> Path:
        """Return where an image's mask lies, in whatever form; raises MissingInputError where there is none."""

    def image(self, index: int) -> Image.Image:
        """Read an image as RGB; raises InputError for a file that cannot be decoded."""

    def has_mask(self, index: int) -> bool:
        """Say whether an image has a mask."""

    def mask(self, index: int) -> np.ndarray:
        """Read a mask: uint8 (H,W) of classes, 255 where ignored; raises InputError for any other value."""

    def pair(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """Read an image and its mask; raises InputError when their sizes differ."""
