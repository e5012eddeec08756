"""Choose the network to profile, all but its backbone and output stride, which each case sets, and count its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

from cityscapes.files.channels import PixelRule
from dlv3p.models.anatomy import count_parts
from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.models.widths import Widths
from dlv3p.parameters.cases import Case
from dlv3p.parameters.network import NetworkParameters
from dlv3p.profiling.published import published_model


@dataclass(frozen=True)
class ProfiledModel:
    """The network to profile: its switches, out of what may be those of a run, and its number of classes.

    `backbones` are the default ones, separated by spaces. `widths` are those of a pruned network; they hold for its own
    backbone, at any stride. `rule` is that of images that are not RGB.
    """

    network: NetworkParameters
    num_classes: int
    backbones: str
    widths: Widths = field(default_factory=dict)
    rule: PixelRule | None = None

    def network_in(self, case: Case) -> NetworkParameters:
        """Return the switches of the network in a case."""
        values = {item.name: getattr(self.network, item.name) for item in fields(NetworkParameters)}
        return NetworkParameters.from_mapping(values | {"backbone": case.backbone, "output_stride": case.output_stride})

    def widths_in(self, case: Case) -> Widths:
        """Return the widths of the network in a case, empty where it is not pruned."""
        return self.widths if case.backbone == self.network.backbone else {}

    def build(self, case: Case) -> DeepLab:
        """Build the network of a case, with random weights, on the default device."""
        return build_network(self.network_in(case), self.num_classes, widths=self.widths_in(case), rule=self.rule)

    def count(self, cases: Sequence[Case]) -> dict[str, dict[str, dict[str, int]]]:
        """Count parameters, MACs and FLOPs by part, for one image: the result of `count_parts` by title of the case."""
        counted: dict[tuple[Any, ...], dict[str, dict[str, int]]] = {}
        for case in cases:
            key = _shape(case)
            if key not in counted:
                counted[key] = count_parts(partial(self.build, case), case.height, case.width)
        return {case.title: counted[_shape(case)] for case in cases}


def choose_profiled_model(
    system: str,
    own: NetworkParameters,
    own_classes: int,
    own_widths: Widths | None = None,
    own_rule: PixelRule | None = None,
) -> ProfiledModel:
    """Return the network of a system in `published.py` with its published backbones, or for "run" the run's own."""
    if system == "run":
        return ProfiledModel(own, own_classes, own.backbone, own_widths or {}, own_rule)
    return ProfiledModel(*published_model(system))


def count_columns(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> dict[tuple[str, str], dict[str, int]]:
    """Turn the counts of `ProfiledModel.count` into columns: by case and kind of count, a number by part."""
    columns: dict[tuple[str, str], dict[str, int]] = {}
    for title, parts in counts.items():
        for kind in ("parameters", "macs", "flops"):
            columns[title, kind] = {part: values[kind] for part, values in parts.items()}
    return columns


def _shape(case: Case) -> tuple[Any, ...]:
    return case.backbone, case.output_stride, case.height, case.width
