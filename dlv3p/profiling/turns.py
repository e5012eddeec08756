"""Latencies that may stand side by side: taken in turns, in an order that changes, and compared turn by turn.

A machine is faster in one minute than in the next, so a ratio of two times means something only when both were taken
at the same time. Before a run that counts, the same network runs once without being timed: the threads of the runtime
before it may still be spinning, and its data fill the caches.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

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
