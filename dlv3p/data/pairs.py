"""A split as a list of image and mask files, whatever the layout they lie in.

Symbolic links inside a data set are followed where they stay inside, and refused where they lead a reader elsewhere.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cityscapes.dataset import Split
from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.images import read_ids
from cityscapes.ids import explain_mask


class Pair(NamedTuple):
    """The files of one image; `mask` is where its mask belongs, which need not exist."""

    name: str
    image: Path
    mask: Path


class Classes(NamedTuple):
    """What the ids of a data set mean: a name for each, and colours, uint8 (256,3), black where there is no class."""

    names: tuple[str, ...]
    colors: np.ndarray


class PairedSplit(Split):
    """Pairs of files with common classes: the `Split` that every layout but Cityscapes becomes."""

    def __init__(
        self, root: Path, split: str, pairs: Sequence[Pair], classes: Classes, *, orphans: Sequence[str] = ()
    ) -> None:
        self.root, self.split, self.pairs, self.orphans = root, split, tuple(pairs), tuple(orphans)
        self.class_names: Sequence[str] = classes.names
        self.colors: np.ndarray = classes.colors
        self.num_classes: int = len(classes.names)

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """Return an image's name, without folder and suffix."""
        return self.pairs[index].name

    def image_path(self, index: int) -> Path:
        """Return where an image's file lies."""
        return self.pairs[index].image

    def mask_path(self, index: int) -> Path:
        """Return where an image's mask lies; raises MissingInputError where there is none."""
        path = self.pairs[index].mask
        if not path.is_file():
            raise MissingInputError(f"{path}: no such mask, for the image {self.pairs[index].image.name}")
        return path

    def has_mask(self, index: int) -> bool:
        """Say whether an image has a mask."""
        return self.pairs[index].mask.is_file()

    def mask(self, index: int) -> np.ndarray:
        """Read a mask: uint8 (H,W) of classes, 255 where ignored; raises InputError for any other value."""
        path = self.mask_path(index)
        ids = self.read_mask(path)
        if problem := explain_mask(ids, self.num_classes):
            raise InputError(f"{path}: {problem}")
        return ids

    def read_mask(self, path: Path) -> np.ndarray:
        """Read a mask's ids as they are stored; a layout with other masks overrides this."""
        return read_ids(path)


def printable(name: str) -> str:
    """Return a file's name as it can be shown, and used for other files, anywhere; others stay distinct by escapes."""
    return name if name.isprintable() else name.encode("unicode_escape", "surrogatepass").decode()


VARIABLE = "DLV3P_FOLLOW_LINKS"
"""Set this environment variable to 1 for data sets that are made of links to files elsewhere."""


def inside(root: Path, path: Path) -> Path:
    """Return `path`; raises InputError for a link that leaves `root` or goes in circles.

    A dead link raises MissingInputError; `root` itself may be a link. Folders are looked at once, so that lists of
    thousands of files cost no time.
    """
    if path != root and os.environ.get(VARIABLE) != "1":
        _check(root, path.parent, _follow(path.parent))
        if path.is_symlink():
            _check(root, path, _resolve(path))
    return path


@lru_cache(maxsize=1024)
def _follow(folder: Path) -> Path:
    return _resolve(folder) if folder.is_dir() else folder.resolve()


def _resolve(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: a link to nothing; copy the file or mend the link") from error
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: a link that leads in circles; remove it") from error


def _check(root: Path, path: Path, real: Path) -> None:
    if not real.is_relative_to(_follow(root)):
        raise InputError(f"{path}: a link out of {root}; copy the file, or set {VARIABLE}=1 where links are meant")
