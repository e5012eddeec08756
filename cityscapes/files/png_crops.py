"""Decode the part of a PNG that a crop needs: the rows down to its bottom, and of them the columns up to its right.

A PNG is one stream of rows, so what lies below a crop need not be unpacked; and a row's filters look left and up
only, so what lies to the right of it need not be restored. Everything but an RGB image of 8 bits without interlacing,
and everything damaged, is left to Pillow: `decode_corner` then returns None.
"""

import struct
import zlib

import numpy as np

from cityscapes.files.png_read import unfilter

try:
    from isal import isal_zlib as inflate  # two to three times as fast as zlib
except ImportError:  # not built for every kind of processor
    inflate = zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PIXELS = 89_478_485
"""What Pillow too takes for an attack: a larger image is left to its judgement."""


def png_size(content: bytes) -> tuple[int, int] | None:
    """Return height and width of an RGB PNG of 8 bits that `decode_corner` can read, else None."""
    if len(content) < 33 or content[:8] != SIGNATURE or content[8:16] != b"\0\0\0\rIHDR":
        return None
    width, height, depth, color, compression, filters, interlace = struct.unpack(">IIBBBBB", content[16:29])
    plain = (depth, color, compression, filters, interlace) == (8, 2, 0, 0, 0)
    return (height, width) if plain and 0 < width * height <= MAX_PIXELS else None


def decode_corner(content: bytes, bottom: int, right: int) -> np.ndarray | None:
    """Return the upper left corner of a PNG, uint8 (bottom,right,3), or None where Pillow should look at it.

    All chunks must be there with their right check sums, also those of rows below `bottom`: a file that is cut short
    or has a flipped bit is noticed whatever part of it is asked for.
    """
    size = png_size(content)
    if size is None or bottom > size[0] or right > size[1]:
        return None
    packed = _image_data(content)
    if packed is None:
        return None
    stride = 1 + 3 * size[1]
    try:
        raw = inflate.decompressobj().decompress(packed, bottom * stride)
    except inflate.error:
        return None
    if len(raw) < bottom * stride:
        return None
    corner = np.empty((bottom, right, 3), np.uint8)
    damaged = unfilter(np.frombuffer(raw, np.uint8).reshape(bottom, stride), corner) >= 0
    return None if damaged else corner


def _image_data(content: bytes) -> bytes | None:
    parts, position, view = [], len(SIGNATURE), memoryview(content)
    while position + 12 <= len(content):
        length = int.from_bytes(view[position : position + 4])
        kind, end = bytes(view[position + 4 : position + 8]), position + 8 + length
        if end + 4 > len(content) or inflate.crc32(view[position + 4 : end]) != int.from_bytes(view[end : end + 4]):
            return None
        if kind == b"IDAT":
            parts.append(view[position + 8 : end])
        elif kind == b"IEND":
            return b"".join(parts)
        position = end + 4
    return None
