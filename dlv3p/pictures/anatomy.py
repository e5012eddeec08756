"""Draw a network's feature map shapes and receptive fields as matplotlib figures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dlv3p.pictures.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {"image": "#DDDDDD", "backbone": "#88CCEE", "aspp": "#DDCC77", "head": "#44AA99", "logits": "#CC6677"}
"""Color by part: light enough for black text, and distinguishable for color-blind readers."""

DRAWN = {
    "image": "image",
    "low-level": "backbone",
    "middle": "backbone",
    "high-level": "backbone",
    "aspp": "aspp",
    "head": "head",
    "decoder.fuse": "head",
    "decoder.refine": "head",
    "classifier": "logits",
    "logits": "logits",
}
"""The parts that are drawn, and the key of each in `COLORS`."""


def draw_shapes(tables: Mapping[int, pd.DataFrame], *, footer: str) -> "Figure":
    """Draw the tables of `part_shapes`, one row per output stride: box heights follow the maps on a square-root scale.

    Each box is labeled with its channels above, height x width below, and its stride inside; the arc shows the
    low-level features entering the decoder.
    """
    figure = new_figure(9.5, 2.1 * len(tables), footer=footer)
    for axes, (stride, table) in zip(figure.subplots(len(tables), 1, squeeze=False)[:, 0], tables.items(), strict=True):
        parts = [part for part in DRAWN if part in table.index]
        for x, part in enumerate(parts):
            row = table.loc[part]
            half = 0.5 * (row["height"] / table.loc["image", "height"]) ** 0.5
            axes.bar(x, 2 * half, 0.78, bottom=-half, color=COLORS[DRAWN[part]], edgecolor="#444444", linewidth=0.8)
            axes.text(
                x,
                0,
                f"{part}{' ' if half < 0.12 else chr(10)}1/{row['stride']:.0f}",
                ha="center",
                va="center",
                fontsize=7,
            )
            axes.text(x, half + 0.04, f"{row['channels']:.0f}", ha="center", va="bottom", fontsize=7.5)
            size = f"{row['height']:.0f} x {row['width']:.0f}"
            axes.text(x, -half - 0.05, size, ha="center", va="top", fontsize=7.5)
        for x in range(len(parts) - 1):
            axes.annotate("", (x + 0.6, 0), (x + 0.4, 0), arrowprops={"arrowstyle": "->", "color": "#444444"})
        if "decoder.fuse" in parts:
            ends = parts.index("low-level"), parts.index("decoder.fuse")
            curve = {"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.25", "color": "#117733", "linewidth": 1.3}
            axes.annotate("", (ends[1] - 0.2, 0.5), (ends[0] + 0.2, 0.42), arrowprops=curve)
        axes.set_xlim(-0.5, len(parts) - 0.5)
        axes.set_ylim(-0.72, 0.95)
        axes.set_title(f"output stride {stride}", loc="left", fontsize=9)
        # Not drawn, but told by the numbers beside the figure.
        axes.set_xticks(range(len(parts)), parts)
        axes.set_ylabel("half the root of the share of the image's height")
        axes.axis("off")
    return figure


def draw_fields(fields: Mapping[int, np.ndarray], boxes: Mapping[int, int], *, footer: str) -> "Figure":
    """Draw effective receptive fields by output stride on a logarithmic scale, bright where the gradient is large.

    The dashed square, `boxes[stride]` pixels wide, is the theoretical field of the backbone's last features. Saved
    beside the figure are the values of the middle row and the middle column.
    """
    from matplotlib.colors import LogNorm

    figure = new_figure(9.5, 3.1, footer=footer)
    for axes, (stride, field) in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields.items(), strict=True):
        height, width = field.shape
        shown = axes.imshow(np.maximum(field, 1e-3), cmap="magma", norm=LogNorm(1e-3, 1))
        left, top = (width - boxes[stride]) / 2, (height - boxes[stride]) / 2
        x = [left, left + boxes[stride], left + boxes[stride], left, left]
        y = [top, top, top + boxes[stride], top + boxes[stride], top]
        axes.plot(x, y, "--", color="#FFFFFF", linewidth=1, label="theoretical field of the backbone")
        axes.set(title=f"output stride {stride}", xlabel="pixels", ylabel="pixels")
        axes.set(xlim=(0, width - 1), ylim=(height - 1, 0))
        axes.title.set_size(9)
        axes.tick_params(labelsize=8)
    bar = figure.colorbar(shown, ax=figure.axes, shrink=0.7, ticks=[0.001, 0.01, 0.1, 1])
    bar.ax.set_yticklabels(["1/1000", "1/100", "1/10", "largest"], fontsize=8)
    bar.set_label("share of the largest gradient", fontsize=8)
    return figure
