"""Choose the device that a `device` parameter means, and the memory layout of networks and images there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cityscapes.errors import MachineError, OutOfMemoryError
from dlv3p.runtime.processes import place

LAYOUT = torch.channels_last
"""Memory layout of networks and images: convolutions are faster in it, on CPUs and on GPUs with tensor cores."""


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; raises MachineError when a GPU is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError("device='cuda': torch finds no GPU; use device='cpu', or fix the driver (see nvidia-smi)")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and place().ranks > 1:
        return torch.device("cuda", place().local_rank)
    return torch.device(name)


TAKE_LESS = "the prediction does not fit; take a smaller image or batch"

OUT_OF_MEMORY = ("DefaultCPUAllocator", "ALLOC_FAILED", "bad_alloc")
"""How an error says that memory ran out, where its class does not: torch on the CPU, cuDNN and cuBLAS, C++."""


@contextmanager
def explain_out_of_memory(advice: str = TAKE_LESS) -> Iterator[None]:
    """Turn whatever torch raises in the block for lack of memory into OutOfMemoryError, which ends with `advice`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        named = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if named or any(symptom in str(error) for symptom in OUT_OF_MEMORY):
            raise OutOfMemoryError(f"out of memory: {advice}") from error
        raise
