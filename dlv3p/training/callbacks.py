"""Callbacks of a training run: progress, event files for TensorBoard, and the early warning."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cityscapes.dataset import Split
from cityscapes.errors import reason
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.bands import BandWatch, band_for
from dlv3p.runtime.extras import require
from dlv3p.runtime.processes import place
from dlv3p.runtime.progress import Progress, SilentProgress, make_progress


class EventFiles:
    """Writes each step's loss and each epoch's row to `folder` as scalars; a Progress itself.

    Everything stands above the number of steps since the run began. After `done` steps of an earlier process, what that
    one has written of later steps, which are now taken again, is no longer shown. Raises MachineError without the
    library. A disk that takes no more ends the curves, not the training.
    """

    def __init__(self, folder: Path, *, done: int = 0) -> None:
        require("tensorboard=True", ("tensorboard",), "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._open, self._folder, self._done = SummaryWriter, folder, done
        self._writer: Any = None

    def start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        self._steps = steps_per_epoch
        try:
            self._writer = self._open(str(self._folder), purge_step=self._done + 1 if self._done else None)
        except OSError as error:
            self._give_up(error)

    def step(self, epoch: int, step: int, loss: float) -> None:
        self._write("loss/step", loss, (epoch - 1) * self._steps + step)

    def epoch(self, row: Mapping[str, float]) -> None:
        at = int(row["epoch"]) * self._steps
        for name, value in row.items():
            split, _, metric = name.partition("_")
            if name != "epoch" and value is not None and math.isfinite(value):
                self._write(f"{metric}/{split}" if split in ("train", "val") else name, value, at)
        self._call("flush")

    def finish(self, message: str = "") -> None:
        self._call("close")
        self._writer = None

    def failed(self, message: str = "") -> None:
        self.finish()

    def _write(self, tag: str, value: float, at: int) -> None:
        self._call("add_scalar", tag, value, at)

    def _call(self, method: str, *arguments: Any) -> None:
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*arguments)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        print(f"warning: {self._folder}: no more events are written: {reason(error)}", flush=True)


class Watchers:
    """Passes everything on to several followers; a Progress itself."""

    def __init__(self, watchers: Sequence[Progress]) -> None:
        self.watchers = watchers

    def start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        for watcher in self.watchers:
            watcher.start(total_epochs, steps_per_epoch, first_epoch)

    def step(self, epoch: int, step: int, loss: float) -> None:
        for watcher in self.watchers:
            watcher.step(epoch, step, loss)

    def epoch(self, row: Mapping[str, float]) -> None:
        for watcher in self.watchers:
            watcher.epoch(row)

    def finish(self, message: str = "") -> None:
        for watcher in self.watchers:
            watcher.finish(message)

    def failed(self, message: str = "") -> None:
        for watcher in self.watchers:
            watcher.failed(message)


@contextmanager
def reporting_failure(watchers: Progress) -> Iterator[None]:
    """Let the followers of a run know what has ended it early."""
    try:
        yield
    except BaseException as error:
        watchers.failed(f"stopped by {type(error).__name__}; run again to go on")
        raise


def make_watchers(
    parameters: TrainParameters, folder: Path, training: Split, *, done: int, stop: Callable[[], None]
) -> Progress:
    """Return the followers that `parameters` ask for, in the first process.

    `done` steps lie behind the run, and `stop` is what a stop button calls. Raises what is wrong with `band` or
    `tensorboard` before a step is taken.
    """
    if not place().first:
        return SilentProgress()
    watchers: list[Progress] = [make_progress(parameters.progress, stop=stop)]
    if parameters.tensorboard:
        watchers.append(EventFiles(folder / "events", done=done))
    if band := band_for(parameters, training):
        watchers.append(BandWatch(band, parameters, training))
    return Watchers(watchers)
