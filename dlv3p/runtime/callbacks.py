"""Callbacks of a training: what is called when it starts, after each step and each epoch, and when it ends."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


class Callback:
    """Follow a training, here without doing anything; subclasses override what they need.

    No method raises, waits, or draws from a random generator.
    """

    def on_start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        """Begin before `first_epoch`, which is above 1 when a run continues from a checkpoint."""

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """Follow `step`, counted from 1 in each epoch."""

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Follow a whole epoch.

        `row` holds epoch, train_loss, val_loss, train_mIoU, val_mIoU, learning_rate, seconds, data_wait; all but epoch
        may be absent or NaN.
        """

    def on_finish(self, message: str = "") -> None:
        """End after the last epoch."""

    def on_failure(self, message: str = "") -> None:
        """End early, for example after an interrupt."""


class Callbacks(Callback):
    """Call several callbacks, one after another."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = callbacks

    def on_start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        for callback in self.callbacks:
            callback.on_start(total_epochs, steps_per_epoch, first_epoch)

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        for callback in self.callbacks:
            callback.on_step(epoch, step, loss)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        for callback in self.callbacks:
            callback.on_epoch(row)

    def on_finish(self, message: str = "") -> None:
        for callback in self.callbacks:
            callback.on_finish(message)

    def on_failure(self, message: str = "") -> None:
        for callback in self.callbacks:
            callback.on_failure(message)


@contextmanager
def failure_reported(callback: Callback) -> Iterator[None]:
    """Call `on_failure` when an exception ends the block."""
    try:
        yield
    except BaseException as error:
        callback.on_failure(f"stopped by {type(error).__name__}; run again to continue")
        raise
