"""Report the progress of long jobs: by widgets in front of a person, by plain lines everywhere else.

A bar and growing curves in JupyterLab and VS Code; a line an epoch under papermill, nbval and in a terminal, where
widgets would leave nothing to read; or nothing.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from cityscapes.errors import ParameterError
from dlv3p.parameters.choices import PROGRESS
from dlv3p.runtime.lines import Item, LineProgress, track_with_lines


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
    """Return whether this is a notebook's kernel; elsewhere a widget is just its name in words."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def in_interactive_notebook() -> bool:
    """Return whether this kernel belongs to a front end with a person in front of it, such as JupyterLab or VS Code.

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
    return track_with_lines(iterable, total, title)


def _environment_of(process: int) -> dict[str, str]:
    # Outside Linux there is no such file, and the answer is empty: then an inherited name counts as our own.
    with suppress(OSError):
        lines = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
        return dict(line.split("=", 1) for line in lines if "=" in line)
    return {}
