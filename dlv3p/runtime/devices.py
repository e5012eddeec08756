"""Choose the device for a `device` parameter and the memory layout, move batches there, explain a lack of memory."""

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
