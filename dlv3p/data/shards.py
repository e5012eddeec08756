"""Read a split from shards: tar files in WebDataset's format beside an `index.json`, in a folder or behind a URL.

The index has the tar file and offset of each image and mask, so any sample is read by itself, and an epoch has the same
order and samples as with plain files. A tar file is never unpacked. Behind a URL (s3:// with the
extra `s3`, file://, whatever fsspec knows) a whole shard is downloaded when its first sample is read, and kept on the
local disk by its sha256, so that it is neither downloaded twice nor ever stale.
"""

import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from cityscapes.dataset import Split
from cityscapes.errors import InputError, IntegrityError, MachineError, MissingInputError, UserError, reason, require
from cityscapes.files.atomic import open_atomically
from cityscapes.files.channels import ChannelImage, pixel_rule
from cityscapes.files.checksums import check_content
from cityscapes.files.images import decode_ids, decode_image
from cityscapes.files.untrusted import parse_json, regular
from cityscapes.workspace import data_folder
from dlv3p.parameters.data_roots import is_url

INDEX = "index.json"
FORMAT = 1
BLOCK = 2**20
COPY = "copy or write it again"
"""What helps where a shard differs from its index."""


class Member(NamedTuple):
    """A file within a shard: the place of its bytes, and their CRC-32, which each read checks."""

    suffix: str
    offset: int
    size: int
    crc32: int


class ShardedSplit(Split):
    """One split in shards, which store the fingerprints of their content and of the files that they were made from."""

    def __init__(self, root: str | Path, split: str, index: dict[str, Any]) -> None:
        self.root, self.split = root, split
        self.class_names: Sequence[str] = tuple(index["classes"])
        self.num_classes = len(self.class_names)
        self.colors = np.zeros((256, 3), np.uint8)
        self.colors[: len(index["colors"])] = index["colors"]
        self.source_fingerprint = index["fingerprint"]
        self.pixel_rule = pixel_rule(index["pixels"], f"{root}/{split}/{INDEX}") if "pixels" in index else None
        self.fingerprint = hashlib.sha256(" ".join(s["sha256"] for s in index["shards"]).encode()).hexdigest()
        self._shards = {shard["name"]: shard for shard in index["shards"]}
        samples = [(shard["name"], sample) for shard in index["shards"] for sample in shard["samples"]]
        self._samples = sorted(samples, key=lambda pair: pair[1]["index"])

    def __len__(self) -> int:
        return len(self._samples)

    def name(self, index: int) -> str:
        """Return an image's name in the data set that the shards were made from."""
        return self._samples[index][1]["name"]

    def group(self, index: int) -> str:
        """Return "": a shard is not a group of images, and shards do not keep the folders of their source."""
        return ""

    def image_path(self, index: int) -> Path:
        """Return a path that names an image; it is not a file."""
        return self._path(index, "image")

    def mask_path(self, index: int) -> Path:
        """Return a path that names a mask; it is not a file. Raises MissingInputError where there is none."""
        if not self.has_mask(index):
            raise MissingInputError(f"{self._path(index, 'image')}: {self.name(index)} has no mask in these shards")
        return self._path(index, "mask")

    def image_bytes(self, index: int) -> bytes:
        """Return an image's file; raises IntegrityError when the shard differs from the index."""
        return self._read(index, "image")

    def image(self, index: int) -> Image.Image | ChannelImage:
        """Read an image as RGB, or by `pixel_rule`; raises InputError for a file that cannot be decoded."""
        content, source = io.BytesIO(self._read(index, "image")), str(self._path(index, "image"))
        return decode_image(content, source, remedy="it was damaged before it was packed", rule=self.pixel_rule)

    def has_mask(self, index: int) -> bool:
        """Return whether an image has a mask."""
        return "mask" in self._samples[index][1]

    def mask(self, index: int) -> np.ndarray:
        """Read a mask: uint8 (H,W) of classes, 255 where ignored, as checked when the shards were written."""
        path = self.mask_path(index)
        return decode_ids(self._read(index, "mask"), str(path))

    def _path(self, index: int, kind: str) -> Path:
        shard, sample = self._samples[index]
        return Path(str(self.root)) / self.split / shard / f"{sample['key']}.{Member(*sample[kind]).suffix}"

    def _read(self, index: int, kind: str) -> bytes:
        """Read a member's bytes; opening its shard each time takes far less than decoding, and leaves no file open."""
        name, sample = self._samples[index]
        member, path = Member(*sample[kind]), self._local(name)
        try:
            with open(regular(path), "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size != self._shards[name]["bytes"]:
                    self._refuse(name, file, f"has {size} bytes, not {self._shards[name]['bytes']}")
                content = os.pread(file.fileno(), member.size, member.offset)
                if zlib.crc32(content) != member.crc32:
                    self._refuse(name, file, "differs from its index")
        except OSError as error:
            raise MissingInputError(f"{path}: cannot be read ({reason(error)}); the index names it") from error
        return content

    def _local(self, name: str) -> Path:
        return self._fetched(name) if is_url(self.root) else Path(self.root) / self.split / name

    def _fetched(self, name: str) -> Path:
        expected = self._shards[name]["sha256"]
        path = data_folder() / "fetched_shards" / f"{expected}.tar"
        if not path.is_file():
            digest, url = hashlib.sha256(), f"{self.root}/{self.split}/{name}"
            with open_atomically(path, durable=False) as local:
                for block in _fetch(url):
                    digest.update(block)
                    local.write(block)
                if digest.hexdigest() != expected:
                    raise _mismatch(url, "differs from its index", expected, digest.hexdigest())
        return path

    def _refuse(self, name: str, file: io.RawIOBase, what: str) -> None:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        remedy = "delete it, and it is fetched again" if is_url(self.root) else COPY
        raise _mismatch(str(self._local(name)), what, self._shards[name]["sha256"], found, remedy)


def is_sharded(root: str | Path, split: str = "*") -> bool:
    """Return whether a folder holds shards, of one split or of any; a URL always does."""
    found = [] if is_url(root) else Path(root).glob(f"{split}/{INDEX}")
    return is_url(root) or any(not path.parent.name.startswith(".") for path in found)


def open_shards(root: str | Path, split: str, *, labeled: bool = True) -> ShardedSplit:
    """Open a split in shards, below a folder or a URL; `labeled` refuses one with an image that has no mask."""
    root = root if is_url(root) else Path(root)
    where = f"{root}/{split}/{INDEX}"
    try:
        opened = ShardedSplit(root, split, _read_index(where))
    except FileNotFoundError as error:
        raise MissingInputError(f"{where}: no such file; make it with: dlv3p shards write") from error
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{where}: not an index of shards ({reason(error)}); write them again") from error
    without = [opened.name(index) for index in range(len(opened)) if not opened.has_mask(index)]
    if labeled and without:
        raise InputError(f"{root}/{split}: {len(without)} of {len(opened)} images have no mask, the first {without[0]}")
    return opened


def _read_index(where: str) -> dict[str, Any]:
    stored = b"".join(_fetch(where)) if is_url(where) else regular(Path(where)).read_bytes()
    content = parse_json(stored.decode("utf-8"))
    check_content(content, where)
    if content["format"] != FORMAT or not content["shards"]:
        raise ValueError(f"format {content['format']}, not {FORMAT}")
    for shard in content["shards"]:
        if Path(shard["name"]).name != shard["name"]:
            raise ValueError(f"{shard['name']!r} is not the name of a file beside it")
        if not re.fullmatch("[0-9a-f]{64}", shard["sha256"]):  # a downloaded shard is stored under this name
            raise ValueError(f"{shard['sha256']!r} is not a sha256")
        _check_ends(shard, where)
    return content


def _check_ends(shard: dict[str, Any], where: str) -> None:
    """Raise IntegrityError when a member ends beyond its shard."""
    for sample in shard["samples"]:
        for member in (Member(*sample[kind]) for kind in ("image", "mask") if kind in sample):
            if not 0 <= member.offset <= member.offset + member.size <= shard["bytes"]:
                raise IntegrityError(
                    f"{where}: {sample['name']} ends at byte {member.offset + member.size} of {shard['name']}, which "
                    f"has {shard['bytes']} (sha256 expected {shard['sha256']}); write the shards again"
                )


def _fetch(url: str) -> Iterator[bytes]:
    """Yield a remote file block by block; raises MissingInputError where it is missing, else MachineError."""
    try:
        with _open_url(url) as remote:
            while block := remote.read(BLOCK):
                yield block
    except FileNotFoundError as error:
        raise MissingInputError(f"{url}: no such file") from error
    except UserError:
        raise
    except Exception as error:  # each protocol's library has its own errors
        raise MachineError(f"{url}: cannot be read completely ({reason(error)}); try again") from error


def _mismatch(path: str, what: str, expected: str, found: str, remedy: str = COPY) -> IntegrityError:
    return IntegrityError(f"{path}: {what}; sha256 expected {expected}, found {found}; {remedy}")


def _open_url(url: str):
    if url.startswith("s3://"):
        require("s3://", ("s3fs",), "s3")
    import fsspec  # a dependency of torch

    try:
        return fsspec.open(url, "rb").open()
    except FileNotFoundError:
        raise
    except (OSError, ImportError, ValueError) as error:  # no network, permission or library for the protocol
        raise MachineError(f"{url}: cannot be opened ({reason(error)})") from error
