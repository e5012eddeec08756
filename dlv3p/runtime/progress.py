"""What a long job reports to while it runs: widgets in front of a person, plain lines everywhere else.

A bar and growing curves in JupyterLab and VS Code; a line an epoch under papermill, nbval and in a terminal, where
widgets would leave nothing to read; or nothing.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from cityscapes.errors import ParameterError
from dlv3p.parameters.training import PROGRESS

Item = TypeVar("Item")


class Progress(Protocol):
    """What the training loop calls; nothing here raises, waits or draws from a random generator."""

    def start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        """Begin before `first_epoch`, which is not 1 when a run goes on from a checkpoint."""

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Report that `step`, counted from 1, of `epoch` is done."""

    def epoch(self, row: Mapping[str, float]) -> None:
        """Report a whole epoch.

        `row` holds epoch, train_loss, val_loss, train_mIoU, val_mIoU, learning_rate, seconds, data_wait; all but epoch
        may be absent or NaN.
        """

    def finish(self, message: str = "") -> None:
        """End well."""

    def failed(self, message: str = "") -> None:
        """End early, for example after an interrupt."""


def make_progress(mode: str = "auto", *, stop: Callable[[], None] | None = None) -> Progress:
    """Make what to report to: `widgets`, `lines`, `none`, or `auto`, widgets exactly where a person can see them.

    Widgets have a button that calls `stop`.
    """
    mode = resolve_mode(mode)
    if mode == "widgets":
        from dlv3p.runtime.widgets import WidgetProgress

        return WidgetProgress(stop=stop)
    return LineProgress() if mode == "lines" else SilentProgress()


def resolve_mode(mode: str) -> str:
    """Turn `auto` into `widgets` or `lines`, and `widgets` into `lines` where no kernel would show them.

    Raises ParameterError for a mode that does not exist.
    """
    if mode not in PROGRESS:
        raise ParameterError(f"progress: {mode!r} is not a mode; choose from {', '.join(PROGRESS)}")
    if mode == "widgets":
        return "widgets" if in_kernel() else "lines"
    if mode != "auto":
        return mode
    return "widgets" if in_interactive_notebook() else "lines"


def in_kernel() -> bool:
    """Tell whether this is a notebook's kernel; elsewhere a widget is just its name in words."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def in_interactive_notebook() -> bool:
    """Tell whether this kernel belongs to a front end with a person in front of it, such as JupyterLab or VS Code.

    jupyter_server names the notebook in the environment of each kernel that it starts for one
    (`SessionManager.get_kernel_env`), VS Code in the kernel's variables; papermill and nbval do neither. A papermill
    that was started from within a notebook inherits the name, and so has it itself: then no person is in front.
    """
    if not in_kernel():
        return False
    shell = sys.modules["IPython"].get_ipython()
    if "__vsc_ipynb_file__" in shell.user_ns:
        return True
    name = os.environ.get("JPY_SESSION_NAME")
    return bool(name) and name != _environment_of(os.getppid()).get("JPY_SESSION_NAME")


class SilentProgress:
    """Reports nothing."""

    def start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None: ...

    def step(self, epoch: int, step: int, loss: float) -> None: ...

    def epoch(self, row: Mapping[str, float]) -> None: ...

    def finish(self, message: str = "") -> None: ...

    def failed(self, message: str = "") -> None: ...


class LineProgress:
    """Prints a plain line an epoch, what varies from run to run at its end."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock

    def start(self, total_epochs: int, steps_per_epoch: int, first_epoch: int = 1) -> None:
        self._total, self._first, self._began = total_epochs, first_epoch, self._clock()

    def step(self, epoch: int, step: int, loss: float) -> None:
        pass

    def epoch(self, row: Mapping[str, float]) -> None:
        number = int(row["epoch"])
        done = number - self._first + 1
        left = (self._clock() - self._began) / max(1, done) * (self._total - number)
        width = len(str(self._total))
        parts = [f"epoch {number:>{width}}/{self._total}", *describe_epoch(row)]
        print("  ".join(parts) + (f"  (eta {format_duration(left)})" if number < self._total else ""), flush=True)

    def finish(self, message: str = "") -> None:
        if message:
            print(message, flush=True)

    def failed(self, message: str = "") -> None:
        self.finish(message)


def describe_epoch(row: Mapping[str, float]) -> list[str]:
    """Put what is known of an epoch into words: losses and val mIoU, learning rate, seconds, and those without data."""
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
    """Say a time to come in the unit that a person would use: `40 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def track(iterable: Iterable[Item], *, total: int | None = None, title: str = "", mode: str = "auto") -> Iterator[Item]:
    """Pass the items of `iterable` on and show how far it is: a bar, or a line at about every tenth and at the end.

    `total` is taken from `len(iterable)` when it has one; without any, only the end is reported.
    """
    if total is None:
        with suppress(TypeError):
            total = len(iterable)  # type: ignore[arg-type]
    mode = resolve_mode(mode)
    if mode == "none":
        return iter(iterable)
    if mode == "widgets":
        from dlv3p.runtime.widgets import track_with_bar

        return track_with_bar(iterable, total, title)
    return _track_with_lines(iterable, total, title)


def _track_with_lines(
    iterable: Iterable[Item], total: int | None, title: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[Item]:
    began, done, tenth = clock(), 0, 0
    for done, item in enumerate(iterable, start=1):
        yield item
        if total and done < total and done * 10 // total > tenth:
            tenth = done * 10 // total
            eta = (clock() - began) / done * (total - done)
            print(f"{title}  {done:>{len(str(total))}}/{total}  (eta {format_duration(eta)})", flush=True)
    print(f"{title}  {done}/{total or done}  {clock() - began:.1f} s", flush=True)


def _environment_of(process: int) -> dict[str, str]:
    # Outside Linux there is no such file, and the answer is empty: then an inherited name counts as our own.
    with suppress(OSError):
        lines = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
        return dict(line.split("=", 1) for line in lines if "=" in line)
    return {}
