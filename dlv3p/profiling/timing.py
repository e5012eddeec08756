"""Time calls on the clock of the device that computes, and compare latencies by interleaved timing.

A GPU computes asynchronously, so each device has its own clock. A machine is faster in one minute than in the next, so
a ratio of two times means something only when both were taken at the same time: networks are timed in interleaved
rounds, in an order that changes, and compared round by round. Each timed call follows an untimed one of the same
network: the threads of the previous runtime may still be spinning, and its data fill the caches.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

HALF_WIDTH = 0.98
"""Half the width of the 95 % interval of a median, in square roots of the number of values (half of 1.96)."""


class Clock(Protocol):
    """Marks moments; `milliseconds` between two of them are known once `wait` has returned."""

    def mark(self) -> Any:
        """Mark this moment in the device's work."""

    def wait(self) -> None:
        """Block until the device has finished all queued work."""

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


class Speedup(NamedTuple):
    """How many times faster one network is than another, with the 95 % confidence interval of the median."""

    times: float
    low: float
    high: float


@dataclass(frozen=True)
class InterleavedTimes:
    """The seconds that each network took in each round, by title."""

    seconds: dict[str, list[float]]

    def milliseconds(self, title: str) -> float:
        """Return the median of one network's times."""
        return 1000 * float(np.median(self.seconds[title]))

    def speedup(self, title: str, over: str) -> Speedup:
        """Compare two networks round by round; the interval assumes no distribution."""
        ratios = np.sort(np.divide(self.seconds[over], self.seconds[title]))
        first = max(0, int(np.floor(len(ratios) / 2 - HALF_WIDTH * np.sqrt(len(ratios)))))
        return Speedup(float(np.median(ratios)), float(ratios[first]), float(ratios[len(ratios) - 1 - first]))


def time_interleaved(
    runs: Mapping[str, Callable[[], object]],
    *,
    warmup: int = 2,
    repeats: int = 15,
    clock: Callable[[], float] = time.perf_counter,
) -> InterleavedTimes:
    """Time each of `runs` once in each of `repeats` rounds, in an order that is shuffled anew.

    Each run must end with its result on the host. `warmup` rounds come first and do not count. `clock` is in seconds.
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
    return InterleavedTimes(seconds)
