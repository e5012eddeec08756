"""The PNG filter "up": each row as its difference to the row above, which leaves almost nothing of a label image.

Images are filtered a strip of rows at a time: a strip stays in the processor's cache until it is packed, and memory for
a second image is never asked for.
"""

from collections.abc import Iterator

import numpy as np

from cityscapes.compiled import compiled

_STRIP_BYTES = 2**17
_UP = 2  # the filter's number, which each row begins with


def filtered_strips(pixels: np.ndarray, table: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield an image's filtered rows in strips, uint8 (rows, 1 + bytes a row), as PNG packs them.

    The image is `pixels`, uint8 (H, W) or (H, W, C) or uint16 (H, W); or, with a `table` uint8 (256, C), it is
    `table[pixels]` of pixels uint8 (H, W), which is then never made: where a pixel equals the one above, so do their
    entries, and the difference is 0 without a look. That is nearly everywhere in a label image.
    """
    height = len(pixels)
    row_bytes = pixels[:1].nbytes if table is None else pixels.shape[1] * table.shape[1]
    rows = max(_STRIP_BYTES // (1 + row_bytes), 1)
    if table is None:
        whole = pixels.reshape(height, -1)
    else:  # what was compiled takes no read-only arrays
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
            for _ in range(8):  # all eight, without a look which of them differ: guessing that wrong takes longer
                if x == width:
                    y, x = y + 1, 0
                if y < rows:
                    old, new = strip[y, x], strip[y + 1, x]
                    for c in range(channels):
                        filtered[y, 1 + x * channels + c] = table[new, c] - table[old, c]
                x += 1
