"""Pictures of an audit: the frequency of each class, and images under their masks."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from cityscapes.errors import MissingInputError
from dlv3p.data.audit import DataAudit
from dlv3p.pictures.visualize import PICTURE_WIDTH, legend, new_figure, overlay, side_by_side

_COLORS = ("#0072B2", "#D55E00", "#009E73")


def class_share_bars(shares: pd.DataFrame) -> Figure:
    """Draw shares of pixels on a logarithmic scale: a row a class, the largest on top, a bar for each column."""
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
    axes.set(xscale="log", xlim=(left, 3), xlabel="share of the labelled pixels", ylim=(-0.6, len(shares) - 0.4))
    axes.set_yticks(range(len(shares)), shares.index)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=len(shares.columns), frameon=False)
    return figure


def overlays_picture(report: DataAudit, *, count: int) -> Image.Image:
    """Show the first `count` images of each split that have a mask and no error, under their class colours."""
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
        raise MissingInputError(f"{report.splits[0].split.root}: no image has a mask that can be used; see the errors")
    split = report.splits[0].split
    shown = sorted(seen & set(range(split.num_classes)))
    names = [split.class_names[index] for index in shown]
    strip = legend(names, split.colors[shown], width=PICTURE_WIDTH)
    return Image.fromarray(np.concatenate([side_by_side(panels, width=PICTURE_WIDTH, columns=2), strip]))
