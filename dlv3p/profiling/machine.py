"""Describe the machine that a profile was measured on, without which its figures mean little."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dlv3p.profiling.counters import NotMeasurable, NvmlBoard
from dlv3p.runs.provenance import hardware


def machine() -> dict[str, Any]:
    """Return processor, cores, threads, memory, GPU, driver, versions and rounding of convolutions, as plain JSON.

    The same machine with the same software and settings always gives the same result.
    """
    gpu = torch.cuda.is_available()
    return hardware() | {
        "threads": torch.get_num_threads(),
        "memory_bytes": _total_memory(),
        "gpu_driver": _gpu_driver() if gpu else None,
        "cuda": torch.version.cuda if gpu else None,
        "cudnn": torch.backends.cudnn.version() if gpu else None,
        "gpu_float32_convolutions": torch.backends.cudnn.conv.fp32_precision if gpu else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def machine_name(device: str) -> str:
    """Return the GPU, or the processor and the threads in use, in a few words: a time means nothing without it."""
    facts = machine()
    return facts["gpu"] or device if device.startswith("cuda") else f"{facts['processor']}, {facts['threads']} threads"


def load() -> dict[str, Any]:
    """Return how busy the machine is right now, as plain JSON: the place to look when figures scatter.

    `load_average` is that of the last minute, in cores. Of a GPU: its load, clocks and temperature where NVML reports
    them, and its memory in use by all processes.
    """
    found: dict[str, Any] = {"load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None}
    if not torch.cuda.is_available():
        return found
    device = torch.device("cuda", torch.cuda.current_device())
    free, total = torch.cuda.mem_get_info(device)
    found["gpu_used_bytes"] = total - free
    try:
        return found | {"gpu_state": NvmlBoard(device).state()}
    except NotMeasurable as reason:
        return found | {"gpu_state": f"not measured: {reason}"}


def summarize_load(rows: Sequence[Mapping[str, Any]]) -> str:
    """Summarize in one line whether other work ran on the machine while the rows of a sweep were measured.

    The load average counts our own threads as well, so other work shows from one core above them.
    """
    threads = torch.get_num_threads()
    highest = max((row["load"]["load_average"] or 0.0 for row in rows), default=0.0)
    if highest < threads + 1:
        return f"measured with {threads} threads: no other work was noticed"
    return (
        f"measured with {threads} threads: other work ran on this machine, about {highest - threads:.0f} more threads, "
        "and the latencies are those of a busy one; close other programs and run this notebook again"
    )


def _total_memory() -> int | None:
    try:
        first = Path("/proc/meminfo").read_text().split("\n", 1)[0]
    except OSError:
        return None
    return int(first.split()[1]) * 1024


def _gpu_driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.split("\n", 1)[0].strip()
