"""Optimizers with a learning rate per part, learning-rate schedules, and class weights from class frequencies."""

import math

import torch
from torch import Tensor, nn

from cityscapes.errors import InputError
from cityscapes.labels import IGNORE
from dlv3p.data.split import Split
from dlv3p.parameters.training import TrainParameters
from dlv3p.runtime.processes import from_first, place
from dlv3p.training.losses import inverse_log_weights

POLY_POWER = 0.9
MOMENTUM = 0.9


def make_optimizer(model: nn.Module, parameters: TrainParameters) -> torch.optim.Optimizer:
    """Return SGD or AdamW with two groups: the backbone, and the head that starts from random weights."""
    backbone = list(model.backbone.parameters())
    inside = {id(parameter) for parameter in backbone}
    head = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    rate = parameters.learning_rate
    groups = [
        {"params": backbone, "peak_rate": rate * parameters.backbone_rate_factor},
        {"params": head, "peak_rate": rate},
    ]
    if parameters.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, weight_decay=parameters.weight_decay, fused=True)
    return torch.optim.AdamW(groups, lr=rate, weight_decay=parameters.weight_decay, fused=True)


def rate_factor(parameters: TrainParameters, step: int, steps: int, steps_per_epoch: int) -> float:
    """Return what the peak learning rates are multiplied by in `step`, counted from 0, of `steps` in all.

    * "poly" is (1 - step / steps)^0.9 (DeepLabV3, section 4.1), "cosine" half a wave from 1 to 0 (arXiv:1608.03983);
      both stay above `final_rate_factor`, as VainF/DeepLabV3Plus-Pytorch does.
    * "step" is `step_factor` to the power of how often `step_epochs` epochs have gone by; "constant" is 1.
    * During `warmup_steps` the factor grows in a line from 1 / warmup_steps (arXiv:1706.02677, section 2.2).
    """
    progress = step / steps
    match parameters.schedule:
        case "poly":
            factor = max((1 - progress) ** POLY_POWER, parameters.final_rate_factor)
        case "cosine":
            factor = max((1 + math.cos(math.pi * progress)) / 2, parameters.final_rate_factor)
        case "step":
            factor = parameters.step_factor ** (step // steps_per_epoch // parameters.step_epochs)
        case _:
            factor = 1.0
    return factor * min(1.0, (step + 1) / parameters.warmup_steps) if parameters.warmup_steps else factor


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give each group its peak rate times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_rate"] * factor


def class_weights(parameters: TrainParameters, split: Split) -> Tensor | None:
    """Return weights float32 (C,) as `parameters.class_weights` wants them, None for "none"; one process counts."""
    if parameters.class_weights == "none":
        return None
    counts = _count(split, skip_bad=parameters.on_bad_sample == "skip") if place().first else None
    return inverse_log_weights(from_first(counts))


def _count(split: Split, *, skip_bad: bool) -> Tensor:
    counts = torch.zeros(split.num_classes, dtype=torch.int64)
    for index in range(len(split)):
        try:
            mask = torch.from_numpy(split.mask(index).astype("int64"))
        except InputError:
            if not skip_bad:
                raise
            continue  # told of by the loader, when its turn comes
        counts += torch.bincount(mask[mask != IGNORE], minlength=len(counts))
    return counts
