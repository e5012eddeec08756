"""Chart profiled costs, one row per measured case; where nothing was measured, text takes the place of the bar."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dlv3p.parameters.cases import case_of
from dlv3p.pictures.figures import Sentence, new_figure
from dlv3p.profiling.counters import NOT_MEASURED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

PARTS = {
    "backbone": "#88CCEE",
    "aspp": "#DDCC77",
    "decoder": "#44AA99",
    "head": "#44AA99",
    "classifier": "#CC6677",
    "auxiliary": "#AA4499",
    "upsampling": "#DDDDDD",
}
"""Color by part: light enough for black text, and distinguishable for color-blind readers."""

STAGES = {
    "decode": "#DDCC77",
    "normalise": "#999933",
    "copy to device": "#CC6677",
    "forward": "#88CCEE",
    "upsample and argmax": "#44AA99",
    "copy to host": "#882255",
}
"""Color by stage, from file to labels."""

MEMORY = {
    "allocated_mib": "#88CCEE",
    "reserved_mib": "#DDCC77",
    "process_mib": "#CC6677",
    "above_weights_mib": "#44AA99",
}
ENERGY = {"joules_per_image": "#DDCC77", "net_joules_per_image": "#44AA99"}

Row = Mapping[str, Any]
_POINT, _MEDIAN = "#0072B2", "#D55E00"


def draw_parts(rows: Sequence[Row], counts: Mapping[str, Mapping[str, Mapping[str, int]]], *, footer: str) -> "Figure":
    """Draw parameters, MACs, and median time of every case, each bar divided into the parts of the network.

    `counts` maps the title of a case to what `count_parts` returns; times are those of the whole batch.
    """
    figure = new_figure(10, 1.3 + 0.42 * len(rows), footer=footer)
    left, middle, right = figure.subplots(1, 3, sharey=True)
    parameters = [_scaled(counts[_title(row)], "parameters", 1e6) for row in rows]
    macs = [_scaled(counts[_title(row)], "macs", 1e9) for row in rows]
    _stack(left, rows, parameters, PARTS, "parameters, millions")
    _stack(middle, rows, macs, PARTS, "GMACs per image")
    _stack(right, rows, [row["parts_ms"] for row in rows], PARTS, "time per batch, ms")
    _legend(figure, PARTS, [*parameters, *(row["parts_ms"] for row in rows)])
    return figure


def draw_stages(rows: Sequence[Row], *, footer: str) -> "Figure":
    """Draw the median milliseconds from a file's bytes to labels on the host, divided into stages."""
    figure = new_figure(9, 1.3 + 0.42 * len(rows), footer=footer)
    stages = [{name: value for name, value in row["stages_ms"].items() if name in STAGES} for row in rows]
    _stack(figure.subplots(), rows, stages, STAGES, "from files to labels, per batch, ms")
    _legend(figure, STAGES, stages)
    return figure


def draw_latencies(rows: Sequence[Row], *, footer: str) -> "Figure":
    """Draw every timed repetition as a point, p10 to p90 as a line, and the median as a tick with its value."""
    figure = new_figure(9, 1.3 + 0.42 * len(rows), footer=footer)
    axes = _rows(figure.subplots(), rows, "forward pass per batch, ms")
    highest = max((max(row["times_ms"], default=0.0) for row in rows), default=0.0)
    for y, row in enumerate(rows):
        if not row["times_ms"]:
            _missing(axes, y, row)
            continue
        span, times = [row["p10_ms"], row["p90_ms"]], row["times_ms"]
        axes.plot(span, [y, y], color=_MEDIAN, linewidth=2, alpha=0.5, label="p10 to p90")
        axes.plot(times, [y] * len(times), "o", color=_POINT, alpha=0.35, markersize=4, label="repetitions")
        axes.plot([row["p50_ms"]] * 2, [y - 0.3, y + 0.3], color=_MEDIAN, linewidth=2, label="median")
        place = max(row["times_ms"]) + 0.015 * highest
        axes.text(place, y, _number(row["p50_ms"]), va="center", fontsize=8, color=_MEDIAN)
    axes.set_xlim(0, 1.1 * highest or 1)
    return figure


def draw_memory(rows: Sequence[Row], *, footer: str) -> "Figure | str":
    """Draw the peak memory of a prediction by each of its four definitions; a sentence where none was measured."""
    names = {name: name.removesuffix("_mib").replace("_", " ") for name in MEMORY}
    return _grouped(rows, MEMORY, names, "peak memory of a prediction, MiB", footer=footer)


def draw_energy(rows: Sequence[Row], *, footer: str) -> "Figure | str":
    """Draw joules per image, in total and above idle; a sentence that says why where none were measured."""
    names = {"joules_per_image": "all", "net_joules_per_image": "above idle"}
    return _grouped(rows, ENERGY, names, "energy per image, J", reason="energy_status", footer=footer)


def draw_widths(widths: "DataFrame", *, footer: str) -> "Figure":
    """Draw the channels of every convolution, columns `dense` and `pruned`, what remains in front of what was there."""
    figure = new_figure(9, 2.8, footer=footer)
    axes = figure.subplots()
    axes.bar(range(len(widths)), widths["dense"], color="#bbbbbb", label="dense")
    axes.bar(range(len(widths)), widths["pruned"], color="#0072B2", label="pruned")
    axes.set(xlabel="convolution, from the image to the logits", ylabel="channels")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.legend()
    return figure


def draw_speedups(speedups: Mapping[str, float], *, footer: str) -> "Figure":
    """Draw how many times faster than PyTorch in float32 each network is, with a line at 1."""
    figure = new_figure(7, 0.8 + 0.3 * len(speedups), footer=footer)
    axes = figure.subplots()
    axes.barh(range(len(speedups)), list(speedups.values()), color="#0072B2")
    axes.set_yticks(range(len(speedups)), list(speedups))
    axes.invert_yaxis()
    axes.set(xlabel="times as fast as PyTorch in float32", ylabel="")
    axes.axvline(1, color="#000000", linewidth=1)
    return figure


def _grouped(
    rows: Sequence[Row],
    colors: Mapping[str, str],
    names: Mapping[str, str],
    label: str,
    *,
    footer: str,
    reason: str = "",
) -> "Figure | str":
    """Draw a bar for each row and name that was measured anywhere."""
    colors = {key: color for key, color in colors.items() if any(not isinstance(row[key], str) for row in rows)}
    if not colors:
        why = dict.fromkeys(row[reason] if reason else row["status"] for row in rows)
        return Sentence(f"{label.rsplit(', ', 1)[0]}: nothing was measured here ({'; '.join(why)}).")
    figure = new_figure(9, 1.3 + 0.24 * len(colors) * len(rows), footer=footer)
    axes = _rows(figure.subplots(), rows, label)
    height = 0.8 / len(colors)
    values = [row[key] for row in rows for key in colors if not isinstance(row[key], str)]
    highest = max(values)
    for y, row in enumerate(rows):
        if reason and all(isinstance(row[key], str) for key in colors):
            axes.text(0.01 * highest, y, _wrapped(row[reason]), va="center", fontsize=8)
            continue
        for number, (key, color) in enumerate(colors.items()):
            place = y + (number - (len(colors) - 1) / 2) * height
            value = row[key]
            if isinstance(value, str):
                axes.text(0.01 * highest, place, f"{names[key]}: {value}", va="center", fontsize=8)
                continue
            axes.barh(place, value, 0.9 * height, color=color, label=names[key])
            axes.text(value + 0.01 * highest, place, f"{names[key]} {_number(value)}", va="center", fontsize=8)
    axes.set_xlim(0, 1.3 * highest)
    return figure


def _stack(
    axes: "Axes", rows: Sequence[Row], values: Sequence[Mapping[str, float]], colors: Mapping[str, str], label: str
) -> None:
    _rows(axes, rows, label)
    longest = max((sum(parts.values()) for parts in values), default=0.0) or 1.0
    for y, (row, parts) in enumerate(zip(rows, values, strict=True)):
        if not parts:
            _missing(axes, y, row)
            continue
        left = 0.0
        for part, value in parts.items():
            axes.barh(y, value, 0.7, left=left, color=colors[part], edgecolor="#555555", linewidth=0.4, label=part)
            if value > 0.15 * longest:
                axes.text(left + value / 2, y, _number(value), ha="center", va="center", fontsize=8)
            left += value
        axes.text(left + 0.015 * longest, y, _number(left), va="center", fontsize=8, fontweight="bold")
    axes.set_xlim(0, 1.16 * longest)


def _rows(axes: "Axes", rows: Sequence[Row], label: str) -> "Axes":
    """Set up one row per case, the first on top."""
    axes.set_yticks(range(len(rows)), [_title(row).replace(", ", "\n", 1) for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(label, fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _missing(axes: "Axes", y: int, row: Row) -> None:
    reason = NOT_MEASURED if row["status"] == "ok" else row["status"]
    axes.text(0.01, y, _wrapped(reason), va="center", fontsize=8, transform=axes.get_yaxis_transform())


def _legend(figure: "Figure", colors: Mapping[str, str], drawn: Sequence[Mapping[str, float]]) -> None:
    from matplotlib.patches import Patch

    names = [name for name in colors if any(parts.get(name) for parts in drawn)]
    patches = [Patch(facecolor=colors[name], edgecolor="#555555", linewidth=0.4, label=name) for name in names]
    if patches:
        figure.legend(handles=patches, loc="outside upper center", ncols=len(patches), frameon=False, fontsize=8)


def _title(row: Row) -> str:
    return case_of(row).title


def _scaled(parts: Mapping[str, Mapping[str, int]], key: str, by: float) -> dict[str, float]:
    return {name: values[key] / by for name, values in parts.items() if name != "total"}


def _wrapped(text: str, width: int = 95) -> str:
    return "\n".join(textwrap.wrap(text, width))


def _number(value: float) -> str:
    """Format a value with three significant digits and no exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
