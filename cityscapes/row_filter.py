"""The PNG filter "up": each row as its difference to the row above, which leaves almost nothing of a label image."""

import threading
from functools import lru_cache

import numpy as np

_COMPILING = threading.Lock()
_UP = 2  # the filter's number, which each row begins with


def filter_rows(pixels: np.ndarray) -> np.ndarray:
    """Filter an image, uint8 (H, W) or (H, W, C) or uint16 (H, W); uint8 (H, 1 + bytes a row), as PNG packs them."""
    rows = pixels.astype(">u2").view(np.uint8) if pixels.dtype == np.uint16 else pixels.reshape(len(pixels), -1)
    filtered = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def filter_looked_up_rows(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return `filter_rows(table[pixels])` for pixels uint8 (H, W) and a table uint8 (256, C), without that image.

    Where a pixel equals the one above, so do their entries, and the difference is 0 without a look: that is nearly
    everywhere in a label image.
    """
    height, width = pixels.shape
    filtered = np.zeros((height, 1 + width * table.shape[1]), np.uint8)
    filtered[:, 0] = _UP
    filtered[0, 1:] = table[pixels[0]].reshape(-1)
    flat = np.require(pixels, np.uint8, ["C", "W"]).reshape(-1)
    changes = np.zeros(-(-(flat.size - width) // 8), np.uint64)  # eight pixels in a word, which mostly is 0
    np.bitwise_xor(flat[width:], flat[:-width], out=changes.view(np.uint8)[: flat.size - width])
    with _COMPILING:
        fill = _compile_filter()
    fill(changes, flat, np.array(table, np.uint8), filtered)
    return filtered


@lru_cache(maxsize=1)
def _compile_filter():
    """Compile the loop below, once a process; kept on disk where there is a place for it."""
    import numba

    signature = "void(uint64[::1], uint8[::1], uint8[:, ::1], uint8[:, ::1])"
    try:
        return numba.njit(signature, cache=True, nogil=True)(_fill_changes)
    except Exception:  # a cache that cannot be written or read costs a second, not the masks
        return numba.njit(signature, nogil=True)(_fill_changes)


def _fill_changes(changes, pixels, table, filtered):
    """Fill in the differences where a pixel differs from the one above; compiled by numba."""
    channels = table.shape[1]
    width = (filtered.shape[1] - 1) // channels
    for word in range(len(changes)):
        if changes[word]:
            for above in range(8 * word, min(8 * word + 8, len(pixels) - width)):
                old, new = pixels[above], pixels[above + width]
                if old != new:
                    y, x = divmod(above + width, width)
                    for c in range(channels):
                        filtered[y, 1 + x * channels + c] = table[new, c] - table[old, c]
