"""Read files of `torch.save` without running anything in them.

torch's own `weights_only=True` runs no foreign code, but accepts constructors that exhaust memory, such as
`bytearray(10**10)`, from a file of a kilobyte. So the calls in a file are checked before it is read: tensors and plain
containers need only the few names below. Scores that old files hold as NumPy scalars become plain numbers through
stand-ins of ours, and the arguments of a training script become nothing; NumPy and argparse themselves are not called.
Names from a file are sanitized before they are printed: they may hold control codes, or a whole page.
"""

import itertools
import pickletools
import struct
import zipfile
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch

from cityscapes.errors import IntegrityError, is_out_of_memory
from cityscapes.files.untrusted import safe_reason, sanitize

ALLOWED = {
    "collections.OrderedDict",
    "collections.Counter",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch.Size",
    "torch.device",
    "_codecs.encode",
    *(f"torch.{kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char")),
    *(f"torch.{kind}Storage" for kind in ("Byte", "Bool")),
    *(f"torch.storage.{kind}Storage" for kind in ("Untyped", "Typed")),
    *(str(kind) for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8)),
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    "numpy.dtype",
    "argparse.Namespace",
}
"""Names that a file may call."""

LEGACY_PICKLES = 5
"""Number of consecutive pickles in a file from before torch 1.6; the numbers follow."""

MAX_MEMBERS = 200_000


class Arguments:
    """Stand-in for the `argparse.Namespace` that training scripts save beside the weights; none of it is needed."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class NumpyType:
    """Stand-in for the `numpy.dtype` of a pickled scalar: its code, such as f8, and its byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = ">" if state[1] == ">" else "<"


def numpy_scalar(kind: NumpyType, content: bytes) -> float | int | None:
    """Return the number of a pickled NumPy scalar, None for a type that is not a plain number."""
    formats = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "u8": "Q", "u4": "I", "b1": "?"}
    if not isinstance(kind, NumpyType) or kind.code not in formats:
        return None
    return struct.unpack(kind.order + formats[kind.code], content)[0]


def load_pickled(source: Path | BytesIO, where: Path, *, device: str = "cpu") -> Any:
    """Read a file of `torch.save`, from its path (memory-mapped, not copied) or its bytes.

    Raises IntegrityError, which names the file `where`, when it is damaged or calls anything but `ALLOWED`. Tensors may
    still claim more elements than the file has numbers: see `reading.plain_tensors`.
    """
    with open(source, "rb") if isinstance(source, Path) else nullcontext(source) as file:
        is_zip = file.read(2) == b"PK"
        file.seek(0)
        pickles = [_pickle_of_zip(file, where)] if is_zip else itertools.repeat(file, LEGACY_PICKLES)
        for pickled in pickles:
            _refuse_calls(pickled, where)
        file.seek(0)
    stand_ins = [(numpy_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    stand_ins += [(NumpyType, "numpy.dtype"), (Arguments, "argparse.Namespace")]
    mapped = {"mmap": True} if is_zip and isinstance(source, Path) else {}
    try:
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(source, map_location=device, weights_only=True, **mapped)
    except Exception as error:  # torch reports damage by many exceptions: RuntimeError, UnpicklingError, EOFError, ...
        if is_out_of_memory(error):
            raise
        raise IntegrityError(f"{where}: damaged ({safe_reason(error)}); fetch or write it again") from error


def _pickle_of_zip(file: BinaryIO, where: Path) -> BinaryIO:
    """Return the pickle in a zip; refuse one that unpacks to more than its own size."""
    size = file.seek(0, 2)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS or any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise IntegrityError(f"{where}: a zip that torch did not write; give the file as torch.save wrote it")
            if sum(member.file_size for member in members) > size:
                raise IntegrityError(f"{where}: claims to hold more than its {size} bytes; it is forged or damaged")
            # torch's own zip reader ignores the case of names
            pickles = [member for member in members if member.filename.lower().endswith("/data.pkl")]
            if len(pickles) != 1:
                raise IntegrityError(f"{where}: a zip without data.pkl, so not weights; give the file as downloaded")
            return BytesIO(archive.read(pickles[0]))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError) as error:
        if isinstance(error, IntegrityError):
            raise
        raise IntegrityError(
            f"{where}: damaged or truncated ({safe_reason(error)}); fetch or write it again"
        ) from error


def _refuse_calls(file: BinaryIO, where: Path) -> None:
    """Scan one pickle without running it; raise IntegrityError for the first name in it that is not allowed."""
    try:
        for opcode, argument, _ in pickletools.genops(file):
            called = argument.replace(" ", ".") if opcode.name in ("GLOBAL", "INST") else ""
            if opcode.name == "STACK_GLOBAL" or (called and called not in ALLOWED):
                raise IntegrityError(
                    f"{where}: calls {sanitize(called) or 'a name that it hides'}, which no weights need; nothing was "
                    "run. Get the file from its author, or as safetensors; if you trust its author, save the tensors "
                    "alone: torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW), or in place of "
                    "['state_dict'] with .state_dict() where the file holds a whole network"
                )
    except IntegrityError:
        raise
    except Exception as error:  # pickletools raises ValueError, UnicodeDecodeError, struct.error, ... on damage
        raise IntegrityError(f"{where}: not weights, or truncated ({safe_reason(error)}); fetch it again") from error
