"""Choose the device for a `device` parameter and the memory layout, keep freed memory, and explain a lack of it."""

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from cityscapes.errors import MachineError, OutOfMemoryError, is_out_of_memory
from dlv3p.runtime.processes import place

Batch = tuple[torch.Tensor, torch.Tensor]
"""Images, float (N,3,h,w), and their masks, int64 (N,h,w)."""

LAYOUT = torch.channels_last
"""Memory layout of networks and images: convolutions are faster in it, on CPUs and on GPUs with tensor cores."""


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; raises MachineError when there is no GPU for "cuda"."""
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError("device='cuda': torch finds no GPU; use device='cpu', or fix the driver (see nvidia-smi)")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and place().ranks > 1:
        return torch.device("cuda", place().local_rank)
    return torch.device(name)


def move_batch(image: torch.Tensor, mask: torch.Tensor, device: torch.device) -> Batch:
    """Return a batch on a device, images in `LAYOUT`; what is there stays, and pinned memory is copied without a wait.

    A batch is moved once, where it is taken from its loader.
    """
    image = image.to(device, non_blocking=True, memory_format=LAYOUT)
    return image, mask.to(device, non_blocking=True)


def moved_ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches on a device, each moved there while the one before it is in use: on a GPU, by a stream of its own.

    On a CPU a batch is there already, and the next one is read only when it is asked for.
    """
    if device.type == "cpu":
        yield from (move_batch(*batch, device) for batch in batches)
        return
    copying, moved = torch.cuda.Stream(device), None
    for batch in batches:
        ready, moved = moved, _move_beside(batch, device, copying)
        if ready is not None:
            yield _taken_over(ready, device)
    if moved is not None:
        yield _taken_over(moved, device)


def _move_beside(batch: Batch, device: torch.device, copying: torch.cuda.Stream) -> tuple[Batch, torch.cuda.Event]:
    """Begin to copy a batch, and return it with what happens once it is there."""
    with torch.cuda.stream(copying):
        return move_batch(*batch, device), copying.record_event()


def _taken_over(moved: tuple[Batch, torch.cuda.Event], device: torch.device) -> Batch:
    """Return a batch for which the GPU, not the host, waits; its memory is used again once the GPU is done with it."""
    batch, there = moved
    using = torch.cuda.current_stream(device)
    using.wait_event(there)
    for part in batch:
        part.record_stream(using)
    return batch


LOADING_ADVICE = "the network does not fit; end other programs that hold memory, or take device='cpu'"
SCORING_ADVICE = "an image does not fit; predict it in windows (protocol='windows_769'), or take device='cpu'"
EXPORT_ADVICE = "tracing the network does not fit; end other programs that hold memory, or take a larger machine"
QUANTIZING_ADVICE = "quantizing does not fit; take fewer calibration_images, or one of the backends at a time"
SMALLER_INPUT_ADVICE = "the prediction does not fit; use a smaller image or batch"


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of the options of glibc's mallopt, from its malloc.h."""
_KEPT_BYTES = 2**26
"""Larger blocks go back to the system: kept, they would leave gaps that no other block fits."""
_SMALL_BYTES = 2**23
"""Smaller blocks stay even where memory is short, which costs no peak; those of Pillow have 16 MiB."""
_CHOSEN_BY_THE_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES")


@contextmanager
def keep_freed_memory() -> Iterator[None]:
    """Keep what the block frees for what it allocates next, and return it to the system at its end; also a decorator.

    Each step of a training, and each image, takes and frees the same tensors. By default, glibc returns many of them to
    the system, which then clears every page anew: a fifth of a step of the demo (docs/log.md). No bit of a result
    depends on it. Does nothing with another allocator, or where the environment sets glibc's.
    """
    if (libc := _glibc()) is None:
        yield
        return
    libc.mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
    libc.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.malloc_trim(0)


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


@contextmanager
def explain_out_of_memory(advice: str = SMALLER_INPUT_ADVICE) -> Iterator[None]:
    """Translate out-of-memory errors of any library in the block to OutOfMemoryError, which ends with `advice`.

    Also a decorator. Where blocks are nested, the innermost gives the advice.
    """
    try:
        yield
    except Exception as error:  # each runtime has its own errors
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"out of memory: {advice}") from error
        raise
