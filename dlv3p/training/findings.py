"""Read from the device what the steps of a run have found, once for several steps, and agree on whether to stop.

Each read makes the host wait until a GPU has finished all steps so far, and leaves the GPU without work meanwhile.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from dlv3p.runtime.processes import place, sum_over_processes
from dlv3p.training.step import StepResult

STEPS_PER_READ = 10
"""After how many steps of a run on a GPU the host reads what they found; on a CPU, where a read is free, after each."""


class FoundStep(NamedTuple):
    """What the host has read of a step, whose number counts from 0 over the run; `rate` is its factor of the rates.

    `scale` is that of the gradients when the step began, and `diverged` says whether this or an earlier step has.
    """

    step: int
    rate: float
    loss: float
    gradient_norm: float
    scale: float
    diverged: bool


class Findings(NamedTuple):
    """What several steps have found, over all processes: each step, all pixels, and how many were asked to stop."""

    steps: list[FoundStep]
    confusion: Tensor
    asked_to_stop: float


class UnreadFindings:
    """What steps have found since the last read, on the device of the run."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.every = 1 if device.type == "cpu" else STEPS_PER_READ
        self._steps: list[tuple[int, float]] = []
        self._numbers: list[Tensor] = []
        self._confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def add(self, result: StepResult, confusion: Tensor, *, step: int, rate: float) -> None:
        """Add a step of this process: its result, and the confusion matrix of its share of the crops."""
        self._steps.append((step, rate))
        self._numbers.append(torch.stack([result.loss, result.gradient_norm, result.scale, result.diverged]))
        self._confusion += confusion

    def due(self, steps: int, *, last: bool, asked_to_stop: bool) -> bool:
        """Return whether to read after so many steps of the run: the same for all processes, with nothing said.

        `last` is whether the epoch, or the run, has no more steps. A process that is alone need not wait to stop.
        """
        return last or steps % self.every == 0 or (asked_to_stop and place().ranks == 1)

    def read(self, *, asked_to_stop: bool) -> Findings:
        """Read all that was added, and begin anew; what several processes tell each other goes in one message."""
        asked = self._confusion.new_full((1,), asked_to_stop)
        told = sum_over_processes(torch.cat([self._confusion.flatten(), asked]))
        # One read for all.
        *numbers, processes = torch.cat([*self._numbers, told[-1:].double()]).tolist()
        rows = (numbers[first : first + 4] for first in range(0, len(numbers), 4))
        steps = [
            FoundStep(step, rate, loss, norm, scale, bool(diverged))
            for (step, rate), (loss, norm, scale, diverged) in zip(self._steps, rows, strict=True)
        ]
        found = Findings(steps, told[:-1].view_as(self._confusion), processes)
        self._steps, self._numbers = [], []
        self._confusion.zero_()
        return found
