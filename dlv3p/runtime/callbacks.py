"""Callbacks of a training: what is called when it starts, after each step and each epoch, and when it ends."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count

from cityscapes.errors import StoppedError, TerminatedError

RESUME = "Run this cell again to resume."
"""The end of what is told below a cell that was stopped; commands say in their one line what they are to be given."""


class Callback:
    """Follow a training, here without doing anything; subclasses override what they need.

    No method raises, waits, or draws from a random generator.
    """

    def on_start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        """Begin before `first_epoch`, which is above 1 when a run continues from a checkpoint."""

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        """Follow `step`, counted from 1 in each epoch."""

    def on_image(self, epoch: int, image: int, images: int) -> None:
        """Follow the validation at the end of an epoch, image by image."""

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Follow a whole epoch.

        `row` holds epoch, train_loss, val_loss, train_mIoU, val_mIoU, learning_rate, seconds, data_wait; all but epoch
        may be absent or NaN.
        """

    def on_finish(self, message: str = "") -> None:
        """End after the last epoch."""

    def on_failure(self, message: str = "") -> None:
        """End early, because of an error."""

    def on_stop(self, message: str = "") -> None:
        """End early, because somebody asked for it."""
        self.on_failure(message)


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

    def on_image(self, epoch: int, image: int, images: int) -> None:
        for callback in self.callbacks:
            callback.on_image(epoch, image, images)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        for callback in self.callbacks:
            callback.on_epoch(row)

    def on_finish(self, message: str = "") -> None:
        for callback in self.callbacks:
            callback.on_finish(message)

    def on_failure(self, message: str = "") -> None:
        for callback in self.callbacks:
            callback.on_failure(message)

    def on_stop(self, message: str = "") -> None:
        for callback in self.callbacks:
            callback.on_stop(message)


@contextmanager
def failure_reported(callback: Callback) -> Iterator[None]:
    """Call `on_failure` when an exception ends the block, or `on_stop` where somebody asked for that."""
    try:
        yield
    except BaseException as error:
        if is_wish(error):
            callback.on_stop(describe_stop(error))
        else:
            cause = "a signal" if isinstance(error, TerminatedError) else type(error).__name__
            callback.on_failure(f"stopped by {cause}; run again to continue")
        raise


def is_wish(error: BaseException) -> bool:
    """Return whether an error says that a person asked a job to stop, and that it did."""
    return isinstance(error, StoppedError) and not isinstance(error, TerminatedError)


def describe_stop(error: StoppedError) -> str:
    """Return in sentences what `run='a': stopped after step 5 of 120; run again to continue` says in a line."""
    done = str(error).rpartition(": ")[2].partition(";")[0]
    return f"{done[:1].upper()}{done[1:]}. {RESUME}"


def after_each_image(callback: Callback, epoch: int, images: int, first: Callable[[], None]) -> Callable[[], None]:
    """Return what a validation calls after each image: `first`, and then the callback's `on_image`."""
    numbers = count(1)

    def after_each() -> None:
        first()
        callback.on_image(epoch, next(numbers), images)

    return after_each
