"""What a network costs: latency, memory, parameters and multiply-adds, over sizes, batches and output strides."""

import gc
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cityscapes.errors import MachineError, ParameterError
from dlv3p.macs import count_macs, count_parameters
from dlv3p.memory import NOT_MEASURED, measure_memory
from dlv3p.provenance import hardware


@dataclass(frozen=True)
class Latency:
    """Milliseconds that a batch takes: the tenth, the half and nine tenths of the runs were at least as fast."""

    p10_ms: float
    p50_ms: float
    p90_ms: float
    repeats: int


def measure_latency(
    model: nn.Module,
    *,
    height: int,
    width: int,
    batch: int = 1,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    warmup: int = 3,
    repeats: int = 10,
) -> Latency:
    """Time predictions of a batch (batch,3,height,width) that already lies on the device, upsampling included.

    `warmup` runs are not counted. Other types than float32 run under autocast. The model is moved to `device` and put
    into evaluation mode. Raises MachineError when memory runs out.
    """
    if repeats < 1 or warmup < 0:
        raise ParameterError(f"repeats={repeats}, warmup={warmup}: at least 1 and 0 are allowed")
    target = torch.device(device)
    time_once = _time_on_cuda if target.type == "cuda" else _time_on_cpu
    try:
        model = model.to(target).eval()
        image = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0)).to(target)
        with torch.inference_mode(), torch.autocast(target.type, dtype=dtype, enabled=dtype != torch.float32):
            times = [time_once(model, image) for _ in range(warmup + repeats)][warmup:]
    except RuntimeError as error:
        raise _explained(error) from error
    return Latency(*(round(float(value), 3) for value in np.percentile(times, (10, 50, 90))), repeats)


def profile_model(
    builds: Mapping[str, Callable[[], nn.Module]],
    *,
    sizes: Sequence[tuple[int, int]],
    batches: Sequence[int] = (1,),
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    warmup: int = 3,
    repeats: int = 10,
    memory: bool = True,
) -> list[dict[str, Any]]:
    """Measure every network of `builds`, by its title, at every size (height, width) and batch: a row each.

    Columns: model, height, width, batch, device, dtype, parameters, gmacs (of the whole batch), p10_ms, p50_ms, p90_ms,
    images_per_second, allocated_mib, reserved_mib, process_mib, status. What does not fit is a row as well, whose
    status is "out of memory" and whose measured columns say "not measured". Values are plain JSON. On a CPU the memory
    costs some seconds a row; `memory=False` leaves it out.
    """
    rows = []
    for title, build in builds.items():
        model = build()
        for height, width in sizes:
            macs = count_macs(build, height, width)["total"]
            for batch in batches:
                case = {"height": height, "width": width, "batch": batch}
                options = case | {"device": device, "dtype": dtype}
                measured = _measure(model, options, {"warmup": warmup, "repeats": repeats}, memory)
                cost = {"parameters": count_parameters(model)["total"], "gmacs": round(macs * batch / 1e9, 3)}
                dtype_name = str(dtype).removeprefix("torch.")
                rows.append({"model": title, **case, "device": device, "dtype": dtype_name, **cost, **measured})
        del model
        _release_memory()
    return rows


def machine() -> dict[str, Any]:
    """Return what the numbers were measured on: processor, cores, threads, memory, GPU, driver, torch, Python."""
    return hardware() | {
        "threads": torch.get_num_threads(),
        "memory_bytes": _total_memory(),
        "gpu_driver": _gpu_driver() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _measure(model: nn.Module, options: dict[str, Any], timing: dict[str, int], memory: bool) -> dict[str, Any]:
    keys = ("p10_ms", "p50_ms", "p90_ms", "images_per_second", "allocated_mib", "reserved_mib", "process_mib")
    row: dict[str, Any] = dict.fromkeys(keys, NOT_MEASURED) | {"status": "ok"}
    try:
        # Memory first: on a CPU it runs in a process of its own, which alone is ended when nothing is left.
        if memory:
            row |= measure_memory(model, **options)
        latency = measure_latency(model, **options, **timing)
    except (MachineError, torch.OutOfMemoryError):
        _release_memory()
        return row | {"status": "out of memory"}
    row |= {name: getattr(latency, name) for name in ("p10_ms", "p50_ms", "p90_ms")}
    return row | {"images_per_second": round(1000 * options["batch"] / latency.p50_ms, 2)}


def _time_on_cpu(model: nn.Module, image: torch.Tensor) -> float:
    began = time.perf_counter()
    model(image)
    return 1000 * (time.perf_counter() - began)


def _time_on_cuda(model: nn.Module, image: torch.Tensor) -> float:
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(image.device)
    began.record()
    model(image)
    ended.record()
    torch.cuda.synchronize(image.device)
    return began.elapsed_time(ended)


def _explained(error: RuntimeError) -> Exception:
    """Return a MachineError where `error` is a lack of memory, which torch tells differently on CPU and GPU."""
    if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
        return MachineError("out of memory: the prediction does not fit; take a smaller image or batch")
    return error


def _release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


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
