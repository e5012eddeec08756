"""Describe a network with narrower layers than its switches imply, and build it from that description.

A description lists the layers that are narrower than the switches of NetworkParameters make them, each with the
attributes of torch that differ: `{"backbone.conv1": {"out_channels": 32}, "backbone.bn1": {"num_features": 32}, ...}`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cityscapes.errors import IntegrityError, reason
from dlv3p.models.inputs import input_channels

Widths = Mapping[str, Mapping[str, int]]

ATTRIBUTES = {nn.Conv2d: ("in_channels", "out_channels", "groups"), nn.BatchNorm2d: ("num_features",)}
"""Kinds of layers that can be narrower, and the attributes of their widths."""

CHECKED_SIZE = (97, 129)
"""Height and width, in pixels, of the image on which a narrowed network is tested: odd, and large enough for all."""


def widths_of(model: nn.Module, dense: nn.Module) -> dict[str, dict[str, int]]:
    """Return how the widths of `model` differ from the `dense` network of the same switches, on any device."""
    widths = {}
    for name, module in model.named_modules():
        original = dense.get_submodule(name)
        values = {
            key: getattr(module, key) for key in _attributes(module) if getattr(module, key) != getattr(original, key)
        }
        if values:
            widths[name] = values
    return widths


def apply_widths(model: nn.Module, widths: Widths, *, source: str) -> nn.Module:
    """Narrow a newly built dense network in place, test it, and return it; every layer keeps its first channels.

    Names and values are those of `widths_of`; `model.widths` stores them. No layer can grow, so it needs no more
    memory than the dense network. Raises IntegrityError, which begins with `source`, when a layer is unknown, a width
    is invalid, or layers do not fit each other.
    """
    if not isinstance(widths, Mapping):
        raise IntegrityError(f"{source}: its widths are not a table; write the file again")
    layers = dict(model.named_modules())
    for name, values in widths.items():
        _narrow(layers.get(name), name, values, source)
    _try(model, source)
    model.widths = {name: dict(values) for name, values in widths.items()}
    return model


def _attributes(module: nn.Module | None) -> tuple[str, ...]:
    return next((names for kind, names in ATTRIBUTES.items() if isinstance(module, kind)), ())


def _narrow(module: nn.Module | None, name: object, values: object, source: str) -> None:
    known = _attributes(module)
    shown = repr(name)[:80]
    if not known or not isinstance(values, Mapping) or not set(values) <= set(known):
        raise IntegrityError(f"{source}: its widths of {shown} do not match a layer of this network")
    for key, value in values.items():
        if type(value) is not int or not 1 <= value <= getattr(module, key):
            raise IntegrityError(
                f"{source}: its widths give {shown} {repr(value)[:40]} {key}; allowed are 1 to {getattr(module, key)}"
            )
    for key, value in values.items():
        setattr(module, key, value)
    if isinstance(module, nn.Conv2d):
        inputs, outputs, groups = (getattr(module, key) for key in known)
        if inputs % groups or outputs % groups:
            raise IntegrityError(
                f"{source}: its widths give {shown} {inputs} and {outputs} channels in {groups} groups, which do not "
                "divide them evenly"
            )
        _cut(module, outputs, inputs // groups)
    else:
        _cut(module, module.num_features)


def _cut(module: nn.Module, outputs: int, inputs: int | None = None) -> None:
    """Keep the first channels of a layer's tensors, as copies."""
    for name, value in module.named_parameters(recurse=False):
        kept = _first(value.detach(), outputs, inputs)
        setattr(module, name, nn.Parameter(kept, requires_grad=value.requires_grad))
    for name, value in module.named_buffers(recurse=False):
        if value.ndim:
            setattr(module, name, _first(value, outputs, inputs))


def _first(value: Tensor, outputs: int, inputs: int | None) -> Tensor:
    return (value[:outputs, :inputs] if value.ndim == 4 else value[:outputs]).clone()


@torch.no_grad()
def _try(model: nn.Module, source: str) -> None:
    """Run an image through the network, auxiliary head included, on its own device, which may be the meta device."""
    training = {name: module.training for name, module in model.named_modules()}
    image = torch.zeros(1, input_channels(model), *CHECKED_SIZE, device=next(model.parameters()).device)
    try:
        model.eval()
        model.forward_with_auxiliary(image) if model.auxiliary is not None else model(image)
    except (RuntimeError, ValueError) as error:
        raise IntegrityError(f"{source}: its widths contradict each other ({reason(error)}); write it again") from error
    finally:
        for name, module in model.named_modules():
            module.training = training[name]
