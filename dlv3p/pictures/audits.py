"""Draw the findings of an audit: class frequencies, and images overlaid with their masks."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from cityscapes.errors import MissingInputError
from dlv3p.data.audit import DataAudit
from dlv3p.pictures.visualize import new_figure, overlay, with_legend

_COLORS = ("#0072B2", "#D55E00", "#009E73")


def class_share_bars(shares: pd.DataFrame) -> Figure:
    """Draw shares of pixels on a logarithmic scale: one row per class, largest on top, one bar per column."""
    shares = shares.loc[shares.iloc[:, 0].sort_values(kind="stable").index]
    figure = new_figure(8, 1.4 + 0.36 * len(shares))
    axes = figure.subplots()
    thickness = 0.8 / len(shares.columns)
    smallest = shares.to_numpy()[shares.to_numpy() > 0].min(initial=1)
    left = 10.0 ** np.floor(np.log10(smallest) - 0.1)
    for number, column in enumerate(shares):
        rows = np.arange(len(shares)) - (number - (len(shares.columns) - 1) / 2) * thickness
        axes.barh(rows, shares[column], height=thickness, color=_COLORS[number % 3], label=column)
        for row, value in zip(rows, shares[column], strict=True):
            axes.text(max(value, left) * 1.1, row, f"{value:.3%}" if value else "none", va="center", fontsize=7)
    axes.set(xscale="log", xlim=(left, 3), xlabel="share of the labeled pixels", ylim=(-0.6, len(shares) - 0.4))
    axes.set_yticks(range(len(shares)), shares.index)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=len(shares.columns), frameon=False)
    return figure


def overlays_picture(report: DataAudit, *, count: int) -> Image.Image:
    """Overlay the first `count` images of each split that have a mask and no error with their class colors."""
    panels, seen = {}, set()
    for one in report.splits:
        wrong = {finding.where for finding in report.errors if finding.split == one.split.split}
        sound = (i for i in range(len(one.split)) if one.split.has_mask(i) and one.split.name(i) not in wrong)
        for index, _ in zip(sound, range(count), strict=False):
            image, mask = one.split.pair(index)
            seen.update(np.unique(mask).tolist())
            title = f"{one.split.split}: {one.split.name(index)}"
            panels[title] = overlay(np.asarray(image), mask, alpha=0.55, colors=one.split.colors)
    if not panels:
        raise MissingInputError(f"{report.splits[0].split.root}: no image has a usable mask; fix the errors above")
    split = report.splits[0].split
    shown = sorted(seen & set(range(split.num_classes)))
    names = [split.class_names[index] for index in shown]
    return Image.fromarray(with_legend(panels, names, split.colors[shown], columns=2))
