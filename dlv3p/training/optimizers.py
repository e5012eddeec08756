"""Optimizers with a learning rate per part, learning-rate schedules, and class weights from class frequencies."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from cityscapes.dataset import Split
from dlv3p.data.class_pixels import class_pixels
from dlv3p.parameters.training import TrainParameters
from dlv3p.runtime.processes import from_first, place
from dlv3p.training.losses import inverse_log_weights

POLY_POWER = 0.9
MOMENTUM = 0.9


def make_optimizer(
    model: nn.Module,
    *,
    name: str,
    learning_rate: float,
    backbone_rate_factor: float = 1.0,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Return "sgd" or "adamw" with two groups: the backbone, and the head that starts from random weights."""
    backbone = list(model.backbone.parameters())
    inside = {id(parameter) for parameter in backbone}
    head = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    groups = [
        {"params": backbone, "peak_rate": learning_rate * backbone_rate_factor},
        {"params": head, "peak_rate": learning_rate},
    ]
    options = {"lr": learning_rate, "weight_decay": weight_decay, "fused": True}
    return (
        torch.optim.SGD(groups, momentum=MOMENTUM, **options) if name == "sgd" else torch.optim.AdamW(groups, **options)
    )


def build_optimizer(parameters: TrainParameters, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer that `parameters` specify."""
    return make_optimizer(
        model,
        name=parameters.optimizer,
        learning_rate=parameters.learning_rate,
        backbone_rate_factor=parameters.backbone_rate_factor,
        weight_decay=parameters.weight_decay,
    )


def build_schedule(parameters: TrainParameters, steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the schedule that `parameters` specify: from a step, counted from 0, to the factor of its rates."""
    names = ("schedule", "final_rate_factor", "step_epochs", "step_factor", "warmup_steps")
    options = {name: getattr(parameters, name) for name in names}
    return partial(rate_factor, steps=steps, steps_per_epoch=steps_per_epoch, **options)


def rate_factor(
    step: int,
    steps: int,
    steps_per_epoch: int,
    *,
    schedule: str = "poly",
    final_rate_factor: float = 0.0,
    step_epochs: int = 10,
    step_factor: float = 0.5,
    warmup_steps: int = 0,
) -> float:
    """Return the factor of the peak learning rates in `step`, counted from 0, of `steps` in total.

    * "poly" is (1 - step / steps)^0.9 (DeepLabV3, section 4.1), "cosine" half a wave from 1 to 0 (arXiv:1608.03983);
      both stay above `final_rate_factor`, as VainF/DeepLabV3Plus-Pytorch does.
    * "step" multiplies by `step_factor` after every `step_epochs` epochs; "constant" is 1.
    * During `warmup_steps` the factor grows linearly from 1 / warmup_steps (arXiv:1706.02677, section 2.2).
    """
    progress = step / steps
    match schedule:
        case "poly":
            factor = max((1 - progress) ** POLY_POWER, final_rate_factor)
        case "cosine":
            factor = max((1 + math.cos(math.pi * progress)) / 2, final_rate_factor)
        case "step":
            factor = step_factor ** (step // steps_per_epoch // step_epochs)
        case _:
            factor = 1.0
    return factor * min(1.0, (step + 1) / warmup_steps) if warmup_steps else factor


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rate of each group to its peak rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_rate"] * factor


def class_weights(split: Split, *, skip_bad: bool = False) -> Tensor:
    """Return class weights, float32 (C,), that favor the rare classes of a split; the first process counts for all."""
    counts = torch.from_numpy(class_pixels(split, skip_bad=skip_bad)[: split.num_classes]) if place().first else None
    return inverse_log_weights(from_first(counts))
