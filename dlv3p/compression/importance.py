"""Score the channels of each group, and choose those to remove.

Each of four criteria gives a score per channel with a mean of 1, to which every layer of a group contributes, so that
the two ends of a residual sum agree on what is removed. The lowest scores are removed: of each group, of all groups, or
of all groups of one structure.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from cityscapes.errors import ParameterError
from dlv3p.compression.channels import ChannelGroup
from dlv3p.parameters.choices import PRUNING_RANKINGS, check_choice

Criterion = Callable[[ChannelGroup], Tensor]

LEAST_KEPT = 0.125
"""Share of a group that always stays where groups are ranked together: fine-tuning cannot recover a vanished layer."""


def magnitude(group: ChannelGroup) -> Tensor:
    """Take the L2 norm of all weights of a channel, its filters and those that read it (arXiv:2301.12900, 3.3)."""
    squares = ((weight.square().sum(dim=1), channels) for weight, _, channels in _convolutions(group))
    return _relative(_by_channel(group, squares).sqrt())


def fpgm(group: ChannelGroup) -> Tensor:
    """Sum a filter's distances to all others of its layer (FPGM, arXiv:1811.00250, section 3.3).

    A filter near the geometric median can be replaced by the others. Distances of several layers are summed.
    """
    distances = (
        (torch.cdist(weight, weight).sum(dim=1), channels)
        for weight, side, channels in _convolutions(group)
        if side == "out"
    )
    return _relative(_by_channel(group, distances))


def bn_scale(group: ChannelGroup) -> Tensor:
    """Average the absolute weights of the norms (network slimming, arXiv:1708.06519); the magnitude without norms."""
    norms = [
        (module.weight.detach()[own].abs(), channels)
        for module, _, own, channels in group.parts
        if isinstance(module, nn.BatchNorm2d) and module.affine
    ]
    return _relative(_by_channel(group, norms)) if norms else magnitude(group)


def taylor(group: ChannelGroup) -> Tensor:
    """Sum |weight x gradient| of a channel's filters, the first-order change of the loss (arXiv:1906.10771).

    Needs gradients of training images.
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


def choose_channels(
    groups: Mapping[str, ChannelGroup], scores: Mapping[str, Tensor], *, sparsity: float, ranking: str, round_to: int
) -> dict[str, list[int]]:
    """Return the channels to remove of every group that shrinks, in ascending order.

    `scores` are float (size,) by group. "uniform" takes the share `sparsity` of every group, "global" of all channels
    together, "isomorphic" (arXiv:2407.04616) of the groups of one pattern together. The width that remains is the
    nearest multiple of `round_to` above 0, so a group that is no wider stays. Raises ParameterError when less than a
    channel of a group would remain, or none would be removed.
    """
    if not 0 < sparsity < 1:
        raise ParameterError(f"sparsity={sparsity!r}: allowed are numbers between 0 and 1, such as 0.5")
    check_choice("ranking", ranking, PRUNING_RANKINGS)
    narrowest = min(groups.values(), key=lambda group: group.size)
    if narrowest.size * (1 - sparsity) < 1:
        raise ParameterError(
            f"sparsity={sparsity!r}: leaves less than one of the {narrowest.size} channels of {narrowest.name}; "
            f"allowed are up to {math.floor(1000 - 1000 / narrowest.size) / 1000}"
        )
    removed = {}
    for names in _scopes(groups, ranking):
        kept = _kept(names, scores, sparsity)
        for name in names:
            size = groups[name].size
            number = size - _rounded(kept[name], size, round_to)
            if number:
                order = torch.argsort(scores[name], stable=True)
                removed[name] = sorted(order[:number].tolist())
    if not removed:
        widest = max(group.size for group in groups.values())
        raise ParameterError(
            f"round_to={round_to}: no layer gets narrower at sparsity={sparsity!r}; the widest has {widest} channels, "
            "so take a smaller number"
        )
    return removed


@torch.no_grad()
def _convolutions(
    group: ChannelGroup, value_of: Callable[[nn.Conv2d], Tensor] = lambda conv: conv.weight
) -> Iterable[tuple[Tensor, str, list[int]]]:
    """Yield for each convolution its values by channel (C,n), the side, and the group's channel of each row."""
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
    """Divide by the mean, so that wide and narrow filters can be ranked together."""
    return scores / scores.mean().clamp(min=torch.finfo(scores.dtype).tiny)


def _scopes(groups: Mapping[str, ChannelGroup], ranking: str) -> list[list[str]]:
    """Return the names of the groups that are ranked together."""
    scopes = defaultdict(list)
    for name, group in groups.items():
        scopes[{"uniform": name, "global": "", "isomorphic": group.pattern}[ranking]].append(name)
    return list(scopes.values())


def _kept(names: list[str], scores: Mapping[str, Tensor], sparsity: float) -> dict[str, float]:
    """Return how many channels of each group should remain, before rounding."""
    if len(names) == 1:
        return {names[0]: len(scores[names[0]]) * (1 - sparsity)}
    together = torch.cat([scores[name] for name in names])
    number = max(1, round(len(together) * sparsity))
    threshold = together.sort().values[number - 1]
    return {name: max(float((scores[name] > threshold).sum()), LEAST_KEPT * len(scores[name])) for name in names}


def _rounded(kept: float, size: int, round_to: int) -> int:
    """Return the multiple of `round_to` nearest to `kept`, ties upward, above 0 and up to `size`."""
    return min(size, max(1, int(kept / round_to + 0.5)) * round_to)
