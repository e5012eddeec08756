"""The numbers beside every saved figure."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dlv3p.pictures import figures, scores
from dlv3p.pictures.anatomy import draw_fields
from dlv3p.pictures.figure_data import figure_data

ROOT = Path(__file__).parents[2]


def test_bars_are_named_as_their_classes(tmp_path: Path) -> None:
    figure = scores.class_iou_bars({"road": 0.9, "sky": 0.25}, footer="")
    figures.save_figure(figure, tmp_path / "iou.svg")
    table = pd.read_csv(tmp_path / "iou_figure.csv")
    bars = table[table["kind"] == "bar"].set_index("y")["x"]
    assert bars.to_dict() == pytest.approx({"road": 0.9, "sky": 0.25})
    assert set(table["x label"]) == {"IoU"}
    assert table[table["kind"] == "line"]["x"].astype(float).tolist() == pytest.approx([0.575, 0.575])


def test_cells_are_the_shares_of_a_confusion_matrix(tmp_path: Path) -> None:
    figures.save_figure(scores.confusion_heatmap(np.array([[3, 1], [0, 2]]), ["a", "b"], footer=""), tmp_path / "c.png")
    table = pd.read_csv(tmp_path / "c_figure.csv")
    cells = table.set_index(["y", "x"])["value"].to_dict()
    assert cells == {("a", "a"): 75, ("a", "b"): 25, ("b", "a"): 0, ("b", "b"): 100}
    assert set(table["value label"]) == {"share of the true pixels [%]"}


def test_of_a_large_picture_the_middle_row_and_column_are_told(tmp_path: Path) -> None:
    fields = {stride: np.linspace(0.02, 1, 129 * 257).reshape(129, 257) / stride for stride in (8, 16)}
    figure = draw_fields(fields, dict.fromkeys(fields, 31), footer="")
    figures.save_figure(figure, tmp_path / "fields.png")
    table = pd.read_csv(tmp_path / "fields_figure.csv")
    assert (tmp_path / "fields_figure.csv").stat().st_size < 200_000
    for stride, field in fields.items():
        cells = table[(table["axes"] == f"output stride {stride}") & table["kind"].str.startswith("cell")]
        assert set(cells["value label"]) == {"share of the largest gradient"}
        row = cells[cells["kind"] == "cell of the middle row"]
        assert row["value"].to_numpy() == pytest.approx(field[64])
        assert row[["x", "y"]].to_numpy().tolist() == [[x, 64] for x in range(257)]
        column = cells[cells["kind"] == "cell of the middle column"]
        assert column["value"].to_numpy() == pytest.approx(field[:, 128])


def test_lines_points_and_bands_are_told() -> None:
    figure = figures.new_figure(3, 3, footer="")
    axes = figure.subplots()
    axes.plot([1, 2], [3, 4], label="first")
    axes.scatter([5], [6], label="second")
    axes.fill_between([1, 2], [0, 0], [1, 1], label="third")
    table = figure_data(figure)
    assert table[table["series"] == "first"][["x", "y"]].values.tolist() == [[1, 3], [2, 4]]
    assert table[table["series"] == "second"][["kind", "x", "y"]].values.tolist() == [["point", 5, 6]]
    assert {"band"} == set(table[table["series"] == "third"]["kind"])


def test_bars_beside_one_another_are_told_apart_by_series_name_and_length() -> None:
    figure = figures.new_figure(3, 3, footer="")
    axes = figure.subplots()
    for place, split, left in ((-0.2, "train", 0.0), (0.2, "val", 0.5)):
        axes.barh(np.arange(2) + place, [1, 2], 0.4, left=left, label=split)
    axes.set(xlabel="pixels [millions]", ylabel="class")
    axes.set_yticks([0, 1], ["road", "sky"])
    bars = figure_data(figure).set_index(["series", "y"])
    assert bars["value"].to_dict() == {(s, name): n for s in ("train", "val") for n, name in ((1, "road"), (2, "sky"))}
    assert bars.loc[("val", "sky"), "x"] == 2.5
    assert set(bars["value label"]) == {"pixels [millions]"}


def test_axes_that_share_their_names_tell_them_too() -> None:
    figure = figures.new_figure(3, 3, footer="")
    for axes, unit in zip(figure.subplots(1, 2, sharey=True), ("GMACs", "ms"), strict=True):
        axes.barh(np.arange(2), [1, 2], 0.7)
        axes.set(xlabel=unit)
        axes.set_yticks([0, 1], ["road", "sky"])
    table = figure_data(figure)
    assert table[["value label", "y", "value"]].to_numpy().tolist() == [
        [unit, name, length] for unit in ("GMACs", "ms") for length, name in ((1, "road"), (2, "sky"))
    ]


def test_bars_that_lie_on_an_axis_of_numbers_have_their_length() -> None:
    figure = figures.new_figure(3, 3, footer="")
    axes = figure.subplots()
    axes.barh([1, 4], [0.25, 0.5], 0.6)
    axes.set(xlabel="share", ylabel="bin")
    assert figure_data(figure)[["value label", "x", "y", "value"]].to_numpy().tolist() == [
        ["share", 0.25, 1, 0.25],
        ["share", 0.5, 4, 0.5],
    ]


def test_an_upright_bar_is_at_its_middle_and_its_height() -> None:
    figure = figures.new_figure(3, 3, footer="")
    figure.subplots().bar([1, 4], [0.25, 0.5], width=0.6)
    table = figure_data(figure)
    assert table[["x", "y"]].to_numpy() == pytest.approx(np.array([[1, 0.25], [4, 0.5]]))


def test_numbers_stay_numbers_however_their_axis_writes_them() -> None:
    figure = figures.new_figure(3, 3, footer="")
    axes = figure.subplots()
    axes.plot([0.5, 0.7], [1, 2])
    axes.set_xticks([0.5, 0.6], ["50 %", "60 %"])
    assert figure_data(figure)["x"].tolist() == [0.5, 0.7]


def test_a_sentence_removes_figure_and_numbers(tmp_path: Path) -> None:
    figures.save_figure(scores.class_iou_bars({"road": 0.9}, footer=""), tmp_path / "a.png")
    figures.save_figure("nothing was measured", tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_one_function_saves_every_figure() -> None:
    """Elsewhere, a figure would have no numbers beside it; the curves of a running training are shown, not saved."""
    calls = {
        path.relative_to(ROOT).as_posix()
        for package in ("dlv3p", "cityscapes", "benchmarks")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "savefig"
    }
    assert calls == {"dlv3p/pictures/figures.py", "dlv3p/runtime/widgets.py"}
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert [path.name for path in notebooks if ".savefig(" in path.read_text(encoding="utf-8")] == []
