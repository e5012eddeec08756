"""Event files for TensorBoard: `tensorboard --logdir saved` then lays the curves of all runs over each other."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cityscapes.errors import MachineError, reason


class EventFiles:
    """Writes each step's loss and each epoch's row to `folder` as scalars; a Progress itself.

    Everything stands above the number of steps since the run began. After `done` steps of an earlier process, what that
    one has written of later steps, which are now taken again, is no longer shown. Raises MachineError without the
    library. A disk that takes no more ends the curves, not the training.
    """

    def __init__(self, folder: Path, *, done: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MachineError("tensorboard=True needs TensorBoard: pip install 'dlv3p[tensorboard]'") from None
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
