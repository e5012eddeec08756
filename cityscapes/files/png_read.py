"""Read plain grayscale PNG files, several times faster than Pillow does, and leave all others to it.

Label and instance images are huge, nearly empty files: some ten kilobytes that become millions of equal pixels. What
takes time is undoing the row filters (PNG specification, section 9), and in flat areas their branches predict well.
"""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numba
import numpy as np
from isal import isal_zlib

from cityscapes.compiled import compiled
from cityscapes.files.png_write import MAX_PIXELS, read_instance_png, read_label_png

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_FILE_BYTES = 16 * 2**20
_BLOCK_BYTES = 2**17
_READ_ONLY = "Array(uint8, 1, 'C', readonly=True)"


def read_label_image(path: str | Path, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a label image as `read_label_png` does, with its errors; uint8 (H, W)."""
    content = _head(path)
    return read_label_png(path, size=size) if content is None else read_label_bytes(content, str(path), size=size)


def read_label_bytes(content: bytes, source: str, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a label image that is in memory, uint8 (H, W); raises InputError, which `source` begins."""
    pixels = decode_grey_png(content, bits=8, size=size)
    return read_label_png(BytesIO(content), source=source, size=size) if pixels is None else pixels


def read_instance_image(path: str | Path, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an instance image as `read_instance_png` does, with its errors; uint16 (H, W)."""
    content = _head(path)
    pixels = None if content is None else decode_grey_png(content, bits=16, size=size)
    return read_instance_png(path, size=size) if pixels is None else pixels


def _head(path: str | Path) -> bytes | None:
    """Return a file's bytes; None where it cannot be read or is far larger than such an image."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= MAX_FILE_BYTES else None


def decode_grey_png(content: bytes, *, bits: int, size: tuple[int, int] | None = None) -> np.ndarray | None:
    """Decode a PNG file of one channel of `bits` 8 or 16, and if given of `size` (height, width): uint8 or uint16.

    Returns None for everything else and for every fault, which another decoder can then explain. No more memory is
    spent than the pixels take, whatever the file claims.
    """
    width, height = struct.unpack(">II", content[16:24].ljust(8, b"\0"))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)  # grey, deflated, filtered, not interlaced
    packed = _image_data(content, header)
    if packed is None or (size and size != (height, width)) or not 0 < height * width <= MAX_PIXELS:
        return None
    row_bytes = width * bits // 8
    undo_filters = _undo_filters_8 if bits == 8 else _undo_filters_16
    pixels = np.empty((height, width), np.uint8 if bits == 8 else np.uint16)
    above = np.zeros(width, pixels.dtype)
    inflater, rows = isal_zlib.decompressobj(), max(1, _BLOCK_BYTES // (row_bytes + 1))
    try:
        for y in range(0, height, rows):  # block by block, which stays in the processor's cache
            block = pixels[y : y + rows]
            filtered = inflater.decompress(packed, len(block) * (row_bytes + 1))
            packed = inflater.unconsumed_tail
            if len(filtered) != len(block) * (row_bytes + 1):
                return None
            if not undo_filters(np.frombuffer(filtered, np.uint8), above, block):
                return None
            above = block[-1]
        surplus = inflater.decompress(packed, 1)
    except isal_zlib.error:
        return None
    return None if surplus or not inflater.eof else pixels


def _image_data(content: bytes, header: bytes) -> bytes | None:
    """Return the packed pixels of a sound file with this header; None for any other."""
    if content[:8] != _SIGNATURE:
        return None
    position, parts, first = 8, [], True
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        kind, end = content[position + 4 : position + 8], position + 8 + length
        if content[end : end + 4] != struct.pack(">I", zlib.crc32(content[position + 4 : end])):
            return None
        data = content[position + 8 : end]
        if first != (kind == b"IHDR") or (first and data != header):
            return None
        if kind == b"IDAT":
            parts.append(data)
        elif kind == b"IEND":
            return b"".join(parts)
        elif not first and kind[:1].isupper():  # a chunk that no reader may skip
            return None
        position, first = end + 4, False
    return None


@numba.njit
def _undo_row(kind, coded, above, row):
    """Undo one row's filter; return False for a filter that does not exist.

    Named as in the specification: `left` is the byte before, `up` the one above, `corner` the one left of that.
    """
    left = corner = np.uint8(0)
    if kind == 0:
        for x in range(len(row)):
            row[x] = coded[x]
    elif kind == 1:
        for x in range(len(row)):
            left = np.uint8(coded[x] + left)
            row[x] = left
    elif kind == 2:
        for x in range(len(row)):
            row[x] = np.uint8(coded[x] + above[x])
    elif kind == 3:
        for x in range(len(row)):
            left = np.uint8(coded[x] + ((np.int32(left) + np.int32(above[x])) >> 1))
            row[x] = left
    elif kind == 4:
        for x in range(len(row)):
            up = above[x]
            if up == corner:  # what the three distances below come to in flat areas
                left = np.uint8(coded[x] + left)
            elif left == corner:
                left = np.uint8(coded[x] + up)
            else:
                to_left = abs(np.int32(up) - np.int32(corner))
                to_up = abs(np.int32(left) - np.int32(corner))
                to_corner = abs(np.int32(left) + np.int32(up) - 2 * np.int32(corner))
                if to_left <= to_up and to_left <= to_corner:
                    left = np.uint8(coded[x] + left)
                else:
                    left = np.uint8(coded[x] + (up if to_up <= to_corner else corner))
            row[x] = left
            corner = up
    else:
        return False
    return True


@compiled(f"boolean({_READ_ONLY}, uint8[::1], uint8[:, ::1])")
def _undo_filters_8(filtered, above, pixels):
    """Undo the filters of some rows, of one byte a pixel; `above` is the row before them, zeros for the first."""
    height, width = pixels.shape
    for y in range(height):
        start = y * (width + 1)
        if not _undo_row(filtered[start], filtered[start + 1 : start + 1 + width], above, pixels[y]):
            return False
        above = pixels[y]
    return True


@compiled(f"boolean({_READ_ONLY}, uint16[::1], uint16[:, ::1])")
def _undo_filters_16(filtered, above, pixels):
    """Do the same for two bytes a pixel, high one first; each is filtered apart, as if it were an image of its own."""
    height, width = pixels.shape
    coded, lines = np.empty((2, width), np.uint8), np.empty((2, 2, width), np.uint8)
    for x in range(width):
        lines[1, 0, x], lines[1, 1, x] = above[x] >> np.uint16(8), above[x] & np.uint16(255)
    for y in range(height):
        start, now, before = y * (2 * width + 1), y % 2, 1 - y % 2
        source = filtered[start + 1 : start + 1 + 2 * width]
        for x in range(width):
            coded[0, x], coded[1, x] = source[2 * x], source[2 * x + 1]
        for byte in range(2):
            if not _undo_row(filtered[start], coded[byte], lines[before, byte], lines[now, byte]):
                return False
        high, low, row = lines[now, 0], lines[now, 1], pixels[y]
        for x in range(width):
            row[x] = (np.uint16(high[x]) << np.uint16(8)) | np.uint16(low[x])
    return True


@compiled("int64(Array(uint8, 2, 'C', readonly=True), uint8[:, :, ::1])")
def unfilter(raw: np.ndarray, out: np.ndarray) -> int:
    """Undo the filters of PNG scan lines (PNG specification, section 9), for pixels of one or three bytes.

    `raw` is uint8 (h, 1 + n), the filter's number before each line; `out`, uint8 (h, w, 1 or 3) with w no more than
    the line has, receives the lines' first pixels. Returns the first filter number that does not exist, or -1.

    The third kind of loop, Paeth's, takes most of the time: most rows of a photograph use it. Its rule picks of left a,
    above b and upper left c the one nearest to a + b - c. With lo and hi the smaller and the larger of a and b, that is
    hi where 3c - a - b <= lo, lo where it is >= hi, and c between the two: no branch.
    """
    height, width, channels = out.shape
    above = np.zeros((width, channels), np.uint8)
    for y in range(height):
        kind, row, now = raw[y, 0], raw[y, 1:], out[y]
        if kind > 4:
            return kind
        if kind == 0 or kind == 2:
            for x in range(width):
                for i in range(channels):
                    now[x, i] = row[x * channels + i] + (above[x, i] if kind == 2 else 0)
        elif kind == 1 or kind == 3:
            for i in range(channels):
                left = 0
                for x in range(width):
                    guess = left if kind == 1 else (left + above[x, i]) >> 1
                    left = (row[x * channels + i] + guess) & 255
                    now[x, i] = left
        elif channels == 3:  # three chains of additions side by side keep the processor busy
            a0, a1, a2, c0, c1, c2 = 0, 0, 0, 0, 0, 0
            for x in range(width):
                b0, b1, b2 = np.int64(above[x, 0]), np.int64(above[x, 1]), np.int64(above[x, 2])
                lo, hi, bound = min(a0, b0), max(a0, b0), 3 * c0 - a0 - b0
                guess = lo if hi <= bound else c0
                guess = hi if bound <= lo else guess
                a0, c0 = (row[3 * x] + guess) & 255, b0
                lo, hi, bound = min(a1, b1), max(a1, b1), 3 * c1 - a1 - b1
                guess = lo if hi <= bound else c1
                guess = hi if bound <= lo else guess
                a1, c1 = (row[3 * x + 1] + guess) & 255, b1
                lo, hi, bound = min(a2, b2), max(a2, b2), 3 * c2 - a2 - b2
                guess = lo if hi <= bound else c2
                guess = hi if bound <= lo else guess
                a2, c2 = (row[3 * x + 2] + guess) & 255, b2
                now[x, 0], now[x, 1], now[x, 2] = a0, a1, a2
        else:
            a, c = 0, 0
            for x in range(width):
                b = np.int64(above[x, 0])
                lo, hi, bound = min(a, b), max(a, b), 3 * c - a - b
                guess = lo if hi <= bound else c
                guess = hi if bound <= lo else guess
                a, c = (row[x] + guess) & 255, b
                now[x, 0] = a
        above = now
    return -1
