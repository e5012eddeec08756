"""The memory that a predictor takes, weights included, measured in a fresh process of its own.

    pickled predictor  ──stdin──▶  python -m dlv3p.compression.process_memory  ──stdout──▶  KiB

The figure is the peak of the process's resident memory during one prediction, less what it held before the predictor
was loaded and after it had been loaded and used once and thrown away, which brings in the libraries. It thus means the
same for every runtime. Freed memory goes back to the system at once (`_MALLOC`), so that no leftover hides a need.
"""

import gc
import io
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def measure_process_memory(predict: Callable, size: tuple[int, int], *, threads: int) -> float | None:
    """Measure the peak memory in MiB of loading `predict` and predicting a normalised image (1,3,*size) once.

    None where it cannot be measured: outside Linux, when `predict` cannot be pickled, or when the process fails.
    """
    if not Path("/proc/self/clear_refs").exists():
        return None
    try:
        content = pickle.dumps(predict)
    except (pickle.PicklingError, TypeError, AttributeError):
        return None
    request = json.dumps({"size": size, "threads": threads})
    command = [sys.executable, "-m", "dlv3p.compression.process_memory", request]
    child = subprocess.run(command, input=content, capture_output=True, env=os.environ | _MALLOC, check=False)
    if child.returncode:
        return None
    return round(int(child.stdout.split()[-1]) / 1024, 1)


def _resident(field: str) -> int:
    """Read VmRSS, what this process holds, or VmHWM, the most it held, in KiB."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))


def _measure() -> None:
    import torch

    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    content = sys.stdin.buffer.read()
    pickle.load(io.BytesIO(content))(torch.zeros(1, 3, 64, 64))
    gc.collect()
    image, before = torch.rand(1, 3, *request["size"]), _resident("VmRSS")
    predict = pickle.load(io.BytesIO(content))
    with open("/proc/self/clear_refs", "w") as file:  # not a file of the disk, so nothing to write atomically
        file.write("5")  # the peak starts again here: what loading took for a moment is no need of the prediction
    predict(image)
    print(max(0, _resident("VmHWM") - before))


if __name__ == "__main__":
    _measure()
