"""Choose the device that a `device` parameter means, and the memory layout of networks and images there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cityscapes.errors import MachineError
from dlv3p.runtime.processes import place

LAYOUT = torch.channels_last
"""Memory layout of networks and images: convolutions are faster in it, on CPUs and on GPUs with tensor cores."""


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; raises MachineError when a GPU is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError("device='cuda': torch sees no GPU here; use device='cpu', or mend the driver (nvidia-smi)")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and place().ranks > 1:
        return torch.device("cuda", place().local_rank)
    return torch.device(name)


OUT_OF_MEMORY = ("DefaultCPUAllocator", "ALLOC_FAILED", "bad_alloc")
"""Words of a RuntimeError that is a lack of memory: torch's on the CPU, cuDNN's and cuBLAS's, C++'s."""


@contextmanager
def memory_faults(advice: str) -> Iterator[None]:
    """Turn what torch raises for a lack of memory, on CPU and GPU, into MachineError that ends with `advice`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise MachineError(f"out of memory: {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is a lack of memory, which torch reports in several ways on CPU and GPU."""
    is_known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_known or any(symptom in str(error) for symptom in OUT_OF_MEMORY)


class OutOfMemoryError(MachineError):
    """A prediction that does not fit into the memory of the device."""


@contextmanager
def out_of_memory_explained() -> Iterator[None]:
    """Turn a lack of memory within the block into an OutOfMemoryError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError("out of memory: the prediction does not fit; take a smaller image or batch") from error
