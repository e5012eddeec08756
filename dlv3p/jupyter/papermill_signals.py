"""Forward SIGTERM and SIGINT from papermill to the kernel that executes a notebook.

A kernel runs in a session of its own, so neither Ctrl-C nor a cluster's SIGTERM reaches it. Training treats them as a
request to save and stop (`dlv3p/training/interruption.py`); any other cell stops at once.
"""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

import click
from jupyter_client.manager import AsyncKernelManager

from cityscapes.errors import StoppedError, TerminatedError

SIGNALS = {signal.SIGINT: StoppedError, signal.SIGTERM: TerminatedError}


class StoppedNotebook(click.ClickException, StoppedError):
    """A notebook stopped by a signal where there was nothing to save: one line, and the status that shells expect."""

    def __init__(self, message: str, exit_status: int = StoppedError.exit_status) -> None:
        super().__init__(message)
        self.exit_code = self.exit_status = exit_status

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.exit_code)


class KernelSignals:
    """Forward the first SIGINT or SIGTERM to the kernel; a second one has its usual effect on papermill.

    A context manager that handles signals only in the main thread, as Python requires, and leaves ignored ones alone,
    as under nohup. `manager_class` has to start the kernel, so that its process is known.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.managers: list[AsyncKernelManager] = []
        self._before: dict[signal.Signals, Any] = {}
        managers = self.managers

        class KnownKernelManager(AsyncKernelManager):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                managers.append(self)

        self.manager_class = KnownKernelManager

    def __enter__(self) -> "KernelSignals":
        if threading.current_thread() is threading.main_thread():
            handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._forward) for number in handled}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def stopped(self, where: str = "") -> StoppedNotebook:
        """Return the error to raise once a signal has been received."""
        return StoppedNotebook(f"stopped by {self.received.name}{where}", SIGNALS[self.received].exit_status)

    async def refuse_next_cell(self, **_: object) -> None:
        """Stop before the next cell starts if a signal arrived between two cells."""
        if self.received is not None:
            raise self.stopped()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _forward(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()
        for manager in self.managers:
            process = getattr(manager.provisioner, "pid", None)
            if process:
                with suppress(ProcessLookupError):
                    os.kill(process, number)
