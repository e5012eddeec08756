"""Stop a run on request: after the step at hand, with a checkpoint; at once before its first step.

SIGTERM (what a cluster sends before it takes the machine away), SIGUSR1 (its earlier warning), SIGINT (Ctrl-C, and the
stop button of JupyterLab's toolbar) and the button beside the bar all ask for the same. A second SIGINT does not wait.
"""

import signal
import threading
from types import FrameType

import torch

from cityscapes.errors import StoppedError, TerminatedError
from dlv3p.runtime.processes import sum_over_processes

SIGNALS = {signal.SIGINT: StoppedError, signal.SIGTERM: TerminatedError, signal.SIGUSR1: TerminatedError}


class Interruption:
    """Notes that somebody wants the run to end; a context manager that listens to signals where it may.

    A signal that comes before `after_steps` was called raises at once: there is nothing to save yet.
    """

    def __init__(self, run: str = "") -> None:
        self.run = run
        self.kind: type[StoppedError] | None = None
        self._noting = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # the only one that Python lets listen
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def after_steps(self) -> None:
        """From now on, only note what is asked for: the run asks after each step whether it is to end."""
        self._noting = True

    def request(self) -> None:
        """Ask for the end, as SIGINT does."""
        self.kind = self.kind or StoppedError

    def wanted(self, device: torch.device) -> bool:
        """Whether this process, or another one of the same run, was asked to stop; all get the same answer."""
        asked = torch.tensor(float(self.kind is not None), device=device)
        if sum_over_processes(asked) > 0:
            self.kind = self.kind or TerminatedError
        return self.kind is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.kind is not None:
            raise KeyboardInterrupt
        self.kind = self.kind or SIGNALS[signal.Signals(number)]
        if not self._noting:
            raise self.kind(f"run={self.run!r}: stopped before a step was taken; run again to go on")
