"""Forward SIGTERM and SIGINT from papermill to the kernel that executes a notebook.

A kernel runs in a session of its own, so neither Ctrl-C nor a cluster's SIGTERM reaches it. Training treats them as a
request to save and stop (`dlv3p/training/interruption.py`); any other cell stops at once.
"""

import math
import os
import signal
import threading
import time
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
    as under nohup. `manager_class` has to start the kernel, so that its process is known; it kills a kernel whose cell
    has run for `cell_seconds`.
    """

    def __init__(self, *, cell_seconds: int | None = None) -> None:
        self.received: signal.Signals | None = None
        self.managers: list[AsyncKernelManager] = []
        self._before: dict[signal.Signals, Any] = {}
        self._limit, self._end = cell_seconds or math.inf, math.inf
        self._computing = False
        signals = self

        class KnownKernelManager(AsyncKernelManager):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                signals.managers.append(self)

            async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:
                # A kernel that still computes would complain that nobody listens anymore.
                await super().shutdown_kernel(now or time.monotonic() >= signals._end, restart)

            async def _async_interrupt_kernel(self) -> None:
                # Every shutdown begins with it; a kernel that is idle may log it as an error, below a good result.
                if signals._computing or not self.shutting_down:
                    await super()._async_interrupt_kernel()

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
        """Stop before the next cell starts if a signal arrived between two cells; else note when it has to end."""
        if self.received is not None:
            raise self.stopped()
        self._end, self._computing = time.monotonic() + self._limit, True

    async def end_cell(self, **_: object) -> None:
        """Note that the kernel no longer computes."""
        self._end, self._computing = math.inf, False

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
