"""Keep NumPy arrays in files that can be made again: `.npy` with a CRC-32 at the end, compared when they are read.

The name of a file says what it was made from, so it belongs to the checksum: files that changed places are damaged.
"""

import io
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from cityscapes.files.atomic import open_atomically
from cityscapes.files.checksums import crc32
from cityscapes.files.untrusted import regular

CHECKSUM_BYTES = 4


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array; raises MachineError when the disk is full."""
    array, header = np.ascontiguousarray(array), io.BytesIO()
    with open_atomically(path, durable=False) as file:
        npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(array))
        file.write(header.getvalue())
        file.write(array.data)  # unlike numpy's own writing, this distinguishes a full disk from other errors
        file.write(crc32(array.data, crc32(header.getvalue(), _of_name(path))).to_bytes(CHECKSUM_BYTES))


def read_array(path: Path, *, checked: bool = True) -> np.ndarray | None:
    """Return an array as a memory map; None where the file is missing or damaged, or has no checksum.

    With `checked=False` only the size of the file is compared, not its bytes.
    """
    try:
        content = np.memmap(regular(path), np.uint8, "r")
        end = len(content) - CHECKSUM_BYTES
        if checked and crc32(content[:end], _of_name(path)) != int.from_bytes(content[end:].tobytes()):
            return None
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return array if array.offset + array.nbytes == end else None
    except Exception:  # missing, or truncated by a power failure: a damaged header may raise nearly anything
        return None


def _of_name(path: Path) -> int:
    return crc32(path.name.encode())
