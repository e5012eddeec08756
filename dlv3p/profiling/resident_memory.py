"""The resident memory of a process of its own, so that its peak is that of one prediction: Linux keeps the books.

Freed memory must go back to the system at once (`MALLOC`). Otherwise a tensor that fits into what an earlier one left
would not be seen, and a figure would vary by some 10 MiB from run to run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
_PEAK = Path("/proc/self/clear_refs")


def measurable() -> bool:
    """Say whether this system tells the peak of a process; only Linux does."""
    return _PEAK.exists()


def run_module(module: str, request: str, content: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m module request` with `content` as its standard input, and keep what it prints."""
    command = [sys.executable, "-m", module, request]
    return subprocess.run(command, input=content, capture_output=True, env=os.environ | MALLOC, check=False)


def resident_kib() -> int:
    """Return what this process holds."""
    return _status("VmRSS")


def peak_kib() -> int:
    """Return the most that this process has held since `restart_peak`."""
    return _status("VmHWM")


def restart_peak() -> None:
    """Begin the peak again from what the process holds now."""
    with open(_PEAK, "w") as file:  # not a file of the disk, so nothing to write atomically
        file.write("5")


def _status(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))
