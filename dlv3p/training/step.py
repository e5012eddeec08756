"""Take one training step, from a batch to updated weights, alike for one process, for many, and with accumulation.

An exponential moving average (EMA) of the weights may follow; it often scores better than the weights of any one step
(the idea of arXiv:1306.0239v3).
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cityscapes.labels import IGNORE
from dlv3p.models.deeplab import DeepLab
from dlv3p.models.upsampling import upsample_argmax
from dlv3p.parameters.choices import PIXEL_MEANS
from dlv3p.parameters.training import TrainParameters
from dlv3p.runtime.devices import move_batch
from dlv3p.runtime.processes import place, sum_over_processes
from dlv3p.training.distillation import distillation_loss, teach
from dlv3p.training.guarded_update import NormStatistics, WeightAverage, update_weights
from dlv3p.training.losses import AUXILIARY_WEIGHT, Loss, make_chunked_loss, make_loss, valid_weight
from dlv3p.training.optimizers import set_rates

_OPTIONS = signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers"
"""What torch calls the option that sends the statistics of norms around before each step: the latter before 2.15."""


SMALLEST_SCALE = 2.0**-13
"""The smallest scale of gradients; one that overflows float16 even then has diverged."""


class StepResult(NamedTuple):
    """What a step has found, on its device: the loss over the whole batch, float64, and the norm of the gradient.

    `prediction` holds train ids (N,h,w) of this process's share. `scale` is that of the gradients when the step began,
    and `diverged` says whether this or an earlier step has: its loss or its gradient is not finite, and a smaller scale
    would not help.
    """

    loss: Tensor
    gradient_norm: Tensor
    prediction: Tensor
    scale: Tensor
    diverged: Tensor


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """Return the seed of torch for a step of a process: a hash, so that no two steps of any two runs agree."""
    low, high = np.random.SeedSequence([seed, step, rank]).generate_state(2)
    return int(low) | int(high) << 32


class TrainingForward(nn.Module):
    """The forward pass of a step as one module, which can be compiled and wrapped for distributed training.

    Return a tuple: the logits, and those of the auxiliary head, if any; before upsampling if `at_stride`.
    """

    def __init__(self, model: DeepLab, *, at_stride: bool) -> None:
        super().__init__()
        self.model, self.at_stride = model, at_stride

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        model = self.model
        if model.auxiliary is not None:
            return model.both_logits_at_stride(image) if self.at_stride else model.forward_with_auxiliary(image)
        return (model.logits_at_stride(image) if self.at_stride else model(image),)


def build_loss(parameters: TrainParameters, class_weights: Tensor | None) -> Loss:
    """Return the loss that `parameters` specify, over logits, or over logits at their stride for a chunked loss."""
    options = {"focal_gamma": parameters.focal_gamma, "hard_share": parameters.hard_share}
    if parameters.chunked_loss:
        return make_chunked_loss(parameters.loss, class_weights, align_corners=parameters.align_corners, **options)
    return make_loss(parameters.loss, class_weights, **options)


def build_stepper(
    parameters: TrainParameters,
    model: DeepLab,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    *,
    class_weights: Tensor | None = None,
    teacher: DeepLab | None = None,
) -> "Stepper":
    """Return the stepper that `parameters` specify; `class_weights` are those of the loss."""
    pixel_mean = parameters.loss in PIXEL_MEANS
    return Stepper(
        model,
        loss,
        optimizer,
        device,
        seed=parameters.seed,
        precision=parameters.precision,
        accumulation=parameters.accumulation,
        gradient_norm=parameters.gradient_norm,
        at_stride=parameters.chunked_loss,
        part_weight=partial(valid_weight, class_weights=class_weights) if pixel_mean else None,
        average_decay=parameters.average_decay,
        teacher=teacher,
        teacher_weight=parameters.teacher_weight,
        compiled=parameters.compile,
    )


class Stepper:
    """Take the steps of a run; holds the state beside the network: optimizer, gradient scaler, average of the weights.

    `part_weight` returns the weight of a mask's pixels in a loss that is a mean over pixels; None for other losses.
    """

    def __init__(
        self,
        model: DeepLab,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        *,
        seed: int = 0,
        precision: str = "float32",
        accumulation: int = 1,
        gradient_norm: float = 0.0,
        at_stride: bool = False,
        part_weight: Callable[[Tensor], Tensor] | None = None,
        average_decay: float = 0.0,
        teacher: DeepLab | None = None,
        teacher_weight: float = 1.0,
        compiled: bool = False,
    ) -> None:
        self.model, self.loss, self.optimizer, self.device = model, loss, optimizer, device
        self.seed, self.accumulation, self.gradient_norm = seed, accumulation, gradient_norm
        self.at_stride, self.part_weight = at_stride, part_weight
        self.teacher, self.teacher_weight = teacher, teacher_weight
        self.autocast = partial(torch.autocast, device.type, getattr(torch, precision), enabled=precision != "float32")
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")
        self.statistics = NormStatistics(model)
        self.diverged = torch.zeros((), dtype=torch.bool, device=device)
        self.average = WeightAverage(model, average_decay) if average_decay else None
        self.forward = TrainingForward(model, at_stride=at_stride)
        if place().ranks > 1:
            self.forward = DistributedDataParallel(self.forward, **{_SYNC_BUFFERS: False})
        if compiled:
            self.forward = torch.compile(self.forward)

    @property
    def scored(self) -> DeepLab:
        """The network that is validated and exported: that of the averaged weights, if there is an average."""
        return self.average.module if self.average else self.model

    def __call__(self, image: Tensor, mask: Tensor, *, rate: float, step: int) -> StepResult:
        """Take a step on image float (N,3,h,w) and mask int64 (N,h,w), this process's share, with `rate` as factor.

        Dropout depends on the number of the `step`, not on earlier steps. Nothing is read from the device. A step that
        is not finite changes nothing but the scale of gradients, and one that has diverged lets none after it change
        anything, so that the weights are those that it began with whenever the host reads its result.
        """
        torch.manual_seed(dropout_seed(self.seed, step, place().rank))
        set_rates(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        self.statistics.keep()
        scale = self.scaler.scale(torch.ones((), device=self.device))
        images, masks = (value.chunk(self.accumulation) for value in move_batch(image, mask, self.device))
        shares, total = self._shares(masks), torch.zeros((), device=self.device)
        predictions = []
        for part, share in enumerate(shares):
            value, prediction = self._part(images[part], masks[part], share, last=part == len(shares) - 1)
            total += value
            predictions.append(prediction)
        self.scaler.unscale_(self.optimizer)
        norm = self._clip()
        loss = sum_over_processes(total).double() / place().ranks
        self._update(self._is_sound(loss, norm, scale))
        return StepResult(loss, norm, torch.cat(predictions), scale, self.diverged)

    def _is_sound(self, loss: Tensor, norm: Tensor, scale: Tensor) -> Tensor:
        """Return whether a step may change anything, the same in all processes; remember whether it has diverged."""
        finite = loss.isfinite() & norm.isfinite()
        only_overflowed = self.scaler.is_enabled() & loss.isfinite() & (scale > SMALLEST_SCALE)
        sound = finite & ~self.diverged
        self.diverged = self.diverged | ~(finite | only_overflowed)
        return sound

    def _update(self, sound: Tensor) -> None:
        self.statistics.restore_unless(sound)
        update_weights(self.optimizer, sound)
        if self.average:
            self.average.update(self.model, sound)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the state without the weights of the network and of the average."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average_updates": self.average.updates if self.average else 0,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a checkpoint, whose "model" is the average, if any; earlier versions saved only the optimizer."""
        self.optimizer.load_state_dict(state["optimizer"])
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.resume(state["model"], state["average_updates"])

    def _shares(self, masks: tuple[Tensor, ...]) -> list[float | Tensor]:
        """Return the weight of each part's loss, so that the gradient is that of the whole batch over all processes.

        Gradients are averaged over the processes, so the shares of all of them sum up to the world size.
        """
        if len(masks) * place().ranks == 1:
            return [1.0]
        if self.part_weight is None:
            return [1 / len(masks)] * len(masks)
        weights = torch.stack([self._weight(mask) for mask in masks])
        whole = sum_over_processes(weights.sum())
        return list(weights * place().ranks / whole.clamp(min=1e-6))

    def _weight(self, mask: Tensor) -> Tensor:
        return self.part_weight(mask).float() * (mask != IGNORE).any()

    def _part(self, image: Tensor, mask: Tensor, share: float | Tensor, *, last: bool) -> tuple[Tensor, Tensor]:
        local = place().ranks > 1 and not last  # gradients are reduced once a step, with the last part
        with self.forward.no_sync() if local else nullcontext():
            with self.autocast():
                logits, *auxiliary = self.forward(image)
            value = self.loss(logits.float(), mask)
            for other in auxiliary:
                value = value + AUXILIARY_WEIGHT * self.loss(other.float(), mask)
            if self.teacher is not None:
                value = value + self.teacher_weight * self._distillation(image, mask, logits)
            value = value * share
            self.scaler.scale(value).backward()
        logits = logits.detach().float()
        if self.at_stride:
            align_corners = self.model.align_corners
            return value.detach(), upsample_argmax(logits, mask.shape[-2:], align_corners=align_corners)
        return value.detach(), logits.argmax(dim=1)

    def _distillation(self, image: Tensor, mask: Tensor, logits: Tensor) -> Tensor:
        with self.autocast():
            taught = teach(self.teacher, image)
        return distillation_loss(logits, taught, mask, align_corners=self.model.align_corners)

    def _clip(self) -> Tensor:
        limit = self.gradient_norm or float("inf")
        return nn.utils.clip_grad_norm_(self.model.parameters(), limit)
