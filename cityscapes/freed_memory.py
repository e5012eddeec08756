"""Keep freed memory for what is allocated next, instead of returning it to the system.

Each mask, image and step of a training takes and frees the same blocks. By default, glibc returns many of them to the
system, which then clears every page anew: a fifth of a step of the demo (docs/log.md). No bit of a result depends on
it. Nothing is done with another allocator, or where the environment sets glibc's.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of the options of glibc's mallopt, from its malloc.h."""
_KEPT_BYTES = 2**26
"""Larger blocks go back to the system: kept, they would leave gaps that no other block fits."""
_SMALL_BYTES = 2**23
"""Smaller blocks stay even where memory is short, which costs no peak; those of Pillow have 16 MiB."""
_CHOSEN_BY_THE_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep what the block frees for what it takes next, and return it to the system at its end; also a decorator."""
    begin_to_keep_freed_memory()
    try:
        yield
    finally:
        if (libc := _glibc()) is not None:
            libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
            libc.malloc_trim(0)


def begin_to_keep_freed_memory() -> None:
    """Keep what is freed from now on, as a process does that ends with its work."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, -1)


def return_freed_memory() -> None:
    """Return what is free, and from now on what is freed, to the system: for what comes near a limit of memory.

    Ends what `keep_freed_memory` does, until that begins again.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_MMAP_THRESHOLD, _SMALL_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _SMALL_BYTES)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Return the library whose allocator can be set; None for another one, or where the environment sets it."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    chosen = any(name in os.environ for name in _CHOSEN_BY_THE_USER)
    return None if chosen or not hasattr(libc, "malloc_trim") else libc
