"""Report the progress of long jobs as plain text lines: one per epoch or per tenth of the work, with the time left.

They serve where widgets would leave nothing to read: under papermill and nbval, in a terminal, in a log.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from dlv3p.runtime.callbacks import Callback

Item = TypeVar("Item")

_SECONDS_APART = 2.0  # lines that come faster say nothing, and hide those that do


class LineProgress(Callback):
    """Print a plain line per epoch, with what varies from run to run, such as times, at its end."""

    def __init__(self, *, spent: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._spent, self._clock = spent, clock

    def on_start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        self._total, self._before = total_epochs, 0 if self._spent else first_epoch - 1
        self._began = self._clock() - self._spent
        self._part: bool | None = None  # whether only the rest of the first epoch is seen, None before anything is

    def on_step(self, epoch: int, step: int, loss: float) -> None:
        self._part = step > 1 if self._part is None else self._part

    def on_image(self, epoch: int, image: int, images: int) -> None:
        self._part = True if self._part is None else self._part

    def on_epoch(self, row: Mapping[str, float]) -> None:
        number = int(row["epoch"])
        if self._part:  # of an epoch that was resumed within, the row alone knows how long it took
            self._before, self._began, self._part = number, self._clock(), False
        done = number - self._before
        pace = (self._clock() - self._began) / done if done > 0 else row.get("seconds") or 0.0
        left = pace * (self._total - number)
        known = pace > 0 and number < self._total
        width = len(str(self._total))
        parts = [f"epoch {number:>{width}}/{self._total}", *describe_epoch(row)]
        print("  ".join(parts) + (f"  (eta {format_duration(left)})" if known else ""), flush=True)

    def on_finish(self, message: str = "") -> None:
        if message:
            print(message, flush=True)

    def on_failure(self, message: str = "") -> None:
        self.on_finish(message)

    def on_stop(self, message: str = "") -> None:
        """Print nothing: what raised it is told once, by the command, by papermill, or below the cell."""


def describe_epoch(row: Mapping[str, float]) -> list[str]:
    """Format the known values of an epoch: losses and val mIoU, learning rate, seconds, and seconds without data."""
    words = {
        "train_loss": "loss {:.4f}",
        "val_loss": "val loss {:.4f}",
        "val_mIoU": "val mIoU {:.3f}",
        "learning_rate": "lr {:.2g}",
        "seconds": "{:.1f} s",
        "data_wait": "{:.1f} s waiting for data",
    }
    known = {key: row[key] for key in words if row.get(key) is not None and not math.isnan(row[key])}
    return [words[key].format(value) for key, value in known.items()]


def format_duration(seconds: float) -> str:
    """Format a duration for people: `40 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def describe_rate(done: int, seconds: float, unit: str) -> str:
    """Format how many items were done in a second, as in "3.2 images/s"; "" without a unit."""
    return f"{done / max(seconds, 1e-9):.3g} {unit}/s" if unit else ""


def track_with_lines(
    iterable: Iterable[Item],
    total: int | None,
    title: str,
    clock: Callable[[], float] = time.monotonic,
    *,
    unit: str = "",
) -> Iterator[Item]:
    """Yield the items, and print a line at about every tenth of `total`, a few seconds apart, and one at the end."""
    began, done, tenth = clock(), 0, 0
    told = began
    for done, item in enumerate(iterable, start=1):
        yield item
        if total and done < total and done * 10 // total > tenth and clock() - told >= _SECONDS_APART:
            tenth, told = done * 10 // total, clock()
            seconds = told - began
            eta = format_duration(seconds / done * (total - done))
            rate = f"  {describe_rate(done, seconds, unit)}" * bool(unit)
            print(f"{title}  {done:>{len(str(total))}}/{total}{rate}  (eta {eta})", flush=True)
    seconds = clock() - began
    rate = f"  {describe_rate(done, seconds, unit)}" * bool(unit)
    print(f"{title}  {done}/{total or done}{rate}  {seconds:.1f} s", flush=True)
