"""The classes and the palette of PASCAL VOC 2012, in the order of its class ids."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=1)
def voc_palette() -> np.ndarray:
    """Return the palette, uint8 (256,3) RGB: the id's bits go to red, green and blue in turn, high bits first.

    Follow the color map of the VOC development kit (`VOClabelcolormap`), where id 255 is a light cream.
    """
    ids = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            bit = ids >> (3 * place + channel) & 1
            colors[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    colors.flags.writeable = False
    return colors


CLASS_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv/monitor",
)  # fmt: skip
