"""Names, order and colors of classes: those of PASCAL VOC 2012, its palette, and colors for classes that have none."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from cityscapes.errors import IntegrityError
from cityscapes.labels import CLASS_NAMES as CITYSCAPES_CLASSES
from cityscapes.labels import TRAIN_ID_TO_COLOR


class Classes(NamedTuple):
    """The names of a data set's ids, and their colors, uint8 (256,3), black where there is no class."""

    names: tuple[str, ...]
    colors: np.ndarray


def numbered_otherwise(ours: Sequence[str], theirs: Sequence[str]) -> tuple[int, str, str] | None:
    """Return the first id that has another class in each of two lists, of which one occurs in both; None for no such.

    Then an id means something else. Names alone may be written in another way.
    """
    renamed = [(index, *pair) for index, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]]
    return renamed[0] if set(ours) & {other for _, _, other in renamed} else None


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


CONTRASTS = np.array(
    [
        *((255, 179, 0), (128, 62, 117), (255, 104, 0), (166, 189, 215), (193, 0, 32), (206, 162, 98), (129, 112, 102)),
        *((0, 125, 52), (246, 118, 142), (0, 83, 138), (255, 122, 92), (83, 55, 122), (255, 142, 0), (179, 40, 81)),
        *((244, 200, 0), (127, 24, 13), (147, 170, 0), (89, 51, 21), (241, 58, 19), (35, 44, 22)),
    ],
    np.uint8,
)
"""Kelly's colors of maximum contrast (1965) without black, white and gray, the first ones the easiest to tell apart."""
BACKGROUND = (64, 64, 64)
BACKGROUND_NAMES = ("background", "bg", "other", "others", "rest", "none")


def default_color(index: int, name: str) -> tuple[int, int, int]:
    """Return the color of a class that has none: a dark gray for a background, else one of high contrast."""
    if name.strip().lower() in BACKGROUND_NAMES:
        return BACKGROUND
    color = CONTRASTS[index] if index < len(CONTRASTS) else voc_palette()[index + 1]
    return tuple(int(value) for value in color)


CLASS_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv/monitor",
)  # fmt: skip


def class_colors(class_names: Sequence[str], own: np.ndarray | None = None) -> np.ndarray:
    """Return the color of each class, uint8 (C,3): its data's `own`, those of Cityscapes or VOC, else default ones."""
    names = tuple(class_names)
    if own is not None:
        return own
    if names in (CITYSCAPES_CLASSES, CLASS_NAMES):
        return (TRAIN_ID_TO_COLOR if names == CITYSCAPES_CLASSES else voc_palette())[: len(names)]
    return np.array([default_color(index, name) for index, name in enumerate(names)], np.uint8).reshape(-1, 3)


def own_colors(class_names: Sequence[str], colors: np.ndarray) -> np.ndarray | None:
    """Return the colors, uint8 (C,3), that a data set gives its classes; None where the names alone say them."""
    given = np.asarray(colors, np.uint8)[: len(class_names)]
    return None if np.array_equal(given, class_colors(class_names)) else given


def stated_colors(own: np.ndarray | None) -> dict[str, list[list[int]]]:
    """Return what a network's file states of its `own_colors`: nothing, or `colors` as `read_own_colors` takes them."""
    return {} if own is None else {"colors": own.tolist()}


def read_own_colors(stated: Any, class_names: Sequence[str], source: str) -> np.ndarray | None:
    """Return the `colors` that a network's file states, None where it states none; raises IntegrityError for others."""
    if stated is None:
        return None
    try:
        colors = np.array(stated, np.uint8)
    except (OverflowError, TypeError, ValueError):
        colors = np.empty(0)
    if colors.shape != (len(class_names), 3) or colors.tolist() != stated:
        raise IntegrityError(f"{source}: its colors are not red, green, and blue of each class; write it again")
    return colors
