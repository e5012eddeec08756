"""Stop a run on request: after the current step, or a few more, with a checkpoint; at once before its first step.

A process that is alone stops after its step; several agree when they next read what their steps have found, which is
after each step on a CPU, and after some on GPUs (findings.py).

SIGTERM (sent by a cluster before it reclaims the machine), SIGUSR1 (its earlier warning), SIGINT (Ctrl-C, and the stop
button of JupyterLab's toolbar), the button beside the bar, and `dlv3p runs stop`, from any machine that shares the
folder, all request a stop. A second SIGINT stops immediately.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import torch

from cityscapes.errors import StoppedError, TerminatedError
from cityscapes.workspace import run_folder
from dlv3p.runs.folders import STOP_REQUEST
from dlv3p.runtime.processes import place, sum_over_processes

SECONDS_BETWEEN_LOOKS = 1.0
"""How long a request in the run's folder may wait until it is seen; a shared folder is slow to ask."""

SIGNALS = {signal.SIGINT: StoppedError, signal.SIGTERM: TerminatedError, signal.SIGUSR1: TerminatedError}


@contextmanager
def signals_handled(
    handler: Callable[[int, FrameType | None], None], numbers: Iterable[int] = SIGNALS
) -> Iterator[None]:
    """Have `handler` take signals, and restore who took them before; only the main thread may handle signals."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers} if main else {}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


class Interruption:
    """Record requests to stop a run; a context manager that handles signals in the main thread.

    A signal that arrives before `after_steps` was called raises at once: there is nothing to save yet.
    """

    def __init__(self, run: str = "") -> None:
        self.run = run
        self.kind: type[StoppedError] | None = None
        self._noting = False
        self._at_once = False
        self._looked = 0.0
        self._handled = ExitStack()

    def __enter__(self) -> "Interruption":
        self._handled.enter_context(signals_handled(self._note))
        return self

    def __exit__(self, *_: object) -> None:
        self._handled.close()

    def after_steps(self) -> None:
        """Only record requests from now on: the run checks between steps whether to stop."""
        self._noting = True

    def request(self) -> None:
        """Request a stop, as SIGINT does."""
        self.kind = self.kind or StoppedError

    def asked(self) -> bool:
        """Return whether this process was asked to stop.

        Raises KeyboardInterrupt after a second SIGINT whose own exception was lost, as in a callback of a library.
        """
        if self._at_once:
            raise KeyboardInterrupt
        if place().first and self._requested_in_folder():
            self.request()
        return self.kind is not None

    def wanted(self, device: torch.device) -> bool:
        """Return whether any process of the run was asked to stop, which they tell each other; the same for all."""
        asked = self.asked()
        if place().ranks == 1:  # one process alone need not ask its GPU
            return asked
        return self.wanted_by(sum_over_processes(torch.tensor(float(asked), device=device)).item())

    def wanted_by(self, processes: float) -> bool:
        """Return whether so many processes, more than none, were asked to stop, as all of them know."""
        if processes:
            self.kind = self.kind or TerminatedError
        return processes > 0

    def _requested_in_folder(self) -> bool:
        if not self._noting or time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS:
            return False
        self._looked = time.monotonic()
        return (run_folder(self.run) / STOP_REQUEST).is_file()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.kind is not None:
            self._at_once = True
            raise KeyboardInterrupt
        self.kind = self.kind or SIGNALS[signal.Signals(number)]
        if not self._noting:
            raise self.kind(f"run={self.run!r}: stopped before the first step; run again to continue")
