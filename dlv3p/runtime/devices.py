"""Choose the device for a `device` parameter, define the memory layout, and explain out-of-memory errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cityscapes.errors import MachineError, OutOfMemoryError
from dlv3p.runtime.processes import place

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


SMALLER_INPUT_ADVICE = "the prediction does not fit; use a smaller image or batch"

OUT_OF_MEMORY_TEXTS = ("DefaultCPUAllocator", "ALLOC_FAILED", "bad_alloc")
"""Texts of out-of-memory errors that have no class of their own: torch on the CPU, cuDNN and cuBLAS, C++."""


@contextmanager
def explain_out_of_memory(advice: str = SMALLER_INPUT_ADVICE) -> Iterator[None]:
    """Translate out-of-memory errors of any library in the block to OutOfMemoryError, which ends with `advice`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        typed = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if typed or any(text in str(error) for text in OUT_OF_MEMORY_TEXTS):
            raise OutOfMemoryError(f"out of memory: {advice}") from error
        raise
