"""Choose the network to profile, all but its backbone and stride, and compare output strides measured in turns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn

from cityscapes.errors import OutOfMemoryError
from dlv3p.models.anatomy import count_parts
from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.models.widths import Widths
from dlv3p.parameters.cases import Case, case_of
from dlv3p.parameters.network import NetworkParameters
from dlv3p.profiling.latency import compile_network, prepare, random_images
from dlv3p.profiling.published import published_subject
from dlv3p.profiling.timing import clock_of, take_turns
from dlv3p.runtime.devices import explain_out_of_memory


@dataclass(frozen=True)
class Subject:
    """A network's switches, out of what may be those of a run, and its number of classes.

    `backbones` are those to take where nobody says which, blanks between them. `widths` are those of a pruned network;
    they hold for its own backbone, at any stride.
    """

    network: NetworkParameters
    num_classes: int
    backbones: str
    widths: Widths = field(default_factory=dict)

    def network_in(self, case: Case) -> NetworkParameters:
        """Return the switches of the network in a case."""
        values = {item.name: getattr(self.network, item.name) for item in fields(NetworkParameters)}
        return NetworkParameters.from_mapping(values | {"backbone": case.backbone, "output_stride": case.output_stride})

    def widths_in(self, case: Case) -> Widths:
        """Return the widths of the network in a case, none where it is not pruned."""
        return self.widths if case.backbone == self.network.backbone else {}

    def build(self, case: Case) -> DeepLab:
        """Build the network of a case, with random weights, on the default device."""
        return build_network(self.network_in(case), self.num_classes, widths=self.widths_in(case))

    def count(self, cases: Sequence[Case]) -> dict[str, dict[str, dict[str, int]]]:
        """Count parameters, MACs and FLOPs by part, of one image: by the title of the case what `count_parts` says."""
        counted: dict[tuple[Any, ...], dict[str, dict[str, int]]] = {}
        for case in cases:
            key = _shape(case)
            if key not in counted:
                counted[key] = count_parts(partial(self.build, case), case.height, case.width)
        return {case.title: counted[_shape(case)] for case in cases}


def choose_subject(system: str, own: NetworkParameters, own_classes: int, own_widths: Widths | None = None) -> Subject:
    """Return the network of a system in `published.py`, or for "run" one's own; a run's parameters are such a network.

    The backbones of a system are those that it published, one's own is one's own.
    """
    if system == "run":
        return Subject(own, own_classes, own.backbone, own_widths or {})
    return Subject(*published_subject(system))


def compared(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> dict[tuple[str, str], dict[str, int]]:
    """Turn the counts of `Subject.count` into columns: by case and kind of count, a number by part."""
    columns: dict[tuple[str, str], dict[str, int]] = {}
    for title, parts in counts.items():
        for kind in ("parameters", "macs", "flops"):
            columns[title, kind] = {part: values[kind] for part, values in parts.items()}
    return columns


def _shape(case: Case) -> tuple[Any, ...]:
    return case.backbone, case.output_stride, case.height, case.width


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
        with explain_out_of_memory():
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
