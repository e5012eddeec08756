"""What makes the host wait for a GPU in a step of the real training, counted on a CPU, which runs the same operators."""

from collections import Counter

import pytest
import torch
from support.tiny import tiny
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dlv3p.train import train
from dlv3p.training.progress import TrainingProgress

WAITING_OPERATORS = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "_unique2"}
"""Operators whose result the host reads, or whose result's size depends on values."""

READS = {"tolist", "numpy", "cpu"}
"""Methods that copy a tensor to the host; on a CPU they run no operator."""


class WaitingOperators(TorchDispatchMode):
    """Count waits among the operators, those of the backward pass included."""

    def __init__(self, waits: Counter) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.overloadpacket.__name__
        masks = arguments[1] if name in {"index", "index_put", "index_put_"} else ()
        if name in WAITING_OPERATORS or any(mask is not None and mask.dtype == torch.bool for mask in masks):
            self.waits[name] += 1
        return function(*arguments, **(options or {}))


class Reads(TorchFunctionMode):
    """Count copies to the host among the methods of tensors."""

    def __init__(self, waits: Counter) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function, types, arguments=(), options=None):
        name = getattr(function, "__name__", "")
        if name in READS and getattr(Tensor, name) is function:
            self.waits[name] += 1
        return function(*arguments, **(options or {}))


def waits_of_second_step(monkeypatch, city, **changes):
    """Train, and count the waits after the first step up to the second, which finds its state made."""
    waits, counted = Counter(), []
    add_step = TrainingProgress.add_step

    def add_and_note(progress, *arguments, **options):
        add_step(progress, *arguments, **options)
        counted.append(waits.copy())

    monkeypatch.setattr(TrainingProgress, "add_step", add_and_note)
    with WaitingOperators(waits), Reads(waits):
        train(tiny(city, run="waits", epochs=1, checkpoint_minutes=60.0, **changes))
    return counted[1] - counted[0]


CASES = [
    {},
    {"optimizer": "adamw", "average_decay": 0.9},
    {"chunked_loss": True},
    {"auxiliary_head": True},
    {"accumulation": 2},
    {"precision": "bfloat16"},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_the_host_waits_once_a_step(workspace, city, monkeypatch, changes):
    print(found := waits_of_second_step(monkeypatch, city, **changes))
    assert found == {"tolist": 1}
