"""Compare our costs with the published tables of two systems, in separate columns, since machines and methods differ.

vovnet_system       stigma0617/VoVNet-DeepLabV3, the backbone comparison of its README (PASCAL VOC, DeepLabV3)
notebook_system     yoR-rihsihS/deeplabv3plus, the speed and memory of its README (Cityscapes, DeepLabV3+)
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from dlv3p.evaluation.published_figures import choose, published_figures
from dlv3p.parameters.network import NetworkParameters
from dlv3p.profiling.counters import IMPLAUSIBLE, NOT_MEASURED

SYSTEMS = {"vovnet_system": "stigma0617/VoVNet-DeepLabV3", "notebook_system": "yoR-rihsihS/deeplabv3plus"}
"""The names of the systems among the published figures."""

VOVNET_SYSTEM = f"{SYSTEMS['vovnet_system']}, V100, size not stated"
NOTEBOOK_SYSTEM = f"{SYSTEMS['notebook_system']}, GPU not stated, 1 x 1024 x 2048"
V100_LIMIT_WATTS = 300.0

_STIGMA = {"architecture": "deeplabv3", "head_convolution": False, "align_corners": True, "aspp_dropout": 0.0}
_YOR = {
    "architecture": "deeplabv3plus",
    "convolution_bias": True,
    "low_level_channels": 64,
    "concatenation": "aspp_first",
    "align_corners": True,
    "aspp_dropout": 0.0,
}
SWITCHES: dict[str, tuple[dict[str, Any], int]] = {"vovnet_system": (_STIGMA, 21), "notebook_system": (_YOR, 20)}
"""By system: its switches of NetworkParameters, and the number of classes."""


class Backbone(NamedTuple):
    """A row of the backbone comparison: mIoU on VOC val in percent, and the cost of a frame; memory by nvidia-smi.

    The number of parameters is not published, but counted from the system's code.
    """

    parameters: int
    mean_iou: float
    milliseconds: float
    megabytes: float
    joules: float

    @property
    def watts(self) -> float:
        """The power that follows from joules and milliseconds."""
        return self.joules / self.milliseconds * 1000


class Speed(NamedTuple):
    """Milliseconds from file to labels, and MiB of the process as nvidia-smi reports them."""

    milliseconds: float
    mebibytes: float


def published_backbones() -> dict[str, Backbone]:
    """Return the backbone comparison of vovnet_system, at output stride 16; `parameters` is their number."""
    metrics = ("parameters", "mIoU", "latency", "memory", "energy")
    table = _published("vovnet_system", "backbones", "backbone", metrics)
    return {name: Backbone(round(parameters * 1e6), *rest) for name, (parameters, *rest) in table.items()}


def published_speed() -> dict[int, Speed]:
    """Return the speed and memory of notebook_system's ResNet-50 by output stride."""
    table = _published("notebook_system", "speed and memory", "output_stride", ("end to end", "memory"))
    return {stride: Speed(*values) for stride, values in table.items()}


def _published(system: str, table: str, key: str, metrics: Sequence[str]) -> dict[Any, list[float]]:
    """Return a published table: the values of some metrics by a field of the figures."""
    figures = choose(published_figures(), system=SYSTEMS[system], table=table)
    keys = dict.fromkeys(getattr(one, key) for one in figures)
    return {
        value: [one.value for name in metrics for one in choose(figures, **{key: value, "metric": name})]
        for value in keys
    }


def published_model(system: str) -> tuple[NetworkParameters, int, str]:
    """Return the switches of a system's networks, its number of classes, and its published backbones."""
    switches, num_classes = SWITCHES[system]
    backbones = " ".join(published_backbones()) if system == "vovnet_system" else "resnet50"
    return NetworkParameters(**switches), num_classes, backbones


OURS = (
    "parameters, M",
    "GMACs",
    "mIoU, %",
    "ms",
    "allocated, MiB",
    "reserved, MiB",
    "process, MiB",
    "above weights, MiB",
    "J/frame",
    "J/frame above idle",
)
"""Our columns of the backbone comparison."""


def backbone_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Join the rows of a sweep with the published backbone comparison: "ours" first, then "published".

    One row per case, and one for each published backbone that was not swept at output stride 16. A published energy
    that no board could draw is "implausible", with its watts.
    """
    table, published = [], published_backbones()
    for row in rows:
        known = published.get(row["backbone"]) if row["output_stride"] == 16 else None
        table.append(_named(row) | _ours(row) | _theirs(known))
    swept = {row["backbone"] for row in rows if row["output_stride"] == 16}
    for backbone, figures in published.items():
        if backbone not in swept:
            named = {("", "backbone"): backbone, ("", "case"): "stride 16"}
            table.append(named | {("ours", name): NOT_MEASURED for name in OURS} | _theirs(figures))
    return _table(table)


def notebook_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Join the rows of a sweep with the published speed and memory at output strides 8 and 16: one row per case.

    "End to end" is from a file's bytes to labels on the host; the published one also reads the file and looks labels up
    in three more, which ours does not.
    """
    table, published = [], published_speed()
    for row in rows:
        latency, memory = published.get(row["output_stride"], ("", ""))
        ours = {
            ("ours", "end to end, ms"): row["stages_ms"].get("end to end", NOT_MEASURED),
            ("ours", "forward, ms"): row["p50_ms"],
            ("ours", "allocated, MiB"): row["allocated_mib"],
            ("ours", "reserved, MiB"): row["reserved_mib"],
            ("ours", "process, MiB"): row["process_mib"],
            ("ours", "above weights, MiB"): row["above_weights_mib"],
        }
        theirs = {
            (f"published: {NOTEBOOK_SYSTEM}", "end to end, ms"): latency,
            (f"published: {NOTEBOOK_SYSTEM}", "process, MiB"): memory,
        }
        table.append(_named(row) | ours | theirs)
    return _table(table)


def plausible_joules(figures: Backbone, limit_watts: float = V100_LIMIT_WATTS) -> float | str:
    """Return a published energy, or why it is implausible: more watts than the board's limit."""
    if figures.watts <= limit_watts:
        return figures.joules
    return f"{IMPLAUSIBLE}: {figures.joules} J means {figures.watts:.0f} W, the limit is {limit_watts:.0f} W"


def _named(row: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    words = [f"{row['batch_size']} x {row['height']} x {row['width']}", row["precision"]]
    words += ["compiled"] if row["compiled"] else []
    status = [] if row["status"] == "ok" else [row["status"]]
    return {
        ("", "backbone"): row["backbone"],
        ("", "case"): ", ".join([f"stride {row['output_stride']}", *words, row["device"], *status]),
    }


def _ours(row: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    values = (
        _times(row["parameters"], 1e-6),
        row["gmacs"],
        _times(row.get("mIoU", NOT_MEASURED), 100),
        row["p50_ms"],
        *(row[f"{kind}_mib"] for kind in ("allocated", "reserved", "process", "above_weights")),
        row["joules_per_image"],
        row["net_joules_per_image"],
    )
    return {("ours", name): value for name, value in zip(OURS, values, strict=True)}


def _theirs(figures: Backbone | None) -> dict[tuple[str, str], Any]:
    if figures is None:
        return {}
    columns = {
        "parameters, M": figures.parameters / 1e6,
        "mIoU, %": figures.mean_iou,
        "ms": figures.milliseconds,
        "MB": figures.megabytes,
        "J/frame": plausible_joules(figures),
        "W": figures.watts,
    }
    return {(f"published: {VOVNET_SYSTEM}", name): value for name, value in columns.items()}


def _times(value: float | str, factor: float) -> float | str:
    return value if isinstance(value, str) else value * factor


def _table(rows: list[dict[tuple[str, str], Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=pd.MultiIndex.from_tuples(dict.fromkeys(name for row in rows for name in row)))
    return table.astype(object).where(table.notna(), "")
