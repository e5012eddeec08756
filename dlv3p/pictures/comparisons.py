"""Draw how runs compare: differences with their intervals, images that changed, and quality beside cost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cityscapes.dataset import Split
from cityscapes.labels import IGNORE
from dlv3p.evaluation.evaluate import scored_pair
from dlv3p.evaluation.run_comparison import RunComparison
from dlv3p.pictures.visualize import PICTURE_WIDTH, add_footer, colorize, legend, new_figure, side_by_side, text_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANGE_NAMES = ("same", "mended", "broken", "ignored")
CHANGE_COLORS = np.array([(224, 224, 224), (0, 114, 178), (213, 94, 0), (38, 38, 38)], np.uint8)
"""RGB of `CHANGE_NAMES`; blue and orange stay apart for color-blind eyes, and differ in brightness."""

VERDICT_STYLES = {"better": ("#0072B2", "o"), "worse": ("#D55E00", "s"), "undecided": ("#767676", "D")}


def difference_chart(comparison: RunComparison, which: int = 0) -> "Figure":
    """Draw the difference of each class and of the mean with its interval, the largest at the top; shapes are verdicts.

    Classes without an interval are a cross.
    """
    table = comparison.classes(which).dropna(subset=["difference"]).sort_values("difference")
    mean = comparison.table().iloc[which + 1]
    labels = [*table.index, "mean"]
    values, lows, highs = ([*table[name], mean[name]] for name in ("difference", "low", "high"))
    verdicts = [*table["verdict"], mean["verdict"]]
    figure = new_figure(7.5, 1.6 + 0.27 * len(labels))
    axes = figure.subplots()
    axes.axvline(0, color="#202020", linewidth=0.8)
    axes.axhline(len(table) - 0.5, color="#CCCCCC", linewidth=0.8)
    seen: set[str] = set()
    for row, (value, low, high, verdict) in enumerate(zip(values, lows, highs, verdicts, strict=True)):
        color, marker = VERDICT_STYLES.get(verdict, ("#767676", "x"))
        axes.plot([low, high], [row, row], color=color, linewidth=1.6)
        label = None if verdict in seen else verdict
        axes.plot(value, row, marker, color=color, markersize=5, label=label, linestyle="none")
        seen.add(verdict)
    other = comparison.others[which]
    axes.set(
        yticks=range(len(labels)),
        yticklabels=labels,
        xlabel=f"{other.name} minus {comparison.reference.name} [points of IoU], 95 % intervals",
        ylim=(-0.7, len(labels) - 0.3),
    )
    axes.grid(axis="x", color="#EEEEEE")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    add_footer(figure, comparison.footer)
    return figure


def change_map(before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Show which pixels were mended and which were broken: uint8 (H,W,3) of three masks (H,W)."""
    right_before, right_after = before == truth, after == truth
    kind = np.where(right_before == right_after, 0, np.where(right_after, 1, 2))
    return CHANGE_COLORS[np.where(truth == IGNORE, 3, kind)]


def changed_picture(comparison: RunComparison, split: Split, names: Sequence[str], which: int = 0) -> Image.Image:
    """Show images by name, a row each: the image, the truth, both predictions, and what changed."""
    index_of = {split.name(index): index for index in range(len(split))}
    first, other = comparison.reference, comparison.others[which]
    panels = {}
    for row, name in enumerate(names, start=1):
        index = index_of[name]
        image, truth = scored_pair(split, index, first.protocol)
        before, after = first.predict(split, index), other.predict(split, index)
        panels[f"{row}. image"] = np.asarray(image)
        panels[f"{row}. truth"] = colorize(truth, split.colors)
        panels[f"{row}. reference"] = colorize(before, split.colors)
        panels[f"{row}. other"] = colorize(after, split.colors)
        panels[f"{row}. change"] = change_map(before, after, truth)
    picture = side_by_side(panels, width=PICTURE_WIDTH, columns=5)
    changes = legend(CHANGE_NAMES, CHANGE_COLORS, width=PICTURE_WIDTH)
    listed = text_lines([f"{row}. {name}" for row, name in enumerate(names, start=1)])
    return Image.fromarray(np.concatenate([picture, changes, listed]))


def cost_chart(comparison: RunComparison) -> "Figure | str":
    """Draw mIoU over the price of each candidate, those on the Pareto front joined; a sentence where none is known."""
    table, price = comparison.costs(), comparison.price
    if not price:
        return (
            "The cost is not measured for all candidates at the same size on the same machine; profile.ipynb measures "
            "it, a run at a time."
        )
    front = table[table["on the front"] == "yes"].sort_values(price)
    figure = new_figure(7, 4)
    axes = figure.subplots()
    axes.plot(front[price], 100 * front["mIoU"], color="#0072B2", linewidth=1, drawstyle="steps-post")
    for name, row in table.iterrows():
        style = "o" if row["on the front"] == "yes" else "x"
        axes.plot(row[price], 100 * row["mIoU"], style, color="#0072B2" if style == "o" else "#767676")
        axes.annotate(name, (row[price], 100 * row["mIoU"]), xytext=(6, 4), textcoords="offset points", fontsize=9)
    axes.set(xlabel=f"{price} of an image" if price != "GMACs" else price, ylabel="mIoU [%]")
    axes.margins(0.15)
    axes.spines[["top", "right"]].set_visible(False)
    priced = comparison.reference.cost
    where = ["size", "machine"] if price != "GMACs" else ["size"]
    add_footer(figure, " · ".join([comparison.footer, *(f"{priced[name]}" for name in where if name in priced)]))
    return figure
