"""Choose the callbacks of a training run: progress, hints, TensorBoard, a tracker, and the early warning."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from cityscapes.dataset import Split
from cityscapes.errors import reason, require
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.bands import EarlyWarning, band_for
from dlv3p.runtime.callbacks import Callback, Callbacks
from dlv3p.runtime.processes import place
from dlv3p.runtime.progress import make_progress

FEW_STEPS, FEW_STEPS_PER_EPOCH = 50, 2
"""Below so many steps in all, and up to so many an epoch, a hint is due."""
LARGE_LOSS = 10
"""A validation loss so many times the training loss, or 1 if that is less, is explained."""
SMALL_DATA_REMEDIES = (
    "initial_weights='imagenet', with norm='frozen'; norm='group', which needs no averages; norm_momentum=0.3 and "
    "backbone_norm_momentum=0.3, for averages that adapt faster; more epochs"
)

PROJECT = "dlv3p"
"""The project of a tracker that runs are logged to."""
TRACKER_OPTIONS: Mapping[str, Mapping[str, Any]] = {"trackio": {"embed": False}, "wandb": {}}
"""The trackers, by the module that each is, with what its `init` takes beside the names."""


class TensorBoardLogger(Callback):
    """Write each step's loss and each epoch's row to `folder` as scalars, over the number of steps since the run began.

    When a run continues after `done` steps, later steps that its earlier process has logged are purged, since they are
    taken again. Raises MachineError without the library. A full disk ends the curves, not the training.
    """

    def __init__(self, folder: Path, *, done: int = 0) -> None:
        require("tensorboard=True", ("tensorboard",), "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._open, self._folder, self._done = SummaryWriter, folder, done
        self._writer: Any = None
        self._report = threading.excepthook

    def on_start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        self._steps = steps_per_epoch
        self._report, threading.excepthook = threading.excepthook, self._on_thread_error
        try:
            self._writer = self._open(str(self._folder), purge_step=self._done + 1 if self._done else None)
        except OSError as error:
            self._give_up(error)

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        self._write("loss/step", loss, (epoch - 1) * self._steps + step)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        at = int(row["epoch"]) * self._steps
        for name, value in row.items():
            split, _, metric = name.partition("_")
            if name != "epoch" and value is not None and math.isfinite(value):
                self._write(f"{metric}/{split}" if split in ("train", "val") else name, value, at)
        self._call("flush")

    def on_finish(self, message: str = "") -> None:
        self._call("close")
        self._end()

    def on_failure(self, message: str = "") -> None:
        self.on_finish()

    def _write(self, tag: str, value: float, at: int) -> None:
        self._call("add_scalar", tag, value, at)

    def _call(self, method: str, *arguments: Any) -> None:
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*arguments)
        except OSError as error:
            self._give_up(error)

    def _end(self) -> None:
        self._writer = None
        if threading.excepthook == self._on_thread_error:
            threading.excepthook = self._report

    def _on_thread_error(self, error: Any) -> None:
        """Leave what the library's writing thread could not write to the next call, which raises it again."""
        if not (isinstance(error.exc_value, OSError) and "tensorboard" in type(error.thread).__module__):
            self._report(error)

    def _give_up(self, error: OSError) -> None:
        self._end()
        print(f"warning: {self._folder}: cannot write events, so the curves end here: {reason(error)}", flush=True)


class Tracker(Callback):
    """Log each step's loss and each epoch's row to Trackio or W&B, over the number of steps since the run began.

    The two share three functions: `init`, `log`, and `finish`. A run that is resumed goes on under its name. Steps that
    the tracker holds are not logged again, since they are taken again with the same bits. A tracker that fails ends its
    own curves, not the training.
    """

    def __init__(self, name: str, run: str, config: Mapping[str, Any]) -> None:
        self._name, self._run, self._config = name, run, dict(config)
        self._tracker: Any = None
        self._logged = self._next = 0

    def on_start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        self._steps = steps_per_epoch
        self._attempt(self._begin)

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        at = (epoch - 1) * self._steps + step
        if at > self._logged:
            self._log({"loss/step": loss}, at)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        at = int(row["epoch"]) * self._steps
        if at >= self._logged:
            values = {name: value for name, value in row.items() if value is not None and math.isfinite(value)}
            self._log(values, max(at, self._next))  # W&B takes no step that it has left behind

    def on_finish(self, message: str = "") -> None:
        if self._tracker is not None:
            self._attempt(self._tracker.finish)
        self._tracker = None

    def on_failure(self, message: str = "") -> None:
        self.on_finish()

    def _begin(self) -> None:
        names = {"project": PROJECT, "name": self._run, "config": self._config, "resume": "allow"}
        if self._name == "wandb":
            names["id"] = self._run  # W&B resumes by id, Trackio by name
        tracker = import_module(self._name)
        run = tracker.init(**names, **TRACKER_OPTIONS[self._name])
        self._next = run.step if self._name == "wandb" else run._next_step  # Trackio has no public name for it
        self._logged = max(0, self._next - 1)
        self._tracker = tracker

    def _log(self, values: Mapping[str, float], at: int) -> None:
        if self._tracker is not None:
            self._attempt(lambda: self._tracker.log(dict(values), step=at))

    def _attempt(self, call: Callable[[], Any]) -> None:
        """Call the tracker, which may raise anything, such as the errors of a network."""
        try:
            call()
        except Exception as error:
            self._tracker = None
            print(f"warning: tracker={self._name!r} failed, so its curves end here: {reason(error)}", flush=True)


class Hints(Callback):
    """Say before training that the data give few steps, and once that the validation loss is out of proportion."""

    def __init__(self, *, steps: int = 0, warmup_steps: int = 0) -> None:
        self._steps, self._warmup, self._explained = steps, warmup_steps, False

    def on_start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        steps = self._steps or total_epochs * steps_per_epoch
        if first_epoch == 1 and 2 * self._warmup > steps:
            print(
                f"note: warmup_steps={self._warmup} of {steps} steps in all: the learning rate nears its peak late "
                f"or never. What helps: warmup_steps={steps // 10}, or more epochs",
                flush=True,
            )
        if first_epoch == 1 and (steps < FEW_STEPS or steps_per_epoch <= FEW_STEPS_PER_EPOCH):
            print(
                f"note: {steps} steps in all, {steps_per_epoch} per epoch, are few to train a network and to settle "
                f"batch norm's running averages. What helps: {SMALL_DATA_REMEDIES}",
                flush=True,
            )

    def on_epoch(self, row: Mapping[str, float]) -> None:
        train, val = row.get("train_loss", math.nan), row.get("val_loss", math.nan)
        if self._explained or not val > LARGE_LOSS * max(1.0, train):
            return
        self._explained = True
        print(
            f"note: the validation loss is {val:.3g} beside a training loss of {train:.3g}. Validation uses batch "
            "norm's running averages, which do not describe the data yet after few steps or with small batches. This "
            f"usually settles within a few hundred steps. What helps sooner: {SMALL_DATA_REMEDIES}",
            flush=True,
        )


def check_extras(parameters: TrainParameters) -> None:
    """Raise MachineError for a package that the callbacks need and that is missing, before anything is prepared."""
    if parameters.tensorboard:
        require("tensorboard=True", ("tensorboard",), "tensorboard")
    if (name := parameters.tracker) != "none":
        require(f"tracker={name!r}", (name,), name)


def make_callbacks(
    parameters: TrainParameters,
    folder: Path,
    training: Split,
    *,
    pixels: np.ndarray,
    done: int,
    history: Sequence[Mapping[str, float]],
    stop: Callable[[], None],
) -> Callback:
    """Return the callbacks that `parameters` ask for; only the first process has any.

    `pixels` counts those of each id in the training masks, int64 (256,); `done` counts the steps of earlier processes,
    whose epochs are in `history`; `stop` is what a stop button calls. Raises what is wrong with `band` or
    `tensorboard` before a step is taken.
    """
    if not place().first:
        return Callback()
    callbacks: list[Callback] = [make_progress(parameters.progress, stop=stop, history=history)]
    if parameters.progress != "none":
        callbacks.append(Hints(steps=parameters.steps, warmup_steps=parameters.warmup_steps))
    if parameters.tensorboard:
        callbacks.append(TensorBoardLogger(folder / "events", done=done))
    if parameters.tracker != "none":
        callbacks.append(Tracker(parameters.tracker, folder.name, parameters.as_dict()))
    if band := band_for(parameters, training):
        callbacks.append(EarlyWarning(band, parameters, training.class_names, pixels))
    return Callbacks(callbacks)
