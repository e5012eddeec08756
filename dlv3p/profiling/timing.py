"""Time calls on the clock of the device that computes, and compare latencies by interleaved turns.

A GPU works on after Python has gone on, so each device has its own clock. A machine is faster in one minute than in the
next, so a ratio of two times means something only when both were taken at the same time: networks take turns, in an
order that changes, and are compared turn by turn. Before a run that counts, the same network runs once without being
timed: the threads of the runtime before it may still be spinning, and its data fill the caches. A figure that could not
be taken says so: never an estimate, and never a zero.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
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


NOT_MEASURED = "not measured"
IMPLAUSIBLE = "implausible"


class NotMeasurable(Exception):
    """There is no counter, or no right to read it; the message says which, to stand beside "not measured"."""


HALF_WIDTH = 0.98
"""Half the width of the 95 % interval of a median, in square roots of the number of values (half of 1.96)."""


class Speedup(NamedTuple):
    """How many times faster one network is than another, with the interval that holds the true median to 95 %."""

    times: float
    low: float
    high: float


@dataclass(frozen=True)
class Turns:
    """The seconds that each network took in each turn, by title."""

    seconds: dict[str, list[float]]

    def milliseconds(self, title: str) -> float:
        """Return the median of one network's times."""
        return 1000 * float(np.median(self.seconds[title]))

    def speedup(self, title: str, over: str) -> Speedup:
        """Compare two networks turn by turn; the interval takes no distribution for granted."""
        ratios = np.sort(np.divide(self.seconds[over], self.seconds[title]))
        first = max(0, int(np.floor(len(ratios) / 2 - HALF_WIDTH * np.sqrt(len(ratios)))))
        return Speedup(float(np.median(ratios)), float(ratios[first]), float(ratios[len(ratios) - 1 - first]))


def take_turns(
    runs: Mapping[str, Callable[[], object]],
    *,
    warmup: int = 2,
    repeats: int = 15,
    clock: Callable[[], float] = time.perf_counter,
) -> Turns:
    """Time every one of `runs` once in each of `repeats` turns.

    Each run must end with its result on the host. `warmup` rounds come first and do not count. `clock` tells seconds.
    """
    titles = list(runs)
    order = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {title: [] for title in titles}
    for _ in range(warmup):
        for run in runs.values():
            run()
    for _ in range(repeats):
        for position in order.permutation(len(titles)):
            title, run = titles[position], runs[titles[position]]
            run()
            began = clock()
            run()
            seconds[title].append(clock() - began)
    return Turns(seconds)
