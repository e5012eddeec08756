"""What an output stride costs beside another, from networks that run in turns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn

from dlv3p.parameters.cases import Case, case_of
from dlv3p.profiling.latency import (
    OutOfMemoryError,
    compile_network,
    out_of_memory_explained,
    prepare,
    random_images,
)
from dlv3p.profiling.subject import Subject
from dlv3p.profiling.timing import clock_of
from dlv3p.profiling.turns import take_turns

COLUMNS = ("median, ms", "times the time", "from", "to", "times the MACs")


class StrideComparison(NamedTuple):
    """A row for each output stride, by its case, or none; the remark then says why, and is "" otherwise."""

    table: pd.DataFrame
    remark: str


@torch.inference_mode()
def compare_strides(
    subject: Subject, rows: Sequence[Mapping[str, Any]], *, device: str, warmup: int = 3, repeats: int = 10
) -> StrideComparison:
    """Time the first case that fits at each of its output strides, in turns; the largest stride, 1, is the measure.

    `rows` are those of a sweep. "times the time" is the median over the turns, "from" and "to" its 95 % interval. The
    table is empty where no case was measured at two strides, or where their networks do not fit into memory together.
    """
    nothing = pd.DataFrame(columns=COLUMNS)
    fitting = [row for row in rows if row["status"] == "ok"]
    twins = _strides_of_one_case(fitting)
    if len(twins) < 2:
        return StrideComparison(nothing, "no case was measured at two output strides")
    reference = next(iter(twins))
    try:
        with out_of_memory_explained():
            runs = {title: _run(subject.build(case_of(row)), case_of(row), device) for title, row in twins.items()}
            turns = take_turns(runs, warmup=max(1, warmup), repeats=repeats)
    except OutOfMemoryError:
        told = "out of memory: each fits alone, but they do not fit together; take a smaller image or batch"
        return StrideComparison(nothing, told)
    table = {}
    for title, row in twins.items():
        speedup = turns.speedup(title, over=reference)
        macs = row["gmacs"] / twins[reference]["gmacs"]
        times = (1 / speedup.times, 1 / speedup.high, 1 / speedup.low)
        table[title] = (turns.milliseconds(title), *times, macs)
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


def _run(model: nn.Module, case: Case, device: str) -> Callable[[], None]:
    dtype, clock = getattr(torch, case.precision), clock_of(device)
    network = prepare(model, device, dtype)
    network = compile_network(network) if case.compiled else network
    images = random_images(case.batch_size, case.height, case.width, device, dtype)

    def run() -> None:
        network(images)
        clock.wait()

    return run
