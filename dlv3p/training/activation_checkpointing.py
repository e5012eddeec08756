"""Activation checkpointing: a backbone's blocks keep their inputs alone, and compute the rest again on the way back.

The first idea of arXiv:1604.06174, a segment a block. What is computed again sees the same random numbers, so dropout
drops the same, and leaves the running statistics of batch norms as the first pass left them.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CONTAINERS = (nn.Sequential, nn.ModuleDict, nn.ModuleList)


def checkpoint_activations(model: nn.Module) -> nn.Module:
    """Let every block of `model.backbone` recompute its activations, in place, and return the model.

    Values, gradients, names and statistics stay what they are; only training uses the change. A block is what the
    backbone's stages are made of: a bottleneck, an inverted residual, a dense layer, a one-shot aggregation.
    """
    for block in blocks(model.backbone):
        block.forward = partial(_forward, block)
    return model


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost modules below `module` that are more than a layer or a list of layers."""
    for child in module.children():
        if isinstance(child, CONTAINERS):
            yield from blocks(child)
        elif any(True for _ in child.children()):
            yield child


def saved_bytes(forward: Callable[[], Tensor], model: nn.Module) -> int:
    """Count the bytes that `forward` keeps for its backward pass, each memory once, the model's parameters not."""
    alive: WeakSet[_Saved] = WeakSet()  # what is let go before the end, as a band of a chunked loss, leaves it

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        alive.add(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        loss = forward()
    storages = {saved.tensor.untyped_storage()._cdata: saved.tensor.untyped_storage().nbytes() for saved in alive}
    for parameter in model.parameters():
        storages.pop(parameter.untyped_storage()._cdata, None)
    del loss  # it holds the graph, and the graph what was counted
    return sum(storages.values())


class _Saved:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _forward(block: nn.Module, features: Tensor | list[Tensor]) -> Tensor:
    """Run a block under a checkpoint; a dense layer takes the list of all maps so far, which its caller goes on."""
    dense = isinstance(features, list)

    def run(*tensors: Tensor) -> Tensor:
        return type(block).forward(block, list(tensors) if dense else tensors[0])

    inputs = features if dense else [features]
    if not torch.is_grad_enabled():
        return run(*inputs)
    return checkpoint(run, *inputs, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """The contexts of the first pass and of the repetition."""
    return nullcontext(), _statistics_untouched(block)


@contextmanager
def _statistics_untouched(block: nn.Module) -> Iterator[None]:
    """Let what modules remember in training, such as running statistics, be written to copies that are thrown away."""
    owners = [module for module in block.modules() if module.training]
    buffers = [(module, name, buffer) for module in owners for name, buffer in module.named_buffers(recurse=False)]
    for module, name, buffer in buffers:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
