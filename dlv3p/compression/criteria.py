"""How much a network would miss each channel of a group: four criteria, each a score by channel with a mean of 1.

Every layer of a group has its say, so that the two ends of a residual sum agree on what goes.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from cityscapes.errors import ParameterError
from dlv3p.compression.channels import ChannelGroup

Criterion = Callable[[ChannelGroup], Tensor]


def magnitude(group: ChannelGroup) -> Tensor:
    """L2 norm of all that belongs to a channel: filters, and what is read of it (arXiv:2301.12900, section 3.3)."""
    squares = ((weight.square().sum(dim=1), channels) for weight, _, channels in _convolutions(group))
    return _relative(_by_channel(group, squares).sqrt())


def fpgm(group: ChannelGroup) -> Tensor:
    """Sum of a filter's distances to all others of its layer (FPGM, arXiv:1811.00250, section 3.3).

    A filter near the geometric median can be stood in for by the others. Distances of several layers are added up.
    """
    distances = (
        (torch.cdist(weight, weight).sum(dim=1), channels)
        for weight, side, channels in _convolutions(group)
        if side == "out"
    )
    return _relative(_by_channel(group, distances))


def bn_scale(group: ChannelGroup) -> Tensor:
    """Mean size of the norms' weights (network slimming, arXiv:1708.06519); the magnitude where there is no norm."""
    norms = [
        (module.weight.detach()[own].abs(), channels)
        for module, _, own, channels in group.parts
        if isinstance(module, nn.BatchNorm2d) and module.affine
    ]
    return _relative(_by_channel(group, norms)) if norms else magnitude(group)


def taylor(group: ChannelGroup) -> Tensor:
    """Sum of |weight x gradient| of a channel's filters, the loss's change to first order (arXiv:1906.10771).

    Needs gradients, those of training images.
    """
    if any(module.weight.grad is None for module, side, *_ in group.parts if isinstance(module, nn.Conv2d)):
        raise ParameterError("criterion='taylor': needs gradients of training images, and there are none")
    changes = (
        (product.abs().sum(dim=1), channels)
        for product, side, channels in _convolutions(group, lambda conv: conv.weight * conv.weight.grad)
        if side == "out"
    )
    return _relative(_by_channel(group, changes))


CRITERIA: dict[str, Criterion] = {"magnitude": magnitude, "fpgm": fpgm, "bn_scale": bn_scale, "taylor": taylor}


@torch.no_grad()
def _convolutions(
    group: ChannelGroup, value_of: Callable[[nn.Conv2d], Tensor] = lambda conv: conv.weight
) -> Iterable[tuple[Tensor, str, list[int]]]:
    """Yield of each convolution a row by channel (C,n), the side, and the group's channels of the rows."""
    for module, side, own, channels in group.parts:
        if not isinstance(module, nn.Conv2d):
            continue
        value = value_of(module).detach().float()
        if side == "in":
            value = value.transpose(0, 1)
        yield value[own].flatten(1), side, channels


def _by_channel(group: ChannelGroup, scores: Iterable[tuple[Tensor, list[int]]]) -> Tensor:
    total = torch.zeros(group.size)
    for values, channels in scores:
        total.index_add_(0, torch.tensor(channels), values.cpu().float())
    return total


def _relative(scores: Tensor) -> Tensor:
    """Divide by the mean, so that wide filters and narrow ones can be ranked together."""
    return scores / scores.mean().clamp(min=torch.finfo(scores.dtype).tiny)
