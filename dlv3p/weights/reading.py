"""Read weights files of every container into plain tensors, or reject them in one line before anything is copied.

Our own checkpoints carry the version of their format, and a record of their sha256, which is verified here.
"""

import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cityscapes.errors import IntegrityError, MissingInputError, NewerFormatError, reason
from cityscapes.files.checksums import check_recorded, file_sha256, record_path
from cityscapes.files.untrusted import parse_json, safe_reason, sanitize
from dlv3p.weights.checksums import HASH_KEY, check_described
from dlv3p.weights.pickles import load_pickled

FORMAT = 2
"""Version of the checkpoint format; a newer one is refused rather than half understood."""

WRAPPERS = ("model_state", "state_dict", "model_state_dict", "model")
"""Entries that contain the weights: VainF; chenxi116 and stigma0617; yoR; our checkpoints."""

SIGNS = {
    b"<": "a web page, not a weights file: the link requires a login, or needs ?dl=1 at its end (Dropbox)",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; fetch it with: git lfs pull",
    b"\x1f\x8b": "packed with gzip; unpack it first",
    b"\x89HDF": "an HDF5 file (Keras), which is not read here; save its weights with torch.save or as safetensors",
}
"""First bytes of files that are not weights files, and what they are instead."""

MINDSPORE = re.compile(rb"\n[\x80-\xff]*[\x00-\x7f]\n[\x80-\xff]?[\x01-\x7f][\w./-]+\x12")
"""First bytes of MindSpore's own checkpoints: a message with the name of the first entry, and the entry."""

OURS = "dlv3p"
"""The entry in a safetensors header that describes our networks."""

MAX_HEADER = 4 * 2**20
"""The most bytes of a safetensors header; the names of the largest network here take a fortieth of it."""

MAX_ARRAY_RATIO = 200
"""Largest ratio of an array in an `.npz` to its packed bytes."""


@dataclass(frozen=True)
class WeightsFile:
    """A file's tensors by name, its other content, and the description that our own files carry.

    `container` is torch, safetensors or npz; `wrapper` is the entry that contained the tensors, "" for none.
    """

    path: Path
    container: str
    tensors: dict[str, Tensor]
    wrapper: str
    others: dict[str, Any]
    description: Mapping[str, Any] | None


def read_weights(path: Path) -> WeightsFile:
    """Read a weights file: `torch.save`, safetensors or `.npz`, on the CPU.

    Tensors may be memory-mapped, so copy the ones to keep. Raises MissingInputError for a missing file, and
    IntegrityError for one that is not a weights file, is damaged, or would run code.
    """
    if path.is_dir():
        raise IntegrityError(f"{path}: a folder, not a weights file; give one of the files in it")
    if not path.is_file():
        raise MissingInputError(f"{path}: no such weights file")
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError as error:
        raise IntegrityError(f"{path}: cannot be read ({reason(error)})") from error
    if not start:
        raise IntegrityError(f"{path}: empty; fetch it again")
    if start[7:9] == b"\0{":  # after the length of the header, which is below 2^56 bytes
        return _read_safetensors(path, start)
    for sign, what in SIGNS.items():
        if start.lstrip().startswith(sign):
            raise IntegrityError(f"{path}: {what}")
    if MINDSPORE.match(start):
        raise IntegrityError(
            f"{path}: a MindSpore checkpoint, which is read as .npz; where MindSpore is installed, write it by "
            "numpy.savez(OUTPUT, **{name: value.asnumpy() for name, value in mindspore.load_checkpoint(FILE).items()})"
        )
    if start[257:262] == b"ustar":
        raise IntegrityError(f"{path}: a tar archive; unpack it first, and give the weights file in it")
    return _read_npz(path) if start.startswith(b"PK") and _is_npz(path) else _read_torch(path)


def has_checksum(file: WeightsFile) -> bool:
    """Return whether a file came with a checksum, in itself or in a record beside it, which its reader compares."""
    in_itself = file.container == "safetensors" and HASH_KEY in (file.description or {})
    return in_itself or (
        file.container == "torch" and file.description is not None and record_path(file.path).is_file()
    )


def plain_tensors(path: Path, entries: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return `entries` if they are tensors by name, each with all its numbers in the file; raises IntegrityError.

    A forged tensor of a few bytes can claim any shape, with strides of 0; it is refused here, before it is copied.
    """
    for name, value in entries.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise IntegrityError(f"{path}: {sanitize(name)} is a {type(value).__name__}, where a tensor is expected")
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise IntegrityError(
                f"{path}: {sanitize(name)} is not a plain tensor of numbers ({value.dtype}, {value.layout})"
            )
        claimed, there = value.numel() * value.element_size(), value.untyped_storage().nbytes()
        if claimed > there:
            raise IntegrityError(
                f"{path}: {sanitize(name)} claims {claimed} bytes, where the file holds {there}; it is forged"
            )
    return dict(entries)


def check_format(path: Path, content: Mapping[str, Any]) -> None:
    """Raise NewerFormatError for a file whose `format` is newer, IntegrityError for one that is invalid."""
    version = content["format"]
    if type(version) is not int or version < 1:
        raise IntegrityError(f"{path}: its format is not a whole number from 1 to {FORMAT}; restore the file")
    if version > FORMAT:
        raise NewerFormatError(f"{path}: has format {version}, this version reads up to {FORMAT}; update the suite")


def _read_torch(path: Path) -> WeightsFile:
    content = load_pickled(path, path)
    if not isinstance(content, dict) or not content:
        raise IntegrityError(f"{path}: holds a {type(content).__name__}, not a table of tensors by name")
    wrapper = next((name for name in WRAPPERS if isinstance(content.get(name), dict)), "")
    others = {str(name): value for name, value in content.items() if name != wrapper} if wrapper else {}
    is_own = wrapper == "model" and "format" in others
    if is_own:
        check_recorded(path, file_sha256(path))
        check_format(path, others)
    tensors = plain_tensors(path, content[wrapper] if wrapper else content)
    return WeightsFile(path, "torch", tensors, wrapper, others, others if is_own else None)


def _read_safetensors(path: Path, start: bytes) -> WeightsFile:
    if int.from_bytes(start[:8], "little") > MAX_HEADER:
        raise IntegrityError(
            f"{path}: has a header of {int.from_bytes(start[:8], 'little'):,} bytes, where no network needs more than "
            f"{MAX_HEADER:,}; it is damaged or forged, so fetch it again"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = parse_json(metadata[OURS]) if OURS in metadata else None
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise IntegrityError(
            f"{path}: damaged, or not a safetensors file ({safe_reason(error)}); fetch it again"
        ) from error
    if description is not None and not isinstance(description, dict):
        raise IntegrityError(f"{path}: its description is not a table; write the file again")
    if description and "format" in description:
        check_format(path, description)
    tensors = plain_tensors(path, tensors)
    if description:
        check_described(path, description, tensors)
    others = {name: value for name, value in metadata.items() if name != OURS}
    return WeightsFile(path, "safetensors", tensors, "", others, description)


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_npz(path: Path) -> WeightsFile:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _refuse_forged_array(archive, member, path)
        with np.load(path, allow_pickle=False) as arrays:
            tensors = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in arrays.files}
    except (IntegrityError, MemoryError):
        raise
    except Exception as error:  # zlib.error, BadZipFile, ValueError, EOFError, ... all mean damage
        raise IntegrityError(f"{path}: damaged, or not plain arrays ({safe_reason(error)}); write it again") from error
    return WeightsFile(path, "npz", plain_tensors(path, tensors), "", {}, None)


def _refuse_forged_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Refuse an array whose header claims another size than its member, before NumPy allocates memory for it."""
    with archive.open(member) as file:
        read_header = npy.read_array_header_1_0 if npy.read_magic(file) == (1, 0) else npy.read_array_header_2_0
        shape, _, kind = read_header(file)
        claimed = math.prod(shape) * kind.itemsize + file.tell()
    if kind.kind not in "fiub" or claimed != member.file_size:
        raise IntegrityError(
            f"{path}: {sanitize(member.filename)} is not a plain array of {sanitize(shape)} numbers; write it again"
        )
    if member.file_size > MAX_ARRAY_RATIO * max(member.compress_size, 512):
        raise IntegrityError(f"{path}: {sanitize(member.filename)} unpacks to {member.file_size} bytes; it is forged")
