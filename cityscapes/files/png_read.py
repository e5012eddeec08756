"""Read PNG files fast: a mask's one channel of 8 or 16 bits, or the corner of an RGB image that a crop needs.

Masks are huge, nearly empty files: some ten kilobytes that become millions of equal pixels. A crop needs the rows down
to its bottom, and of them the columns up to its right. Unusual and damaged files are left to Pillow, which explains
them. Colors of 16 bits, of which Pillow keeps eight, are read here too.
"""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np

from cityscapes.compiled import compiled
from cityscapes.errors import InputError, MissingInputError, UserError, reason
from cityscapes.files.png_chunks import SIGNATURE, chunks, has_damaged_chunk, is_sound, may_be_turned
from cityscapes.files.untrusted import MAX_PIXELS, regular

try:
    from isal import isal_zlib as inflate  # two to three times as fast as zlib
except ImportError:  # not built for every kind of processor
    inflate = zlib

MAX_FILE_BYTES = 16 * 2**20
"""The most bytes of a mask's file; any mask that is not noise takes less."""
_GRAY, _RGB, _PALETTE = 0, 2, 3  # the header's numbers of color types
_CHANNELS = {_GRAY: 1, _RGB: 3, 4: 2, 6: 4}
_BLOCK_BYTES = 2**17  # stays in the processor's cache


def read_label_image(path: str | Path, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a label image: a whole PNG of one 8-bit channel and, if given, of `size` (height, width); uint8 (H, W).

    The header is checked before memory is spent on pixels. Raises InputError, or MissingInputError.
    """
    content = _small_file(path)
    return (
        _label_by_pillow(path, str(path), size) if content is None else read_label_bytes(content, str(path), size=size)
    )


def read_label_bytes(content: bytes, source: str, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a label image that is in memory, uint8 (H, W); raises InputError, which `source` begins."""
    pixels = decode_gray_png(content, bits=8, size=size)
    return _label_by_pillow(BytesIO(content), source, size) if pixels is None else pixels


def read_instance_image(path: str | Path, *, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an instance image like `read_label_image`, but of one 16-bit channel; uint16 (H, W)."""
    content = _small_file(path)
    pixels = None if content is None else decode_gray_png(content, bits=16, size=size)
    if pixels is not None:
        return pixels
    # Older Pillow calls the 16-bit gray of a PNG file "I".
    read = _read_by_pillow(path, str(path), size, ("I;16", "I"), "one 16-bit channel (mode I;16)")
    return read.astype(np.uint16)


def decode_gray_png(
    content: bytes, *, bits: int, size: tuple[int, int] | None = None, palette: bool = False
) -> np.ndarray | None:
    """Decode a PNG file of one channel of `bits` 8 or 16, and if given of `size` (height, width): uint8 or uint16.

    With `palette`, also one of 8 bits with a palette, to its indices. Return None for everything else and for every
    fault. No more memory is spent than the pixels take, whatever the file claims.
    """
    found = _size_of(content, bits, _GRAY) or (_size_of(content, bits, _PALETTE) if palette and bits == 8 else None)
    lines = None if found is None or (size and size != found) else _whole_lines(content, *found, bits // 8)
    return lines if lines is None or bits == 8 else lines.view(">u2").astype(np.uint16)


def decode_wide_png(content: bytes) -> np.ndarray | None:
    """Decode a PNG file of any channels of 16 bits, uint16 (H,W,n), as `decode_gray_png` does."""
    channels = _CHANNELS.get(content[25], 0)
    found = _size_of(content, 16, content[25])
    lines = _whole_lines(content, *found, 2 * channels) if found and channels else None
    return None if lines is None else lines.view(">u2").astype(np.uint16).reshape(*found, channels)


def _whole_lines(content: bytes, height: int, width: int, pixel_bytes: int) -> np.ndarray | None:
    packed = _image_data(content)
    if packed is None:
        return None
    lines = np.empty((height, width * pixel_bytes), np.uint8)
    rows = max(1, _BLOCK_BYTES // (1 + lines.shape[1]))
    return lines if _unpack(packed, 1 + lines.shape[1], lines, pixel_bytes, rows=rows, whole=True) else None


def png_size(content: bytes) -> tuple[int, int] | None:
    """Return height and width of an RGB PNG of 8 bits that `decode_corner` can read, else None.

    An image whose metadata may turn it is left to `cityscapes.files.images`.
    """
    return None if may_be_turned(content) else _size_of(content, 8, _RGB)


def decode_corner(content: bytes, bottom: int, right: int) -> np.ndarray | None:
    """Return the upper left corner of an RGB PNG, uint8 (bottom,right,3), or None where Pillow should read it.

    All chunks must be complete with correct checksums, including those of rows below `bottom`: a truncated file or a
    flipped bit is noticed whatever part is asked for.
    """
    size = png_size(content)
    packed = None if size is None or bottom > size[0] or right > size[1] else _image_data(content)
    if packed is None:
        return None
    corner = np.empty((bottom, 3 * right), np.uint8)
    # All rows at once: after each block zlib copies the packed bytes that are left, which are many in a photograph.
    sound = _unpack(packed, 1 + 3 * size[1], corner, 3, rows=bottom)
    return corner.reshape(bottom, right, 3) if sound else None


def _small_file(path: str | Path) -> bytes | None:
    """Return a file's bytes; None where it cannot be read or is far larger than a mask."""
    try:
        with open(regular(Path(path)), "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError:
        return None
    return content if len(content) <= MAX_FILE_BYTES else None


def _label_by_pillow(file: str | Path | BytesIO, source: str, size: tuple[int, int] | None) -> np.ndarray:
    return _read_by_pillow(file, source, size, ("L",), "one 8-bit channel (mode L)").astype(np.uint8, copy=False)


def _read_by_pillow(
    file: str | Path | BytesIO, source: str, size: tuple[int, int] | None, modes: tuple[str, ...], expected: str
) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file, formats=("PNG",)) as image:
            height, width = size or image.size[::-1]
            if image.mode not in modes or image.size != (width, height):
                found = f"mode {image.mode}, {image.width} x {image.height}"
                raise InputError(f"{source}: expected {expected}, {width} x {height}, found {found}")
            if height * width > MAX_PIXELS:
                raise InputError(f"{source}: {width} x {height} is more than {MAX_PIXELS >> 20} million pixels")
            pixels = np.array(image)
        if has_damaged_chunk(file):  # Pillow may have read other pixels from it, without an error
            raise InputError(f"{source}: not a whole PNG (a chunk has a wrong checksum); make or copy it again")
        return pixels
    except (UserError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise MissingInputError(f"{source}: no such label image") from error
    except Exception as error:  # a damaged PNG may raise nearly anything
        raise InputError(f"{source}: not a whole PNG ({reason(error)}); make or copy it again") from error


def _size_of(content: bytes, bits: int, color_type: int) -> tuple[int, int] | None:
    """Return height and width from the header of a PNG of this kind, without interlacing; None for any other file."""
    if len(content) < 33 or content[:8] != SIGNATURE or content[8:16] != b"\0\0\0\rIHDR":
        return None
    width, height, *kind = struct.unpack(">IIBBBBB", content[16:29])
    return (height, width) if kind == [bits, color_type, 0, 0, 0] and 0 < width * height <= MAX_PIXELS else None


def _image_data(content: bytes) -> bytes | None:
    """Return the packed pixels of a PNG that begins with its header; None where a chunk is damaged or unusual."""
    parts, view, first = [], memoryview(content), len(SIGNATURE) + 8
    palettes = int(content[25] == _PALETTE)  # to come
    for kind, start, end in chunks(content):
        if not is_sound(content, start, end):
            return None
        if kind == b"IDAT":
            parts.append(view[start:end])
        elif kind == b"IEND":
            return None if palettes else b"".join(parts)
        elif kind == b"PLTE" and palettes and not parts:
            palettes -= 1
        elif kind[:1].isupper() and start > first:  # a second header, or what no reader may skip
            return None
    return None


def _unpack(packed: bytes, stride: int, lines: np.ndarray, pixel_bytes: int, *, rows: int, whole: bool = False) -> bool:
    """Unpack scan lines of `stride` bytes into `lines`, uint8 (h, n), n < `stride`, `rows` at a time.

    Return False for a fault; with `whole`, also where the packed data do not end with the last line.
    """
    inflater, above = inflate.decompressobj(), np.zeros(lines.shape[1], np.uint8)
    try:
        for y in range(0, len(lines), rows):
            block = lines[y : y + rows]
            filtered = inflater.decompress(packed, len(block) * stride)
            packed = inflater.unconsumed_tail
            if len(filtered) != len(block) * stride:
                return False
            if not _undo_filters(np.frombuffer(filtered, np.uint8).reshape(-1, stride), above, block, pixel_bytes):
                return False
            above = block[-1]
        return not whole or (not inflater.decompress(packed, 1) and inflater.eof)
    except inflate.error:
        return False


@compiled("boolean(Array(uint8, 2, 'C', readonly=True), uint8[::1], uint8[:, ::1], int64)")
def _undo_filters(filtered, above, lines, pixel_bytes):
    """Undo the filters of scan lines (PNG specification, section 9); return False for one that does not exist.

    `filtered` is uint8 (h, 1 + n), the filter's number before each line; `lines`, uint8 (h, w) with w no more than n,
    receives the lines' first bytes, `pixel_bytes` for each pixel. `above` is the line before them, zeros for the first.

    Paeth's filter, the fourth, picks of left a, above b and upper left c the one nearest to a + b - c. Most rows of a
    photograph use it, and hardly two pixels alike: with lo and hi the smaller and the larger of a and b, it picks hi
    where 3c - a - b <= lo, lo where it is >= hi, and c between the two, without a branch. In the flat areas of a mask
    branches are faster, since a processor predicts them well.
    """
    width, count = lines.shape[1], lines.shape[1] // pixel_bytes
    for y in range(len(lines)):
        kind, coded, line = filtered[y, 0], filtered[y, 1 : 1 + width], lines[y]
        now, up = line.reshape(count, pixel_bytes), above.reshape(count, pixel_bytes)
        if kind == 0:
            for x in range(width):
                line[x] = coded[x]
        elif kind == 1:
            for i in range(pixel_bytes):
                left = 0
                for x in range(count):
                    left = (coded[x * pixel_bytes + i] + left) & 255
                    now[x, i] = left
        elif kind == 2:
            for x in range(width):
                line[x] = coded[x] + above[x]
        elif kind == 3:
            for i in range(pixel_bytes):
                left = 0
                for x in range(count):
                    left = (coded[x * pixel_bytes + i] + ((left + up[x, i]) >> 1)) & 255
                    now[x, i] = left
        elif kind == 4 and pixel_bytes == 3:  # three chains of additions side by side keep the processor busy
            a0, a1, a2, c0, c1, c2 = 0, 0, 0, 0, 0, 0
            for x in range(count):
                b0, b1, b2 = np.int64(up[x, 0]), np.int64(up[x, 1]), np.int64(up[x, 2])
                lo, hi, bound = min(a0, b0), max(a0, b0), 3 * c0 - a0 - b0
                guess = lo if hi <= bound else c0
                guess = hi if bound <= lo else guess
                a0, c0 = (coded[3 * x] + guess) & 255, b0
                lo, hi, bound = min(a1, b1), max(a1, b1), 3 * c1 - a1 - b1
                guess = lo if hi <= bound else c1
                guess = hi if bound <= lo else guess
                a1, c1 = (coded[3 * x + 1] + guess) & 255, b1
                lo, hi, bound = min(a2, b2), max(a2, b2), 3 * c2 - a2 - b2
                guess = lo if hi <= bound else c2
                guess = hi if bound <= lo else guess
                a2, c2 = (coded[3 * x + 2] + guess) & 255, b2
                now[x, 0], now[x, 1], now[x, 2] = a0, a1, a2
        elif kind == 4:
            for i in range(pixel_bytes):
                a = c = np.uint8(0)
                for x in range(count):
                    b, coded_byte = up[x, i], coded[x * pixel_bytes + i]
                    if b == c:  # what the three distances below come to in flat areas
                        a = np.uint8(coded_byte + a)
                    elif a == c:
                        a = np.uint8(coded_byte + b)
                    else:
                        to_a = abs(np.int32(b) - np.int32(c))
                        to_b = abs(np.int32(a) - np.int32(c))
                        to_c = abs(np.int32(a) + np.int32(b) - 2 * np.int32(c))
                        if to_a <= to_b and to_a <= to_c:
                            a = np.uint8(coded_byte + a)
                        else:
                            a = np.uint8(coded_byte + (b if to_b <= to_c else c))
                    now[x, i] = a
                    c = b
        else:
            return False
        above = line
    return True
