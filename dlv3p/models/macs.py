"""Parameters and multiply-adds (MACs) of a network, part by part, counted without computing anything.

A MAC is one multiplication with its addition, and so two FLOPs; much that is published as FLOPs are MACs. Counted are
convolutions and matrix products, as is usual; normalisation, activations and bilinear upsampling are not.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Count the trainable and frozen parameters of each direct part of `model`, such as backbone, and in total."""
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in model.named_children()}
    return counts | {"total": sum(weight.numel() for weight in model.parameters())}


def count_macs(build: Callable[[], nn.Module], height: int, width: int) -> dict[str, int]:
    """Count the MACs of each direct part of the network that `build` makes, and in total, for one image.

    `height` and `width` are the image's, in pixels. The network is built on the meta device, which has shapes but no
    numbers: a count takes a second and no memory, whatever the size.
    """
    with torch.device("meta"):
        model = build().eval()
        image = torch.empty(1, 3, height, width)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(image)
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    whole = type(model).__name__
    parts = {name: flops.get(f"{whole}.{name}", 0) // 2 for name, _ in model.named_children()}
    return parts | {"total": counter.get_total_flops() // 2}


def count_parts(build: Callable[[], nn.Module], height: int, width: int) -> dict[str, dict[str, int]]:
    """Count "parameters", "macs" and "flops" of each direct part of the network that `build` makes, and in total.

    For one image of `height` x `width` pixels, on the meta device; FLOPs are two a MAC.
    """
    with torch.device("meta"):
        parameters = count_parameters(build())
    macs = count_macs(build, height, width)
    return {part: {"parameters": parameters[part], "macs": macs[part], "flops": 2 * macs[part]} for part in macs}
