"""Measure the peak memory of one prediction: from torch's allocator on a GPU, from a fresh process on a CPU.

The four columns are different things. Of a GPU, `allocated` is what tensors hold at the peak, weights, activations and
workspace; `reserved` is what torch took from the board for them; `process` adds what CUDA itself takes, and is what
nvidia-smi shows. A CPU has no such book-keeping, so the network runs once in a fresh process, and `above_weights` is
how much the resident memory of that process rises above what it held with the network loaded. There freed memory must
go back to the system at once (`MALLOC`): otherwise a tensor that fits into what an earlier one left would not be seen,
and a figure would vary by some 10 MiB from run to run.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlv3p.profiling.counters import Board
from dlv3p.profiling.latency import compile_network, prepare, random_images
from dlv3p.profiling.timing import NOT_MEASURED, NotMeasurable
from dlv3p.runtime.devices import OutOfMemoryError, out_of_memory_explained

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


COLUMNS = ("allocated_mib", "reserved_mib", "process_mib", "above_weights_mib")
_MIB = 2**20


def measure_memory(
    model: nn.Module,
    *,
    height: int,
    width: int,
    batch: int = 1,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> dict[str, float | str]:
    """Measure the peak memory of one prediction in MiB: allocated_mib, reserved_mib, process_mib, above_weights_mib.

    On CUDA there are the first three, which hold the weights; what other networks of this process hold is left out of
    the first, but not of the others. On a CPU there is the last alone. What cannot be measured is "not measured".
    Raises OutOfMemoryError, a MachineError, when memory runs out.
    """
    result: dict[str, float | str] = dict.fromkeys(COLUMNS, NOT_MEASURED)
    case = {"batch": batch, "height": height, "width": width}
    device = torch.device(device)
    if device.type == "cuda":
        with out_of_memory_explained():
            return result | _cuda_peaks(model, case, device, dtype, compiled)
    if measurable():
        result["above_weights_mib"] = _process_peak(model, case, dtype, compiled)
    return result


@torch.inference_mode()
def _cuda_peaks(
    model: nn.Module, case: dict[str, int], device: torch.device, dtype: torch.dtype, compiled: bool
) -> dict[str, float | str]:
    own = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values() if tensor.is_cuda)
    others = torch.cuda.memory_allocated(device) - own
    network: Callable[[Tensor], Tensor] = prepare(model, device, dtype)
    network = compile_network(network) if compiled else network
    images = random_images(**case, device=device, dtype=dtype)
    network(images)  # cuDNN tries its algorithms on the first run, and takes more than it will need
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    network(images)
    torch.cuda.synchronize(device)
    return {
        "allocated_mib": round((torch.cuda.max_memory_allocated(device) - others) / _MIB, 1),
        "reserved_mib": round(torch.cuda.max_memory_reserved(device) / _MIB, 1),
        "process_mib": _board_memory(device),  # torch has given nothing back yet, so that now is the peak
    }


def _board_memory(device: torch.device) -> float | str:
    try:
        return Board(device).process_mib()
    except NotMeasurable:
        return NOT_MEASURED


def _process_peak(model: nn.Module, case: dict[str, int], dtype: torch.dtype, compiled: bool) -> float:
    content = io.BytesIO()
    torch.save(model, content)
    request: dict[str, Any] = {"case": case, "dtype": str(dtype).removeprefix("torch."), "compiled": compiled}
    request |= {"threads": torch.get_num_threads()}
    child = run_module("dlv3p.profiling.memory", json.dumps(request), content.getvalue())
    if child.returncode == 0:
        return round(float(child.stdout.split()[-1]) / 1024, 1)
    reason = child.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
    if child.returncode == -signal.SIGKILL or "OutOfMemoryError" in reason:
        size = f"{case['batch']}x{case['height']}x{case['width']}"
        raise OutOfMemoryError(f"out of memory: a prediction of {size} does not fit; take a smaller one")
    raise RuntimeError(f"the process that measures memory ended with status {child.returncode}: {reason}")


@torch.inference_mode()
def _measure_in_this_process() -> None:
    """Read a network from standard input, run it once and print the rise of the resident memory in KiB."""
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    dtype, case = getattr(torch, request["dtype"]), request["case"]
    model = torch.load(io.BytesIO(sys.stdin.buffer.read()), weights_only=False, map_location="cpu")
    network: Callable[[Tensor], Tensor] = prepare(model, "cpu", dtype)
    del model
    with out_of_memory_explained():
        if request["compiled"]:
            network = compile_network(network)
            network(random_images(**case, device="cpu", dtype=dtype))
        else:  # a tiny image loads libraries and starts threads, which is no memory of the prediction
            network(random_images(1, 64, 64, "cpu", dtype))
        with suppress(OSError):
            restart_peak()
        before = resident_kib()
        network(random_images(**case, device="cpu", dtype=dtype))
        print(max(0, peak_kib() - before))


if __name__ == "__main__":
    _measure_in_this_process()
