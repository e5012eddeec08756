"""Count the labeled pixels of each class in a split's masks, and say before training what cannot be learned from them.

The counts are kept on disk, by the state of the masks.
"""

from contextlib import suppress
from itertools import chain

import numpy as np

from cityscapes.audit_rules import IDS, explain_one_class
from cityscapes.dataset import Split
from cityscapes.errors import InputError
from cityscapes.workspace import data_folder
from dlv3p.data.array_files import read_array, write_array
from dlv3p.data.fingerprints import labels_fingerprint

MOST_NAMES = 5
"""The most classes that a warning names."""


def class_pixels(split: Split, *, skip_bad: bool = False) -> np.ndarray:
    """Return how many pixels of a split's masks have each id, int64 (256,); the last is that of ignored pixels.

    Raises InputError for a mask that cannot be used; with `skip_bad` it is left out, and nothing is kept on disk.
    """
    path = None
    with suppress(OSError, InputError):  # a mask is gone, which reading it explains
        path = data_folder() / "class_pixels" / f"{labels_fingerprint(split, version='2 pixels')[:32]}.npy"
        kept = read_array(path)
        if kept is not None and kept.shape == (IDS,) and kept.dtype == np.int64:
            return np.array(kept)
    counts, whole = np.zeros(IDS, np.int64), path is not None
    for index in range(len(split)):
        try:
            counts += np.bincount(split.mask(index).ravel(), minlength=IDS)
        except InputError:
            if not skip_bad:
                raise
            whole = False  # the loader warns of it
    if whole and not describe_palettes(split):  # which is to be said of every training
        write_array(path, counts)
    return counts


def refuse_one_class(split: Split, pixels: np.ndarray) -> None:
    """Raise InputError where one class and ignored pixels are all that a split's masks hold, as in masks of 0 and 255.

    `pixels` counts pixels by id.
    """
    if problem := explain_one_class(split.class_names, pixels):
        raise InputError(f"{split.root}: the masks of {split.split!r} hold {problem}")


def describe_absent(split: Split, pixels: np.ndarray) -> str:
    """Return a line about the classes without a labeled pixel, given the pixels by id; "" where there is none."""
    absent = [name for name, count in zip(split.class_names, pixels, strict=False) if not count]
    if not absent or not pixels.any():  # no mask could be read, which the loader explains
        return ""
    more = f" and {len(absent) - MOST_NAMES} more" if len(absent) > MOST_NAMES else ""
    return (
        f"{split.root}: no pixel of {split.split!r} is labeled {', '.join(absent[:MOST_NAMES])}{more}, "
        f"{len(absent)} of {split.num_classes} classes, which cannot be learned; check the masks and the class table"
    )


def describe_palettes(*splits: Split) -> str:
    """Return a line about masks that were read and whose palettes show one id in two colors; "" where there is none.

    So does a program that gives each mask a palette of its own, and then one id stands for several classes.
    """
    first: dict[int, tuple[tuple[int, ...], str]] = {}
    for (index, color), mask in chain.from_iterable(split.shown.items() for split in splits):
        usual, other = first.setdefault(index, (color, mask))
        if color != usual:
            return (
                f"{mask}: its palette shows id {index} in the color {color}, that of {other} in {usual}; if colors are "
                "what the masks mean, add them to classes.csv and store the masks as RGB, else store them as gray"
            )
    return ""
