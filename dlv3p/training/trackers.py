"""Log a run to an experiment tracker, Trackio or W&B, which share three functions: `init`, `log`, and `finish`."""

import math
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from cityscapes.errors import MachineError, missing_packages, reason
from dlv3p.runtime.callbacks import Callback

PROJECT = "dlv3p"
OPTIONS: Mapping[str, Mapping[str, Any]] = {"trackio": {"embed": False}, "wandb": {}}
"""The trackers, by the module that each is, with what its `init` takes beside the names."""


class Tracker(Callback):
    """Log each step's loss and each epoch's row, over the number of steps since the run began.

    A run that is resumed goes on under its name. Steps that the tracker holds are not logged again, since they are
    taken again with the same bits. A tracker that fails ends its own curves, not the training.
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
        run = tracker.init(**names, **OPTIONS[self._name])
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


def check_tracker(name: str) -> None:
    """Raise MachineError for a tracker that is not installed."""
    if name != "none" and missing_packages([name]):
        raise MachineError(f"tracker={name!r} needs {name}; install with: pip install {name}")
