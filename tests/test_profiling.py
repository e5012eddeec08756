"""Costs agree with what can be worked out by hand, and a case that does not fit is a row."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from cityscapes.errors import MachineError, ParameterError
from dlv3p import memory, profiling
from dlv3p.deeplab import build_model
from dlv3p.macs import count_macs, count_parameters
from dlv3p.memory import NOT_MEASURED, measure_memory
from dlv3p.profiling import measure_latency, profile_model

deeplab = partial(build_model, "deeplabv3plus", "resnet18", num_classes=19, channels=64)


class Convolutions(nn.Module):
    """Two parts whose costs are known."""

    def __init__(self):
        super().__init__()
        self.strided = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 16, 3, padding=2, dilation=2, groups=4)

    def forward(self, image):
        return self.grouped(self.strided(image)).relu()


def test_macs_of_convolutions_are_pixels_times_weights():
    macs = count_macs(Convolutions, 32, 64)
    strided, grouped = 16 * 32 * 3 * 8 * 9, 16 * 32 * 8 * 16 * 9 // 4
    assert macs == {"strided": strided, "grouped": grouped, "total": strided + grouped}


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
    small, large = (count_macs(Convolutions, side, side)["total"] for side in (64, 64 * 1024))
    assert large == small * 1024**2


def test_percentiles_are_those_of_the_counted_runs_only(monkeypatch):
    times = iter([1000.0, 1000.0, *range(10, 111, 10)])
    monkeypatch.setattr(profiling, "_time_on_cpu", lambda model, image: next(times))
    latency = measure_latency(Convolutions(), height=32, width=32, warmup=2, repeats=11)
    assert (latency.p10_ms, latency.p50_ms, latency.p90_ms, latency.repeats) == (20, 60, 100, 11)


def test_latency_is_taken_in_evaluation_mode_without_gradients(monkeypatch):
    seen = []

    class Watching(Convolutions):
        def forward(self, image):
            seen.append(
                (self.training, torch.is_inference_mode_enabled(), image.shape, torch.is_autocast_enabled("cpu"))
            )
            return super().forward(image)

    measure_latency(Watching(), height=32, width=48, batch=2, warmup=1, repeats=2)
    assert seen == [(False, True, (2, 3, 32, 48), False)] * 3
    seen.clear()
    measure_latency(Watching(), height=32, width=48, dtype=torch.bfloat16, warmup=0, repeats=1)
    assert seen == [(False, True, (1, 3, 32, 48), True)]


def test_no_repeats_are_refused():
    with pytest.raises(ParameterError, match="repeats=0"):
        measure_latency(Convolutions(), height=32, width=32, repeats=0)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system has no resettable memory peak")
def test_memory_is_that_of_the_input_and_the_output():
    # No convolution: what those take besides depends on the processor and on the number of threads.
    result = measure_memory(nn.Upsample(scale_factor=8), height=256, width=256)
    assert result["process_mib"] == pytest.approx(0.75 + 48, abs=3)  # 3 channels of float32, 256*256 and 2048*2048
    assert result["allocated_mib"] == result["reserved_mib"] == NOT_MEASURED


def test_memory_is_not_measured_where_the_system_cannot(monkeypatch):
    monkeypatch.setattr(memory.Path, "exists", lambda path: False)
    assert set(measure_memory(Convolutions(), height=32, width=32).values()) == {NOT_MEASURED}


def test_a_prediction_that_does_not_fit_is_told_in_one_line():
    with pytest.raises(MachineError, match="out of memory") as caught:
        measure_latency(Convolutions(), height=2**21, width=2**21)
    assert "\n" not in str(caught.value)


def test_a_case_that_does_not_fit_is_a_row_and_the_others_go_on():
    sizes = [(2**21, 2**21), (32, 64)]
    rows = profile_model({"small": Convolutions}, sizes=sizes, memory=False, warmup=0, repeats=2)
    assert [row["status"] for row in rows] == ["out of memory", "ok"]
    assert rows[0]["p50_ms"] == rows[0]["process_mib"] == NOT_MEASURED
    assert rows[1]["p50_ms"] > 0


def test_a_network_whose_process_ran_out_of_memory_is_not_timed(monkeypatch):
    def refuse(*arguments, **options):
        raise MachineError("out of memory")

    monkeypatch.setattr(profiling, "measure_memory", refuse)
    monkeypatch.setattr(profiling, "measure_latency", lambda *arguments, **options: pytest.fail("was timed"))
    (row,) = profile_model({"small": Convolutions}, sizes=[(32, 32)])
    assert row["status"] == "out of memory"


def test_a_sweep_has_a_row_per_case_that_is_plain_json():
    builds = {f"output stride {stride}": partial(deeplab, output_stride=stride) for stride in (16, 8)}
    rows = profile_model(builds, sizes=[(32, 64)], batches=(1, 2), memory=False, warmup=0, repeats=1)
    assert [(row["model"], row["batch"]) for row in rows] == [(title, batch) for title in builds for batch in (1, 2)]
    assert rows[1]["gmacs"] == pytest.approx(2 * rows[0]["gmacs"], abs=2e-3)
    assert rows[0]["parameters"] == rows[2]["parameters"]
    assert json.loads(json.dumps(rows)) == rows


def test_the_machine_is_described_in_plain_json():
    description = profiling.machine()
    assert json.loads(json.dumps(description)) == description
    assert {"processor", "cores", "threads", "memory_bytes", "gpu", "gpu_driver", "torch", "python"} <= set(description)
