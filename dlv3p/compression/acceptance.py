"""Check pruned, quantized and exported networks for acceptance: the mIoU that was lost, the speed that was gained.

Every candidate is compared with a reference on the same images and in the same run. Multiply-adds are shown but do not
count as speed: a network with fewer of them that is not measurably faster fails, in red.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cityscapes.dataset import Split
from cityscapes.errors import InputError, ParameterError
from cityscapes.files.listing import walk
from dlv3p.compression.acceptance_report import AcceptanceReport, AcceptanceRow, Limits
from dlv3p.data.augment import normalize
from dlv3p.evaluation.metrics import confusion_matrix, scores
from dlv3p.evaluation.statistics import compare
from dlv3p.profiling.process_memory import measure_process_memory
from dlv3p.profiling.timing import time_interleaved
from dlv3p.runtime.devices import explain_out_of_memory
from dlv3p.runtime.progress import track

MEASURED_AT_ONCE = 2
"""Number of processes that measure memory at a time, which must all fit."""


@dataclass(frozen=True)
class Variant:
    """A network in any runtime: `predict` maps an image (1,3,h,w), normalized float32 on the CPU, to train ids.

    The ids are uint8 (1,H,W), an array or tensor on the host; H and W are the image's size before `image_scale`. Memory
    is measured where `predict` can be pickled, on its `device`. `size_bytes` is the size on disk; None is unknown.
    """

    title: str
    predict: Callable[[Tensor], Tensor | np.ndarray]
    size_bytes: int | None = None
    gmacs: float | None = None
    parameters: int | None = None
    device: str | torch.device = "cpu"


@explain_out_of_memory()
def check_acceptance(
    reference: Variant,
    candidates: Sequence[Variant],
    split: Split,
    *,
    image_scale: float = 1.0,
    limits: Limits | None = None,
    absent: Mapping[str, str] = MappingProxyType({}),
    latency_size: tuple[int, int] | None = None,
    threads: int = 2,
    warmup: int = 2,
    repeats: int = 15,
    memory: bool = True,
    progress: str = "auto",
    clock: Callable[[], float] = time.perf_counter,
) -> AcceptanceReport:
    """Compare `candidates` with `reference` on a labeled split, and judge each by `limits` (default: `Limits()`).

    Scores are those of the whole images of `split`, predicted at `image_scale`. Times and memory are of one image of
    `latency_size` (height, width), by default that of the split's first image as the network sees it. `threads` is
    set for torch here; other runtimes must have been created with the same number. `absent` are networks that cannot
    run here, with the reason, which is shown in their place. Raises ParameterError for duplicate titles, InputError for
    a split without images.
    """
    everyone = [reference, *candidates]
    if len({one.title for one in everyone}) < len(everyone):
        raise ParameterError(f"duplicate titles: {', '.join(one.title for one in everyone)}; give each network its own")
    if not len(split):
        raise InputError(f"{split.root}: no images in the {split.split} split to compare; give another split")
    torch.set_num_threads(threads)
    confusions, agreement = _predict_all(everyone, split, image_scale, progress)
    image = _image_of_size(split.image(0), image_scale, latency_size)
    size = (image.shape[2], image.shape[3])
    # Bound now, so that timed runs look up nothing.
    runs = {one.title: (lambda predict=one.predict: predict(image)) for one in everyone}
    timings = time_interleaved(runs, warmup=warmup, repeats=repeats, clock=clock)
    peaks = _measure_memory(everyone, size, threads) if memory else [None] * len(everyone)
    groups = [split.group(index) for index in range(len(split))]
    rows = []
    for one, confusion, same, peak in zip(everyone, confusions, agreement, peaks, strict=True):
        change = None if one is reference else compare(confusions[0], confusion, groups).mean
        mean_iou = scores(confusion.sum(axis=0)).mean_iou
        costs = (one.size_bytes, one.gmacs, one.parameters)
        rows.append(AcceptanceRow(one.title, mean_iou, change, same, peak, *costs))
    measured = {
        "data_root": str(split.root),
        "split": split.split,
        "images": len(split),
        "image_scale": image_scale,
        "latency_height": size[0],
        "latency_width": size[1],
        "threads": threads,
        "repeats": repeats,
    }
    return AcceptanceReport(tuple(rows), timings, limits or Limits(), measured, tuple(absent.items()))


def size_on_disk(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else walk(path)))


def _measure_memory(everyone: Sequence[Variant], size: tuple[int, int], threads: int) -> list[float | None]:
    """Measure several at a time, each in its own process: unlike latency, memory does not depend on the load."""

    def measure(one: Variant) -> float | None:
        return measure_process_memory(one.predict, size, threads=threads, device=one.device)

    with ThreadPoolExecutor(MEASURED_AT_ONCE) as pool:
        return list(pool.map(measure, everyone))


def _predict_all(
    everyone: Sequence[Variant], split: Split, image_scale: float, progress: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return int64 confusion matrices (network, image, C, C) and each network's share of pixels like the first's."""
    confusions = np.zeros((len(everyone), len(split), split.num_classes, split.num_classes), np.int64)
    same, pixels = np.zeros(len(everyone), np.int64), 0
    for index in track(range(len(split)), total=len(split), title=f"compare {split.split}", mode=progress):
        image, mask = split.pair(index)
        batch, truth = normalize(image, image_scale=image_scale)[None], torch.from_numpy(mask)
        first = None
        for number, one in enumerate(everyone):
            labels = _labels(one, batch, mask.shape, split.num_classes)
            first = labels if first is None else first
            same[number] += np.count_nonzero(labels == first)
            confusions[number, index] = confusion_matrix(truth, torch.from_numpy(labels), split.num_classes)
        pixels += mask.size
    return confusions, same / pixels


def _labels(one: Variant, batch: Tensor, size: tuple[int, int], num_classes: int) -> np.ndarray:
    """Predict one image: uint8 of `size`; ids whose size is off by rounding are resized to it by nearest neighbor."""
    labels = np.asarray(one.predict(batch))
    if labels.dtype != np.uint8 or labels.ndim != 3 or len(labels) != 1:
        raise ParameterError(
            f"{one.title}: predicts {labels.dtype} {labels.shape}; expected uint8 (1,H,W) of train ids"
        )
    if labels.max() >= num_classes:
        raise ParameterError(f"{one.title}: predicts class {labels.max()}, and the split has {num_classes} classes")
    if labels.shape[1:] != size:
        labels = np.asarray(Image.fromarray(labels[0]).resize(size[::-1], Image.Resampling.NEAREST))[None]
    return np.array(labels[0])


def _image_of_size(image: Image.Image, image_scale: float, size: tuple[int, int] | None) -> Tensor:
    if size is None:
        return normalize(image, image_scale=image_scale)[None]
    return normalize(image.resize(size[::-1], Image.Resampling.BILINEAR))[None]
