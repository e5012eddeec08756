"""Choose the calibration images of a quantizer, which set the ranges of activations, from the train split only.

Images that are scored later must not be among them, or the test data would leak into the network.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cityscapes.dataset import Split
from cityscapes.errors import InputError
from dlv3p.data.augment import normalize


@dataclass(frozen=True)
class CalibrationImages:
    """Images of a split by index, as the network sees them: float32 (1,3,h,w), read again in each pass."""

    split: Split
    indices: tuple[int, ...]
    image_scale: float

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[np.ndarray]:
        for index in self.indices:
            yield normalize(self.split.image(index), image_scale=self.image_scale)[None].numpy()

    @property
    def names(self) -> list[str]:
        """The names of the images, in order."""
        return [self.split.name(index) for index in self.indices]


def choose_calibration_images(split: Split, count: int, *, image_scale: float = 1.0) -> CalibrationImages:
    """Choose `count` images, or all if there are fewer, spread evenly over a split.

    Raises InputError when there is none, and when several are all the same image, which gives no range.
    """
    if not len(split):
        raise InputError(f"{split.root}: the {split.split} split has no images to calibrate with")
    count = min(count, len(split))
    indices = tuple(int(index) for index in np.linspace(0, len(split) - 1, count).round())
    digests = {hashlib.sha256(split.image(index).tobytes()).digest() for index in indices}
    if count > 1 and len(digests) == 1:
        raise InputError(
            f"{split.root}: the {count} images of the {split.split} split that were chosen for calibration are all the "
            "same; ranges of activations need different ones"
        )
    return CalibrationImages(split, indices, image_scale)
