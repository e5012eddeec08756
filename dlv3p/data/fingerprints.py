"""Compute fingerprints of a split: by names and sizes, paths and times, all bytes, or some pixels.

Names and sizes show that a file was added, lost or replaced, but not a flipped byte. Reading all of Cityscapes takes a
minute, so hashes are cached until a file's size, inode or times change, that of its last change of any kind (ctime)
among them: copies and archives may give two files the same time of modification. Shards store the fingerprints of their
content and of the files that they were made from.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np

from cityscapes.dataset import Split
from cityscapes.errors import InputError
from cityscapes.files.atomic import write_text
from cityscapes.files.checksums import HASH_KEY, file_sha256, read_json, read_recorded, with_checksum
from cityscapes.files.untrusted import regular
from cityscapes.workspace import data_folder

LARGEST = 16 * 2**30
"""The most bytes of a split to read, twice Cityscapes: meanwhile the other processes of a run wait."""

WORTH_REMEMBERING = 2**28
"""Below this number of bytes, reading again is as fast as reading the cache."""

BLOCK = 4096
"""Bytes at the start, the middle, and the end of a file that tell most images apart."""

PREDICTIONS = "predictions.csv"
"""The table in which `predict` says of which file each mask was made."""
FOLDERS = {"ids": "png", "colors": "png", "overlays": "jpg", "confidence": "png"}
"""What `predict` writes of an image: the folder and the suffix."""

KNOWN_BY = 3
"""The number of images, evenly spaced, that distinguish one data set from another."""

Memory = dict[str, list]


def data_fingerprint(split: Split) -> str:
    """Return one sha256 over the names and sizes of a split's images, for shards of their source files."""
    lines = (f"{name} {path.stat().st_size}\n" for name, path in _files(split, "image"))
    return split.source_fingerprint if split.fingerprint else _sha256(chain(lines, [_pixel_key(split)]))


def masks_fingerprint(split: Split) -> str | None:
    """Return one sha256 over the names and sizes of a split's masks; None for shards, whose fingerprint covers masks.

    Raises MissingInputError, or FileNotFoundError, where a mask is gone.
    """
    lines = (f"{name} {path.name} {path.stat().st_size}\n" for name, path in _files(split, "mask"))
    return None if split.fingerprint else _sha256(chain(lines, [split.label_rule]))


def image_fingerprint(split: Split, index: int) -> str:
    """Return one sha256 over an image's path, size and times, as the key of what is made from it."""
    path = split.image_path(index)
    return _sha256([f"{path} {split.fingerprint}" if split.fingerprint else file_state(path), _pixel_key(split)])


def labels_fingerprint(split: Split, *, version: str) -> str:
    """Return one sha256 over the classes and the state of all masks, as a cache key for code of `version`.

    Raises MissingInputError, or FileNotFoundError, where a mask is gone.
    """
    masks = () if split.fingerprint else _files(split, "mask")
    states = [split.fingerprint] if split.fingerprint else (f"{file_state(path)}\n" for _, path in masks)
    return _sha256([f"{version} {split.num_classes}\n", _classes(split), *states])


def part_fingerprint(split: Split, indices: Sequence[int]) -> str:
    """Return one sha256 over the classes, and the names and bytes of some images and of the masks that they have."""
    lines: list[str | bytes] = [split.fingerprint, _classes(split), _pixel_key(split)]
    for index in indices:
        lines.append(f"{index} {split.name(index)}\n")
        if not split.fingerprint:  # which covers the content of shards
            paths = [split.image_path(index)] + ([split.mask_path(index)] if split.has_mask(index) else [])
            lines += [f"{path.suffix} {file_sha256(path)}\n" for path in paths]
    return _sha256(lines)


class ContentHash:
    """Hash images and masks one by one, as they are read, into one sha256 of each kind that depends on no order."""

    def __init__(self) -> None:
        self._images: dict[str, str] = {}
        self._masks: dict[str, str] = {}

    def add(self, split: Split, index: int, mask: np.ndarray | None = None) -> None:
        """Add the bytes of an image's file, and the ids of a mask."""
        name = split.name(index)
        self._images[name] = _sha256([split.image_bytes(index)])
        if mask is not None:
            self._masks[name] = _sha256([f"{mask.shape}", mask.tobytes()])

    def image(self, split: Split, index: int) -> str:
        """Return the sha256 of the bytes of an image that was added."""
        return self._images[split.name(index)]

    @property
    def images(self) -> str:
        """One sha256 over the names of the images and the bytes of their files, the same for shards of them."""
        return self._whole(self._images)

    @property
    def masks(self) -> str:
        """One sha256 over the names of the images and the ids of their masks; "" without masks."""
        return self._whole(self._masks) if self._masks else ""

    def _whole(self, hashes: dict[str, str]) -> str:
        return _sha256(f"{name} {digest}\n" for name, digest in sorted(hashes.items()))


def predicted_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of the file of which `predict` made each mask in a folder, by the mask's path below `ids/`.

    {} for a folder of other programs; raises IntegrityError for a damaged table.
    """
    try:
        rows = csv.DictReader(io.StringIO(read_recorded(folder / PREDICTIONS).decode(), newline=""))
    except FileNotFoundError:
        return {}
    return {f"{row['image']}.png": row["sha256"] for row in rows if row.get("image") and row.get("sha256")}


def result_folders(paths: Iterable[Path]) -> list[Path]:
    """Return the folders in which `predict` has written masks and pictures, by the tables among files of any kind."""
    return [path.parent / name for path in paths if path.name == PREDICTIONS for name in FOLDERS]


def describe_others(folder: Path, others: Sequence[str], images: str) -> str:
    """Return a sentence about predictions of other files than the images of these names; "" for none."""
    if not others:
        return ""
    return (
        f"Other images: {len(others)} masks of {folder} were predicted of other files than {images} holds now under "
        f"their names, the first {others[0]}; unless that is meant, predict again."
    )


def shared_images(split: Split, other: Split) -> set[int]:
    """Return the indices of a split's images that the other one has as well, by their bytes, whatever their names.

    Only files of equal size are read, a few blocks of each, and whole only those whose blocks are equal. Raises
    InputError or an OSError where an image is gone.
    """
    ours, theirs = ([_image_size(one, index) for index in range(len(one))] for one in (split, other))
    common = set(ours) & set(theirs)
    by_blocks: dict[str, list[int]] = {}
    for index, size in enumerate(theirs):
        if size in common:
            by_blocks.setdefault(_blocks_sha256(other, index), []).append(index)
    hashes: dict[int, str] = {}
    shared = set()
    for index, size in enumerate(ours):
        alike = by_blocks.get(_blocks_sha256(split, index), []) if size in common else []
        if any(split.image_path(index) == other.image_path(one) for one in alike):
            shared.add(index)
        elif alike:
            hashes |= {one: _sha256([other.image_bytes(one)]) for one in alike if one not in hashes}
            if _sha256([split.image_bytes(index)]) in {hashes[one] for one in alike}:
                shared.add(index)
    return shared


def describe_shared(split: Split, other: Split) -> str:
    """Return a line about images of a split that are copies of another split's, which teach its score; "" for none.

    Shards are not looked into, since all of their bytes would have to be read.
    """
    if split.fingerprint or other.fingerprint:
        return ""
    shared: set[int] = set()
    with suppress(OSError, InputError):  # an image is gone, which reading it explains
        shared = shared_images(split, other)
    if not shared:
        return ""
    count, first = len(shared), split.name(min(shared))
    which = f"{count} images of {split.split!r} are copies of images of {other.split!r}, the first {first}"
    if count == 1:
        which = f"an image of {split.split!r} is a copy of an image of {other.split!r}, {first}"
    return f"{split.root}: {which}; a score on training images means nothing: remove them from one of the two"


def _image_size(split: Split, index: int) -> int:
    return len(split.image_bytes(index)) if split.fingerprint else split.image_path(index).stat().st_size


def _blocks_sha256(split: Split, index: int) -> str:
    """Return one sha256 over a few blocks of an image's file, or over all of an image in a shard."""
    if split.fingerprint:
        return _sha256([split.image_bytes(index)])
    with open(regular(split.image_path(index)), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return _sha256(file.read(BLOCK) for start in (0, size // 2, max(0, size - BLOCK)) if file.seek(start) >= 0)


def pixels_fingerprint(split: Split) -> str:
    """Return one sha256 over the number of a split's images and the pixels of `KNOWN_BY` of them, in their order.

    It is the same for a copy whose files have other names, or another lossless format. "" where one of them cannot be
    read, which the loader reports.
    """
    parts: list[str | bytes] = [str(len(split))]
    try:
        for index in np.linspace(0, len(split) - 1, KNOWN_BY).round().astype(int).tolist():
            image = split.image(index)
            parts += [f"{image.size}", np.asarray(image if split.pixel_rule else image.convert("RGB")).tobytes()]
    except (InputError, OSError):
        return ""
    return _sha256(parts)


def content_fingerprint(split: Split, *, remembered: bool = True) -> str | None:
    """Return one sha256 over each image's name and the bytes of its file and of its mask's, in the order of names.

    None for shards, which have a fingerprint of their content, and for more than `LARGEST` bytes. With
    `remembered=False` every byte is read. Raises MissingInputError, or FileNotFoundError, where a file is gone.
    """
    if split.fingerprint:
        return None
    files = sorted((f"{name} {kind}", path) for kind in ("image", "mask") for name, path in _files(split, kind))
    whole = sum(path.stat().st_size for _, path in files)
    if whole > LARGEST:
        return None
    remembered = remembered and whole >= WORTH_REMEMBERING
    memory = _read_memory() if remembered else {}
    known = dict(memory)
    lines = (f"{name} {_remembered_sha256(path, memory)}\n" for name, path in files)
    fingerprint = _sha256(chain(lines, [split.label_rule, _pixel_key(split)]))
    if remembered and memory != known:
        write_text(_memory_path(), json.dumps(with_checksum(memory), indent=0), durable=False)
    return fingerprint


def _pixel_key(split: Split) -> str:
    return split.pixel_rule.key if split.pixel_rule else ""


def _files(split: Split, kind: str) -> Iterator[tuple[str, Path]]:
    """Yield the name of each image, and the path of the image or of its mask."""
    path_of = split.mask_path if kind == "mask" else split.image_path
    for index in range(len(split)):
        yield split.name(index), path_of(index)


def _sha256(parts: Iterable[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode(errors="surrogateescape") if isinstance(part, str) else part)
    return digest.hexdigest()


def file_state(path: Path) -> str:
    """Return a file's path, size and times, that of its last change of any kind among them, which nobody can set."""
    facts = path.stat()
    return f"{path} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}"


def _classes(split: Split) -> bytes:
    rule = split.label_rule.encode()
    return repr(list(split.class_names)).encode() + split.colors.tobytes() + rule  # these decode masks of colors


def _remembered_sha256(path: Path, memory: Memory) -> str:
    found = path.stat()
    state, key = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino], str(path.absolute())
    *before, sha256 = memory.get(key, [None])
    if before != state:
        sha256 = file_sha256(path)
        memory[key] = [*state, sha256]
    return sha256


def _memory_path() -> Path:
    return data_folder() / ".content_sha256.json"


def _read_memory() -> Memory:
    with suppress(OSError, ValueError):
        content = read_json(_memory_path())
        if isinstance(content, dict) and content.pop(HASH_KEY, None):  # those of earlier versions have no checksum
            return content
    return {}  # missing or damaged: every file is read again
