"""Measure the energy of a prediction or of a training, from a hardware counter or not at all.

Before predictions the machine idles, which gives the power that would have been drawn anyway; then it predicts without
a pause. The counter's difference over the second interval is the gross energy, and what exceeds idle power is the net
energy. Of a training, the gross energy of each epoch is known. Power is never sampled, and no figure from a data sheet
is multiplied by a time: such numbers look measured and are not.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from cityscapes.errors import ParameterError
from dlv3p.profiling.counters import IMPLAUSIBLE, NOT_MEASURED, NotMeasurable, NvmlBoard, open_rapl
from dlv3p.runtime.processes import place

SHORTEST_SECONDS = 1.0
"""NVML refreshes its counter about ten times a second, so shorter intervals mean nothing."""
TOLERANCE = 1.05
"""Mean watts above this times the limit are implausible: a board holds its limit on average, with some ripple."""
_CATCH_UP_SECONDS = 10.0
_REFRESH_SECONDS = 0.1  # of NVML's counter
LONGEST_SILENCE = 100.0
"""After this many seconds a processor's counter may have begun again unseen: the smallest do so after 65 kJ."""


class Counter(Protocol):
    """A counter of joules; `limit_watts` is the enforced power limit, None where it is not known."""

    source: str
    limit_watts: float | None

    def joules(self) -> float:
        """Return the joules since an arbitrary start; raises NotMeasurable when the counter cannot be read."""


@dataclass(frozen=True)
class Energy:
    """Joules per image, with and without the share of an idle machine, and the watts behind them.

    Each is a number, "not measured" or "implausible"; `energy_status` gives the source in words, or the reason why not.
    """

    joules_per_image: float | str = NOT_MEASURED
    net_joules_per_image: float | str = NOT_MEASURED
    mean_watts: float | str = NOT_MEASURED
    idle_watts: float | str = NOT_MEASURED
    limit_watts: float | str = NOT_MEASURED
    energy_status: str = NOT_MEASURED

    def as_dict(self) -> dict[str, Any]:
        """Return names and values, which are plain JSON."""
        return asdict(self)


def open_counter(device: str | torch.device) -> Counter:
    """Return the energy counter of a device: the GPU's board, or all processor packages; raises NotMeasurable."""
    device = torch.device(device)
    counter: Counter = NvmlBoard(device) if device.type == "cuda" else open_rapl()
    counter.joules()
    return counter


class EnergyMeter:
    """The joules that several counters have counted since the meter was made, whatever the machine did.

    They are nan without a counter, once one cannot be read, and once nobody has asked for LONGEST_SILENCE seconds.
    """

    def __init__(self, counters: Sequence[Counter], clock: Callable[[], float] = time.monotonic) -> None:
        self._counters, self._clock, self._read_at = list(counters), clock, clock()
        self._joules = 0.0
        self._began = self._read()

    def joules(self) -> float:
        """Return the joules so far, at most a tenth of a second old."""
        silence = self._clock() - self._read_at
        if silence > LONGEST_SILENCE:
            self._counters = []
        if silence > _REFRESH_SECONDS:
            self._joules, self._read_at = self._read() - self._began, self._clock()
        return self._joules if self._counters else float("nan")

    def _read(self) -> float:
        try:
            return sum(counter.joules() for counter in self._counters)
        except NotMeasurable:
            self._counters = []
            return float("nan")


def open_meter(device: str | torch.device) -> EnergyMeter:
    """Return the meter of a training on `device`, in the first of its processes: of all GPUs, or of all processors.

    In other processes, with several machines, and where no counter can be read, it says nan.
    """
    here = place()
    if not here.first or here.ranks > int(os.environ.get("LOCAL_WORLD_SIZE", 1)):
        return EnergyMeter([])
    several = here.ranks > 1 and torch.device(device).type == "cuda"
    counted = [torch.device("cuda", index) for index in range(here.ranks)] if several else [device]
    try:
        return EnergyMeter([open_counter(one) for one in counted])
    except NotMeasurable:
        return EnergyMeter([])


def unmeasured(reason: object) -> Energy:
    """Return an Energy without figures, with the reason."""
    return Energy(energy_status=f"{NOT_MEASURED}: {reason}")


def measure_energy(
    predict: Callable[[], object],
    counter: Counter,
    *,
    images: int,
    seconds: float = 5.0,
    idle_seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy:
    """Measure the energy of `predict`, which handles `images` images and returns when the device is done.

    The machine idles for `idle_seconds`, then `predict` runs over and over for at least `seconds`, at least once.
    Raises ParameterError for intervals under SHORTEST_SECONDS. A counter that fails gives an Energy without figures.
    """
    if min(seconds, idle_seconds) < SHORTEST_SECONDS:
        raise ParameterError(
            f"seconds={seconds}, idle_seconds={idle_seconds}: counters need at least {SHORTEST_SECONDS:.0f} s each"
        )
    try:
        idle_joules, idle_time = _count(lambda: sleep(idle_seconds), counter, clock)
        predict()  # the clock rates ramp up again
        done = 0

        def work() -> None:
            nonlocal done
            began = caught_up = clock()
            while not done or clock() - began < seconds:
                predict()
                done += 1
                if clock() - caught_up > _CATCH_UP_SECONDS:  # a counter must not wrap around unseen
                    counter.joules()
                    caught_up = clock()

        joules, duration = _count(work, counter, clock)
    except NotMeasurable as reason:
        return unmeasured(reason)
    return _energy(joules, duration, idle_joules / idle_time, counter, done * images)


def _count(work: Callable[[], None], counter: Counter, clock: Callable[[], float]) -> tuple[float, float]:
    joules, began = counter.joules(), clock()
    work()
    ended, after = clock(), counter.joules()
    return after - joules, ended - began


def _energy(joules: float, duration: float, idle_watts: float, counter: Counter, images: int) -> Energy:
    watts, limit = joules / duration, counter.limit_watts
    measured = f"{counter.source}, {images} images in {duration:.1f} s"
    if joules <= 0:
        return unmeasured(f"{counter.source} did not move in {duration:.1f} s")
    if limit is not None and watts > TOLERANCE * limit:
        reason = f"{watts:.0f} W on average, above the limit of {limit:.0f} W; {measured}"
        marks = dict.fromkeys(("joules_per_image", "net_joules_per_image", "mean_watts", "idle_watts"), IMPLAUSIBLE)
        return Energy(**marks, limit_watts=round(limit, 1), energy_status=f"{IMPLAUSIBLE}: {reason}")
    net = joules - idle_watts * duration
    return Energy(
        joules_per_image=_significant(joules / images),
        net_joules_per_image=_significant(net / images) if net > 0 else NOT_MEASURED,
        mean_watts=round(watts, 1),
        idle_watts=round(idle_watts, 1),
        limit_watts=NOT_MEASURED if limit is None else round(limit, 1),
        energy_status=measured if net > 0 else f"{measured}; no more than when idle, so there is no net energy",
    )


def _significant(value: float) -> float:
    return float(f"{value:.4g}")
