"""Say what a notebook that trains nothing takes at least on this machine, by a few of the images that it predicts.

What it counts, draws, measures and writes of all of them comes on top.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, singledispatch
from typing import Any, NamedTuple

import numpy as np
import torch

from cityscapes.files.png_write import encode_png
from cityscapes.files.untrusted import given_path
from dlv3p.data.roots import open_images, open_training, resolve_data_root
from dlv3p.evaluation.inference import Predictor
from dlv3p.jupyter.demo import load_run
from dlv3p.models.anatomy import count_macs
from dlv3p.parameters.base import Parameters
from dlv3p.parameters.notebooks import (
    EvaluateParameters,
    PredictParameters,
    ProfileParameters,
    QuantizeParameters,
    RenderGifParameters,
    SavePredictionsParameters,
)
from dlv3p.parameters.protocols import WHOLE_IMAGE, Protocol
from dlv3p.pictures.gallery import choose_frames
from dlv3p.prediction.memory import PROCESS_BYTES, MemoryLimit, bytes_of_image_pixel
from dlv3p.prediction.predictor import ImagePredictor, limit_of, predictor_of
from dlv3p.prediction.sources import find_images
from dlv3p.profiling.latency import prepare, random_images
from dlv3p.profiling.profiled_model import choose_profiled_model
from dlv3p.runtime.devices import choose_device

TIMED_IMAGES, ENOUGH_SECONDS = 3, 60
"""How many images are predicted to tell the time of all, and after how many seconds no further one."""
COPY_MIB = 1.0
"""What an executed notebook takes with its tables and pictures."""
SCORED_BY_QUANTIZE = 2
"""How often `quantize` predicts its split by torch: beside the exported networks, and beside those of 8 bits."""


class Least(NamedTuple):
    """What a job takes at least: seconds, MiB of memory, MiB of disk."""

    seconds: float
    memory_mib: float
    disk_mib: float = COPY_MIB


@singledispatch
def least_cost(parameters: Parameters) -> Least | None:
    """Return what a notebook with these parameters takes at least; None for one that is not known to predict anything.

    Raises a user's error where it would.
    """
    return None


@least_cost.register
def _of_split(p: EvaluateParameters | SavePredictionsParameters) -> Least:
    predictor, protocol = load_run(p), p.chosen_protocol()
    split = open_images(resolve_data_root(p.data_root or predictor.parameters.data_root), p.split)
    seconds, labels = _timed(lambda index: predictor(split.image(index), protocol), range(len(split)))
    memory = _memory_mib(predictor, labels.shape, protocol)
    if isinstance(p, EvaluateParameters):
        return Least(seconds, memory)
    masks = 2 * len(split) * len(encode_png(labels)) / 2**20  # each is in the zip as well
    return Least(seconds / p.workers, p.workers * memory, COPY_MIB + masks)


@least_cost.register
def _of_quantization(p: QuantizeParameters) -> Least:
    predictor = load_run(p)
    root = p.data_root or predictor.parameters.data_root
    scored_on = replace(predictor.parameters, data_root=root, val_split=p.split, folds=0, fold=0)
    training, split = open_training(scored_on)
    seconds, labels = _timed(lambda index: predictor(split.image(index), WHOLE_IMAGE), range(len(split)))
    images = SCORED_BY_QUANTIZE * len(split) + min(p.calibration_images, len(training))
    return Least(seconds / len(split) * images, _memory_mib(predictor, labels.shape, WHOLE_IMAGE))


@least_cost.register
def _of_files(p: PredictParameters) -> Least | None:
    source = find_images(p.images, output=given_path(p.output) if p.output else None)
    if source.video:
        return None
    return _of_predictor(predictor_of(p), [image.path for image in source.images], workers=p.workers)


@least_cost.register
def _of_animation(p: RenderGifParameters) -> Least | None:
    predictor = predictor_of(p)
    if p.images:
        source = find_images(p.images)
        paths = [image.path for image in source.images]
        return None if source.video else _of_predictor(predictor, paths[: p.frames])
    split = open_images(resolve_data_root(p.data_root or predictor.network.parameters.data_root), p.split)
    frames = choose_frames(split, city=p.city, sequence=p.sequence, count=p.frames)
    return _of_predictor(predictor, frames, read=split.image)


@least_cost.register
def _of_profile(p: ProfileParameters) -> Least:
    """Time the smallest case; the others follow by their multiply-adds."""
    predictor = load_run(p)
    own = (predictor.parameters, len(predictor.class_names), predictor.model.widths, predictor.rule)
    profiled = choose_profiled_model(p.network, *own)
    cases = p.cases(profiled.backbones)
    works = [case.batch_size * count_macs(partial(profiled.build, case), case.height, case.width)["total"]
             for case in cases]  # fmt: skip
    work, smallest = min(zip(works, cases, strict=True), key=lambda pair: pair[0])
    device, size = choose_device(p.device), (smallest.batch_size, smallest.height, smallest.width)
    network = prepare(profiled.build(smallest), device)
    images = random_images(network, *size, device)
    with torch.inference_mode():
        seconds, _ = _timed(lambda _: network(images).cpu(), range(TIMED_IMAGES))
    seconds *= (p.warmup + p.repeats) / TIMED_IMAGES * sum(works) / work
    with torch.device("meta"):
        needed = [case.batch_size * case.height * case.width * bytes_of_image_pixel(profiled.build(case))
                  for case in cases]  # fmt: skip
    return Least(seconds, (PROCESS_BYTES + max(needed)) / 2**20)


def _of_predictor(
    predictor: ImagePredictor, images: Sequence[Any], *, read: Callable | None = None, workers: int = 1
) -> Least:
    seconds, labels = _timed(lambda image: predictor(read(image) if read else image), images)
    tiled, size = predictor.needs_tiles(labels.shape), (labels.shape, len(predictor.class_names))
    memory = predictor.limit.predicted(*size, predictor.protocol, tiled=tiled) / 2**20
    return Least(seconds / workers, workers * memory)


def _memory_mib(predictor: Predictor, size: tuple[int, int], protocol: Protocol) -> float:
    return limit_of(predictor, MemoryLimit(0, 0, 0)).predicted(size, len(predictor.class_names), protocol) / 2**20


def _timed(predict: Callable[[Any], np.ndarray], images: Sequence[Any]) -> tuple[float, np.ndarray]:
    """Predict a few images, the first again where there are fewer; return the seconds of all, and the last result."""
    times: list[float] = []
    while len(times) <= TIMED_IMAGES and sum(times) < ENOUGH_SECONDS:
        began = time.perf_counter()
        labels = predict(images[len(times) % len(images)])
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:] or times) * len(images), labels
