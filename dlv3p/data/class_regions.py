"""Where each class lies in a split: a pixel of it in each region of each mask, found in one pass and kept on disk.

A mask is divided into square regions, eight to its shorter side. For each class in a region, the pixel of it that lies
nearest to the middle of all its pixels there stands for them.
"""

import hashlib
import io

import numpy as np

from cityscapes.errors import InputError
from cityscapes.files.atomic import write_bytes
from cityscapes.workspace import data_folder
from dlv3p.data.kernels import find_representatives
from dlv3p.data.split import Split
from dlv3p.runtime.progress import track

REGIONS_PER_SIDE = 8


class Regions:
    """A table of representatives, int32 (N,4), by class: class, image, row and column."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table
        self.classes = np.unique(table[:, 0])
        """The classes that occur, in ascending order."""

    def of_class(self, number: int) -> np.ndarray:
        """Return image, row and column of each region of a class, int32 (n,3)."""
        start, end = np.searchsorted(self.table[:, 0], [number, number + 1])
        return self.table[start:end, 1:]


def class_regions(split: Split, *, progress: str = "auto", skip_bad: bool = False) -> Regions:
    """Find the regions of a split's classes, or read them where the same masks were looked through before.

    With `skip_bad`, a mask that cannot be read has none.
    """
    path = data_folder() / "class_regions" / f"{_masks_fingerprint(split)}.npy"
    try:
        table = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # not there, or damaged: then it is made
        table = find_regions(split, progress=progress, skip_bad=skip_bad)
        content = io.BytesIO()
        np.save(content, table)
        write_bytes(path, content.getvalue(), durable=False)
    return Regions(table)


def find_regions(split: Split, *, progress: str = "none", skip_bad: bool = False) -> np.ndarray:
    """Look through all masks of a split; return the table of `Regions`."""
    tables = [np.empty((0, 4), np.int32)]
    for index in track(range(len(split)), title="look for rare classes", mode=progress):
        try:
            mask = np.ascontiguousarray(split.mask(index))
        except InputError:
            if not skip_bad:
                raise
            continue
        side = max(1, -(-min(mask.shape) // REGIONS_PER_SIDE))
        found = find_representatives(mask, split.num_classes, side)
        tables.append(np.insert(found, 1, index, axis=1))
    table = np.concatenate(tables)
    return table[np.argsort(table[:, 0], kind="stable")]


def _masks_fingerprint(split: Split) -> str:
    digest = hashlib.sha256(f"1 {REGIONS_PER_SIDE} {split.num_classes}\n".encode())
    digest.update(repr(list(split.class_names)).encode() + split.colors.tobytes())  # masks of colours get ids by these
    stored = getattr(split, "fingerprint", None)  # shards know theirs
    for index in range(len(split)):
        if stored is None:
            path = split.mask_path(index)
            facts = path.stat()
            digest.update(f"{path} {facts.st_size} {facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
    digest.update((stored or "").encode())
    return digest.hexdigest()[:32]
