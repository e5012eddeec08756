"""Which channels go: those with the lowest scores, of each group, of all groups, or of all that are built alike."""

import math
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from cityscapes.errors import ParameterError
from dlv3p.compression.channels import ChannelGroup

RANKINGS = ("uniform", "global", "isomorphic")

LEAST_KEPT = 0.125
"""Of any group that is ranked with others: a layer that all but vanishes lets nothing through to fine-tune."""


def choose_channels(
    groups: Mapping[str, ChannelGroup], scores: Mapping[str, Tensor], *, sparsity: float, ranking: str, round_to: int
) -> dict[str, list[int]]:
    """Return for every group that shrinks the channels that go, in rising order.

    `scores` are float (size,) by group. "uniform" takes the share `sparsity` of every group, "global" of all channels
    together, "isomorphic" (arXiv:2407.04616) of the groups of one pattern together. What is left of a group is a
    multiple of `round_to`, the nearest one above 0, so a group that is no wider stays. Raises ParameterError when less
    than a channel would be left of a group, or none would go.
    """
    if not 0 < sparsity < 1:
        raise ParameterError(f"sparsity={sparsity!r}: allowed is what lies between 0 and 1, such as 0.5")
    if ranking not in RANKINGS:
        raise ParameterError(f"ranking={ranking!r}: allowed are {', '.join(RANKINGS)}")
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


def _scopes(groups: Mapping[str, ChannelGroup], ranking: str) -> list[list[str]]:
    """Return the names of the groups that are ranked together."""
    scopes = defaultdict(list)
    for name, group in groups.items():
        scopes[{"uniform": name, "global": "", "isomorphic": group.pattern}[ranking]].append(name)
    return list(scopes.values())


def _kept(names: list[str], scores: Mapping[str, Tensor], sparsity: float) -> dict[str, float]:
    """Return how many channels of each group should be left, before rounding."""
    if len(names) == 1:
        return {names[0]: len(scores[names[0]]) * (1 - sparsity)}
    together = torch.cat([scores[name] for name in names])
    number = max(1, round(len(together) * sparsity))
    threshold = together.sort().values[number - 1]
    return {name: max(float((scores[name] > threshold).sum()), LEAST_KEPT * len(scores[name])) for name in names}


def _rounded(kept: float, size: int, round_to: int) -> int:
    """Return the multiple of `round_to` that is nearest to `kept`, the larger of two, above 0 and up to `size`."""
    return min(size, max(1, int(kept / round_to + 0.5)) * round_to)
