"""What makes the host wait for a GPU in a step of the real training, shown without one.

Two stand-ins: a CPU, which runs the same steps, and on which operators are counted that would wait; and torch's meta
device, whose values nobody can read, so that a step that tried would fail.
"""

import sys
from collections import Counter
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from support.rare_reads import read_every
from support.tiny import tiny
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dlv3p.data import loader
from dlv3p.data.roots import open_split
from dlv3p.evaluation.metrics import confusion_matrix
from dlv3p.models import upsampling
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.choices import LOSSES
from dlv3p.runtime.devices import move_batch, moved_ahead
from dlv3p.train import train
from dlv3p.training import losses
from dlv3p.training.findings import UnreadFindings
from dlv3p.training.optimizers import build_optimizer
from dlv3p.training.progress import TrainingProgress
from dlv3p.training.step import build_loss, build_stepper

WAITING_OPERATORS = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "_unique2"}
"""Operators whose result the host reads, or whose result's size depends on values."""

READS = {"tolist", "numpy", "cpu"}
"""Methods that copy a tensor to the host; on a CPU they run no operator."""

META = torch.device("meta")


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


class Board(TorchDispatchMode):
    """Note what crosses from the host to the meta device, by its type and whether the host waits for it.

    The one operator that torch does not know of there changes tensors in place and returns nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.crossed = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        name, options = function.overloadpacket.__name__, options or {}
        if name == "_fused_sgd_":
            return None
        result = function(*arguments, **options)
        given = {value.device.type for value in tree_leaves((arguments, options)) if isinstance(value, Tensor)}
        if name in {"_to_copy", "copy_"} and "cpu" in given and result.device == META:
            waits = not (options.get("non_blocking") or (name == "copy_" and arguments[2:] == (True,)))
            self.crossed.append((result.dtype, waits))
        return result


@pytest.fixture
def like_a_gpu(monkeypatch):
    """Take the ways of a GPU where there are others for a CPU, on which a read is free."""
    monkeypatch.setattr(upsampling, "_arithmetic", lambda *_: None)
    monkeypatch.setattr(losses, "_costs_no_wait", lambda _: False)


def after_each_step(monkeypatch, note):
    """Call `note` after each step of a training."""
    add_step = TrainingProgress.add_step

    def add_and_note(progress, *arguments, **options):
        add_step(progress, *arguments, **options)
        note()

    monkeypatch.setattr(TrainingProgress, "add_step", add_and_note)


def waits_of_later_steps(monkeypatch, city, **changes):
    """Train, and return the waits after the first step, which makes its state, up to the second, and to the third."""
    waits, counted = Counter(), []
    after_each_step(monkeypatch, lambda: counted.append(waits.copy()))
    with WaitingOperators(waits), Reads(waits):
        train(tiny(city, run="waits", epochs=2, checkpoint_minutes=60.0, validate_every=2, steps=4, **changes))
    return counted[1] - counted[0], counted[2] - counted[1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "average_decay": 0.9, "chunked_loss": True},
        {"precision": "bfloat16", "auxiliary_head": True},
        {"precision": "float16", "average_decay": 0.9, "accumulation": 2},
        {"loss": "lovasz"},
    ],
    ids=str,
)
def test_the_host_waits_for_no_step_but_those_after_which_it_reads(workspace, city, monkeypatch, like_a_gpu, changes):
    read_every(monkeypatch, 2)
    assert waits_of_later_steps(monkeypatch, city, **changes) == ({}, {"tolist": 1})


def test_on_a_cpu_what_a_step_found_is_read_at_once(workspace, city, monkeypatch):
    assert waits_of_later_steps(monkeypatch, city) == ({"tolist": 1},) * 2


def stepper_on_meta(monkeypatch, teacher, **changes):
    """Return the stepper of a run on the meta device, which torch knows neither autocast nor fused optimizers for."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    optimizers = sys.modules[torch.optim.Optimizer.__module__]
    monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: [META.type])
    parameters = tiny(**changes)
    with META:
        model = build_network(parameters, 19).train()
        taught = build_network(tiny(), 19).eval().requires_grad_(False) if teacher else None
        weights = torch.ones(19)
    build = partial(build_stepper, parameters, model, build_loss(parameters, weights), class_weights=weights)
    return build(build_optimizer(parameters, model), META, teacher=taught)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "average_decay": 0.9},
        {"precision": "float16", "gradient_norm": 0.1},
        {"auxiliary_head": True, "activation_checkpointing": True},
        {"chunked_loss": True, "loss": "focal", "accumulation": 2},
        *({"loss": loss} for loss in LOSSES if loss != "cross_entropy"),
    ],
    ids=str,
)
def test_a_step_reads_nothing_from_its_device_and_only_the_batch_crosses_without_a_wait(monkeypatch, changes):
    teacher = "loss" not in changes or "chunked_loss" in changes  # it adds the same to every loss
    stepper, unread = stepper_on_meta(monkeypatch, teacher, **changes), UnreadFindings(19, META)
    image, mask = torch.rand(2, 3, 33, 33), torch.zeros(2, 33, 33, dtype=torch.int64)
    for step in range(2):  # the first one makes what lasts
        with Board() as board:
            there = move_batch(image, mask, META)
            result = stepper(*there, rate=1.0, step=step)
            unread.add(result, confusion_matrix(there[1], result.prediction, 19), step=step, rate=1.0)
    assert board.crossed == [(torch.float32, False), (torch.int64, False)]
    with pytest.raises(NotImplementedError):
        unread.read(asked_to_stop=False)


@pytest.mark.parametrize("changes", [{}, {"accumulation": 2}], ids=str)
def test_each_batch_crosses_to_the_device_once(workspace, city, monkeypatch, changes):
    taken = []
    after_each_step(monkeypatch, lambda: taken.append(1))
    with Crossings() as crossings:
        train(tiny(city, run="crossings", epochs=1, validate_every=1, **changes))
    batches = len(taken) + len(open_split(city, "val"))
    assert crossings.counts == {"image": batches, "mask": batches}


def noted(events, batches):
    for number in range(batches):
        events.append(f"read {number}")
        yield torch.rand(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)


class Stream:
    """A stand-in for a CUDA stream, which notes what it is asked for."""

    def __init__(self, events, name):
        self.events, self.name = events, name

    def __enter__(self):
        self.events.append(f"on {self.name}")

    def __exit__(self, *_):
        self.events.append("off")

    def record_event(self):
        return "copied"

    def wait_event(self, event):
        self.events.append(f"{self.name} waits until {event}")


def test_a_batch_is_copied_by_a_stream_of_its_own_before_the_one_ahead_of_it_is_used(monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: Stream(events, "side"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream(events, "main"))
    monkeypatch.setattr(Tensor, "record_stream", lambda _, stream: events.append(f"held for {stream.name}"))
    with Board() as board:
        for image, mask in moved_ahead(noted(events, 3), META):
            assert image.device == mask.device == META
            events.append("used")
    copied = ["on side", "off"]
    taken = ["main waits until copied", "held for main", "held for main", "used"]
    assert events == ["read 0", *copied, "read 1", *copied, *taken, "read 2", *copied, *taken, *taken]
    assert board.crossed == [(torch.float32, False), (torch.int64, False)] * 3


def test_on_a_cpu_no_batch_is_read_before_it_is_used():
    events = []
    for _ in moved_ahead(noted(events, 2), torch.device("cpu")):
        events.append("used")
    assert events == ["read 0", "used", "read 1", "used"]


@pytest.mark.parametrize(("device", "there"), [("auto", False), ("auto", True), ("cuda", True), ("cpu", True)])
def test_batches_lie_in_pinned_memory_where_a_gpu_trains(city, monkeypatch, device, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    parameters, split = tiny(city, device=device), open_split(city, "train")
    with loader.opened_batches(parameters, split, open_split(city, "val")) as opened:
        assert [batches.loader.pin_memory for batches in opened] == [there and device != "cpu"] * 2
