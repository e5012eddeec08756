"""Track the progress of a run: its finished epochs, the best of them, and the sums of the current one."""

import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cityscapes.workspace import NOTEBOOKS
from dlv3p.evaluation.metrics import scores
from dlv3p.profiling.energy import EnergyMeter
from dlv3p.runs.record import patience_is_over


@dataclass
class EpochSums:
    """The sums over the steps of the current epoch so far."""

    confusion: Tensor
    steps: int = 0
    loss: float = 0.0
    rate: float = 0.0
    seconds: float = 0.0
    data_wait: float = 0.0
    joules: float = math.nan


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
    ended: str = ""
    """What to say where the run's patience ended it before its last epoch; else ""."""

    @property
    def summary(self) -> str:
        """The best score and its epoch in words."""
        return f"best val mIoU {self.best_mean_iou:.4f}{self.caution} at epoch {self.best_epoch}{self.ended}"

    def learned(self, num_classes: int) -> bool:
        """Return whether the score is clearly better than that of any constant prediction (at most 1 / C)."""
        return self.best_mean_iou > min(2 / num_classes, (1 + 1 / num_classes) / 2)

    def advice(self, num_classes: int) -> str:
        """Return what to do where nothing was learned; "" where something was."""
        if self.learned(num_classes):
            return ""
        loss = self.history[-1]["train_loss"]
        return (
            f"What to do: look at the crops above (do the masks fit the images?) and at the training loss, which ended "
            f"at {loss:.3g}. If it still falls, train longer (epochs). If it never fell, take another learning_rate, "
            "ten times lower first, or initial_weights='imagenet'. If it is low and the score is not, the network "
            "overfits, or batch norm has seen too few steps: more images, or norm='frozen' with ImageNet weights."
        )

    @property
    def next_steps(self) -> str:
        """The commands that usually come next, filled in to be typed in this folder, each below what it is for."""
        notebooks = {
            f"evaluate.ipynb -p run {self.run}": "scores by class, and where it fails",
            f"visualize_training.ipynb -p runs {self.run}": "the curves, also of several runs",
            f"render_gif.ipynb -p run {self.run}": "predictions in motion",
            f"profile.ipynb -p run {self.run}": "time and memory on this machine",
        }
        folder = os.path.relpath(NOTEBOOKS) if NOTEBOOKS.is_dir() else ""
        paths = {os.path.join("" if folder == "." else folder, words): purpose for words, purpose in notebooks.items()}
        return "\n".join(f"# {purpose}\npapermill {words}" for words, purpose in paths.items())


class TrainingProgress:
    """The finished steps and epochs of a run of `steps` in total; `history` has a dict per finished epoch."""

    def __init__(
        self,
        num_classes: int,
        device: torch.device,
        *,
        steps: int,
        steps_per_epoch: int,
        patience: int = 0,
        meter: EnergyMeter | None = None,
    ) -> None:
        self.meter = meter or EnergyMeter([])
        self.patience = patience
        self.steps, self.steps_per_epoch = steps, steps_per_epoch
        self.epochs = math.ceil(steps / steps_per_epoch)
        self.history: list[dict[str, float]] = []
        self.best_epoch, self.best_mean_iou = 0, -1.0
        self.caution = ""
        self._no_confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.sums = self._no_sums()

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
        """Whether all epochs are finished, or no better score has come for as long as `patience` allows."""
        return len(self.history) >= self.epochs or patience_is_over(self.history, self.best_epoch, self.patience)

    def begin_epoch(self) -> None:
        """Start the clock and the energy of an epoch, or resume those of an interrupted one."""
        self._joules = self.sums.joules - self.meter.joules()
        self._seconds, self._data_wait, self._began = self.sums.seconds, self.sums.data_wait, time.monotonic()

    @property
    def epoch_is_over(self) -> bool:
        """Whether the current epoch, or the run, has no more steps."""
        return self.sums.steps == self.steps_per_epoch or self.done == self.steps

    def add_step(self, *, rate: float, data_wait: float) -> None:
        """Add a step; `data_wait` is the time spent waiting for data since `begin_epoch`, in seconds."""
        self.sums.rate = rate
        self.sums.steps += 1
        self.sums.seconds = self._seconds + time.monotonic() - self._began
        self.sums.data_wait = self._data_wait + data_wait
        self.read_meter()

    def add_findings(self, losses: Iterable[float], confusion: Tensor) -> None:
        """Add what steps that were added before have found: the loss of each, and the pixels of all."""
        self.sums.confusion += confusion
        for loss in losses:
            self.sums.loss += loss

    def read_meter(self) -> None:
        """Note the energy of the epoch so far, nan where it is not known."""
        self.sums.joules = self._joules + self.meter.joules()

    def close_epoch(self, validation: Mapping[str, float] | None, *, learning_rate: float) -> bool:
        """Add the epoch to `history`; return whether it is the best so far. `validation` is None if it was skipped."""
        sums = self.sums
        train = {"loss": sums.loss / sums.steps, **scores(sums.confusion.cpu()).means()}
        row = {"epoch": self.epoch, "learning_rate": learning_rate * sums.rate}
        row["seconds"] = round(self._seconds + time.monotonic() - self._began, 3)
        row["data_wait"] = round(sums.data_wait, 3)
        self.read_meter()
        row |= {} if math.isnan(sums.joules) else {"joules": round(sums.joules, 3)}
        row |= {f"train_{name}": value for name, value in train.items()}
        row |= {f"val_{name}": value for name, value in (validation or dict.fromkeys(train, math.nan)).items()}
        self.history.append(row)
        self.sums = self._no_sums()
        # The mean IoU is NaN where nothing is labeled; such an epoch counts, or no epoch would be the best.
        improved = validation is not None and not row["val_mIoU"] <= self.best_mean_iou
        if improved:
            self.best_epoch, self.best_mean_iou = row["epoch"], row["val_mIoU"]
        return improved

    def result(self, folder: Path) -> TrainingResult:
        """Return the result of a finished run."""
        early = self.finished and len(self.history) < self.epochs
        ended = f"; ended after epoch {len(self.history)} of {self.epochs}, patience={self.patience}" if early else ""
        score = (self.best_epoch, self.best_mean_iou)
        return TrainingResult(folder.name, folder, self.history, *score, self.caution, ended)

    def state_dict(self) -> dict[str, Any]:
        """Return the entries of a checkpoint."""
        best = {"best_epoch": self.best_epoch, "best_mean_iou": self.best_mean_iou}
        return {"sums": asdict(self.sums), "history": self.history, **best}

    def _no_sums(self) -> EpochSums:
        return EpochSums(self._no_confusion.clone(), joules=0.0)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a checkpoint; earlier versions saved only between epochs, without sums."""
        self.history = state["history"]
        self.best_epoch, self.best_mean_iou = state["best_epoch"], state["best_mean_iou"]
        if "sums" in state:
            self.sums = EpochSums(**state["sums"])
            self.sums.confusion = self.sums.confusion.to(self._no_confusion.device)
