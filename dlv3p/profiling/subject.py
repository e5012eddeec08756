"""What is profiled: a network but for its backbone and stride, which the cases say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.models.macs import count_parts
from dlv3p.models.widths import Widths
from dlv3p.parameters.cases import Case
from dlv3p.parameters.network import NetworkParameters
from dlv3p.profiling.published import SWEPT, SWITCHES


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
    switches, num_classes = SWITCHES[system]
    return Subject(NetworkParameters(**switches), num_classes, SWEPT[system])


def compared(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> dict[tuple[str, str], dict[str, int]]:
    """Turn the counts of `Subject.count` into columns: by case and kind of count, a number by part."""
    columns: dict[tuple[str, str], dict[str, int]] = {}
    for title, parts in counts.items():
        for kind in ("parameters", "macs", "flops"):
            columns[title, kind] = {part: values[kind] for part, values in parts.items()}
    return columns


def _shape(case: Case) -> tuple[Any, ...]:
    return case.backbone, case.output_stride, case.height, case.width
