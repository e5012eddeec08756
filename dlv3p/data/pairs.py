"""Read a split as a list of image and mask files, whatever their layout.

Symbolic links are followed inside a data set, and refused where they lead out of it.
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
from dlv3p.data.classes import Classes


class Pair(NamedTuple):
    """The files of one image; `mask` is the path of its mask, which may not exist."""

    name: str
    image: Path
    mask: Path


class PairedSplit(Split):
    """Pairs of image and mask files: the `Split` of every layout of plain files but Cityscapes."""

    def __init__(
        self,
        root: Path,
        split: str,
        pairs: Sequence[Pair],
        classes: Classes,
        *,
        orphans: Sequence[str] = (),
        unread: Sequence[str] = (),
    ) -> None:
        self.root, self.split, self.pairs = root, split, tuple(pairs)
        self.orphans, self.unread = tuple(orphans), tuple(unread)
        self.class_names: Sequence[str] = classes.names
        self.colors: np.ndarray = classes.colors
        self.num_classes: int = len(classes.names)

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """Return an image's name, without folder and suffix."""
        return self.pairs[index].name

    def image_path(self, index: int) -> Path:
        """Return the path of an image."""
        return self.pairs[index].image

    def mask_path(self, index: int) -> Path:
        """Return the path of a mask; raises MissingInputError where there is none."""
        path = self.pairs[index].mask
        if not path.is_file():
            raise MissingInputError(f"{path}: no such mask for the image {self.pairs[index].image.name}")
        return path

    def has_mask(self, index: int) -> bool:
        """Return whether an image has a mask."""
        return self.pairs[index].mask.is_file()

    def mask(self, index: int) -> np.ndarray:
        """Read a mask: uint8 (H,W) of classes, 255 where ignored; raises InputError for any other value."""
        path = self.mask_path(index)
        ids = self.read_mask(path)
        if problem := explain_mask(ids, self.num_classes):
            raise InputError(f"{path}: {problem}")
        return ids

    def read_mask(self, path: Path) -> np.ndarray:
        """Read a mask's ids as they are stored; override this for other kinds of masks."""
        return read_ids(path)


def printable(name: str) -> str:
    """Return a file's name, printable and usable as a file name anywhere; escapes keep different names distinct."""
    return name if name.isprintable() else name.encode("unicode_escape", "surrogatepass").decode()


VARIABLE = "DLV3P_FOLLOW_LINKS"
"""Set this environment variable to 1 for data sets whose links lead to files elsewhere."""


def inside(root: Path, path: Path) -> Path:
    """Return `path`; raises InputError for a link that leaves `root` or is circular.

    A broken link raises MissingInputError; `root` itself may be a link. Each folder is resolved once, so that long
    lists of files take no time.
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
        raise MissingInputError(f"{path}: a broken link; copy the file or fix the link") from error
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: a circular link; remove it") from error


def _check(root: Path, path: Path, real: Path) -> None:
    if not real.is_relative_to(_follow(root)):
        raise InputError(f"{path}: a link out of {root}; copy the file, or set {VARIABLE}=1 to allow such links")
