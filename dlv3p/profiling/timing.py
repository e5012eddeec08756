"""Moments on the clock of the device that computes: a GPU works on after Python has gone on."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Marks moments; `milliseconds` between two of them are known once `wait` has returned."""

    def mark(self) -> Any:
        """Note this moment of the device's work."""

    def wait(self) -> None:
        """Return when the device has done all it was asked for."""

    def milliseconds(self, began: Any, ended: Any) -> float:
        """Return the time between two marks."""


class HostClock:
    """The clock of a CPU, where a call returns when its work is done."""

    def mark(self) -> float:
        return time.perf_counter()

    def wait(self) -> None:
        pass

    def milliseconds(self, began: float, ended: float) -> float:
        return 1000 * (ended - began)


class CudaClock:
    """The clock of a GPU: marks are events in the stream of its work, which cost the host microseconds."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def wait(self) -> None:
        torch.cuda.synchronize(self._device)

    def milliseconds(self, began: torch.cuda.Event, ended: torch.cuda.Event) -> float:
        return began.elapsed_time(ended)


def clock_of(device: str | torch.device) -> Clock:
    """Return the clock of a device."""
    device = torch.device(device)
    return CudaClock(device) if device.type == "cuda" else HostClock()


def time_call(call: Callable[[], object], clock: Clock) -> float:
    """Return the milliseconds that the device takes for `call`, starting when it is idle."""
    clock.wait()
    began = clock.mark()
    call()
    ended = clock.mark()
    clock.wait()
    return clock.milliseconds(began, ended)
