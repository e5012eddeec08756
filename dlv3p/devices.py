"""Which device a notebook's `device` parameter means, and in which memory layout networks and images go there."""

import torch

from cityscapes.errors import MachineError

LAYOUT = torch.channels_last
"""Memory layout of networks and images: convolutions are faster in it, on CPUs and on GPUs with tensor cores."""


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; raises MachineError when a GPU is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError("device='cuda': torch sees no GPU here; use device='cpu', or mend the driver (nvidia-smi)")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
