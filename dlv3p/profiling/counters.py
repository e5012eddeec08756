"""What the board of a GPU tells through NVML, NVIDIA's library of its driver: energy, power limit, memory, load.

It needs the package nvidia-ml-py (`pip install 'dlv3p[energy]'`) and a driver. Whatever is not to be had raises
NotMeasurable with the reason, so that a figure is a measurement or is not there.
"""

import os
from collections.abc import Callable
from typing import Any

import torch

from dlv3p.profiling.measurable import NotMeasurable

_MIB = 2**20


class Board:
    """One GPU as NVML sees it, which is the one that torch calls `device`.

    The two count differently (CUDA_VISIBLE_DEVICES hides and reorders), so they are matched by the GPU's own UUID.
    """

    def __init__(self, device: torch.device) -> None:
        try:
            import pynvml
        except ImportError:
            raise NotMeasurable("needs nvidia-ml-py: pip install 'dlv3p[energy]'") from None
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
        """The power at which the board throttles itself, None where it does not say."""
        try:
            return self._ask("nvmlDeviceGetEnforcedPowerLimit", self._handle) / 1000
        except NotMeasurable:
            return None

    def joules(self) -> float:
        """Return the energy since the driver was loaded; boards from Volta on have the counter."""
        return self._ask("nvmlDeviceGetTotalEnergyConsumption", self._handle) / 1000

    def process_mib(self) -> float:
        """Return what this process holds of the board's memory now: CUDA's own share, and all that torch reserved."""
        for process in self._ask("nvmlDeviceGetComputeRunningProcesses", self._handle):
            if process.pid == os.getpid() and process.usedGpuMemory:
                return round(process.usedGpuMemory / _MIB, 1)
        raise NotMeasurable("NVML does not list this process, as in containers that have process numbers of their own")

    def state(self) -> dict[str, Any]:
        """Return clocks, temperature and load as they are now, None for what the board does not tell."""
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


def _or_none(question: Callable[[], float]) -> float | None:
    try:
        return question()
    except NotMeasurable:
        return None
