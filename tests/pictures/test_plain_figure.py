"""Names from data are drawn as they are written: a class may be called `$`, which is a formula to matplotlib."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cityscapes.audit_rules import AuditReport, SplitCounts
from dlv3p.pictures.audits import class_share_bars
from dlv3p.pictures.curves import plot_curves
from dlv3p.pictures.visualize import class_iou_bars, confusion_heatmap, png

NAMES = (r"$\frac{$", "cost $5$ or $6$", r"a\$b", "$x_1$", "plain")


def bars():
    return class_iou_bars(dict(zip(NAMES, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True)))


def heatmap():
    return confusion_heatmap(np.eye(5, dtype=np.int64), NAMES)


def shares():
    pixels = [1, 20, 300, 4000, 50_000, *([0] * 251)]
    counts = SplitCounts("$val$ $", NAMES, pixels=pixels, images_with=pixels, labeled=1)
    return class_share_bars(AuditReport(Path("city"), (counts,), ()))


def curves():
    row = {"run": r"$\frac{$", "output_stride": 16, "epoch": 1, "loss": 1.0, "mIoU": 0.1, "mDice": 0.1, "mPA": 0.1}
    return plot_curves(pd.DataFrame([row | {"split": "val"}, row | {"split": "train"}]))


@pytest.mark.parametrize("draw", [bars, heatmap, shares, curves])
def test_a_dollar_in_a_name_is_drawn(draw):
    figure = draw()
    assert png(figure)[:4] == b"\x89PNG"
    axes = figure.axes[0]
    texts = [
        *axes.get_yticklabels(),
        *axes.get_xticklabels(),
        *(text for legend in figure.legends for text in legend.get_texts()),
    ]
    dollars = [text for text in texts if "$" in text.get_text() and "mathdefault" not in text.get_text()]
    assert dollars
    assert not any(text.get_parse_math() for text in dollars)


def test_powers_of_ten_stay_formulas():
    figure = shares()
    png(figure)
    labels = [label for label in figure.axes[0].get_xticklabels() if "mathdefault" in label.get_text()]
    assert labels
    assert all(label.get_parse_math() for label in labels)
