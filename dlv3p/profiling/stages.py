"""Where the time goes from an image file to its labels: decoding, preparing, copying, computing, and what comes after.

Published latencies mix these up: some are the forward pass alone, some all of it with the files' parsing on top.
"""

import io
import time
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn

from dlv3p.data.augment import normalize
from dlv3p.models.upsampling import upsample_argmax
from dlv3p.profiling.latency import Latency, latency_of, out_of_memory_explained, prepare
from dlv3p.profiling.timing import Clock, clock_of
from dlv3p.runtime.devices import LAYOUT

STAGES = ("decode", "normalise", "copy to device", "forward", "upsample and argmax", "copy to host")
"""In the order in which they are gone through; the copies are those between host and device."""


@dataclass(frozen=True)
class Stages:
    """Latency by stage of `STAGES`, and of them all together, `total`."""

    by_stage: dict[str, Latency]
    total: Latency

    def medians(self) -> dict[str, float]:
        """Return the median milliseconds of every stage and of all, "end to end"."""
        return {stage: latency.p50_ms for stage, latency in self.by_stage.items()} | {"end to end": self.total.p50_ms}


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

    `picture`, resized to `height` x `width`, is every image of the batch: what decoding takes depends on the content.
    `model` has `logits_at_stride` and `align_corners` and is used as `prepare` says. The device ends each stage before
    the next begins. Raises OutOfMemoryError, a MachineError.
    """
    content = io.BytesIO()
    picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR).save(content, "PNG")
    clock = clock_of(device)
    with out_of_memory_explained(), torch.inference_mode():
        network = prepare(model, device, dtype)
        files = [content.getvalue()] * batch
        runs = [_run(network, files, torch.device(device), dtype, clock) for _ in range(warmup + repeats)]
    times = np.diff(np.array(runs), axis=1) * 1000
    by_stage = {stage: latency_of(list(times[:, column]), warmup) for column, stage in enumerate(STAGES)}
    return Stages(by_stage, latency_of(list(times.sum(axis=1)), warmup))


def _run(network: nn.Module, files: list[bytes], device: torch.device, dtype: torch.dtype, clock: Clock) -> list[float]:
    """Go through the stages once and return the seconds at the beginning and behind each of them."""
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
