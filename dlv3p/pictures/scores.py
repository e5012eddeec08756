"""Draw the scores of an evaluation: of each class, what is taken for what, near edges, by object size, calibration."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlv3p.evaluation.details import Details
from dlv3p.pictures.figures import Sentence, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler


NOT_ASKED = Sentence("Nothing to show: the details were not asked for (details=False).")
NOT_OFFICIAL = Sentence("Nothing to show: the official metrics are those of Cityscapes, and this is other data.")
NO_OBJECTS = Sentence("Nothing to show: no objects are known, which only Cityscapes' instances tell, or details=False.")
BLUE, ORANGE, GRAY = "#0072B2", "#D55E00", "#767676"


def score_table(table: "pd.DataFrame", otherwise: Sentence, *, absent: str = "-") -> "Styler | Sentence":
    """Format a table of scores, with `absent` where there is none; a table without rows gives way to a sentence."""
    return table.style.format("{:.3f}", na_rep=absent) if len(table) else otherwise


def describe_least_sure(details: Details) -> str:
    """Say how many of the errors are among the pixels of least confidence."""
    share = details.errors_among_least_sure()
    return NOT_ASKED if np.isnan(share) else f"errors among the least sure tenth of the pixels: {share:.0%}"


def class_iou_bars(iou: Mapping[str, float], *, footer: str) -> "Figure":
    """Draw one bar per class, best on top, with the mean as a line; classes that never occur (NaN) are marked.

    `footer` says in small print what the figure is about: run, split, protocol.
    """
    ordered = sorted(iou.items(), key=lambda item: -1 if math.isnan(item[1]) else item[1])
    values = np.array([value for _, value in ordered], float)
    figure = new_figure(8, 1.2 + 0.28 * len(ordered), footer=footer)
    axes = figure.subplots()
    axes.barh(range(len(ordered)), np.nan_to_num(values), color="#0072B2")
    axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    for row, value in enumerate(values):
        text = "does not occur" if math.isnan(value) else f"{value:.3f}"
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # the line of the mean may cross it
        axes.text(np.nan_to_num(value) + 0.01, row, text, va="center", fontsize=9, bbox=behind)
    if np.isfinite(values).any():
        mean = float(np.nanmean(values))
        axes.axvline(mean, color="#D55E00", linestyle="--", label=f"mean {mean:.3f}", zorder=0)
        figure.legend(loc="outside upper right", frameon=False)
    axes.set(xlim=(0, 1.1), xlabel="IoU", xticks=np.linspace(0, 1, 6), ylim=(-0.6, len(ordered) - 0.4))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def confusion_heatmap(confusion: np.ndarray, class_names: Sequence[str], *, footer: str) -> "Figure":
    """Draw `confusion[truth, prediction]` as percentages of each row; rows without pixels stay empty."""
    import seaborn

    total = confusion.sum(axis=1, keepdims=True)
    share = np.divide(100.0 * confusion, total, out=np.full(confusion.shape, np.nan), where=total > 0)
    # Cells that round to zero stay blank: 361 zeros would bury the few numbers that matter.
    text = np.where(np.nan_to_num(share) >= 0.5, np.char.mod("%.0f", np.nan_to_num(share)), "")
    side = 2.2 + 0.42 * len(class_names)
    figure = new_figure(side + 0.8, side, footer=footer)
    axes = figure.subplots()
    axes.set_facecolor("#EEEEEE")
    seaborn.heatmap(
        share, annot=text, fmt="", cmap="Blues", vmin=0, vmax=100, square=True, linewidths=0.5, linecolor="white",
        xticklabels=class_names, yticklabels=class_names, annot_kws={"fontsize": 8},
        cbar_kws={"label": "share of the true pixels [%]", "shrink": 0.8}, ax=axes,
    )  # fmt: skip
    axes.set(xlabel="prediction", ylabel="truth")
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(axis="y", rotation=0)
    return figure


def edges_chart(details: Details, *, footer: str) -> "Figure | str":
    """Draw IoU and boundary IoU of each class that occurs, those that lose most at the edge on top."""
    if not details.known:
        return NOT_ASKED
    table = details.classes().dropna().sort_values("difference", kind="stable")
    figure = new_figure(8, 1.2 + 0.28 * len(table), footer=footer)
    axes = figure.subplots()
    rows = np.arange(len(table))
    axes.hlines(rows, table["boundary IoU"], table["IoU"], color="#BBBBBB", linewidth=2)
    axes.plot(table["IoU"], rows, "o", color=BLUE, label="IoU")
    axes.plot(table["boundary IoU"], rows, "s", color=ORANGE, label="boundary IoU")
    axes.set(yticks=rows, yticklabels=table.index, xlabel="IoU", xlim=(0, 1), ylim=(-0.6, len(table) - 0.4))
    axes.grid(axis="x", color="#EEEEEE")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def distances_chart(details: Details, *, footer: str) -> "Figure | str":
    """Draw mIoU and pixel accuracy over the distance to the nearest edge; bars are the share of the pixels."""
    if not details.known:
        return NOT_ASKED
    table = details.by_distance()
    figure = new_figure(7, 3.4, footer=footer)
    axes = figure.subplots()
    places = np.arange(len(table))
    axes.bar(places, table["share of pixels"], color="#DDDDDD", label="share of pixels")
    axes.plot(places, table["pixel accuracy"], "s--", color=ORANGE, label="pixel accuracy")
    axes.plot(places, table["mIoU"], "o-", color=BLUE, label="mIoU")
    axes.set_xticks(places, table.index)
    axes.set(xlabel="pixels from the nearest edge", ylabel="share, or score from 0 to 1", ylim=(0, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure


def reliability_chart(details: Details, *, footer: str) -> "Figure | str":
    """Draw accuracy over confidence; on the diagonal, a network is as sure as it is right."""
    if details.reliability is None:
        return NOT_ASKED
    figure = new_figure(5.2, 4.6, footer=footer)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=GRAY, linewidth=0.8)
    curves = {"as it is": (details.reliability, "o-", BLUE)}
    if details.tempered is not None:
        curves[f"temperature {details.temperature:.2f}"] = (details.tempered, "s--", ORANGE)
    for name, (reliability, style, color) in curves.items():
        table = reliability.table().dropna()
        label = f"{name}: ECE {100 * reliability.error:.1f} %"
        axes.plot(table["confidence"], table["accuracy"], style, color=color, markersize=4, label=label)
    axes.set(xlabel="confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", frameon=False)
    return figure
