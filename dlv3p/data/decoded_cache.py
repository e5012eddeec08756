"""Cache decoded images on disk, so that a training crop reads its window from a memory map.

An image takes height x width x 3 bytes: 6.3 MB for 1024 x 2048, 18.7 GB for Cityscapes' 2,975; by a rule that its data
set states, 4 bytes a channel. It is found by the path, size and modification time of its file and by the rule of
decoding, so a changed image is decoded again, and so is one that an earlier version turned into other pixels, or whose
checksum does not match when it is opened; delete the folder to remove entries of images that no longer exist. Masks
decode fast and are not cached. Without the cache only as much of an image is decoded as a crop needs: its size from the
header, its pixels down to a corner.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cityscapes.dataset import Split
from cityscapes.errors import InputError, MachineError
from cityscapes.files.images import RULE
from cityscapes.files.leftovers import remove_leftovers
from cityscapes.files.png_read import decode_corner, png_size
from cityscapes.workspace import data_folder
from dlv3p.data.array_files import read_array, write_array
from dlv3p.data.fingerprints import image_fingerprint
from dlv3p.runtime.progress import track


class LazyImage(NamedTuple):
    """An image's size, and `corner(rows, columns)`, at least its upper left corner.

    Its pixels are uint8 (h,w,3), or the shares of a rule, float32 (h,w,n).
    """

    height: int
    width: int
    corner: Callable[[int, int], np.ndarray]


def open_image(split: Split, index: int) -> LazyImage:
    """Open an image of a split; raises InputError, here or when its pixels are read, if it is damaged."""
    content = _content(split, index)
    size = None if split.pixel_rule else png_size(content)
    if size is None:
        return decoded(np.asarray(split.image(index)))

    def corner(rows: int, columns: int) -> np.ndarray:
        pixels = decode_corner(content, rows, columns)
        return np.asarray(split.image(index)) if pixels is None else pixels

    return LazyImage(*size, corner)


def decoded(pixels: np.ndarray) -> LazyImage:
    """Return an image whose pixels, uint8 (H,W,3) or float32 (H,W,n), are in memory or in a memory map."""
    return LazyImage(*pixels.shape[:2], lambda rows, columns: pixels)


def _content(split: Split, index: int) -> bytes:
    try:
        return split.image_bytes(index)
    except OSError:  # `split.image` explains the error
        return b""


RESERVE = 2**30
"""Bytes that `prepare` leaves free, for checkpoints."""


class DecodedCache:
    """The decoded images of one split, below `data/decoded/` in the workspace."""

    def __init__(self, split: Split) -> None:
        self.split, self.folder = split, data_folder() / "decoded"
        rule = split.pixel_rule
        self.kind = (rule.channels, np.dtype(np.float32)) if rule else (3, np.dtype(np.uint8))

    def open(self, index: int) -> LazyImage:
        """Open an image, decoding it first if it is not cached, or damaged there.

        Raises MachineError when the disk is full.
        """
        path = self.path(index)
        pixels = _mapped(path, self.kind)
        return decoded(self._keep(index, path) if pixels is None else pixels)

    def prepare(self, *, progress: str = "auto", skip_bad: bool = False) -> None:
        """Decode all images that are not cached; raises MachineError, before it begins, when they do not fit.

        With `skip_bad`, an unreadable image is left for `open` to report.
        """
        remove_leftovers(self.folder)
        missing, checked = [index for index in range(len(self.split)) if self._is_missing(index)], False
        for index in track(missing, title="decode images", mode=progress) if missing else ():
            try:
                if not checked:
                    self._refuse_full_disk(self.split.image(index), len(missing))
                checked = True
                self._keep(index, self.path(index))
            except InputError:
                if not skip_bad:
                    raise

    def path(self, index: int) -> Path:
        """Return the path of a decoded image."""
        digest = image_fingerprint(self.split, index)
        return self.folder / f"rule_{RULE}" / digest[:2] / f"{digest[2:34]}.npy"

    def _keep(self, index: int, path: Path) -> np.ndarray:
        pixels = np.ascontiguousarray(np.asarray(self.split.image(index)))
        write_array(path, pixels)
        return pixels

    def _is_missing(self, index: int) -> bool:
        return _mapped(self.path(index), self.kind, checked=False) is None  # `open` compares the checksum

    def _refuse_full_disk(self, image: Image.Image, count: int) -> None:
        channels, values = self.kind
        needed = channels * values.itemsize * image.width * image.height * count
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free - RESERVE
        if needed > free:
            raise MachineError(
                f"{self.folder}: {count} decoded images take {needed / 1e9:.1f} GB and {max(0, free) / 1e9:.1f} "
                "GB may be used; free some, move the workspace (DLV3P_WORKSPACE), or train without decoded_cache"
            )


def _mapped(path: Path, kind: tuple[int, np.dtype], *, checked: bool = True) -> np.ndarray | None:
    pixels = read_array(path, checked=checked)
    return None if pixels is None or pixels.ndim != 3 or (pixels.shape[2], pixels.dtype) != kind else pixels
