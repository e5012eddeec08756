"""Draw how runs compare: differences with their intervals, images that changed, and quality beside cost."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cityscapes.dataset import Split
from cityscapes.labels import IGNORE
from dlv3p.evaluation.evaluate import scored_pair
from dlv3p.evaluation.run_comparison import RunComparison
from dlv3p.pictures.figures import SCORED_WHILE_TRAINING, Sentence, new_figure
from dlv3p.pictures.visualize import PICTURE_WIDTH, colorize, legend, text_lines, with_footer, with_legend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

CHANGE_NAMES = ("same", "mended", "broken", "ignored")
CHANGE_COLORS = np.array([(224, 224, 224), (0, 114, 178), (213, 94, 0), (38, 38, 38)], np.uint8)
"""RGB of `CHANGE_NAMES`; blue and orange stay apart for color-blind eyes, and differ in brightness."""

VERDICT_STYLES = {"better": ("#0072B2", "o"), "worse": ("#D55E00", "s"), "undecided": ("#767676", "D")}


SYSTEM_STYLES = (
    *(("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "v"), ("#E69F00", "P"), ("#56B4E9", "X")),
    *(("#999933", "<"), ("#882255", ">"), ("#767676", "h")),
)
"""Color and shape of other systems, in the order of their first figure; a diamond is ours."""


def difference_chart(comparison: RunComparison, which: int = 0) -> "Figure":
    """Draw the difference of each class and of the mean with its interval, the largest at the top; shapes are verdicts.

    Classes without an interval are a cross.
    """
    table = comparison.classes(which).dropna(subset=["difference"]).sort_values("difference")
    mean = comparison.table().iloc[which + 1]
    labels = [*table.index, "mean"]
    values, lows, highs = ([*table[name], mean[name]] for name in ("difference", "low", "high"))
    verdicts = [*table["verdict"], mean["verdict"]]
    figure = new_figure(7.5, 1.6 + 0.27 * len(labels), footer=comparison.footer)
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
        xlabel=f"{other.name}\nminus {comparison.reference.name}\n[points of IoU], 95 % intervals",
        ylim=(-0.7, len(labels) - 0.3),
    )
    axes.grid(axis="x", color="#EEEEEE")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
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
    panels, seen = {}, set()
    for row, name in enumerate(names, start=1):
        index = index_of[name]
        image, truth = scored_pair(split, index, first.protocol)
        before, after = first.predict(split, index), other.predict(split, index)
        seen |= set(np.unique([truth, before, after]).tolist())
        panels[f"{row}. image"] = np.asarray(image)
        panels[f"{row}. truth"] = colorize(truth, split.colors)
        panels[f"{row}. reference"] = colorize(before, split.colors)
        panels[f"{row}. other"] = colorize(after, split.colors)
        panels[f"{row}. change"] = change_map(before, after, truth)
    classes = [one for one in sorted(seen) if one < split.num_classes]
    shown = [split.class_names[one] for one in classes]
    picture = with_legend(panels, shown, split.colors[classes], columns=5)
    changes = legend(CHANGE_NAMES, CHANGE_COLORS, width=PICTURE_WIDTH)
    changed = [one.changed for one in comparison.candidates if one.changed]
    listed = [f"{row}. {name}" for row, name in enumerate(names, start=1)]
    told = text_lines([*listed, f"reference: {first.name}", f"other: {other.name}", *changed])
    return Image.fromarray(with_footer(np.concatenate([picture, changes, told]), comparison.footer))


def cost_chart(comparison: RunComparison) -> "Figure | str":
    """Draw mIoU over the price of each candidate, those on the Pareto front joined; a sentence where none is known."""
    table, price = comparison.costs(), comparison.price
    if not price:
        return Sentence(
            "The cost is not measured for all candidates at the same size on the same machine; profile.ipynb measures "
            "it, a run at a time."
        )
    front = table[table["on the front"] == "yes"].sort_values(price)
    priced = comparison.reference.cost
    where = ["size", "machine"] if price != "GMACs" else ["size"]
    told = [str(priced[name]) for name in where if name in priced]
    figure = new_figure(7, 4, footer=" · ".join([comparison.footer, *told]))
    axes = figure.subplots()
    axes.plot(front[price], 100 * front["mIoU"], color="#0072B2", linewidth=1, drawstyle="steps-post", label="front")
    for name, row in table.iterrows():
        style = "o" if row["on the front"] == "yes" else "x"
        axes.plot(row[price], 100 * row["mIoU"], style, color="#0072B2" if style == "o" else "#767676", label=name)
        axes.annotate(name, (row[price], 100 * row["mIoU"]), xytext=(6, 4), textcoords="offset points", fontsize=9)
    axes.set(xlabel=f"{price} of an image" if price != "GMACs" else price, ylabel="mIoU [%]")
    axes.margins(0.15)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def seeds_chart(results: "pd.DataFrame") -> "Figure":
    """Draw the mIoU of each run as a dot, and the mean over the seeds of each recipe with its standard deviation.

    `results` has a row per run with the columns recipe, data, protocol and mIoU; images and protocol have their axes.
    """
    groups = dict(list(results.groupby(["data", "protocol"], sort=False)))
    recipes = list(dict.fromkeys(results["recipe"]))
    figure = new_figure(8, 1.2 + len(groups) * (0.6 + 0.45 * len(recipes)), footer="")
    for axes, (scored, group) in zip(np.atleast_1d(figure.subplots(len(groups))), groups.items(), strict=True):
        for row, recipe in enumerate(reversed(recipes)):
            values = 100 * group.loc[group["recipe"] == recipe, "mIoU"].to_numpy()
            if not len(values):
                continue
            spread = values.std(ddof=1) if len(values) > 1 else 0.0
            axes.errorbar(values.mean(), row, xerr=spread, fmt="|", color="#D55E00", markersize=16, capsize=4)
            axes.plot(values, np.full(len(values), row), "o", color="#0072B2", alpha=0.7, clip_on=False)
        axes.set(yticks=range(len(recipes)), yticklabels=recipes[::-1], ylim=(-0.6, len(recipes) - 0.4))
        axes.set_title("; ".join(scored), fontsize=10)
        axes.grid(axis="x", color="#EEEEEE")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("mIoU [%]: a dot per seed; mean and standard deviation")
    return figure


def ranking_chart(ranking: "pd.DataFrame") -> "Figure":
    """Draw the mIoU of a ranking as dots, a row for each set of images, protocol and training split, ours as diamonds.

    `ranking` has the columns images, protocol, trained on, mIoU in percent, from and ours, as a report makes it.
    """
    group = ["images", "protocol", "trained on"]
    rows = list(dict.fromkeys(ranking[group].itertuples(index=False, name=None)))
    systems = list(dict.fromkeys(ranking.loc[~ranking["ours"], "from"].str.partition(",")[0]))
    figure = new_figure(10, 1.6 + 0.42 * len(rows), footer="")
    axes = figure.subplots()
    for (name, ours), chosen in ranking.groupby([ranking["from"].str.partition(",")[0], "ours"], sort=False):
        heights = [rows.index(row) for row in chosen[group].itertuples(index=False, name=None)]
        if ours:
            axes.plot(chosen["mIoU, %"], heights, "D", color="#000000", markersize=9, label=f"ours: {name}", zorder=3)
        else:
            color, marker = SYSTEM_STYLES[systems.index(name) % len(SYSTEM_STYLES)]
            axes.plot(chosen["mIoU, %"], heights, marker, color=color, label=name, markersize=8)
    labels = [f"{protocol}\n{images}; {trained}" for images, protocol, trained in rows]
    axes.set(yticks=range(len(rows)), ylim=(len(rows) - 0.5, -0.5), xlabel="mIoU [%]: only dots of one row compare")
    axes.set_yticklabels(labels, fontsize=7)
    axes.grid(color="#EEEEEE")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def tradeoff_chart(costs: "pd.DataFrame", *, footer: str) -> "Figure":
    """Draw mIoU over each cost, beside one another; `costs` has the mIoU in percent, then a column per cost."""
    score, *prices = costs.columns
    figure = new_figure(5 * len(prices), 3.6, footer=footer)
    for axes, price in zip(np.atleast_1d(figure.subplots(1, len(prices), sharey=True)), prices, strict=True):
        for name, row in costs.iterrows():
            axes.plot(row[price], row[score], "o", color="#0072B2", label=name)
            axes.annotate(name, (row[price], row[score]), xytext=(6, 4), textcoords="offset points", fontsize=9)
        axes.set(xlabel=price)
        axes.margins(0.2)
        axes.grid(color="#EEEEEE")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel(score)
    return figure


def overlaid_chart(
    first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]], names: tuple[str, str]
) -> "Figure":
    """Draw loss and validation mIoU of two runs over the epochs, the second as a thin line over a wide one."""
    figure = new_figure(9, 3.4, footer="")
    for axes, column in zip(figure.subplots(1, 2), ("train_loss", "val_mIoU"), strict=True):
        for history, name, style in (
            (first, names[0], {"color": "#9CCBEB", "linewidth": 7}),
            (second, names[1], {"color": "#D55E00", "linewidth": 1.5, "marker": "o"}),
        ):
            known = [row for row in history if column in row]
            axes.plot([row["epoch"] for row in known], [row[column] for row in known], label=name, **style)
        axes.set(title=column.replace("_", " "), xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color="#EEEEEE")
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False,
        title=SCORED_WHILE_TRAINING, title_fontsize=8,
    )  # fmt: skip
    return figure
