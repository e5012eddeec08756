"""Find the channels of a network that can only be pruned together, score them, and choose those to remove.

Groups come from torch-pruning's dependency graph (arXiv:2301.12900). A filter that is removed takes with it its norm's
channel, what the next convolutions read of it, and, across a sum or a depthwise convolution, the filters of other
layers; behind a concatenation the place of each is followed. Each of four criteria gives a score by channel with a mean
of 1, to which every layer of a group contributes, so that the two ends of a residual sum agree on what goes. Those with
the lowest scores go: of each group, of all groups, or of all that are built alike.
"""

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cityscapes.errors import ParameterError, reason
from dlv3p.models.deeplab import DeepLab
from dlv3p.models.widths import CHECKED_SIZE
from dlv3p.parameters.choices import PRUNING_RANKINGS, check_choice
from dlv3p.runtime.extras import require

CLASSIFIERS = ("classifier", "auxiliary.classifier")
"""Layers whose outputs are the classes, and stay."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels 0 to `size` - 1 of the convolution called `name`, each with all that goes with it.

    `parts` has a row for every layer concerned: the layer, "out" (its filters or norm's channels) or "in" (what it
    reads), its own channels, and for each of them the channel of the group. `pattern` is equal for groups whose layers
    hang together in the same way. `found` is torch-pruning's own form.
    """

    name: str
    size: int
    parts: tuple[tuple[nn.Module, str, list[int], list[int]], ...]
    found: Any

    @property
    def pattern(self) -> tuple[tuple[str, str], ...]:
        """What the group is made of, by which isomorphic ranking compares groups (arXiv:2407.04616)."""
        return tuple((type(module).__name__, side) for module, side, _, _ in self.parts)


class ChannelGroups:
    """The groups of a network, which must not change but through `remove`.

    With `parts="backbone"` those that would change the width of another part's output are left out. Raises MachineError
    without torch-pruning, and ParameterError for a network that it cannot follow.
    """

    def __init__(self, model: DeepLab, *, parts: str = "all") -> None:
        pruning = torch_pruning()
        self.layers = dict(model.named_modules())
        names = {module: name for name, module in self.layers.items()}
        outside = parts == "backbone"
        kept = [
            module
            for name, module in self.layers.items()
            if name in CLASSIFIERS or (outside and isinstance(module, nn.Conv2d) and not name.startswith("backbone."))
        ]
        image = torch.zeros(1, 3, *CHECKED_SIZE, device=next(model.parameters()).device)
        try:
            with torch.enable_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch-pruning, about torch
                self.graph = pruning.DependencyGraph().build_dependency(model, image, all_logits, verbose=False)
                found = list(self.graph.get_all_groups(ignored_layers=kept, root_module_types=[nn.Conv2d]))
        except (RuntimeError, ValueError, AttributeError, KeyError, AssertionError) as error:
            raise ParameterError(
                f"this network cannot be pruned: torch-pruning cannot follow it ({reason(error)})"
            ) from error
        self.groups = {}
        for group in found:
            name = names[group[0].dep.target.module]
            self.groups[name] = ChannelGroup(name, len(group[0].idxs), self._parts(group), group)

    def remove(self, name: str, channels: Sequence[int]) -> None:
        """Take channels of the group called `name` out of the network, in place."""
        self._group(name, channels).prune()

    @torch.no_grad()
    def silence(self, name: str, channels: Sequence[int]) -> None:
        """Set to 0 what makes channels of the group called `name`, in place: filters, biases, and the norms behind."""
        for module, side, own, _ in self._parts(self._group(name, channels)):
            if side == "out":
                for value in module.parameters(recurse=False):
                    value[own] = 0

    def _group(self, name: str, channels: Sequence[int]) -> Any:
        module = self.layers[name]
        remove_outputs = self.graph.get_pruner_of_module(module).prune_out_channels
        return self.graph.get_pruning_group(module, remove_outputs, list(channels))

    def _parts(self, group: Any) -> tuple[tuple[nn.Module, str, list[int], list[int]], ...]:
        rows = []
        for item in group:
            module = item.dep.target.module
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                side = "out" if self.graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
                rows.append((module, side, list(item.idxs), list(item.root_idxs)))
        return tuple(rows)


def torch_pruning() -> ModuleType:
    """Import torch-pruning; raises MachineError where it is not installed."""
    require("pruning", ("torch_pruning",), "prune")
    import torch_pruning as pruning

    return pruning


def all_logits(model: DeepLab, image: Tensor) -> tuple[Tensor, ...]:
    """Return the logits of a network, and behind them those of its auxiliary head, if any."""
    return model.forward_with_auxiliary(image) if model.auxiliary is not None else (model(image),)


Criterion = Callable[[ChannelGroup], Tensor]


def magnitude(group: ChannelGroup) -> Tensor:
    """Take the L2 norm of all that belongs to a channel: filters, and what is read of it (arXiv:2301.12900, 3.3)."""
    squares = ((weight.square().sum(dim=1), channels) for weight, _, channels in _convolutions(group))
    return _relative(_by_channel(group, squares).sqrt())


def fpgm(group: ChannelGroup) -> Tensor:
    """Sum a filter's distances to all others of its layer (FPGM, arXiv:1811.00250, section 3.3).

    A filter near the geometric median can be stood in for by the others. Distances of several layers are added up.
    """
    distances = (
        (torch.cdist(weight, weight).sum(dim=1), channels)
        for weight, side, channels in _convolutions(group)
        if side == "out"
    )
    return _relative(_by_channel(group, distances))


def bn_scale(group: ChannelGroup) -> Tensor:
    """Average the size of the norms' weights (network slimming, arXiv:1708.06519); the magnitude where none is."""
    norms = [
        (module.weight.detach()[own].abs(), channels)
        for module, _, own, channels in group.parts
        if isinstance(module, nn.BatchNorm2d) and module.affine
    ]
    return _relative(_by_channel(group, norms)) if norms else magnitude(group)


def taylor(group: ChannelGroup) -> Tensor:
    """Sum |weight x gradient| of a channel's filters, the loss's change to first order (arXiv:1906.10771).

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
