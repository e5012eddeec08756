"""The memory that one prediction needs at its peak: from torch's allocator on a GPU, from the system on a CPU.

The two are different things. A GPU's figure holds weights, activations and workspace. A CPU has no such book-keeping,
so the network runs once in a fresh process, and the figure is how much the resident memory of that process rises above
what it held with the network loaded. That process hands freed memory back at once (`_MALLOC`): otherwise a tensor that
fits into what an earlier one left would not be seen, and the figure would vary by some 10 MiB from run to run.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from cityscapes.errors import MachineError

NOT_MEASURED = "not measured"
_MIB = 2**20
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def measure_memory(
    model: nn.Module,
    *,
    height: int,
    width: int,
    batch: int = 1,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, float | str]:
    """Measure the peak memory of one prediction in MiB: allocated_mib, reserved_mib and process_mib.

    On CUDA the first two are the peaks of torch's allocator, weights included: what tensors hold, and what was taken
    from the GPU for them. On a CPU the third is the rise of a fresh process's resident memory, weights not included.
    The others are "not measured", as is everything outside Linux without a GPU. Raises MachineError when memory runs
    out.
    """
    result: dict[str, float | str] = dict.fromkeys(("allocated_mib", "reserved_mib", "process_mib"), NOT_MEASURED)
    if torch.device(device).type == "cuda":
        return result | _cuda_peaks(model, (batch, 3, height, width), torch.device(device), dtype)
    if Path("/proc/self/clear_refs").exists():
        result["process_mib"] = _process_peak(model, (batch, 3, height, width), dtype)
    return result


@torch.inference_mode()
def predict_once(model: nn.Module, size: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> None:
    """Run `model` once on a batch of zeros (N,3,H,W), under autocast where `dtype` is not float32."""
    image = torch.zeros(size, device=device)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        model(image)


def _cuda_peaks(model: nn.Module, size: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    model = model.to(device).eval()
    predict_once(model, size, device, dtype)  # cuDNN takes its workspace on the first run
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    predict_once(model, size, device, dtype)
    torch.cuda.synchronize(device)
    return {
        "allocated_mib": round(torch.cuda.max_memory_allocated(device) / _MIB, 1),
        "reserved_mib": round(torch.cuda.max_memory_reserved(device) / _MIB, 1),
    }


def _process_peak(model: nn.Module, size: tuple[int, ...], dtype: torch.dtype) -> float:
    content = io.BytesIO()
    torch.save(model, content)
    request = [*size, str(dtype).removeprefix("torch."), torch.get_num_threads()]
    command = [sys.executable, "-m", "dlv3p.memory", json.dumps(request)]
    child = subprocess.run(command, input=content.getvalue(), capture_output=True, env=os.environ | _MALLOC)
    if child.returncode == 0:
        return round(float(child.stdout.split()[-1]) / 1024, 1)
    reason = child.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
    if child.returncode == -signal.SIGKILL or "DefaultCPUAllocator" in reason or "MemoryError" in reason:
        raise MachineError(
            f"out of memory: a prediction of {size[0]}x{size[2]}x{size[3]} does not fit; take a smaller one"
        )
    raise RuntimeError(f"the process that measures memory ended with status {child.returncode}: {reason}")


def _resident(field: str) -> int:
    """Read VmRSS, what the process holds now, or VmHWM, the most it held, in KiB."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1))


def _measure_in_this_process() -> None:
    """Read a network from standard input, run it once and print the rise of the resident memory in KiB."""
    *size, dtype, threads = json.loads(sys.argv[1])
    torch.set_num_threads(threads)
    model = torch.load(io.BytesIO(sys.stdin.buffer.read()), weights_only=False, map_location="cpu").eval()
    # The first run, a tiny one, loads libraries and starts threads, which is no memory of the prediction.
    predict_once(model, (1, 3, 64, 64), torch.device("cpu"), getattr(torch, dtype))
    with suppress(OSError):
        _write_proc("/proc/self/clear_refs", "5")  # the peak starts again from what is held now
    before = _resident("VmRSS")
    predict_once(model, tuple(size), torch.device("cpu"), getattr(torch, dtype))
    print(max(0, _resident("VmHWM") - before))


def _write_proc(path: str, text: str) -> None:
    with open(path, "w") as file:  # not a file of the disk, so nothing to write atomically
        file.write(text)


if __name__ == "__main__":
    _measure_in_this_process()
