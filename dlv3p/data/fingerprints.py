"""Hash every byte of a split's files, to prove that its data has not changed.

Names and sizes tell that a file was added, lost or replaced; a byte that was flipped they do not tell. Reading all of
Cityscapes takes a minute, so what was read once is remembered until a file's size, time or inode is another one.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cityscapes.files.atomic import file_sha256, write_text
from cityscapes.workspace import data_folder
from dlv3p.data.split import Split

LARGEST = 16 * 2**30
"""So many bytes of a split are read at most, which is twice Cityscapes: the other processes of a run have to wait."""

WORTH_REMEMBERING = 2**28
"""Fewer bytes than these are read again as fast as the memory of them."""

Memory = dict[str, list]


def content_fingerprint(split: Split, *, remembered: bool = True) -> str | None:
    """Return one sha256 over each image's name and the bytes of its file and of its mask's, in the order of names.

    None for shards, whose name tells their content, and for more than `LARGEST` bytes. With `remembered=False` every
    byte is read. Raises MissingInputError, or FileNotFoundError, where a file is gone.
    """
    if hasattr(split, "source_fingerprint"):
        return None
    files = sorted(_files(split))
    whole = sum(path.stat().st_size for _, path in files)
    if whole > LARGEST:
        return None
    remembered = remembered and whole >= WORTH_REMEMBERING
    memory = _read_memory() if remembered else {}
    known = dict(memory)
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name} {_remembered_sha256(path, memory)}\n".encode())
    if remembered and memory != known:
        write_text(_memory_path(), json.dumps(memory, indent=0), durable=False)
    return digest.hexdigest()


def _files(split: Split) -> Iterator[tuple[str, Path]]:
    for index in range(len(split)):
        yield f"{split.name(index)} image", split.image_path(index)
        yield f"{split.name(index)} mask", split.mask_path(index)


def _remembered_sha256(path: Path, memory: Memory) -> str:
    found = path.stat()
    state, key = [found.st_size, found.st_mtime_ns, found.st_ino], str(path.absolute())
    *before, sha256 = memory.get(key, [None])
    if before != state:
        sha256 = file_sha256(path)
        memory[key] = [*state, sha256]
    return sha256


def _memory_path() -> Path:
    return data_folder() / ".content_sha256.json"


def _read_memory() -> Memory:
    with suppress(OSError, ValueError):
        return json.loads(_memory_path().read_text(encoding="utf-8"))
    return {}


def data_fingerprint(split: Split) -> str:
    """Return one sha256 over the names and sizes of a split's images: another set of files gives another value."""
    if hasattr(split, "source_fingerprint"):  # shards: that of the files that they were made from
        return split.source_fingerprint
    digest = hashlib.sha256()
    for index in range(len(split)):
        digest.update(f"{split.name(index)} {split.image_path(index).stat().st_size}\n".encode())
    return digest.hexdigest()


def masks_fingerprint(split: Split) -> str | None:
    """Return one sha256 over the names and sizes of a split's masks; None for shards, whose own name tells.

    Raises MissingInputError, or FileNotFoundError, where a mask is gone.
    """
    if hasattr(split, "source_fingerprint"):
        return None
    digest = hashlib.sha256()
    for index in range(len(split)):
        path = split.mask_path(index)
        digest.update(f"{split.name(index)} {path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()
