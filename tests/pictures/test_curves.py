"""Curves and tables say what metrics.csv holds, for one run and for several."""

import json
import math

import numpy as np
import pytest

from cityscapes.errors import InputError, IntegrityError, MissingInputError
from cityscapes.workspace import WORKSPACE_VARIABLE, run_folder
from dlv3p.parameters.training import TrainParameters
from dlv3p.pictures import curves
from dlv3p.pictures.figures import png
from dlv3p.runs.folders import HISTORY_COLUMNS, LATER_COLUMNS, checkpoint_path, write_metrics
from dlv3p.runs.record import add_to_record, read_record


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(tmp_path))


def make_run(run, *, output_stride=16, val_miou=(0.1, 0.3, 0.2)):
    """Write a run folder; the columns of epoch e hold e + 0.01, e + 0.02, ..., except for the given val mIoU."""
    history = []
    for epoch, score in enumerate(val_miou, start=1):
        row = {name: epoch + 0.01 * column for column, name in enumerate(HISTORY_COLUMNS)}
        history.append(row | {"epoch": epoch, "seconds": 2.5, "val_mIoU": score})
    checkpoint = checkpoint_path(run, "best")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    (run_folder(run) / "run.json").write_text(json.dumps({"parameters": {"output_stride": output_stride}}))
    write_metrics(run_folder(run), history)
    return history


def test_every_value_of_the_file_is_in_the_table():
    history = make_run("a", output_stride=8)
    table = curves.read_metrics(["a"])
    assert len(table) == 6
    for row in table.to_dict("records"):
        wanted = history[row["epoch"] - 1]
        assert (row["run"], row["output_stride"]) == ("a", 8)
        for name in ("loss", "mIoU", "mDice", "mPA", "pixel_accuracy"):
            assert row[name] == pytest.approx(wanted[f"{row['split']}_{name}"], rel=1e-12)
        assert row["seconds"] == 2.5


def test_several_runs_come_in_the_order_asked_for_and_once_each():
    make_run("a")
    make_run("b", output_stride=8)
    assert list(curves.read_metrics(["b", "a", "b"]).run.unique()) == ["b", "a"]


def test_no_names_mean_every_run_that_was_trained():
    make_run("a")
    make_run("b")
    make_run("a-pruned")
    (run_folder("a-pruned") / "metrics.csv").unlink()
    assert list(curves.read_metrics().run.unique()) == ["a", "b"]


def test_a_missing_run_names_those_there_are():
    make_run("deeplab-a")
    with pytest.raises(MissingInputError, match="no such run; did you mean 'deeplab-a'"):
        curves.read_metrics(["deeplab-b"])


def test_an_empty_workspace_says_what_to_run():
    with pytest.raises(MissingInputError, match=r"train\.ipynb"):
        curves.read_metrics()


def test_a_run_from_before_a_column_was_added_is_read():
    make_run("old")
    path = run_folder("old") / "metrics.csv"
    path.with_name("metrics.csv.json").unlink()  # older than these, too
    lines = [line.split(",") for line in path.read_text().splitlines()]
    later = [lines[0].index(name) for name in LATER_COLUMNS]
    kept = [[cell for place, cell in enumerate(line) if place not in later] for line in lines]
    path.write_text("".join(",".join(line) + "\n" for line in kept))
    table = curves.read_metrics(["old"])
    assert len(table) == 6
    with pytest.raises(
        InputError,
        match=r"old/metrics\.csv: states no joules of some epoch, as where no .* can be read; draw over='hours'",
    ):
        curves.plot_curves(table, over="joules")


@pytest.mark.parametrize("content", ["", "epoch,loss\n1,2\n", ",".join(HISTORY_COLUMNS) + "\n", "\0\1\2"])
def test_a_damaged_file_is_named_in_one_line(content):
    make_run("a")
    (run_folder("a") / "metrics.csv").write_text(content)
    with pytest.raises(InputError, match=r"metrics\.csv: is damaged") as caught:
        curves.read_metrics(["a"])
    assert "\n" not in str(caught.value)


def unchecked(run):
    """The lines of a run's metrics.csv, whose record is gone, as that of an earlier version."""
    (run_folder(run) / "metrics.csv.json").unlink()
    return (run_folder(run) / "metrics.csv").read_text().splitlines()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [f"note,{lines[0]}", *lines[1:]], "line 2 has 15 values for 16 columns"),
        (lambda lines: [lines[0].replace("seconds", "epoch"), *lines[1:]], "duplicate key 'epoch'"),
        (lambda lines: [*lines, *lines[1:]], "line 5 is not that of epoch 4"),
        (lambda lines: [lines[0], *lines[:0:-1]], "line 2 is not that of epoch 1"),
    ],
)
def test_lines_that_pandas_would_read_as_others_are_damage(change, said):
    make_run("a")
    (run_folder("a") / "metrics.csv").write_text("\n".join(change(unchecked("a"))) + "\n")
    with pytest.raises(InputError, match=rf"metrics\.csv: is damaged \({said}"):
        curves.read_metrics(["a"])


def test_a_last_line_that_was_cut_is_damage():
    make_run("a")
    (run_folder("a") / "metrics.csv").write_text("\n".join(unchecked("a"))[:-2])
    with pytest.raises(InputError, match=r"metrics\.csv: is damaged \(the last line is incomplete\)"):
        curves.read_metrics(["a"])


def test_a_file_without_a_checksum_is_called_unchecked_once(capsys):
    make_run("a")
    curves.read_metrics(["a"])
    assert "metrics.csv" not in capsys.readouterr().err
    unchecked("a")
    for _ in range(2):
        curves.read_metrics(["a"])
    path = run_folder("a") / "metrics.csv"
    said = f"note: {path}: has no checksum, as files of earlier versions, so its bits are unchecked\n"
    assert capsys.readouterr().err.count(said) == 1


def test_a_value_that_is_no_number_is_damage():
    make_run("a")
    path = run_folder("a") / "metrics.csv"
    path.write_text(path.read_text().replace("2.5", "soon", 1))
    with pytest.raises(InputError, match="damaged"):
        curves.read_metrics(["a"])


@pytest.mark.parametrize("content", ["{", "[]", '{"parameters": {}}'])
def test_a_damaged_record_of_the_run_is_named(content):
    make_run("a")
    (run_folder("a") / "run.json").write_text(content)
    with pytest.raises((InputError, IntegrityError), match=r"run\.json: (cannot be read|is not a JSON|is damaged)"):
        curves.read_metrics(["a"])


def test_the_best_epoch_is_the_first_of_the_highest_val_miou():
    make_run("a", val_miou=(0.1, 0.3, 0.3, math.nan))
    row = curves.best_epochs(curves.read_metrics(["a"])).iloc[0]
    assert (row.best_epoch, row.val_mIoU, row.last_epoch, row.seconds) == (2, 0.3, 4, 10.0)
    assert math.floor(row.val_mDice) == math.floor(row.val_mPA) == 2


def test_a_run_without_any_score_has_no_best_epoch():
    make_run("a", val_miou=(math.nan,))
    row = curves.best_epochs(curves.read_metrics(["a"])).iloc[0]
    assert np.isnan(row.val_mIoU)
    assert str(row.best_epoch) == "<NA>"


def test_each_panel_draws_each_run_and_split_and_the_legend_names_stride():
    make_run("a")
    make_run("b", output_stride=8, val_miou=(0.5, 0.6))
    figure = curves.plot_curves(curves.read_metrics())
    assert [axes.get_title() for axes in figure.axes] == ["loss", "mIoU", "mDice", "mPA"]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["a (output stride 16)", "b (output stride 8)"]
    lines = [line for line in figure.axes[1].get_lines() if len(line.get_xdata())]
    drawn = {tuple(np.round(line.get_ydata(), 6)): line for line in lines}
    assert len(drawn) == 4
    assert drawn[0.1, 0.3, 0.2].get_color() != drawn[0.5, 0.6].get_color()
    assert not drawn[0.5, 0.6].is_dashed()
    assert sum(line.is_dashed() for line in lines) == 2


@pytest.mark.parametrize("val_miou", [(0.4,), (math.nan,), (math.nan, 0.2), tuple(np.linspace(0, 1, 60))])
def test_figures_can_be_drawn_and_are_the_same_bytes_each_time(val_miou):
    make_run("a", val_miou=val_miou)
    first, second = (png(curves.plot_curves(curves.read_metrics())) for _ in range(2))
    assert first == second


def test_a_dozen_runs_have_a_dozen_colors_that_differ_in_lightness():
    for index in range(12):
        make_run(f"run{index:02d}", val_miou=(0.2, 0.3))
    figure = curves.plot_curves(curves.read_metrics())
    gray = [np.dot(line.get_color(), (0.299, 0.587, 0.114)) for line in figure.legends[0].get_lines()]
    assert (np.diff(gray) > 0.03).all(), "told apart in gray, and so by color-blind eyes"
    assert gray[-1] < 0.75, "seen on white"


def test_a_first_loss_far_above_the_others_leaves_the_curve_readable_and_is_told():
    make_run("a", val_miou=tuple(np.linspace(0.1, 0.5, 8)))
    table = curves.read_metrics(["a"])
    table.loc[(table.epoch == 1) & (table.split == "val"), "loss"] = 4305.0
    loss = curves.plot_curves(table).axes[0]
    others = table.loss[table.loss < 4305]
    assert others.max() < loss.get_ylim()[1] <= 6 * others.median()
    assert loss.get_title() == "loss (up to 4,305, cut off)"


def test_the_best_epoch_of_each_run_is_marked():
    make_run("a", val_miou=(0.1, 0.3, 0.2))
    make_run("b", val_miou=(0.6, 0.5, 0.4))
    make_run("c", val_miou=(math.nan,))
    figure = curves.plot_curves(curves.read_metrics())
    stars = [tuple(mark.get_offsets()[0]) for mark in figure.axes[1].collections if len(mark.get_offsets())]
    assert stars == [(2, 0.3), (1, 0.6)]
    assert "best epoch" in [text.get_text() for text in figure.legends[1].get_texts()]


def test_the_legend_says_what_the_scores_are_of():
    make_run("a", val_miou=(0.2, 0.3))
    legend, _ = curves.plot_curves(curves.read_metrics()).legends
    assert legend.get_title().get_text() == "val: whole images, after each epoch · train: the crops of its steps"


def test_several_runs_show_what_differs_between_them():
    long = "deeplabv3plus-mobilenet_v2-os16-0ea3da"
    make_run(long)
    make_run("b", output_stride=8)
    for run, seed in ((long, 3), ("b", 4)):
        path = run_folder(run) / "run.json"
        record = read_record(path)
        add_to_record(path, record, parameters=record["parameters"] | {"seed": seed})
    labels = curves.run_labels([(long, 16), ("b", 8)])
    assert labels == ["deeplabv3plu…-0ea3da (output stride 16, seed 3)", "b (output stride 8, seed 4)"]
    assert curves.run_labels([(long, 16)]) == [f"{long} (output stride 16)"]


def test_a_label_names_what_a_run_differs_in_from_most_others():
    for index, rate in enumerate((0.1, 0.1, 0.1, 0.02)):
        make_run(f"r{index}", val_miou=(0.2,))
        path = run_folder(f"r{index}") / "run.json"
        add_to_record(path, record := read_record(path), parameters=record["parameters"] | {"learning_rate": rate})
    labels = curves.run_labels([(f"r{index}", 16) for index in range(4)])
    assert labels == ["r0", "r1", "r2", "r3 (learning rate 0.02)"]


def test_long_labels_of_many_runs_are_drawn_whole():
    for index in range(8):
        make_run(f"run-{index:016d}", val_miou=(0.2,))
        path = run_folder(f"run-{index:016d}") / "run.json"
        record = read_record(path)
        changed = {
            "epochs": 100 + index,
            "steps": index,
            "learning_rate": 0.123456 + index / 1e6,
            "warmup_steps": index,
        }
        add_to_record(path, record, parameters=record["parameters"] | changed)
    figure = curves.plot_curves(curves.read_metrics())
    png(figure)
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def make_seeds(*seeds, val_miou, seconds=3600.0):
    """Write runs that differ in their seed, of 25 images in batches of 4, with one val mIoU for each epoch and seed."""
    for seed in seeds:
        history = make_run(f"seed-{seed}", val_miou=val_miou[seed])
        parameters = TrainParameters(seed=seed, batch_size=4).as_dict()
        record = {"parameters": parameters, "data": {"train": {"images": 25}}}
        (run_folder(f"seed-{seed}") / "run.json").write_text(json.dumps(record))
        write_metrics(run_folder(f"seed-{seed}"), [row | {"seconds": seconds * (1 + seed)} for row in history])


def val_line(figure, metric):
    """The points (x, y) of the first validation curve of a metric."""
    axes = next(axes for axes in figure.axes if axes.get_title() == metric)
    return [line.get_xydata() for line in axes.lines if line.get_linestyle() == "-" and len(line.get_xydata())][0]


def test_curves_are_drawn_over_steps_and_hours():
    make_seeds(0, 1, val_miou={0: (0.1, 0.3), 1: (0.2, 0.4)})
    metrics = curves.read_metrics(["seed-1"])
    assert val_line(curves.plot_curves(metrics, over="step"), "mIoU") == pytest.approx(np.array([[6, 0.2], [12, 0.4]]))
    assert val_line(curves.plot_curves(metrics, over="hours"), "mIoU") == pytest.approx(np.array([[2, 0.2], [4, 0.4]]))


def test_runs_that_differ_in_their_seed_share_a_mean_and_a_band():
    make_seeds(0, 1, 2, val_miou={0: (0.1, 0.3), 1: (0.2, 0.4), 2: (0.6, 0.5)})
    metrics = curves.read_metrics()
    apart, joined = curves.plot_curves(metrics), curves.plot_curves(metrics, over="hours", join_seeds=True)
    assert len(apart.legends[0].get_texts()) == 3
    assert [text.get_text() for text in joined.legends[0].get_texts()] == ["seed-0 (output stride 16), 3 seeds"]
    assert val_line(joined, "mIoU") == pytest.approx(np.array([[2, 0.3], [4, 0.4]]))
    axes = next(axes for axes in joined.axes if axes.get_title() == "mIoU")
    corners = np.concatenate([path.vertices for band in axes.collections for path in band.get_paths()])
    assert {(2.0, 0.1), (2.0, 0.6), (4.0, 0.3), (4.0, 0.5)} <= {
        tuple(map(float, corner.round(9))) for corner in corners
    }


def test_a_run_that_does_not_know_its_steps_is_drawn_over_epochs_only():
    make_run("a")
    metrics = curves.read_metrics()
    with pytest.raises(InputError, match="a/run.json: does not say how many steps an epoch has; draw over='epoch'"):
        curves.plot_curves(metrics, over="step")
    assert curves.plot_curves(metrics, over="hours")
