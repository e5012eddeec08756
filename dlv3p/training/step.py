"""Take one training step, from a batch to updated weights, alike for one process, for many, and with accumulation.

An exponential moving average (EMA) of the weights may follow; it often scores better than the weights of any one step
(the idea of arXiv:1306.0239v3).
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cityscapes.labels import IGNORE
from dlv3p.models.deeplab import DeepLab
from dlv3p.models.upsampling import upsample_argmax
from dlv3p.parameters.choices import PIXEL_MEANS
from dlv3p.parameters.training import TrainParameters
from dlv3p.runtime.devices import move_batch
from dlv3p.runtime.processes import place, sum_over_processes
from dlv3p.training.distillation import distillation_loss, teach
from dlv3p.training.losses import AUXILIARY_WEIGHT, Loss, make_chunked_loss, make_loss, valid_weight
from dlv3p.training.optimizers import set_rates

_OPTIONS = signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers"
"""What torch calls the option that sends the statistics of norms around before each step: the latter before 2.15."""


class WeightAverage(AveragedModel):
    """The exponential moving average of a network's weights: average = decay * average + (1 - decay) * weights.

    Floating point buffers, the statistics of the norms, are averaged alike; counters are copied. Early on the decay is
    at most (1 + updates) / (10 + updates), as in TensorFlow's ExponentialMovingAverage, so that the random start fades.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=self._average, use_buffers=True)
        self.decay = decay
        self.module.eval().requires_grad_(False)
        self.n_averaged += 1  # the initial weights count; otherwise torch lets the first update replace them

    @property
    def updates(self) -> int:
        """How often the average has been updated."""
        return int(self.n_averaged) - 1

    def resume(self, weights: dict[str, Tensor], updates: int) -> None:
        """Continue from averaged weights after so many updates."""
        self.module.load_state_dict(weights)
        self.n_averaged.fill_(updates + 1)

    def _average(self, averages: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        """Update averages of one type; the count is read from the CPU, where it does not wait for a GPU."""
        if averages[0].is_floating_point():
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            get_ema_multi_avg_fn(decay)(averages, values, count)
            return
        for average, value in zip(averages, values, strict=True):
            average.copy_(value)


SMALLEST_SCALE = 2.0**-14
"""The smallest scale of gradients; one that overflows float16 even then has diverged."""


class StepResult(NamedTuple):
    """The loss over the step's whole batch, the gradient norm, and train ids (N,h,w) of this process's share.

    `asked_to_stop` is how many processes had been when the step began.
    """

    loss: float
    gradient_norm: float
    prediction: Tensor
    asked_to_stop: float = 0.0


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
        self.scaler_before: dict[str, Any] = {}
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

    def __call__(
        self, image: Tensor, mask: Tensor, *, rate: float, step: int, asked_to_stop: bool = False
    ) -> StepResult:
        """Take a step on image float (N,3,h,w) and mask int64 (N,h,w), this process's share, with `rate` as factor.

        What several processes tell each other, their losses and who was asked to stop, goes in one message.
        Dropout depends on the number of the `step`, not on earlier steps. A step whose gradient is not finite leaves
        the weights as they are, and its result shows it.
        """
        torch.manual_seed(dropout_seed(self.seed, step, place().rank))
        self.scaler_before = self.scaler.state_dict()
        set_rates(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        images, masks = (value.chunk(self.accumulation) for value in move_batch(image, mask, self.device))
        shares, total = self._shares(masks), torch.zeros((), device=self.device)
        predictions = []
        for part, share in enumerate(shares):
            value, prediction = self._part(images[part], masks[part], share, last=part == len(shares) - 1)
            total += value
            predictions.append(prediction)
        self.scaler.unscale_(self.optimizer)
        norm = self._clip()
        told = sum_over_processes(torch.stack([total, torch.full_like(total, asked_to_stop)]))
        # One read for all: each read makes the host wait until a GPU has finished the step.
        own_loss, length, loss, asked = torch.stack([total, norm, *told]).tolist()
        if math.isfinite(length) and math.isfinite(own_loss):
            self.scaler.step(self.optimizer)
            if self.average:
                self.average.update_parameters(self.model)
        self.scaler.update()
        return StepResult(loss / place().ranks, length, torch.cat(predictions), asked)

    def overflowed(self, result: StepResult) -> bool:
        """Return whether the gradient has only overflowed float16, so that a smaller scale will avoid it."""
        finite_loss = torch.isfinite(torch.tensor(result.loss)).item()
        return self.scaler.is_enabled() and finite_loss and self.scaler.get_scale() > SMALLEST_SCALE

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
