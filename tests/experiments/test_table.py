"""One table of all runs: seeds together, protocols and data apart; figures by hand, and the formats of papers."""

import json
import math
import shutil
import statistics

import pandas as pd
import pytest

from cityscapes.errors import MissingInputError
from cityscapes.workspace import run_folder
from dlv3p.evaluation.statistics import mean_interval
from dlv3p.experiments.table import format_cells, format_table, gather_results, main, over_seeds
from dlv3p.pictures.comparisons import seeds_chart
from dlv3p.runs.record import read_record, write_record


def row(recipe: str, seed: int, score: float, **other: object) -> dict:
    shared = {"run": f"{recipe}-{seed}", "recipe": recipe, "data": "city val, 40 images", "protocol": "whole_image"}
    return {
        **shared,
        "checkpoint": "best",
        "trained on": "a",
        "seed": seed,
        "mIoU": score,
        "epochs": 9,
        "commit": "abc",
        **other,
    }


def test_seeds_are_one_row_with_mean_and_deviation():
    scores = (0.50, 0.53, 0.58)
    table = over_seeds(pd.DataFrame([row("small", seed, score) for seed, score in enumerate(scores)]))
    (one,) = table.to_dict("records")
    assert (one["seeds"], one["runs"]) == ("0 1 2", 3)
    assert one["mIoU, %"] == pytest.approx(100 * statistics.mean(scores))
    assert one["sd"] == pytest.approx(100 * statistics.stdev(scores))
    assert math.isnan(one["low"])


def test_runs_on_other_images_have_axes_of_their_own_in_the_chart():
    results = [row("small", 0, 0.5), row("small", 1, 0.6), row("small", 0, 0.9, data="city val, 7 images")]
    first, other = seeds_chart(pd.DataFrame(results)).axes
    assert [axes.get_title() for axes in (first, other)] == [
        "city val, 40 images; whole_image",
        "city val, 7 images; whole_image",
    ]
    assert first.lines[-1].get_xdata().tolist() == [50, 60]
    assert other.lines[-1].get_xdata().tolist() == [90]


def test_runs_of_one_seed_count_once():
    results = [row("small", 0, score, run=f"again-{index}") for index, score in enumerate((0.4, 0.5, 0.6, 0.5, 0.5))]
    (one,) = over_seeds(pd.DataFrame([*results, row("small", 1, 0.7)])).to_dict("records")
    assert (one["seeds"], one["runs"], one["mIoU, %"]) == ("0 1", 6, pytest.approx(60))
    assert one["sd"] == pytest.approx(100 * statistics.stdev([0.5, 0.7]))
    assert math.isnan(one["low"])


@pytest.mark.parametrize("change", [{"class_names": ["a", "b"]}, {"content": "0" * 64}], ids=lambda it: next(iter(it)))
def test_runs_on_other_classes_or_bytes_are_never_in_one_row(trained, change):
    source, other = run_folder("done"), run_folder("other")
    shutil.copytree(source, other)
    record = read_record(other / "run.json") | {"run": "other"}
    record |= {name: value for name, value in change.items() if name in record}
    record["data"]["train"] |= {name: value for name, value in change.items() if name == "content"}
    record["parameters"] |= {"run": "other", "seed": 1}
    record.pop("sha256")
    write_record(other / "run.json", record)
    try:
        assert over_seeds(gather_results(["done", "other"]))["runs"].tolist() == [1, 1]
    finally:
        shutil.rmtree(other)


def test_five_seeds_have_an_interval_of_the_mean():
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    width = 2.7764451 * statistics.stdev(values) / math.sqrt(5)  # Student's t of 97.5 % with four degrees of freedom
    assert mean_interval(values) == pytest.approx((3 - width, 3 + width))
    assert all(map(math.isnan, mean_interval(values[:4])))


@pytest.mark.parametrize(
    "other",
    [{"protocol": "six_scales_flip"}, {"data": "camvid val, 40 images"}, {"checkpoint": "last"}, {"trained on": "b"}],
    ids=lambda other: next(iter(other)),
)
def test_what_cannot_be_compared_is_never_in_one_row(other):
    table = over_seeds(pd.DataFrame([row("small", 0, 0.5), row("small", 1, 0.9, **other)]))
    assert table["runs"].tolist() == [1, 1]
    assert sorted(table["mIoU, %"]) == pytest.approx([50, 90])


def test_a_run_gives_its_score_while_training_and_those_of_evaluate(trained, capsys):
    results = gather_results(["done"])
    (one,) = results.to_dict("records")
    assert one["protocol"] == "whole images, while training, images at 0.5"
    assert one["mIoU"] == max(epoch["val_mIoU"] for epoch in trained.history)
    record = json.loads((trained.folder / "run.json").read_text())
    assert one["commit"].rstrip("+") == record["git"]["commit"][:7]
    assert main(["--each"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == ",".join(results.columns)


def test_a_run_whose_files_were_changed_is_left_out_and_named(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    for name in ("done", "edited", "lost"):
        shutil.copytree(trained.folder, tmp_path / "saved" / name)
    metrics = tmp_path / "saved" / "edited" / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("0.", "0.9"))
    (tmp_path / "saved" / "lost" / "run.json").unlink()
    assert set(gather_results().run) == {"done"}
    left_out = [f"{name}: left out; see: dlv3p runs check {name}" for name in ("edited", "lost")]
    assert capsys.readouterr().err.splitlines() == left_out


def test_the_formats(tmp_path, trained):
    table = over_seeds(pd.DataFrame([row("rate_1 & 50%", 0, 0.5), row("rate_1 & 50%", 1, 0.51)]))
    assert "rate_1 & 50%  city val, 40 images  whole_image  0 1    2     50.50 ± 0.71  9       abc\n" in format_table(
        table, "text"
    )
    head, line, first = format_table(table, "markdown").splitlines()
    assert set(line) == set("|- ")
    assert head.count("|") == first.count("|") == 9
    latex = format_table(table, "latex")
    assert r"rate\_1 \& 50\% & city val, 40 images & whole\_image & 0 1 & 2 & 50.50 $\pm$ 0.71 & 9 & abc \\" in latex
    assert latex.startswith("\\begin{tabular}")
    assert "\\toprule" in latex
    assert main(["--format", "csv", "--output", str(tmp_path / "table.csv")]) == 0
    assert pd.read_csv(tmp_path / "table.csv")["runs"].tolist() == [1]


def test_what_means_something_to_latex_is_written_as_text():
    table = pd.DataFrame({"trained on": ["$CITYSCAPES_DATASET train, {2} \\ 50% ± 1"]})
    assert (
        r"\$CITYSCAPES\_DATASET train, \{2\} \textbackslash{} 50\% $\pm$ 1 \\"
        in format_cells(table, "latex").splitlines()
    )


def test_no_run_is_one_line(workspace):
    with pytest.raises(MissingInputError, match="no run with a score among all; run train.ipynb"):
        gather_results()
    with pytest.raises(MissingInputError, match="run='none': no such run"):
        gather_results(["none"])
