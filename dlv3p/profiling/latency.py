"""Measure the latency of a prediction: as a whole, part by part, and by stage from an image file to its labels.

Published latencies mix these up: some are the forward pass alone, some include decoding and parsing of the files.
"""

import copy
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cityscapes.errors import ParameterError
from dlv3p.data.augment import normalize
from dlv3p.models.inputs import input_channels
from dlv3p.models.upsampling import upsample_argmax
from dlv3p.profiling.timing import Clock, clock_of, time_call
from dlv3p.runtime.devices import LAYOUT, explain_out_of_memory

UPSAMPLING = "upsampling"
"""The part behind the last module of a network: its logits at the image's size."""

STAGES = ("decode", "normalise", "copy to device", "forward", "upsample and argmax", "copy to host")
"""In order of execution, named as stored profiles name them; the copies are those between host and device."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds that a batch takes: the 10th, 50th and 90th percentile of the runs.

    `times_ms` are all runs that count, in order; `first_ms` is the very first one, which also loads libraries, chooses
    algorithms and compiles.
    """

    p10_ms: float
    p50_ms: float
    p90_ms: float
    first_ms: float
    times_ms: tuple[float, ...]


@dataclass(frozen=True)
class Stages:
    """Latency by stage of `STAGES`, and of them all together, `total`."""

    by_stage: dict[str, Latency]
    total: Latency

    def medians(self) -> dict[str, float]:
        """Return the median milliseconds of every stage and of all, "end to end"."""
        return {stage: latency.p50_ms for stage, latency in self.by_stage.items()} | {"end to end": self.total.p50_ms}


def prepare(model: nn.Module, device: str | torch.device, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return `model` as it predicts: in evaluation mode, on the device, channels_last, with weights of `dtype`.

    It is `model` itself for float32, which is moved, and a copy for other types, so that no weight is rounded twice.
    """
    if dtype != torch.float32:
        model = copy.deepcopy(model)
    return model.eval().to(device=device, dtype=dtype, memory_format=LAYOUT)


def compile_network(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return `model` under torch.compile as one graph of fixed shapes; what it cannot compile is an error.

    torch keeps a few compiled versions of a function and then silently falls back to eager: they are dropped.
    """
    torch.compiler.reset()
    return torch.compile(model, fullgraph=True, dynamic=False)


def random_images(
    network: nn.Module,
    batch: int,
    height: int,
    width: int,
    device: str | torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return normally distributed images (batch,C,height,width), always the same ones, in the suite's layout.

    They have the channels that `network` takes.
    """
    shape = (batch, input_channels(network), height, width)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return images.to(device=device, dtype=dtype, memory_format=LAYOUT)


def measure_latency(
    model: nn.Module,
    *,
    height: int,
    width: int,
    batch: int = 1,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
    warmup: int = 3,
    repeats: int = 10,
) -> Latency:
    """Time predictions of a batch (batch,3,height,width) that already lies on the device, upsampling included.

    `warmup` runs are not counted. The model is used as `prepare` says. Raises MachineError when memory runs out.
    """
    _check(warmup, repeats)
    clock = clock_of(device)
    with explain_out_of_memory(), torch.inference_mode():
        network = prepare(model, device, dtype)
        network = compile_network(network) if compiled else network
        images = random_images(model, batch, height, width, device, dtype)
        times = [time_call(lambda: network(images), clock) for _ in range(warmup + repeats)]
    return latency_of(times, warmup)


def measure_parts(
    model: nn.Module,
    *,
    height: int,
    width: int,
    batch: int = 1,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    warmup: int = 3,
    repeats: int = 10,
) -> dict[str, Latency]:
    """Time the direct parts of `model` (backbone, aspp, ...) within whole predictions, and the upsampling behind them.

    Arguments and errors are those of `measure_latency`. Nothing waits between the parts, so they add up to the whole.
    Compiled networks have no parts to time: compilation joins them.
    """
    _check(warmup, repeats)
    clock = clock_of(device)
    with explain_out_of_memory(), torch.inference_mode():
        network = prepare(model, device, dtype)
        images = random_images(model, batch, height, width, device, dtype)
        runs = [_time_parts(network, images, clock) for _ in range(warmup + repeats)]
    return {part: latency_of([run[part] for run in runs], warmup) for part in runs[0]}


def measure_stages(
    model: nn.Module,
    picture: Image.Image,
    *,
    height: int,
    width: int,
    batch: int = 1,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    warmup: int = 3,
    repeats: int = 10,
) -> Stages:
    """Time a batch of PNG files, already in the host's memory, to labels, uint8 (batch,height,width), on the host.

    `picture`, resized to `height` x `width`, is every image of the batch: decoding time depends on the content.
    `model` has `logits_at_stride` and `align_corners` and is used as `prepare` says. A stage ends when the device
    has finished it. Raises OutOfMemoryError, a MachineError.
    """
    content = io.BytesIO()
    picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR).save(content, "PNG")
    clock = clock_of(device)
    with explain_out_of_memory(), torch.inference_mode():
        network = prepare(model, device, dtype)
        files = [content.getvalue()] * batch
        runs = [_time_stages(network, files, torch.device(device), dtype, clock) for _ in range(warmup + repeats)]
    times = np.diff(np.array(runs), axis=1) * 1000
    by_stage = {stage: latency_of(list(times[:, column]), warmup) for column, stage in enumerate(STAGES)}
    return Stages(by_stage, latency_of(list(times.sum(axis=1)), warmup))


def latency_of(times: list[float], warmup: int) -> Latency:
    """Summarize the milliseconds of all runs in order, of which the first `warmup` do not count."""
    counted = [round(value, 4) for value in times[warmup:]]
    percentiles = (round(float(value), 3) for value in np.percentile(counted, (10, 50, 90)))
    return Latency(*percentiles, round(times[0], 3), tuple(counted))


def _time_parts(network: nn.Module, images: Tensor, clock: Clock) -> dict[str, float]:
    marks: dict[str, list[Any]] = {}
    handles = []
    for name, part in network.named_children():
        if not isinstance(part, nn.Identity):
            handles.append(part.register_forward_pre_hook(lambda *_, name=name: marks.update({name: [clock.mark()]})))
            handles.append(part.register_forward_hook(lambda *_, name=name: marks[name].append(clock.mark())))
    try:
        clock.wait()
        network(images)
        ended = clock.mark()
        clock.wait()
    finally:
        for handle in handles:
            handle.remove()
    times = {name: clock.milliseconds(*pair) for name, pair in marks.items()}
    last = next(reversed(marks.values()))[-1]
    return times | {UPSAMPLING: clock.milliseconds(last, ended)}


def _check(warmup: int, repeats: int) -> None:
    if repeats < 1 or warmup < 0:
        raise ParameterError(f"repeats={repeats}, warmup={warmup}: at least 1 and 0 are allowed")


def _time_stages(
    network: nn.Module, files: list[bytes], device: torch.device, dtype: torch.dtype, clock: Clock
) -> list[float]:
    """Run the stages once and return the seconds at the start and after each of them."""
    moments = [time.perf_counter()]

    def stage_ends() -> None:
        clock.wait()
        moments.append(time.perf_counter())

    pictures = [Image.open(io.BytesIO(file)) for file in files]
    for picture in pictures:
        picture.load()
    stage_ends()
    images = torch.stack([normalize(picture) for picture in pictures])
    stage_ends()
    images = images.to(device=device, dtype=dtype, memory_format=LAYOUT)
    stage_ends()
    logits = network.logits_at_stride(images)
    stage_ends()
    size = (pictures[0].height, pictures[0].width)
    labels = upsample_argmax(logits.float(), size, align_corners=network.align_corners)
    stage_ends()
    labels.cpu()
    stage_ends()
    return moments
