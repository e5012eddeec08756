"""Take a part of a split: the images that a list names, one of k folds, or all but that fold.

A fold is a split by its name: `train.fold0of5` is the first of five, and `train.without0of5` is what is left of it, so
that whatever opens a split by name opens a fold. Images that belong together stay in one fold: those of a folder, which
is a city, a video or a patient; where folders are too few or too unequal, those of a drive, whose names differ in the
last number; else neighbors, in stretches. Nothing about it is random.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cityscapes.dataset import Split
from cityscapes.errors import InputError, ParameterError
from cityscapes.files.channels import ChannelImage
from cityscapes.files.untrusted import given_path, read_at_most, sanitize
from dlv3p.parameters.data_roots import FOLD

LARGEST_LIST = 64 * 2**20
"""Bytes of a list of images, about half a million lines."""
MOST_UNEQUAL = 1.25
"""A fold may have this many times as many images as the mean of all folds."""
LAST_NUMBER = re.compile(r"\d+\D*$")


class Part(Split):
    """Some images of a split in its order, under a name; `listed` says that a list chose them."""

    def __init__(self, whole: Split, indices: Sequence[int], name: str = "", *, listed: bool = False) -> None:
        self.whole, self.indices, self.listed = whole, tuple(indices), listed
        self.root, self.split = whole.root, name or whole.split
        self.class_names, self.colors, self.num_classes = whole.class_names, whole.colors, whole.num_classes
        self.label_rule, self.pixel_rule = whole.label_rule, whole.pixel_rule
        self.part = hashlib.sha256("\n".join(map(self.name, range(len(self)))).encode()).hexdigest()
        if whole.fingerprint:
            self.fingerprint, self.source_fingerprint = (
                hashlib.sha256(f"{digest} {self.part}".encode()).hexdigest()
                for digest in (whole.fingerprint, whole.source_fingerprint)
            )

    @property
    def meaning(self) -> str:
        """What turns stored masks into classes, as in the whole split."""
        return self.whole.meaning

    @property
    def shown(self) -> Mapping[tuple[int, tuple[int, ...]], str]:
        """The colors in which palettes have shown ids so far, as in the whole split."""
        return self.whole.shown

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """Return the name that an image has in the whole split."""
        return self.whole.name(self.indices[index])

    def group(self, index: int) -> str:
        """Return what an image belongs to together with others."""
        return self.whole.group(self.indices[index])

    def image_path(self, index: int) -> Path:
        """Return the path of an image."""
        return self.whole.image_path(self.indices[index])

    def mask_path(self, index: int) -> Path:
        """Return the path of a mask; raises MissingInputError where there is none."""
        return self.whole.mask_path(self.indices[index])

    def has_mask(self, index: int) -> bool:
        """Return whether an image has a mask."""
        return self.whole.has_mask(self.indices[index])

    def mask(self, index: int) -> np.ndarray:
        """Read a mask: uint8 (H,W) of classes, 255 where ignored; raises InputError for any other value."""
        return self.whole.mask(self.indices[index])

    def image(self, index: int) -> Image.Image | ChannelImage:
        """Read an image as the whole split reads it."""
        return self.whole.image(self.indices[index])

    def image_bytes(self, index: int) -> bytes:
        """Return the content of an image's file."""
        return self.whole.image_bytes(self.indices[index])


class Fold(NamedTuple):
    """A fold that a split's name means, or with `without` all but that fold, of a split in `folds` of them."""

    split: str
    without: bool
    fold: int
    folds: int

    def of(self, whole: Split, name: str) -> Part:
        """Return the images that it means, as a split called `name`."""
        numbers = number_folds(whole, self.folds)
        return Part(whole, [i for i, number in enumerate(numbers) if (number == self.fold) != self.without], name)


def read_fold(name: str) -> Fold | None:
    """Return the fold that a split's name means, None for a whole split; raises ParameterError for one of too few."""
    found = FOLD.fullmatch(name)
    if not found:
        return None
    fold = Fold(found["split"], found["kind"] == "without", int(found["fold"]), int(found["folds"]))
    if fold.folds < 2 or fold.fold >= fold.folds:
        raise ParameterError(f"split={name!r}: folds are numbered from 0 to one less than their number, 2 or more")
    return fold


def number_folds(split: Split, folds: int) -> list[int]:
    """Return the fold of each image; raises ParameterError where there are fewer images than folds."""
    count = len(split)
    if count < folds:
        raise ParameterError(f"folds={folds}: {split.root} has only {count} images in {split.split!r}")
    for unit_of in (split.group, lambda index: _drive(split, index)):
        numbers = _share_out([unit_of(index) for index in range(count)], folds)
        sizes = Counter(numbers)
        if len(sizes) == folds and max(sizes.values()) <= MOST_UNEQUAL * count / folds:
            return numbers
    return [index * folds // count for index in range(count)]


def read_image_list(path: Path) -> list[Path]:
    """Read a text file with one path per line, relative to its folder; empty lines and those that begin with # are not.

    Raises MissingInputError where there is no such file, and InputError for one that is no list, or an empty one.
    """
    return [_located(path, line) for line in _read_lines(path)]


def image_list(split: Split, indices: Sequence[int]) -> str:
    """Return the text of a list of some images of a split, in their order."""
    return "".join(f"{os.path.abspath(split.image_path(index))}\n" for index in sorted(indices))


def choose_listed(listed: str, splits: Sequence[Split], *, parameter: str) -> list[Part]:
    """Return what a list chooses from each split, which may be nothing; a line is the path of an image, or its name.

    Raises InputError for a line that no split has an image for, which the `parameter` is to explain.
    """
    path = given_path(listed, variables=True)
    lines = _read_lines(path)
    left = {line: os.path.realpath(_located(path, line)) for line in lines}
    parts, found = [], set()
    for split in splits:
        wanted, indices = {*left, *left.values()}, []
        for index in range(len(split)):
            keys = {split.name(index), os.path.realpath(split.image_path(index))} & wanted
            indices += [index] if keys else []
            found |= keys
        parts.append(Part(split, indices, listed=True))
    if strays := [line for line, real in left.items() if not {line, real} & found]:
        names = " and ".join(repr(split.split) for split in splits)
        raise InputError(
            f"{parameter}={listed!r}: names {len(strays)} images that are not in {names} of {splits[0].root}, the "
            f"first {sanitize(strays[0])}; a list chooses among the images of a split, by their paths or names"
        )
    return parts


def _share_out(units: Sequence[str], folds: int) -> list[int]:
    """Return the fold of each image, given what it belongs to: the largest units first, each to the smallest fold."""
    sizes, filled, fold_of = Counter(units), [0] * folds, {}
    for unit, size in sorted(sizes.items(), key=lambda item: -item[1]):  # among equals, in the order of the split
        fold_of[unit] = filled.index(min(filled))
        filled[fold_of[unit]] += size
    return [fold_of[unit] for unit in units]


def _drive(split: Split, index: int) -> str:
    return f"{split.group(index)}/{LAST_NUMBER.sub('', split.name(index))}"


def _read_lines(path: Path) -> list[str]:
    content = read_at_most(path, LARGEST_LIST, missing="no such list of images", too_large="too long for a list")
    try:
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8, one path per line") from error
    if any("\0" in line for line in lines):
        raise InputError(f"{path}: not a text file; a list has one path per line")
    named = [line for line in lines if line and not line.startswith("#")]
    if not named:
        raise InputError(f"{path}: the list names no image; write one path per line")
    return list(dict.fromkeys(named))


def _located(path: Path, line: str) -> Path:
    return Path(os.path.normpath((path.parent / os.path.expanduser(line)).absolute()))
