"""Count how far a run has come: its whole epochs, the best of them, and the sums of the one that has begun."""

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
    """What an epoch adds up while it lasts: of its steps so far, or of all when it is about to be scored."""

    confusion: Tensor
    steps: int = 0
    loss: float = 0.0
    rate: float = 0.0
    seconds: float = 0.0
    data_wait: float = 0.0


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run has to show; `history` has a dict per epoch with the columns of metrics.csv."""

    run: str
    folder: Path
    history: list[dict[str, float]]
    best_epoch: int
    best_mean_iou: float


class TrainingProgress:
    """The steps and epochs behind a run of `steps` in all; `history` has a dict per whole epoch."""

    def __init__(self, num_classes: int, device: torch.device, *, steps: int, steps_per_epoch: int) -> None:
        self.steps, self.steps_per_epoch = steps, steps_per_epoch
        self.epochs = math.ceil(steps / steps_per_epoch)
        self.history: list[dict[str, float]] = []
        self.best_epoch, self.best_mean_iou = 0, -1.0
        self._no_confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.sums = EpochSums(self._no_confusion.clone())

    @property
    def done(self) -> int:
        """How many steps are behind the run."""
        return min(len(self.history) * self.steps_per_epoch + self.sums.steps, self.steps)

    @property
    def epoch(self) -> int:
        """The number of the epoch at hand, counted from 1."""
        return len(self.history) + 1

    @property
    def finished(self) -> bool:
        """Whether all epochs are whole."""
        return len(self.history) >= self.epochs

    def begin_epoch(self) -> None:
        """Start the clock of an epoch, or go on with one that was stopped."""
        self._seconds, self._data_wait, self._began = self.sums.seconds, self.sums.data_wait, time.monotonic()

    def add_step(self, loss: float, confusion: Tensor, *, rate: float, data_wait: float) -> None:
        """Take a step in, after a wait for data of so many seconds since the epoch began here."""
        self.sums.confusion += confusion
        self.sums.loss += loss
        self.sums.rate = rate
        self.sums.steps += 1
        self.sums.seconds = self._seconds + time.monotonic() - self._began
        self.sums.data_wait = self._data_wait + data_wait

    def close_epoch(self, validation: Mapping[str, float] | None, *, learning_rate: float) -> bool:
        """Add the epoch to `history`, None being one that was not validated; return whether it is the best so far."""
        sums = self.sums
        train = {"loss": sums.loss / sums.steps, **scores(sums.confusion.cpu()).means()}
        row = {"epoch": self.epoch, "learning_rate": learning_rate * sums.rate}
        row["seconds"] = round(self._seconds + time.monotonic() - self._began, 3)
        row["data_wait"] = round(sums.data_wait, 3)
        row |= {f"train_{name}": value for name, value in train.items()}
        row |= {f"val_{name}": value for name, value in (validation or dict.fromkeys(train, math.nan)).items()}
        self.history.append(row)
        self.sums = EpochSums(self._no_confusion.clone())
        # The mean IoU is nan where nothing is labeled, and counts then, since nothing else can.
        improved = validation is not None and not row["val_mIoU"] <= self.best_mean_iou
        if improved:
            self.best_epoch, self.best_mean_iou = row["epoch"], row["val_mIoU"]
        return improved

    def result(self, folder: Path) -> TrainingResult:
        """Return what a finished run has to show."""
        return TrainingResult(folder.name, folder, self.history, self.best_epoch, self.best_mean_iou)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        best = {"best_epoch": self.best_epoch, "best_mean_iou": self.best_mean_iou}
        return {"sums": asdict(self.sums), "history": self.history, **best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; those of earlier versions were written between epochs only, and have no sums."""
        self.history = state["history"]
        self.best_epoch, self.best_mean_iou = state["best_epoch"], state["best_mean_iou"]
        if "sums" in state:
            self.sums = EpochSums(**state["sums"])
            self.sums.confusion = self.sums.confusion.to(self._no_confusion.device)
