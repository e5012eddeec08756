"""Find a learning rate by a range test (arXiv:1506.01186v6, section 3.3): the loss while the rate grows each step."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from cityscapes.errors import DivergedError
from dlv3p.data.loader import TrainingSamples, make_samples, training_loader
from dlv3p.data.roots import open_training
from dlv3p.parameters.training import TrainParameters
from dlv3p.runtime.devices import choose_device, explain_out_of_memory
from dlv3p.runtime.progress import track
from dlv3p.training.recording import memory_advice
from dlv3p.training.recovery import build_for_training, build_run_stepper

STEPS = 100
LOWEST = 1e-6
HIGHEST = {"adamw": 1.0, "sgd": 10.0}
SMOOTHING = 4.0
"""Standard deviation, in steps, of the Gaussian that smooths the losses. It is centered: an average of the past would
lag behind, and suggest a rate that is several times as high."""
BLOWN_UP = 4
"""The test ends where the smoothed loss is so many times the lowest one."""
FEWEST = 10
"""Losses below which there is nothing to suggest."""


@dataclass(frozen=True)
class RangeTest:
    """The losses of a range test, by learning rate."""

    rates: list[float]
    losses: list[float]

    @property
    def smoothed(self) -> list[float]:
        """The losses, smoothed."""
        return gaussian_filter1d(self.losses, SMOOTHING, mode="nearest").tolist()

    @property
    def suggestion(self) -> float | None:
        """The rate at which the smoothed loss falls most steeply on its way to its minimum; None if it never falls.

        The schedule begins there, or below; more is a gain only up to where the loss rises again.
        """
        lowest = int(np.argmin(self.smoothed))
        if lowest < 2:
            return None
        slopes = np.gradient(self.smoothed[: lowest + 1], np.log(self.rates[: lowest + 1]))
        return self.rates[int(slopes.argmin())]

    def describe(self, parameters: TrainParameters) -> str:
        """Return the suggestion in words, beside the rate of the parameters."""
        if self.suggestion is None:
            return f"The loss falls at no rate up to {self.rates[-1]:.2g}: nothing to suggest, learning_rate stays."
        return (
            f"The loss falls most steeply at a rate of {self.suggestion:.2g}; learning_rate is "
            f"{parameters.learning_rate:g}. It is lowest at {self.rates[int(np.argmin(self.smoothed))]:.2g}, "
            "which is too high to train with."
        )


def find_rate(parameters: TrainParameters, *, steps: int = STEPS) -> RangeTest:
    """Take steps from the initial weights while the rate grows from `LOWEST`, until the loss blows up.

    All else is as in the run, whose folder is not touched. Raises DivergedError when the loss is not finite within the
    first steps, at rates that are far below any useful one.
    """
    alone = replace(parameters, processes=1, average_decay=0.0)
    torch.set_num_threads(alone.threads)
    training, _ = open_training(alone)
    device = choose_device(alone.device)
    torch.manual_seed(alone.seed)
    with explain_out_of_memory(memory_advice(alone)):
        model = build_for_training(alone, training.class_names, device, None, training.pixel_rule).train()
        stepper = build_run_stepper(alone, model, training, device)
        found = RangeTest([], [])
        batches = track(_batches(alone, make_samples(alone, training), steps), total=steps, title="range test",
                        mode=alone.progress)  # fmt: skip
        for step, (image, mask) in enumerate(batches):
            rate = rate_at(step, steps, HIGHEST[alone.optimizer])
            result = stepper(image, mask, rate=rate / alone.learning_rate, step=step)
            loss = result.loss.item()
            if not math.isfinite(loss):
                break
            found.rates.append(rate)
            found.losses.append(loss)
            if step >= FEWEST and found.smoothed[-1] > BLOWN_UP * min(found.smoothed):
                break
    if len(found.losses) < FEWEST:
        raise DivergedError(
            f"range test: the loss is not finite after {len(found.losses)} steps, at a learning rate of {rate:.2g}; "
            "check the initial weights and the data"
        )
    return found


def rate_at(step: int, steps: int, highest: float) -> float:
    """Return the rate of a step, counted from 0: the logarithms of the rates are equally far apart."""
    return LOWEST * (highest / LOWEST) ** (step / (steps - 1))


def _batches(parameters: TrainParameters, samples: TrainingSamples, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield so many batches, over as many epochs as that takes."""
    p = parameters
    options = {"workers": p.workers, "timeout": p.loader_timeout, "skip_bad": p.on_bad_sample == "skip"}
    pinned = choose_device(p.device).type == "cuda"
    loader, left = training_loader(samples, batch_size=p.batch_size, pinned=pinned, **options), steps
    try:
        while left:
            loader.sampler.epoch += 1
            for batch in islice(loader, left):
                left -= 1
                yield batch
    finally:
        loader.close()
