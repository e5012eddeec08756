"""Group the channels of a network that can only be pruned together, and remove them.

Groups come from torch-pruning's dependency graph (arXiv:2301.12900). A filter that is removed takes with it its norm's
channel, the weights of the next convolutions that read it, and, across a sum or a depthwise convolution, the filters of
other layers; after a concatenation its position is tracked.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cityscapes.errors import ParameterError, reason, require
from dlv3p.models.deeplab import DeepLab
from dlv3p.models.inputs import input_channels
from dlv3p.models.widths import CHECKED_SIZE

CLASSIFIERS = ("classifier", "auxiliary.classifier")
"""Layers whose outputs are the classes, which are never pruned."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels 0 to `size` - 1 of the convolution called `name`, each with everything that is removed with it.

    `parts` has a row for every layer involved: the layer, "out" (its filters or norm's channels) or "in" (its inputs),
    its own channels, and for each of them the channel of the group. `pattern` is equal for groups whose layers are
    connected in the same way. `found` is torch-pruning's own form.
    """

    name: str
    size: int
    parts: tuple[tuple[nn.Module, str, list[int], list[int]], ...]
    found: Any

    @property
    def pattern(self) -> tuple[tuple[str, str], ...]:
        """The kinds and sides of its layers, by which isomorphic ranking compares groups (arXiv:2407.04616)."""
        return tuple((type(module).__name__, side) for module, side, _, _ in self.parts)


class ChannelGroups:
    """The groups of a network, which only `remove` may change.

    With `parts="backbone"`, groups that would change the width of another part's output are left out. Raises
    MachineError without torch-pruning, and ParameterError for a network that it cannot trace.
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
        image = torch.zeros(1, input_channels(model), *CHECKED_SIZE, device=next(model.parameters()).device)
        try:
            with torch.enable_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch-pruning about torch
                self.graph = pruning.DependencyGraph().build_dependency(model, image, all_logits, verbose=False)
                found = list(self.graph.get_all_groups(ignored_layers=kept, root_module_types=[nn.Conv2d]))
        except (RuntimeError, ValueError, AttributeError, KeyError, AssertionError) as error:
            raise ParameterError(
                f"this network cannot be pruned: torch-pruning cannot trace it ({reason(error)})"
            ) from error
        self.groups = {}
        for group in found:
            name = names[group[0].dep.target.module]
            self.groups[name] = ChannelGroup(name, len(group[0].idxs), self._parts(group), group)

    def remove(self, name: str, channels: Sequence[int]) -> None:
        """Remove channels of the group called `name` from the network, in place."""
        module = self.layers[name]
        remove_outputs = self.graph.get_pruner_of_module(module).prune_out_channels
        self.graph.get_pruning_group(module, remove_outputs, list(channels)).prune()

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
    """Return the logits of a network, followed by those of its auxiliary head, if any."""
    return model.forward_with_auxiliary(image) if model.auxiliary is not None else (model(image),)
