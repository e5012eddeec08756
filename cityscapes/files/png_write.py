"""Encode masks as PNG quickly, stamped with a digest of what they were made from, see `stamps.py`.

Rows are stored by the PNG filter "up", as differences from the row above, which leaves almost nothing of a label image;
images are filtered a strip at a time, since a strip stays in the processor's cache until it is packed.
"""

import struct
from collections.abc import Iterator

import numpy as np
from isal import isal_zlib

from cityscapes.compiled import compiled
from cityscapes.files.png_chunks import SIGNATURE, chunk
from cityscapes.files.stamps import stamped

_STRIP_BYTES = 2**17
_UP = 2  # the filter's number, which each row begins with


def filtered_strips(pixels: np.ndarray, table: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield an image's filtered rows in strips, uint8 (rows, 1 + bytes a row), as PNG packs them.

    The image is `pixels`, uint8 (H, W) or (H, W, C) or uint16 (H, W); or, with a `table` uint8 (256, C), it is
    `table[pixels]` of pixels uint8 (H, W), without making that image: where a pixel equals the one above, so do their
    entries, and the difference is 0. That is nearly everywhere in a label image.
    """
    height = len(pixels)
    row_bytes = pixels[:1].nbytes if table is None else pixels.shape[1] * table.shape[1]
    rows = max(_STRIP_BYTES // (1 + row_bytes), 1)
    if table is None:
        whole = pixels.reshape(height, -1)
    else:  # compiled code takes no read-only arrays
        whole, table = np.require(pixels, np.uint8, ["C", "W"]), np.array(table, np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        filtered = np.zeros((bottom - top, 1 + row_bytes), np.uint8)
        filtered[:, 0] = _UP
        strip = whole[max(top - 1, 0) : bottom]  # with the row above
        if table is None:
            strip = strip.astype(">u2").view(np.uint8) if strip.dtype == np.uint16 else strip
        if top == 0:
            filtered[0, 1:] = strip[0] if table is None else table[strip[0]].reshape(-1)
        below = filtered[1:] if top == 0 else filtered
        if table is None:
            np.subtract(strip[1:], strip[:-1], out=below[:, 1:])
        else:
            _look_up_changes(strip, table, below)
        yield filtered


def _look_up_changes(strip: np.ndarray, table: np.ndarray, filtered: np.ndarray) -> None:
    size = filtered.shape[0] * strip.shape[1]
    changes = np.zeros(-(-size // 8), np.uint64)  # eight pixels in a word, which mostly is 0
    np.bitwise_xor(strip[1:].reshape(-1), strip[:-1].reshape(-1), out=changes.view(np.uint8)[:size])
    _fill_changes(changes, strip, table, filtered)


@compiled("void(uint64[::1], uint8[:, ::1], uint8[:, ::1], uint8[:, ::1])")
def _fill_changes(changes, strip, table, filtered):
    """Fill in the differences where a pixel of the strip differs from the one above."""
    rows, width = filtered.shape[0], strip.shape[1]
    channels = table.shape[1]
    for word in range(len(changes)):
        if changes[word]:
            y, x = divmod(8 * word, width)
            for _ in range(8):  # all eight: checking which of them differ takes longer
                if x == width:
                    y, x = y + 1, 0
                if y < rows:
                    old, new = strip[y, x], strip[y + 1, x]
                    for c in range(channels):
                        filtered[y, 1 + x * channels + c] = table[new, c] - table[old, c]
                x += 1


def encode_png(
    pixels: np.ndarray,
    *,
    made_from: bytes | None = None,
    palette: np.ndarray | None = None,
    table: np.ndarray | None = None,
    packed: bytes | None = None,
) -> bytes:
    """Encode an image as a PNG file.

    It is uint8 (H, W), gray or with an RGB `palette` uint8 (256, 3); uint16 (H, W), gray; or RGBA, uint8 (H, W, 4).
    With a look-up `table` uint8 (256,) or (256, 4), `table[pixels]` is encoded, gray or RGBA, in less time than it
    takes to make it. `made_from` is anything that identifies the input; with it the file is stamped. `packed` is what
    `pack_pixels` gave for the same pixels, so that two files can share it. The same pixels give the same bytes with one
    version of ISA-L on one kind of processor.
    """
    height, width = pixels.shape[:2]
    channels = (pixels if table is None else table).shape[2 if table is None else 1 :]
    bits = 16 if pixels.dtype == np.uint16 else 8
    color_type = 6 if channels else 0 if palette is None else 3
    header = SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0))
    body = b"" if palette is None else chunk(b"PLTE", palette.tobytes())
    body += chunk(b"IDAT", pack_pixels(pixels, table=table) if packed is None else packed) + chunk(b"IEND", b"")
    return header + body if made_from is None else stamped(header + body, made_from)


def pack_pixels(pixels: np.ndarray, *, table: np.ndarray | None = None) -> bytes:
    """Filter and compress an image as `encode_png` does: the part of the file that costs time."""
    # Level 1 finds the long runs of zeros that the filter leaves; more effort takes longer and saves next to nothing.
    packer = isal_zlib.compressobj(1)
    strips = filtered_strips(pixels, None if table is None else table.reshape(256, -1))
    return b"".join([packer.compress(strip) for strip in strips] + [packer.flush()])
