"""Activation checkpointing: a backbone's blocks store only their inputs, and recompute the rest in the backward pass.

This is arXiv:1604.06174 with one segment per block. The recomputation uses the same random numbers, so dropout masks
are the same, and leaves the running statistics of batch norms unchanged.
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

    Values, gradients, names and statistics do not change, and inference is not affected. A block is a unit of the
    backbone's stages: a bottleneck, an inverted residual, a dense layer, a one-shot aggregation.
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
    """Count the bytes that `forward` saves for its backward pass: each storage once, without the model's parameters."""
    alive: WeakSet[_Saved] = WeakSet()  # drops what is freed before the end, such as a band of a chunked loss

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        alive.add(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        loss = forward()
    storages = {saved.tensor.untyped_storage()._cdata: saved.tensor.untyped_storage().nbytes() for saved in alive}
    for parameter in model.parameters():
        storages.pop(parameter.untyped_storage()._cdata, None)
    del loss  # it holds the graph, and the graph the saved tensors
    return sum(storages.values())


class _Saved:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _forward(block: nn.Module, features: Tensor | list[Tensor]) -> Tensor:
    """Run a block under a checkpoint; a dense layer takes the list of all maps so far, which its caller extends."""
    dense = isinstance(features, list)

    def run(*tensors: Tensor) -> Tensor:
        return type(block).forward(block, list(tensors) if dense else tensors[0])

    inputs = features if dense else [features]
    if not torch.is_grad_enabled():
        return run(*inputs)
    return checkpoint(run, *inputs, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """Return the contexts of the first pass and of the recomputation."""
    return nullcontext(), _statistics_untouched(block)


@contextmanager
def _statistics_untouched(block: nn.Module) -> Iterator[None]:
    """Redirect updates of buffers, such as running statistics, to copies that are discarded."""
    owners = [module for module in block.modules() if module.training]
    buffers = [(module, name, buffer) for module in owners for name, buffer in module.named_buffers(recurse=False)]
    for module, name, buffer in buffers:
        setattr(module, name, buffer.clone())
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
