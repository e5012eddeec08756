"""Measure the memory of one prediction in a fresh process of its own, from the peak of what the process holds.

    pickled predictor  ──stdin──▶  python -m dlv3p.profiling.process_memory  ──stdout──▶  KiB

The predictor runs once on a small image first, which loads libraries and starts threads. The figure is then the peak of
the resident memory during one prediction, less what the process held before: with the predictor loaded, or, where its
weights count, with the predictor thrown away and yet to be loaded again. It thus means the same for every runtime. Of a
predictor on a GPU it is what torch's allocator held on the board at the peak: the host's memory says nothing about it.
"""

import gc
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cityscapes.errors import OutOfMemoryError
from dlv3p.runtime.devices import explain_out_of_memory

SMALL = (1, 3, 64, 64)
"""Shape of the first image."""

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
_PEAK = Path("/proc/self/clear_refs")


def measurable() -> bool:
    """Return whether this system tells the peak of a process; only Linux does."""
    return _PEAK.exists()


def measure_process_memory(predict: Callable, size: tuple[int, int], *, threads: int) -> float | None:
    """Measure the peak memory in MiB of loading `predict` and predicting a normalized image (1,3,*size) once.

    None where it cannot be measured: outside Linux, when `predict` cannot be pickled, or when the process fails. A
    predictor with a `device` on a GPU is measured there.
    """
    if not measurable():
        return None
    try:
        return measure_peak(predict, (1, 3, *size), threads=threads, weights=True)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, OutOfMemoryError):
        return None


def measure_peak(
    predict: Callable[[Tensor], object],
    shape: Sequence[int],
    *,
    threads: int,
    weights: bool,
    first_shape: Sequence[int] = SMALL,
) -> float:
    """Measure the peak memory in MiB of predicting an image of `shape`, with or without the `weights` of `predict`.

    `predict` is pickled. Raises OutOfMemoryError when the prediction does not fit, RuntimeError when the process fails.
    """
    request = {"shape": shape, "first_shape": first_shape, "threads": threads, "weights": weights}
    child = run_module("dlv3p.profiling.process_memory", json.dumps(request), pickle.dumps(predict))
    if child.returncode == 0:
        return round(int(child.stdout.split()[-1]) / 1024, 1)
    reason = child.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
    if child.returncode == -signal.SIGKILL or "OutOfMemoryError" in reason:
        size = "x".join(str(length) for length in (shape[0], *shape[2:]))
        raise OutOfMemoryError(f"out of memory: a prediction of {size} does not fit; take a smaller one")
    raise RuntimeError(f"the process that measures memory ended with status {child.returncode}: {reason}")


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


def _peak_of_request(request: dict[str, Any], content: bytes) -> int:
    """Return the KiB that a request of `measure_peak` asks for, of this process."""
    torch.set_num_threads(request["threads"])
    predict = pickle.loads(content)
    predict(torch.zeros(request["first_shape"]))
    image = torch.rand(request["shape"])
    if getattr(getattr(predict, "device", None), "type", "cpu") == "cuda":
        return _peak_on_gpu(predict, image)
    if request["weights"]:
        del predict
        gc.collect()
    before = resident_kib()
    if request["weights"]:
        predict = pickle.loads(content)
    restart_peak()  # what loading took for a moment is no need of the prediction
    predict(image)
    return max(0, peak_kib() - before)


def _peak_on_gpu(predict: Callable, image: Tensor) -> int:
    """Return the KiB that tensors, weights included, hold on the GPU at the peak of a prediction."""
    predict(image)  # cuDNN tries its algorithms on the first image of a size, and takes more than it will need
    torch.cuda.reset_peak_memory_stats(predict.device)
    predict(image)
    torch.cuda.synchronize(predict.device)
    return torch.cuda.max_memory_allocated(predict.device) // 1024


if __name__ == "__main__":
    with explain_out_of_memory():
        print(_peak_of_request(json.loads(sys.argv[1]), sys.stdin.buffer.read()))
