"""Names from data are drawn as they are written: a class may be called `$`, a formula to matplotlib, or 道路."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from cityscapes.audit_rules import AuditReport, SplitCounts
from dlv3p.pictures.audits import class_share_bars
from dlv3p.pictures.curves import plot_curves
from dlv3p.pictures.figures import png
from dlv3p.pictures.scores import class_iou_bars, confusion_heatmap
from dlv3p.pictures.texts import DEFAULT, _font_with, font_of
from dlv3p.pictures.visualize import legend, text_lines

NAMES = (r"$\frac{$", "cost $5$ or $6$", r"a\$b", "$x_1$", "plain")


def bars():
    return class_iou_bars(dict(zip(NAMES, (0.1, 0.2, 0.3, 0.4, 0.5), strict=True)), footer="")


def heatmap():
    return confusion_heatmap(np.eye(5, dtype=np.int64), NAMES, footer="")


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


def write_font(path, characters):
    """Write a font in which each of these characters is a full square, as none of DejaVu's is."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(point)
    pen.closePath()
    square = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({ord(character): "square" for character in characters})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": square})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    font.setupHorizontalHeader(ascent=1000, descent=0)
    font.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    font.setupOS2(sTypoAscender=1000, usWinAscent=1000, usWinDescent=0)
    font.setupPost()
    font.save(path)


@pytest.fixture
def no_other_font(monkeypatch):
    """A machine on which matplotlib's own fonts are all there are."""
    own = str(Path(matplotlib.get_data_path()))
    fonts = [entry for entry in font_manager.fontManager.ttflist if entry.fname.startswith(own)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    _font_with.cache_clear()
    yield
    _font_with.cache_clear()


@pytest.fixture
def squares(no_other_font, tmp_path):
    """An installed font that draws 道 and 路 as full squares."""
    write_font(tmp_path / "squares.ttf", "道路 road")
    font_manager.fontManager.addfont(tmp_path / "squares.ttf")
    return tmp_path / "squares.ttf"


def dark(picture):
    return int((picture.max(axis=2) < 100).sum())


@pytest.mark.filterwarnings("error")
def test_characters_that_the_default_font_lacks_come_from_an_installed_one(squares):
    assert font_of("道路") == squares
    assert font_of("road, ä, …") == DEFAULT
    strips = [legend([name], np.array([(255, 0, 0)]), width=300) for name in ("道", "道路")]
    assert dark(strips[1]) - dark(strips[0]) > 80, "another full square"
    lines = [text_lines([name], width=300) for name in ("道", "道路")]
    assert dark(lines[1]) - dark(lines[0]) > 80
    charts = [class_iou_bars({name: 0.5, "road": 0.6}, footer="") for name in ("道", "道路")]
    drawn = [png(chart) for chart in charts]
    assert drawn[0] != drawn[1]
    assert charts[0].axes[0].get_yticklabels()[0].get_fontfamily()[-1] == "Squares"


@pytest.mark.filterwarnings("error")
def test_one_quiet_line_says_which_characters_no_font_has(no_other_font, capsys):
    """Not in red, as a notebook shows a warning or stderr, and not once for each picture or character."""
    legend(["道路"], np.array([(255, 0, 0)]), width=300)
    png(class_iou_bars({"道路": 0.5}, footer=""))
    said = capsys.readouterr()
    assert said.err == ""
    (line,) = said.out.splitlines()
    assert line.startswith("note: no installed font has '路道', drawn as boxes; ")
    assert "fonts-noto-cjk" in line


def test_a_line_of_wide_characters_is_continued_before_the_edge(squares):
    strip = text_lines(["道" * 60], width=300)
    assert strip[:, -5:].min() == 255
    assert strip.shape[0] > 2 * text_lines(["道"], width=300).shape[0]
