"""Track the progress of a run: its finished epochs, the best of them, and the sums of the current one."""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlv3p.evaluation.metrics import scores


@dataclass
class EpochSums:
    """The sums over the steps of the current epoch so far."""

    confusion: Tensor
    steps: int = 0
    loss: float = 0.0
    rate: float = 0.0
    seconds: float = 0.0
    data_wait: float = 0.0


@dataclass(frozen=True)
class TrainingResult:
    """The result of a finished run; `history` has a dict per epoch with the columns of metrics.csv."""

    run: str
    folder: Path
    history: list[dict[str, float]]
    best_epoch: int
    best_mean_iou: float
    caution: str = ""
    """What to say with the score where one class alone occurs in the validation split; else ""."""

    @property
    def summary(self) -> str:
        """The best score and its epoch in words."""
        return f"best val mIoU {self.best_mean_iou:.4f}{self.caution} at epoch {self.best_epoch}"


class TrainingProgress:
    """The finished steps and epochs of a run of `steps` in total; `history` has a dict per finished epoch."""

    def __init__(self, num_classes: int, device: torch.device, *, steps: int, steps_per_epoch: int) -> None:
        self.steps, self.steps_per_epoch = steps, steps_per_epoch
        self.epochs = math.ceil(steps / steps_per_epoch)
        self.history: list[dict[str, float]] = []
        self.best_epoch, self.best_mean_iou = 0, -1.0
        self.caution = ""
        self._no_confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.sums = EpochSums(self._no_confusion.clone())

    @property
    def done(self) -> int:
        """The number of finished steps."""
        return min(len(self.history) * self.steps_per_epoch + self.sums.steps, self.steps)

    @property
    def epoch(self) -> int:
        """The number of the current epoch, counted from 1."""
        return len(self.history) + 1

    @property
    def finished(self) -> bool:
        """Whether all epochs are finished."""
        return len(self.history) >= self.epochs

    def begin_epoch(self) -> None:
        """Start the clock of an epoch, or resume that of an interrupted one."""
        self._seconds, self._data_wait, self._began = self.sums.seconds, self.sums.data_wait, time.monotonic()

    def add_step(self, loss: float, confusion: Tensor, *, rate: float, data_wait: float) -> None:
        """Add a step; `data_wait` is the time spent waiting for data since `begin_epoch`, in seconds."""
        self.sums.confusion += confusion
        self.sums.loss += loss
        self.sums.rate = rate
        self.sums.steps += 1
        self.sums.seconds = self._seconds + time.monotonic() - self._began
        self.sums.data_wait = self._data_wait + data_wait

    def close_epoch(self, validation: Mapping[str, float] | None, *, learning_rate: float) -> bool:
        """Add the epoch to `history`; return whether it is the best so far. `validation` is None if it was skipped."""
        sums = self.sums
        train = {"loss": sums.loss / sums.steps, **scores(sums.confusion.cpu()).means()}
        row = {"epoch": self.epoch, "learning_rate": learning_rate * sums.rate}
        row["seconds"] = round(self._seconds + time.monotonic() - self._began, 3)
        row["data_wait"] = round(sums.data_wait, 3)
        row |= {f"train_{name}": value for name, value in train.items()}
        row |= {f"val_{name}": value for name, value in (validation or dict.fromkeys(train, math.nan)).items()}
        self.history.append(row)
        self.sums = EpochSums(self._no_confusion.clone())
        # The mean IoU is NaN where nothing is labeled; such an epoch counts, or no epoch would be the best.
        improved = validation is not None and not row["val_mIoU"] <= self.best_mean_iou
        if improved:
            self.best_epoch, self.best_mean_iou = row["epoch"], row["val_mIoU"]
        return improved

    def result(self, folder: Path) -> TrainingResult:
        """Return the result of a finished run."""
        return TrainingResult(folder.name, folder, self.history, self.best_epoch, self.best_mean_iou, self.caution)

    def state_dict(self) -> dict[str, Any]:
        """Return the entries of a checkpoint."""
        best = {"best_epoch": self.best_epoch, "best_mean_iou": self.best_mean_iou}
        return {"sums": asdict(self.sums), "history": self.history, **best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a checkpoint; earlier versions saved only between epochs, without sums."""
        self.history = state["history"]
        self.best_epoch, self.best_mean_iou = state["best_epoch"], state["best_mean_iou"]
        if "sums" in state:
            self.sums = EpochSums(**state["sums"])
            self.sums.confusion = self.sums.confusion.to(self._no_confusion.device)
