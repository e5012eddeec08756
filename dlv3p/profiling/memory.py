"""Measure the peak memory of one prediction: from torch's allocator on a GPU, from a fresh process on a CPU.

The four columns are different things. Of a GPU, `allocated` is what tensors hold at the peak, weights, activations and
workspace; `reserved` is what torch took from the board for them; `process` adds what CUDA itself takes, and is what
nvidia-smi shows. A CPU has no such bookkeeping, so the network runs once in a fresh process, and `above_weights` is
how much the resident memory of that process rises above what it held with the network loaded (`process_memory.py`).
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from dlv3p.models.inputs import input_channels
from dlv3p.profiling.counters import NOT_MEASURED, NotMeasurable, NvmlBoard
from dlv3p.profiling.latency import compile_network, prepare, random_images
from dlv3p.profiling.process_memory import SMALL, measurable, measure_peak
from dlv3p.runtime.devices import LAYOUT, explain_out_of_memory

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

    On CUDA these are the first three, which include the weights; other networks of this process are left out of the
    first, but not of the others. On a CPU it is the last alone. What cannot be measured is "not measured".
    Raises OutOfMemoryError, a MachineError, when memory runs out.
    """
    result: dict[str, float | str] = dict.fromkeys(COLUMNS, NOT_MEASURED)
    case = {"batch": batch, "height": height, "width": width}
    device = torch.device(device)
    if device.type == "cuda":
        with explain_out_of_memory():
            return result | _cuda_peaks(model, case, device, dtype, compiled)
    if measurable():
        shape = (batch, input_channels(model), height, width)
        predict = _Prediction(prepare(model, device, dtype), dtype, compiled=compiled)
        # Compilation fixes the shape, so the first image must have it.
        first_shape = shape if compiled else (SMALL[0], shape[1], *SMALL[2:])
        result["above_weights_mib"] = measure_peak(
            predict, shape, threads=torch.get_num_threads(), weights=False, first_shape=first_shape
        )
    return result


@torch.inference_mode()
def _cuda_peaks(
    model: nn.Module, case: dict[str, int], device: torch.device, dtype: torch.dtype, compiled: bool
) -> dict[str, float | str]:
    own = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values() if tensor.is_cuda)
    others = torch.cuda.memory_allocated(device) - own
    network: Callable[[Tensor], Tensor] = prepare(model, device, dtype)
    network = compile_network(network) if compiled else network
    images = random_images(model, **case, device=device, dtype=dtype)
    network(images)  # cuDNN benchmarks its algorithms on the first run, and takes more than it will need
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    network(images)
    torch.cuda.synchronize(device)
    return {
        "allocated_mib": round((torch.cuda.max_memory_allocated(device) - others) / _MIB, 1),
        "reserved_mib": round(torch.cuda.max_memory_reserved(device) / _MIB, 1),
        "process_mib": _board_memory(device),  # torch has released nothing yet, so this is the peak
    }


def _board_memory(device: torch.device) -> float | str:
    try:
        return NvmlBoard(device).process_mib()
    except NotMeasurable:
        return NOT_MEASURED


class _Prediction:
    """A prepared network as the fresh process runs it; compiled there if requested."""

    def __init__(self, network: nn.Module, dtype: torch.dtype, *, compiled: bool) -> None:
        self.network, self.dtype, self.compiled = network, dtype, compiled

    @cached_property
    def _run(self) -> Callable[[Tensor], Tensor]:
        return compile_network(self.network) if self.compiled else self.network

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        return self._run(image.to(dtype=self.dtype, memory_format=LAYOUT))
