"""Latencies that may stand side by side: taken in turns, in an order that changes, and compared turn by turn.

A machine is faster in one minute than in the next, so a ratio of two times means something only when both were taken
at the same time. Before a run that counts, the same network runs once without being timed: the threads of the runtime
before it may still be spinning, and its data fill the caches.
"""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

CONFIDENCE_STEP = 0.98
"""Half the width of the 95 % interval of a median, in square roots of the number of values (half of 1.96)."""


class Timing(NamedTuple):
    """Milliseconds at the median, and how many times faster than the reference, with its 95 % interval."""

    milliseconds: float
    speedup: float
    low: float
    high: float


def time_in_turns(
    runs: Mapping[str, Callable[[], object]],
    reference: str,
    *,
    warmup: int = 2,
    repeats: int = 15,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every one of `runs` once in each of `repeats` turns; speed-ups are medians over the turns.

    Each run must end with its result on the host. `warmup` rounds come first and do not count. `clock` tells seconds.
    """
    titles = list(runs)
    order = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {title: [] for title in titles}
    for _ in range(warmup):
        for run in runs.values():
            run()
    for _ in range(repeats):
        for title in order.permutation(titles):
            run = runs[str(title)]
            run()
            began = clock()
            run()
            seconds[str(title)].append(clock() - began)
    return {title: _compared(seconds[reference], seconds[title]) for title in titles}


def _compared(reference: list[float], seconds: list[float]) -> Timing:
    ratios = np.sort(np.divide(reference, seconds))
    # The order statistics that hold the true median with 95 % confidence, whatever the distribution.
    reach = CONFIDENCE_STEP * np.sqrt(len(ratios))
    first = max(0, int(np.floor(len(ratios) / 2 - reach)))
    last = len(ratios) - 1 - first
    return Timing(1000 * float(np.median(seconds)), float(np.median(ratios)), float(ratios[first]), float(ratios[last]))
