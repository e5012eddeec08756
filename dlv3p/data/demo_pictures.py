"""Frames of the embedded city as pictures and masks, for the other embedded data sets to pack in their own manner."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from cityscapes.dataset import CityscapesSplit
from cityscapes.demo.city import write_demo_city
from cityscapes.generate_gt import generate_masks


def city_pictures(count: int) -> list[tuple[Image.Image, np.ndarray]]:
    """Draw `count` frames of 128 x 256 pixels: RGB images with their masks, uint8 (H,W) of train ids, 255 ignored."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_demo_city(Path(folder) / "city", frames={"train": count, "val": 1, "test": 1})
        generate_masks(root, Path(folder) / "masks", splits=("train",), progress=False)
        split = CityscapesSplit(root, "train", generated=Path(folder) / "masks")
        return [split.pair(index) for index in range(count)]
