"""Measure the memory of any predictor, weights included, in a fresh process of its own.

    pickled predictor  ──stdin──▶  python -m dlv3p.profiling.process_memory  ──stdout──▶  KiB

The figure is the peak of the process's resident memory during one prediction, less what it held before the predictor
was loaded and after it had been loaded and used once and thrown away, which brings in the libraries. It thus means the
same for every runtime. Of a predictor on a GPU it is what torch's allocator held on the board at the peak: the host's
memory tells nothing about it. `profiling/memory.py` measures torch's networks alone, and without their weights.
"""

import gc
import io
import json
import pickle
import sys
from collections.abc import Callable
from typing import Any

from dlv3p.profiling.memory import measurable, peak_kib, resident_kib, restart_peak, run_module


def measure_process_memory(predict: Callable, size: tuple[int, int], *, threads: int) -> float | None:
    """Measure the peak memory in MiB of loading `predict` and predicting a normalised image (1,3,*size) once.

    None where it cannot be measured: outside Linux, when `predict` cannot be pickled, or when the process fails. A
    predictor with a `device` on a GPU is measured there.
    """
    if not measurable():
        return None
    try:
        content = pickle.dumps(predict)
    except (pickle.PicklingError, TypeError, AttributeError):
        return None
    request = json.dumps({"size": size, "threads": threads})
    child = run_module("dlv3p.profiling.process_memory", request, content)
    if child.returncode:
        return None
    return round(int(child.stdout.split()[-1]) / 1024, 1)


def _measure() -> None:
    import torch

    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    content = sys.stdin.buffer.read()
    predict = pickle.load(io.BytesIO(content))
    predict(torch.zeros(1, 3, 64, 64))
    image = torch.rand(1, 3, *request["size"])
    if getattr(getattr(predict, "device", None), "type", "cpu") == "cuda":
        print(_peak_on_gpu(predict, image))
        return
    del predict
    gc.collect()
    before = resident_kib()
    predict = pickle.load(io.BytesIO(content))
    restart_peak()  # what loading took for a moment is no need of the prediction
    predict(image)
    print(max(0, peak_kib() - before))


def _peak_on_gpu(predict: Callable, image: Any) -> int:
    """Return the KiB that tensors, weights included, hold on the GPU at the peak of a prediction."""
    import torch

    predict(image)  # cuDNN tries its algorithms on the first image of a size, and takes more than it will need
    torch.cuda.reset_peak_memory_stats(predict.device)
    predict(image)
    torch.cuda.synchronize(predict.device)
    return torch.cuda.max_memory_allocated(predict.device) // 1024


if __name__ == "__main__":
    _measure()
