"""Measure the memory of one prediction in a fresh process, from the peak of its resident memory.

    pickled predictor  ──stdin──▶  python -m dlv3p.profiling.process_memory  ──stdout──▶  KiB

The predictor runs once on a small image first, which loads libraries and starts threads. The figure is then the peak of
the resident memory during one prediction, less what the process held before: with the predictor loaded, or, where its
weights count, with the predictor discarded and about to be loaded again. It thus means the same for every runtime. Of a
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
from collections.abc import Callable, Mapping, Sequence
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
    """Return whether this system reports the peak memory of a process; only Linux does."""
    return _PEAK.exists()


def measure_process_memory(
    predict: Callable, size: tuple[int, int], *, threads: int, device: str | torch.device = "cpu"
) -> float | None:
    """Measure the peak memory in MiB of loading `predict` and predicting a normalized image (1,3,*size) once.

    `device` is where `predict` computes. None where it cannot be measured: outside Linux, when `predict` cannot be
    pickled, or when the process fails.
    """
    if not measurable():
        return None
    try:
        return measure_peak(predict, (1, 3, *size), threads=threads, weights=True, device=device)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError, OutOfMemoryError):
        return None


def measure_peak(
    predict: Callable[[Tensor], object],
    shape: Sequence[int],
    *,
    threads: int,
    weights: bool,
    first_shape: Sequence[int] = SMALL,
    device: str | torch.device = "cpu",
) -> float:
    """Measure the peak memory in MiB of predicting an image of `shape`, with or without the `weights` of `predict`.

    `predict` is pickled. Raises OutOfMemoryError when the prediction does not fit, RuntimeError when the process fails.
    """
    request = {"shape": shape, "first_shape": first_shape, "threads": threads, "weights": weights}
    request |= {"device": str(device)}
    child = run_module("dlv3p.profiling.process_memory", json.dumps(request), pickle.dumps(predict), MALLOC)
    if child.returncode == 0:
        return round(int(child.stdout.split()[-1]) / 1024, 1)
    reason = child.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
    if child.returncode == -signal.SIGKILL or "OutOfMemoryError" in reason:
        size = "x".join(str(length) for length in (shape[0], *shape[2:]))
        raise OutOfMemoryError(f"out of memory: a prediction of {size} does not fit; take a smaller one")
    raise RuntimeError(f"the process that measures memory ended with status {child.returncode}: {reason}")


def run_module(
    module: str, request: str, content: bytes, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m module request` with `content` as its standard input, and capture its output.

    `environment` is set beside the variables of this process.
    """
    command = [sys.executable, "-m", module, request]
    variables = os.environ | (environment or {})
    return subprocess.run(command, input=content, capture_output=True, env=variables, check=False)


def resident_kib() -> int:
    """Return the resident memory of this process."""
    return _status("VmRSS")


def peak_kib() -> int:
    """Return the peak resident memory of this process since `restart_peak`."""
    return _status("VmHWM")


def restart_peak() -> None:
    """Reset the peak to the current resident memory."""
    with open(_PEAK, "w") as file:  # not a file on disk, so nothing to write atomically
        file.write("5")


def _status(field: str) -> int:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))


def _peak_of_request(request: dict[str, Any], content: bytes) -> int:
    """Return the peak in KiB that `measure_peak` requested, measured in this process."""
    torch.set_num_threads(request["threads"])
    predict = pickle.loads(content)
    predict(torch.zeros(request["first_shape"]))
    image = torch.rand(request["shape"])
    if (device := torch.device(request["device"])).type == "cuda":
        return _peak_on_gpu(predict, image, device)
    if request["weights"]:
        del predict
        gc.collect()
    before = resident_kib()
    if request["weights"]:
        predict = pickle.loads(content)
    restart_peak()  # temporary memory of loading is not part of the prediction
    predict(image)
    return max(0, peak_kib() - before)


def _peak_on_gpu(predict: Callable, image: Tensor, device: torch.device) -> int:
    """Return the KiB that tensors, weights included, hold on the GPU at the peak of a prediction."""
    predict(image)  # cuDNN benchmarks its algorithms on the first image of a size, and takes more than it will need
    torch.cuda.reset_peak_memory_stats(device)
    predict(image)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) // 1024


if __name__ == "__main__":
    with explain_out_of_memory():
        print(_peak_of_request(json.loads(sys.argv[1]), sys.stdin.buffer.read()))
