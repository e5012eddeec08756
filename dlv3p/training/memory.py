"""Predict the memory and the disk that a training takes, from a trace of one step on torch's meta device."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import psutil
import torch
from torch.nn.functional import cross_entropy

from cityscapes.errors import OutOfMemoryError
from cityscapes.files.channels import PixelRule
from dlv3p.models.deeplab import build_network
from dlv3p.models.inputs import input_channels
from dlv3p.parameters.choices import check_batch_size
from dlv3p.parameters.training import TrainParameters
from dlv3p.profiling.live_bytes import LiveBytes
from dlv3p.runtime.devices import choose_device
from dlv3p.training.activation_checkpointing import checkpoint_activations
from dlv3p.training.step import TrainingForward

PROCESS_BYTES = 870 * 2**20
"""What a training process takes on a CPU beside the tensors of a step: Python, torch, compiled code, kernels."""
BOARD_BYTES = 600 * 2**20
"""What CUDA's context and libraries take on a GPU; not measured, since no GPU was there."""
BESIDE_BYTES = 150 * 2**20
"""What data, masks and validation take on a CPU beside the steps of a training; a trial has none of them."""
COPIES = 3
"""How often the tensors of a checkpoint are held while one is read: those trained, the file's bytes, its tensors."""
CERTAIN = 1.25
"""A training is refused where its prediction is so many times the free memory: predictions are that far off at most."""


def predict_bytes(parameters: TrainParameters, num_classes: int, rule: PixelRule | None = None) -> int:
    """Predict the bytes that one process takes at its peak on its device: in a step or, on a CPU, with a checkpoint."""
    weights, alive = _traced(parameters, num_classes, rule)
    kept = _kept_beside(parameters)
    step = alive + kept * weights
    if choose_device(parameters.device).type != "cpu":
        return BOARD_BYTES + step
    return PROCESS_BYTES + BESIDE_BYTES + max(step, COPIES * (1 + kept) * weights)


def predict_disk_bytes(parameters: TrainParameters, num_classes: int, rule: PixelRule | None = None) -> int:
    """Predict the bytes of a run's folder: two checkpoints, and the weights that are exported."""
    with torch.device("meta"):
        weights = _bytes_of(build_network(parameters, num_classes, rule=rule))
    return int(weights * (2 * (1 + _kept_beside(parameters)) + 1))


def refuse_memory(parameters: TrainParameters, num_classes: int, rule: PixelRule | None = None) -> int:
    """Return the predicted bytes of a process; raises OutOfMemoryError, with what would fit, for more than are free."""
    needed, free = predict_bytes(parameters, num_classes, rule), free_bytes(parameters)
    if needed > CERTAIN * free:
        raise OutOfMemoryError(
            f"out of memory: a step takes about {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} are free; "
            f"{what_fits(parameters, num_classes, free, rule)}"
        )
    return needed


def free_bytes(parameters: TrainParameters) -> int:
    """Return the free bytes for each process, on its GPU, or its share of the machine's memory."""
    device = choose_device(parameters.device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available // parameters.processes


def what_fits(parameters: TrainParameters, num_classes: int, free: int, rule: PixelRule | None = None) -> str:
    """Return the setting nearest to the parameters whose prediction fits into the free bytes, in words."""
    p, (_, alive) = parameters, _traced(parameters, num_classes, rule)
    for words, other in _smaller(p):
        # A trace takes a second, and there may be a dozen settings: those that are far from fitting need none.
        scaled = alive * _pixels_at_once(other) / _pixels_at_once(p)
        if other.activation_checkpointing == p.activation_checkpointing and scaled > CERTAIN * free:
            continue
        if predict_bytes(other, num_classes, rule) <= free:
            return f"what would fit: {words}"
    return "no accumulation, smaller batch or crop would fit; take a smaller network or another machine"


def _pixels_at_once(parameters: TrainParameters) -> float:
    p = parameters
    return p.batch_size / p.accumulation * p.crop_height * p.crop_width


def _smaller(parameters: TrainParameters) -> Iterator[tuple[str, TrainParameters]]:
    """Yield settings that take less and less: first those that keep the result, or nearly so."""
    p = parameters
    if not p.activation_checkpointing:
        yield "-p activation_checkpointing True", replace(p, activation_checkpointing=True)
    share = p.batch_size // p.processes
    for parts in range(p.accumulation + 1, share // 2 + 1):
        if share % parts == 0:
            yield f"-p accumulation {parts}", replace(p, accumulation=parts)
    batch = p.batch_size // 2
    while batch >= 2 * p.processes:
        smaller = replace(p, batch_size=batch - batch % p.processes, accumulation=1)
        check_batch_size(smaller.batch_size, processes=p.processes, accumulation=1)
        yield f"-p batch_size {smaller.batch_size}, which changes the result", smaller
        batch //= 2
    height, width, least = p.crop_height // 2, p.crop_width // 2, 2 * p.processes
    while min(height, width) >= 33:
        words = f"-p batch_size {least} -p crop_height {height} -p crop_width {width}, which changes the result"
        yield words, replace(p, batch_size=least, accumulation=1, crop_height=height, crop_width=width)
        height, width = height // 2, width // 2


def _kept_beside(parameters: TrainParameters) -> int:
    """Return how many times the weights the optimizer and the average of the weights hold."""
    return (2 if parameters.optimizer == "adamw" else 1) + bool(parameters.average_decay)


@lru_cache(maxsize=64)
def _traced(parameters: TrainParameters, num_classes: int, rule: PixelRule | None) -> tuple[int, int]:
    """Return the bytes of the weights, and of all tensors at the peak of a step; a loss counts as cross entropy."""
    p = parameters
    batch, size = p.batch_size // p.processes // p.accumulation, (p.crop_height, p.crop_width)
    with torch.device("meta"):
        model = build_network(p, num_classes, rule=rule).train()
        image, mask = torch.empty(batch, input_channels(model), *size), torch.empty(batch, *size, dtype=torch.int64)
    model = checkpoint_activations(model) if p.activation_checkpointing else model
    with LiveBytes() as live:
        logits, *auxiliary = TrainingForward(model, at_stride=p.chunked_loss)(image)
        mask = mask[:, : logits.shape[-2], : logits.shape[-1]]
        sum(cross_entropy(one.float(), mask) for one in (logits, *auxiliary)).backward()
    return _bytes_of(model), live.most


def _bytes_of(model: torch.nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())
