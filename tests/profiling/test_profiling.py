"""Costs agree with what can be worked out by hand, part by part and stage by stage."""

import io
import json
import runpy
import sys
from contextlib import redirect_stdout
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cityscapes.errors import MachineError, OutOfMemoryError, ParameterError
from dlv3p.models.anatomy import count_macs, count_parameters, count_parts
from dlv3p.models.deeplab import build_model
from dlv3p.profiling import latency, machine, memory, process_memory
from dlv3p.profiling import latency as stages
from dlv3p.profiling import timing as clocks
from dlv3p.profiling.counters import NOT_MEASURED, NotMeasurable
from dlv3p.profiling.latency import STAGES, UPSAMPLING, measure_latency, measure_parts, measure_stages, prepare
from dlv3p.profiling.memory import measure_memory
from dlv3p.profiling.timing import CudaClock, InterleavedTimes, clock_of, time_call
from dlv3p.runtime.devices import explain_out_of_memory

deeplab = partial(build_model, "deeplabv3plus", "resnet18", num_classes=19, channels=64)
small = partial(build_model, "deeplabv3plus", "mobilenet_v2", num_classes=5, channels=8)


class Convolutions(nn.Module):
    """Two parts whose costs are known."""

    def __init__(self):
        super().__init__()
        self.strided = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 16, 3, padding=2, dilation=2, groups=4)

    def forward(self, image):
        return self.grouped(self.strided(image)).relu()


class Ticks:
    """A clock on which a moment is the number of the mark, times `step` ms; `log` says what was done in which order."""

    def __init__(self, step=1.0):
        self.step, self.marks, self.log = step, 0, []

    def mark(self):
        self.marks += 1
        self.log.append("mark")
        return self.marks

    def wait(self):
        self.log.append("wait")

    def milliseconds(self, began, ended):
        return self.step * (ended - began)


def test_macs_of_convolutions_are_pixels_times_weights():
    macs = count_macs(Convolutions, 32, 64)
    strided, grouped = 16 * 32 * 3 * 8 * 9, 16 * 32 * 8 * 16 * 9 // 4
    assert macs == {"strided": strided, "grouped": grouped, "total": strided + grouped}


def test_flops_are_two_a_mac_in_every_part():
    parts = count_parts(Convolutions, 32, 64)
    assert parts["strided"] == {"parameters": 8 * 28, "macs": 110_592, "flops": 221_184}
    assert list(parts) == ["strided", "grouped", "total"]
    assert all(counts["flops"] == 2 * counts["macs"] > 0 for counts in parts.values())


def test_parts_of_a_deeplab_add_up_to_its_total():
    for counts in (
        count_macs(partial(deeplab, output_stride=16), 128, 256),
        count_parameters(deeplab(output_stride=16)),
    ):
        assert list(counts) == ["backbone", "aspp", "decoder", "classifier", "total"]
        assert sum(counts.values()) == 2 * counts["total"]
        assert min(counts.values()) > 0


def test_macs_of_the_classifier_are_those_of_its_one_convolution():
    assert count_macs(partial(deeplab, output_stride=16), 128, 256)["classifier"] == 32 * 64 * 64 * 19


def test_output_stride_8_costs_the_aspp_four_times_as_much_less_its_pooling():
    # The image-level pooling sees one pixel at any stride: 512*64 there, and every other branch grows by four.
    at16, at8 = (count_macs(partial(deeplab, output_stride=stride), 128, 256)["aspp"] for stride in (16, 8))
    pooling = 512 * 64
    assert at8 - pooling == 4 * (at16 - pooling)


def test_counting_needs_no_memory_at_any_size():
    little, much = (count_macs(Convolutions, side, side)["total"] for side in (64, 64 * 1024))
    assert much == little * 1024**2


def test_percentiles_are_those_of_the_counted_runs_only(monkeypatch):
    times = iter([1000.0, 900.0, *range(10, 111, 10)])
    monkeypatch.setattr(latency, "time_call", lambda call, clock: next(times))
    measured = measure_latency(Convolutions(), height=32, width=32, warmup=2, repeats=11)
    assert (measured.p10_ms, measured.p50_ms, measured.p90_ms, measured.first_ms) == (20, 60, 100, 1000)
    assert measured.times_ms == tuple(range(10, 111, 10))


def test_latency_is_taken_in_evaluation_mode_without_gradients_in_the_layout_of_the_suite():
    seen = []

    class Watching(Convolutions):
        def forward(self, image):
            last = image.is_contiguous(memory_format=torch.channels_last)
            seen.append((self.training, torch.is_inference_mode_enabled(), image.shape, image.dtype, last))
            return super().forward(image)

    measure_latency(Watching(), height=32, width=48, batch=2, warmup=1, repeats=2)
    assert seen == [(False, True, (2, 3, 32, 48), torch.float32, True)] * 3
    seen.clear()
    measure_latency(Watching(), height=32, width=48, dtype=torch.bfloat16, warmup=0, repeats=1)
    assert seen == [(False, True, (1, 3, 32, 48), torch.bfloat16, True)]


def test_other_types_leave_the_network_itself_alone():
    model = Convolutions()
    assert prepare(model, "cpu", torch.float16).strided.weight.dtype == torch.float16
    assert model.strided.weight.dtype == torch.float32
    assert prepare(model, "cpu") is model


def test_no_repeats_are_refused():
    with pytest.raises(ParameterError, match="repeats=0"):
        measure_latency(Convolutions(), height=32, width=32, repeats=0)


def test_a_gpu_is_idle_before_a_call_and_done_after_it():
    ticks = Ticks()
    time = time_call(lambda: ticks.log.append("call"), ticks)
    assert ticks.log == ["wait", "mark", "call", "mark", "wait"]
    assert time == 1


def test_a_gpu_is_timed_by_its_own_events_in_its_own_stream(monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            log.append(("record", stream))

        def elapsed_time(self, ended):
            assert log[-1] == ("synchronize", torch.device("cuda", 1)), "read before the device was done"
            return 12.5

    monkeypatch.setattr(clocks.torch.cuda, "Event", Event)
    monkeypatch.setattr(clocks.torch.cuda, "current_stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(clocks.torch.cuda, "synchronize", lambda device: log.append(("synchronize", device)))
    clock = clock_of("cuda:1")
    assert isinstance(clock, CudaClock)
    assert time_call(lambda: log.append("call"), clock) == 12.5
    assert log[1:4] == [("record", "stream of cuda:1"), "call", ("record", "stream of cuda:1")]


def test_parts_are_timed_within_whole_predictions_without_waiting_between_them(monkeypatch):
    ticks = Ticks()
    monkeypatch.setattr(latency, "clock_of", lambda device: ticks)
    parts = measure_parts(small(), height=33, width=65, warmup=0, repeats=1)
    assert list(parts) == ["backbone", "aspp", "decoder", "classifier", UPSAMPLING]
    assert {part.p50_ms for part in parts.values()} == {1}
    assert ticks.log == ["wait", *["mark"] * 9, "wait"]


def test_a_part_that_does_nothing_or_does_not_run_has_no_time():
    model = build_model(
        "deeplabv3", "mobilenet_v2", num_classes=5, channels=8, head_convolution=False, auxiliary_head=True
    )
    parts = measure_parts(model, height=33, width=65, warmup=0, repeats=1)
    assert list(parts) == ["backbone", "aspp", "classifier", UPSAMPLING]
    assert not model.backbone._forward_hooks, "hooks of a measurement stay behind"


def test_stages_go_from_a_file_to_labels_and_add_up(monkeypatch):
    seen = []
    monkeypatch.setattr(stages, "clock_of", lambda device: SimpleNamespace(wait=lambda: seen.append("wait")))
    original = stages.upsample_argmax

    def watched(logits, size, **options):
        labels = original(logits, size, **options)
        seen.append((tuple(labels.shape), labels.dtype))
        return labels

    monkeypatch.setattr(stages, "upsample_argmax", watched)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    measured = measure_stages(small(), picture, height=33, width=65, batch=2, warmup=1, repeats=3)
    one = ["wait"] * 4 + [((2, 33, 65), torch.uint8)] + ["wait"] * 2
    assert seen == 4 * one
    assert tuple(measured.by_stage) == STAGES
    total = np.sum([stage.times_ms for stage in measured.by_stage.values()], axis=0)
    assert measured.total.times_ms == pytest.approx(total, abs=1e-3)
    assert list(measured.medians()) == [*STAGES, "end to end"]


@pytest.mark.skipif(not process_memory.measurable(), reason="the system has no resettable memory peak")
def test_memory_is_that_of_the_input_and_the_output():
    # No convolution: what those take besides depends on the processor and on the number of threads.
    result = measure_memory(nn.Upsample(scale_factor=8), height=256, width=256)
    expected = pytest.approx(0.75 + 48, abs=3)  # 3 channels of float32, 256*256 and 2048*2048
    assert result["above_weights_mib"] == expected
    assert result["allocated_mib"] == result["reserved_mib"] == result["process_mib"] == NOT_MEASURED


@pytest.mark.skipif(not process_memory.measurable(), reason="the system has no resettable memory peak")
def test_the_process_that_measures_memory_computes_in_the_type_asked_for_and_compiles(monkeypatch):
    seen = []

    def run_here(module, request, content, environment):
        monkeypatch.setattr(sys, "argv", [module, request])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        monkeypatch.delitem(sys.modules, module, raising=False)
        with redirect_stdout(io.StringIO()) as told:
            runpy.run_module(module, run_name="__main__")
        return SimpleNamespace(returncode=0, stdout=told.getvalue().encode())

    def compile_network(network):
        return lambda images: seen.append(("compiled", images.dtype)) or network(images)

    def watched(model, device, dtype):
        seen.append(dtype)
        return original(model, device, dtype)

    original = memory.prepare
    monkeypatch.setattr(process_memory, "run_module", run_here)
    monkeypatch.setattr(memory, "prepare", watched)
    monkeypatch.setattr(memory, "compile_network", compile_network)
    measure_memory(nn.Conv2d(3, 4, 1), height=65, width=65, dtype=torch.bfloat16)
    assert seen == [torch.bfloat16]
    measure_memory(nn.Conv2d(3, 4, 1), height=65, width=65, dtype=torch.bfloat16, compiled=True)
    assert seen[1:] == [torch.bfloat16, *[("compiled", torch.bfloat16)] * 2], "once to compile, once to measure"


def test_memory_is_not_measured_where_the_system_cannot(monkeypatch):
    monkeypatch.setattr(memory, "measurable", lambda: False)
    assert set(measure_memory(Convolutions(), height=32, width=32).values()) == {NOT_MEASURED}


@pytest.mark.parametrize(
    ("status", "told", "kind"),
    [
        (-9, b"", OutOfMemoryError),
        (1, b"Traceback\ncityscapes.errors.OutOfMemoryError: out of memory", OutOfMemoryError),
        (1, b"Traceback\nRuntimeError: no kernel", RuntimeError),
    ],
)
def test_a_process_that_is_killed_for_memory_is_told_from_one_that_fails(monkeypatch, status, told, kind):
    child = SimpleNamespace(returncode=status, stdout=b"", stderr=told)
    monkeypatch.setattr(process_memory, "run_module", lambda *arguments: child)
    monkeypatch.setattr(memory, "measurable", lambda: True)
    with pytest.raises(kind):
        measure_memory(Convolutions(), height=32, width=32)


def test_memory_of_a_gpu_is_the_peak_of_a_second_run_in_three_columns(monkeypatch):
    log, mib = [], 2**20
    fake = SimpleNamespace(
        memory_allocated=lambda device: 100 * mib,  # another network of this process
        synchronize=lambda device: log.append("synchronize"),
        empty_cache=lambda: log.append("empty_cache"),
        reset_peak_memory_stats=lambda device: log.append("reset"),
        max_memory_allocated=lambda device: 350 * mib,
        max_memory_reserved=lambda device: 400 * mib,
    )
    for name, value in vars(fake).items():
        monkeypatch.setattr(memory.torch.cuda, name, value)
    monkeypatch.setattr(memory, "prepare", lambda model, device, dtype: lambda images: log.append((images, dtype)))
    monkeypatch.setattr(memory, "compile_network", lambda network: lambda images: network(f"compiled {images}"))
    monkeypatch.setattr(memory, "random_images", lambda *_, **options: options["dtype"])
    monkeypatch.setattr(memory, "NvmlBoard", lambda device: SimpleNamespace(process_mib=lambda: 900.0))
    measured = measure_memory(Convolutions(), height=32, width=32, device="cuda", dtype=torch.float16)
    assert measured.pop("above_weights_mib") == NOT_MEASURED
    assert measured == {"allocated_mib": 250, "reserved_mib": 400, "process_mib": 900}
    run = (torch.float16, torch.float16)
    assert log == [run, "synchronize", "empty_cache", "reset", run, "synchronize"]
    log.clear()
    measure_memory(Convolutions(), height=32, width=32, device="cuda", compiled=True)
    assert [one[0] for one in log if isinstance(one, tuple)] == ["compiled torch.float32"] * 2

    def refuse(device):
        raise NotMeasurable("no NVML")

    monkeypatch.setattr(memory, "NvmlBoard", refuse)
    assert measure_memory(Convolutions(), height=32, width=32, device="cuda")["process_mib"] == NOT_MEASURED


def test_a_prediction_that_does_not_fit_is_told_in_one_line():
    with pytest.raises(MachineError, match="out of memory") as caught:
        measure_latency(Convolutions(), height=2**21, width=2**21)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA: tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=lambda error: str(error)[-20:] or "MemoryError",
)
def test_every_way_to_tell_a_lack_of_memory_is_understood(error):
    with pytest.raises(OutOfMemoryError, match="out of memory: take less"), explain_out_of_memory("take less"):
        raise error


def test_other_errors_are_no_lack_of_memory():
    with pytest.raises(RuntimeError, match="no kernel"), explain_out_of_memory():
        raise RuntimeError("no kernel")


def test_the_interval_of_a_speedup_is_that_of_the_sign_test():
    """Of 100 ratios the true median lies between the 41st and the 60th in 94 of 100 cases (binomial, one half)."""
    turns = InterleavedTimes({"dense": [float(ratio) for ratio in range(1, 101)], "small": [1.0] * 100})
    assert turns.speedup("small", over="dense") == (50.5, 41, 60)


def test_the_machine_is_described_in_plain_json():
    description = machine.machine()
    assert json.loads(json.dumps(description)) == description
    assert {"processor", "cores", "threads", "memory_bytes", "gpu", "gpu_driver", "torch", "python"} <= set(description)
    assert machine.machine() == description, "a sweep would never go on"


def test_how_busy_a_gpu_is_is_told_as_far_as_it_can_be(monkeypatch):
    monkeypatch.setattr(machine.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine.torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(machine.torch.cuda, "mem_get_info", lambda device: (30, 100))

    def refuse(device):
        raise NotMeasurable("no NVML")

    monkeypatch.setattr(machine, "NvmlBoard", refuse)
    told = machine.load()
    assert (told["gpu_used_bytes"], told["gpu_state"]) == (70, "not measured: no NVML")


def test_other_work_on_the_machine_is_told():
    threads = torch.get_num_threads()
    quiet, busy = ([{"load": {"load_average": load}}] for load in (threads + 0.5, threads + 12.0))
    assert machine.summarize_load(quiet).endswith("no other work was noticed")
    told = machine.summarize_load(quiet + busy)
    assert "other work ran on this machine, about 12 more threads" in told
    assert told.endswith("close other programs and run this notebook again")
    assert machine.summarize_load([{"load": {"load_average": None}}]) == machine.summarize_load(quiet)
