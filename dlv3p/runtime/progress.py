"""Report the progress of long jobs: by widgets in front of a person, by plain lines everywhere else.

A bar and live curves in JupyterLab and VS Code; a line per epoch under papermill, nbval and in a terminal, where
widgets would leave nothing to read; or nothing.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cityscapes.errors import ParameterError
from dlv3p.parameters.choices import PROGRESS
from dlv3p.runtime.callbacks import Callback
from dlv3p.runtime.lines import Item, LineProgress, track_with_lines


def make_progress(
    mode: str = "auto",
    *,
    stop: Callable[[], None] | None = None,
    history: Iterable[Mapping[str, float]] = (),
    spent: float = 0.0,
) -> Callback:
    """Make the callback that shows progress: `widgets`, `lines`, `none`, or `auto`, widgets where a person sees them.

    Widgets have a button that calls `stop`, and curves that begin with the epochs of `history`. The seconds `spent` on
    those, if they are known, tell the time left.
    """
    mode = resolve_mode(mode)
    if mode == "widgets":
        from dlv3p.runtime.widgets import WidgetProgress

        return WidgetProgress(stop=stop, history=history, spent=spent)
    return LineProgress(spent=spent) if mode == "lines" else Callback()


def show_finished(mode: str, history: Sequence[Mapping[str, float]], message: str) -> None:
    """Show a training that was finished before as it looked then: a full bar, its curves, and a message."""
    progress, epochs = make_progress(mode, history=history), len(history)
    progress.on_start(epochs, 1, epochs + 1)
    progress.on_finish(message)


@contextmanager
def preparing(mode: str, title: str) -> Iterator[Callable[[], None]]:
    """Show by a bar that a job has begun, until the function that this yields is called or the block ends."""
    if resolve_mode(mode) != "widgets":
        yield lambda: None
        return
    from dlv3p.runtime.widgets import show_waiting

    box = show_waiting(title)
    try:
        yield box.close
    finally:
        box.close()


def resolve_mode(mode: str) -> str:
    """Resolve `auto` to `widgets` or `lines`, and `widgets` to `lines` outside a kernel.

    Raises ParameterError for an unknown mode.
    """
    if mode not in PROGRESS:
        raise ParameterError(f"progress: {mode!r} is not a mode; allowed are {', '.join(PROGRESS)}")
    if mode == "widgets":
        return "widgets" if in_kernel() else "lines"
    if mode != "auto":
        return mode
    return "widgets" if in_interactive_notebook() else "lines"


def in_kernel() -> bool:
    """Return whether this is a notebook's kernel; elsewhere a widget shows only its repr."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


def in_interactive_notebook() -> bool:
    """Return whether this kernel belongs to a front end with a person in front of it, such as JupyterLab or VS Code.

    jupyter_server names the notebook in the environment of each kernel that it starts for one
    (`SessionManager.get_kernel_env`), VS Code in the kernel's variables; papermill and nbval do neither. When
    papermill itself was started from a notebook, it has inherited the name from there, and nobody is watching.
    """
    if not in_kernel():
        return False
    shell = sys.modules["IPython"].get_ipython()
    if "__vsc_ipynb_file__" in shell.user_ns:
        return True
    name = os.environ.get("JPY_SESSION_NAME")
    return bool(name) and name != _environment_of(os.getppid()).get("JPY_SESSION_NAME")


def track(
    iterable: Iterable[Item], *, total: int | None = None, title: str = "", mode: str = "auto", unit: str = ""
) -> Iterator[Item]:
    """Yield the items of `iterable` and show progress: a bar, or a line at about every tenth and at the end.

    `total` defaults to `len(iterable)`; if that is unknown, only the end is reported. With a `unit`, such as images,
    the items per second are shown.
    """
    if total is None:
        with suppress(TypeError):
            total = len(iterable)  # type: ignore[arg-type]
    mode = resolve_mode(mode)
    if mode == "none":
        return iter(iterable)
    if mode == "widgets":
        from dlv3p.runtime.widgets import track_with_bar

        return track_with_bar(iterable, total, title, unit=unit)
    return track_with_lines(iterable, total, title, unit=unit)


def _environment_of(process: int) -> dict[str, str]:
    # Outside Linux there is no such file, so an inherited name counts as the kernel's own.
    with suppress(OSError):
        lines = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
        return dict(line.split("=", 1) for line in lines if "=" in line)
    return {}
