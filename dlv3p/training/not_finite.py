"""Watch the operations of a training step, and name the layer in which the first value arises that is not finite."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LOSS, NORM = "the loss", "the norm of all gradients"
"""Where operations belong that no layer has asked for."""
FORWARD, BACKWARD, BEFORE = "forward", "backward", "before the step"


class Origin(NamedTuple):
    """Where the first value arose that is not finite: the layer, the operation, and the largest of its inputs."""

    layer: str
    operation: str
    phase: str
    largest_input: float

    def __str__(self) -> str:
        if self.phase == BEFORE:
            return f"{self.layer}: {self.operation} {self.phase}"
        return f"{self.layer}: {self.operation}, {self.phase}, from finite inputs of up to {self.largest_input:.3g}"


class FirstNotFinite(TorchDispatchMode):
    """See every operation in the block, forward and backward; `origin` is where the first value is not finite, if any.

    `sizes` lists the layers in the order of the forward pass, with the largest magnitude of their outputs. An operation
    of the backward pass belongs to the layer that the same autograd node belonged to in the forward pass.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.origin: Origin | None = _in_weights(model)
        self.sizes: dict[str, float] = {}
        self._model, self._hooks = model, ExitStack()
        self._inside: list[str] = []
        self._layer_of_node: dict[int, str] = {}
        self._backward_seen = False

    def __enter__(self) -> "FirstNotFinite":
        self._hooks.enter_context(_layers_noted(self._model, self._inside))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        given = [*_floats(args), *_floats(kwargs)]
        changes = func._schema.is_mutable
        sound = self.origin is None and changes and _all_finite(given)  # before its inputs are overwritten
        largest = _largest(given) if sound else 0.0
        result = func(*args, **(kwargs or {}))
        layer, phase = self._place()
        made = list(_floats(result)) + (given if changes else [])
        if self.origin is None and not _arbitrary(func, args, kwargs) and not _all_finite(made):
            if not changes and _all_finite(given):
                sound, largest = True, _largest(given)
            if sound:
                self.origin = Origin(layer, str(func), phase, largest)
        if phase == FORWARD and self.origin is None and made and self._inside:
            self.sizes[layer] = _largest(made)
        return result

    def _place(self) -> tuple[str, str]:
        """Return the layer and the phase of the operation that runs."""
        node = torch._C._current_autograd_node()
        if node is not None:
            self._backward_seen = True
        if node is not None and not self._inside:  # inside of a layer, its activations are recomputed
            return self._layer_of_node.get(node._sequence_nr(), LOSS), BACKWARD
        layer = self._inside[-1] if self._inside else NORM if self._backward_seen else LOSS
        if not self._backward_seen or self._inside:
            self._layer_of_node[torch.autograd._get_sequence_nr() - 1] = layer
        return layer, BACKWARD if layer == NORM else FORWARD


@contextmanager
def _layers_noted(model: nn.Module, inside: list[str]) -> Iterator[None]:
    """Keep in `inside` the names of the layers whose forward pass runs, the innermost last."""
    with ExitStack() as hooks:
        for name, layer in model.named_modules():

            def enter(layer: nn.Module, inputs: Any, name: str = name or "the network") -> None:
                inside.append(name)

            def leave(layer: nn.Module, inputs: Any, output: Any) -> None:
                inside.pop()

            hooks.callback(layer.register_forward_pre_hook(enter).remove)
            hooks.callback(layer.register_forward_hook(leave, always_call=True).remove)
        yield


def _in_weights(model: nn.Module) -> Origin | None:
    """Return the first layer whose weights are not finite already."""
    for name, value in model.named_parameters():
        if not _all_finite([value.detach()]):
            layer, _, own = name.rpartition(".")
            return Origin(layer, f"its {own} holds a value that is not finite", BEFORE, math.nan)
    return None


def _floats(values: Any) -> Iterator[Tensor]:
    for value in tree_leaves(values):
        if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
            yield value


def _all_finite(values: list[Tensor]) -> bool:
    return all(bool(value.isfinite().all()) for value in values)


def _largest(values: list[Tensor]) -> float:
    return max((value.abs().max().item() for value in values), default=0.0)


def _arbitrary(func: Any, args: Any, kwargs: Any) -> bool:
    """Return whether an operation's result means nothing yet, or holds an infinity that was asked for."""
    asked = any(isinstance(value, float) and not math.isfinite(value) for value in tree_leaves((args, kwargs)))
    return asked or "empty" in str(func)
