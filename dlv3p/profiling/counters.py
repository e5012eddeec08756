"""Energy counters: NVML for NVIDIA GPUs, with power limit, memory and load, and RAPL for x86 processors under Linux.

NVML needs the package nvidia-ml-py (`pip install 'dlv3p[energy]'`) and a driver. RAPL is one counter per processor
package, in microjoules, which wraps around at `max_energy_range_uj`: within minutes on large processors. Memory and the
rest of the machine are not in it. Since 2020 only root may read it, because it is a side channel: `chmod o+r
.../energy_uj` allows it. Whatever is unavailable raises NotMeasurable with the reason, so that a figure is measured or
is "not measured": never an estimate, and never a zero.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cityscapes.errors import MachineError, require

NOT_MEASURED = "not measured"
IMPLAUSIBLE = "implausible"

POWERCAP = Path("/sys/class/powercap")
_MIB = 2**20


class NotMeasurable(Exception):
    """There is no counter, or no permission to read it; the message, which says which, goes after "not measured"."""


class NvmlBoard:
    """The GPU that torch calls `device`, as NVML sees it.

    The two number GPUs differently (CUDA_VISIBLE_DEVICES hides and reorders), so they are matched by UUID.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            require("NVML", ("pynvml",), "energy")
        except MachineError as error:
            raise NotMeasurable(str(error)) from None
        import pynvml

        self._nvml = pynvml
        uuid = torch.cuda.get_device_properties(device).uuid
        self._ask("nvmlInit")
        self._handle = self._ask("nvmlDeviceGetHandleByUUID", f"GPU-{uuid}")

    @property
    def source(self) -> str:
        """Where the energy is read, in words."""
        return "NVML's counter of the whole board"

    @property
    def limit_watts(self) -> float | None:
        """The power at which the board throttles itself, None where it is not reported."""
        try:
            return self._ask("nvmlDeviceGetEnforcedPowerLimit", self._handle) / 1000
        except NotMeasurable:
            return None

    def joules(self) -> float:
        """Return the energy since the driver was loaded; boards from Volta on have the counter."""
        return self._ask("nvmlDeviceGetTotalEnergyConsumption", self._handle) / 1000

    def process_mib(self) -> float:
        """Return how much of the board's memory this process holds: CUDA's own share, and all that torch reserved."""
        for process in self._ask("nvmlDeviceGetComputeRunningProcesses", self._handle):
            if process.pid == os.getpid() and process.usedGpuMemory:
                return round(process.usedGpuMemory / _MIB, 1)
        raise NotMeasurable("NVML does not list this process, as in containers with their own process ids")

    def state(self) -> dict[str, Any]:
        """Return the current clocks, temperature and load, None for what the board does not report."""
        questions: dict[str, Callable[[], float]] = {
            "sm_clock_mhz": lambda: self._ask("nvmlDeviceGetClockInfo", self._handle, self._nvml.NVML_CLOCK_SM),
            "highest_sm_clock_mhz": lambda: self._ask(
                "nvmlDeviceGetMaxClockInfo", self._handle, self._nvml.NVML_CLOCK_SM
            ),
            "temperature_celsius": lambda: self._ask(
                "nvmlDeviceGetTemperature", self._handle, self._nvml.NVML_TEMPERATURE_GPU
            ),
            "load_percent": lambda: self._ask("nvmlDeviceGetUtilizationRates", self._handle).gpu,
        }
        return {name: _or_none(question) for name, question in questions.items()} | {"limit_watts": self.limit_watts}

    def _ask(self, question: str, *arguments: Any) -> Any:
        try:
            return getattr(self._nvml, question)(*arguments)
        except self._nvml.NVMLError as error:
            raise NotMeasurable(f"NVML: {error}") from None


class RaplPackages:
    """All processor packages of this machine together, as RAPL counts them."""

    source = "RAPL's counters of the processor packages, memory left out"

    def __init__(self, zones: list[Path], ranges: list[int], counts: list[int]) -> None:
        self._zones, self._ranges, self._last, self._total = zones, ranges, counts, 0

    @property
    def limit_watts(self) -> float | None:
        """The sum of each package's larger power limit (long or short term); None where one is not reported."""
        limits = [_limit(zone) for zone in self._zones]
        return None if None in limits else sum(limits) / 1e6

    def joules(self) -> float:
        """Return the energy since `open_rapl`; call it more often than the counters wrap around."""
        now = _read_counts(self._zones)
        for before, after, wrap in zip(self._last, now, self._ranges, strict=True):
            self._total += after - before if after >= before else after - before + wrap
        self._last = now
        return self._total / 1e6


def open_rapl(root: Path = POWERCAP) -> RaplPackages:
    """Begin to count the energy of this machine's processor packages; raises NotMeasurable where none is counted."""
    # The others are parts of a package, such as its cores, or "psys", the whole machine: both would count twice.
    zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if _read_text(zone / "name").startswith("package")]
    if not zones:
        raise NotMeasurable(f"{root} has no RAPL package: no such counter, or a virtual machine that hides it")
    ranges = [_read_number(zone / "max_energy_range_uj") for zone in zones]
    return RaplPackages(zones, ranges, _read_counts(zones))


def _read_counts(zones: list[Path]) -> list[int]:
    return [_read_number(zone / "energy_uj") for zone in zones]


def _or_none(question: Callable[[], float]) -> float | None:
    try:
        return question()
    except NotMeasurable:
        return None


def _limit(zone: Path) -> int | None:
    found = []
    for constraint in ("constraint_0", "constraint_1"):
        try:
            found.append(_read_number(zone / f"{constraint}_power_limit_uw"))
        except NotMeasurable:
            continue
    return max(found, default=0) or None


def _read_number(path: Path) -> int:
    text = _read_text(path)
    try:
        return int(text)
    except ValueError:
        raise NotMeasurable(f"{path} does not hold a whole number") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except PermissionError:
        raise NotMeasurable(f"no permission to read {path}; allow it with: sudo chmod o+r {path}") from None
    except OSError as error:
        raise NotMeasurable(f"{path}: {error.strerror}") from None
