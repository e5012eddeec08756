"""Compare the output strides of one case by interleaved timing, their networks in memory together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn

from cityscapes.errors import OutOfMemoryError
from dlv3p.parameters.cases import Case, case_of
from dlv3p.profiling.latency import compile_network, prepare, random_images
from dlv3p.profiling.profiled_model import ProfiledModel
from dlv3p.profiling.timing import clock_of, time_interleaved
from dlv3p.runtime.devices import explain_out_of_memory

COLUMNS = ("median, ms", "time ratio", "from", "to", "MAC ratio")


class StrideComparison(NamedTuple):
    """A row for each output stride, by its case, or none; the remark then gives the reason, and is "" otherwise."""

    table: pd.DataFrame
    remark: str


@torch.inference_mode()
def compare_strides(
    profiled: ProfiledModel, rows: Sequence[Mapping[str, Any]], *, device: str, warmup: int = 3, repeats: int = 10
) -> StrideComparison:
    """Time the first case that fits at each of its output strides, interleaved; the largest stride is the reference.

    `rows` are those of a sweep. "time ratio" is the median over the rounds, "from" and "to" its 95 % interval. The
    table is empty where no case was measured at two strides, or where their networks do not fit into memory together.
    """
    nothing = pd.DataFrame(columns=COLUMNS)
    fitting = [row for row in rows if row["status"] == "ok"]
    twins = _strides_of_one_case(fitting)
    if len(twins) < 2:
        return StrideComparison(nothing, "no case was measured at two output strides")
    reference = next(iter(twins))
    try:
        with explain_out_of_memory():
            runs = {
                title: _prepare_run(profiled.build(case_of(row)), case_of(row), device) for title, row in twins.items()
            }
            timings = time_interleaved(runs, warmup=max(1, warmup), repeats=repeats)
    except OutOfMemoryError:
        remark = "out of memory: each fits alone, but they do not fit together; take a smaller image or batch"
        return StrideComparison(nothing, remark)
    table = {}
    for title, row in twins.items():
        speedup = timings.speedup(title, over=reference)
        macs = row["gmacs"] / twins[reference]["gmacs"]
        times = (1 / speedup.times, 1 / speedup.high, 1 / speedup.low)
        table[title] = (timings.milliseconds(title), *times, macs)
    return StrideComparison(pd.DataFrame.from_dict(table, orient="index", columns=COLUMNS), "")


def _strides_of_one_case(rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the rows that differ from the first of them by stride alone, by their titles, the largest stride first."""
    for first in rows:
        wanted = replace(case_of(first), output_stride=0)
        twins = [row for row in rows if replace(case_of(row), output_stride=0) == wanted]
        if len(twins) > 1:
            ordered = sorted(twins, key=lambda row: -row["output_stride"])
            return {case_of(row).title: row for row in ordered}
    return {}


def _prepare_run(model: nn.Module, case: Case, device: str) -> Callable[[], None]:
    dtype, clock = getattr(torch, case.precision), clock_of(device)
    network = prepare(model, device, dtype)
    network = compile_network(network) if case.compiled else network
    images = random_images(model, case.batch_size, case.height, case.width, device, dtype)

    def run() -> None:
        network(images)
        clock.wait()

    return run
