"""What makes the host wait for a GPU in a step of the real training, counted on a CPU, which runs the same steps."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from support.tiny import tiny
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dlv3p.data.roots import open_split
from dlv3p.models import upsampling
from dlv3p.train import train
from dlv3p.training.progress import TrainingProgress

WAITING_OPERATORS = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "_unique2"}
"""Operators whose result the host reads, or whose result's size depends on values."""

OPTIMIZERS = Path(torch.optim.__file__).parent

READS = {"tolist", "numpy", "cpu"}
"""Methods that copy a tensor to the host; on a CPU they run no operator."""


def in_optimizer():
    """Return whether torch.optim is at work, whose counters (of Adam, and of the average) stay on the CPU."""
    frame = sys._getframe(1)
    while frame and OPTIMIZERS not in Path(frame.f_code.co_filename).parents:
        frame = frame.f_back
    return frame is not None


class WaitingOperators(TorchDispatchMode):
    """Count waits among the operators, those of the backward pass included."""

    def __init__(self, waits: Counter) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name = function.overloadpacket.__name__
        masks = arguments[1] if name in {"index", "index_put", "index_put_"} else ()
        read_from_cpu = name == "_local_scalar_dense" and in_optimizer()
        if (name in WAITING_OPERATORS and not read_from_cpu) or any(
            mask is not None and mask.dtype == torch.bool for mask in masks
        ):
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


class Crossings(TorchFunctionMode):
    """Count the batches' tensors that are taken to a device; on a CPU, `to` may return the tensor that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.counts, self.there = Counter(), {}

    def __torch_function__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        if getattr(function, "__name__", "") == "to" and isinstance(arguments[1], torch.device):
            of_batch = arguments[0].ndim >= 3 and not isinstance(arguments[0], torch.nn.Parameter)
            if of_batch and id(arguments[0]) not in self.there:
                self.counts["image" if arguments[0].is_floating_point() else "mask"] += 1
            self.there[id(result)] = result  # held, so that no other tensor gets its id
        return result


def after_each_step(monkeypatch, note):
    """Call `note` after each step of a training."""
    add_step = TrainingProgress.add_step

    def add_and_note(progress, *arguments, **options):
        add_step(progress, *arguments, **options)
        note()

    monkeypatch.setattr(TrainingProgress, "add_step", add_and_note)


def waits_of_second_step(monkeypatch, city, **changes):
    """Train, and count the waits after the first step up to the second, which finds its state made."""
    waits, counted = Counter(), []
    after_each_step(monkeypatch, lambda: counted.append(waits.copy()))
    monkeypatch.setattr(upsampling, "_arithmetic", lambda *_: None)  # upsample as a GPU does, not by our CPU kernel
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
    assert waits_of_second_step(monkeypatch, city, **changes) == {"tolist": 1}


@pytest.mark.parametrize("changes", [{}, {"accumulation": 2}], ids=str)
def test_each_batch_crosses_to_the_device_once(workspace, city, monkeypatch, changes):
    taken = []
    after_each_step(monkeypatch, lambda: taken.append(1))
    with Crossings() as crossings:
        train(tiny(city, run="crossings", epochs=1, validate_every=1, **changes))
    batches = len(taken) + len(open_split(city, "val"))
    assert crossings.counts == {"image": batches, "mask": batches}
