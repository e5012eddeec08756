"""The report: every published table with ours beside it, the command for each empty cell, and no false rank."""

import csv
import dataclasses
import html
import io
import re
import shlex
from dataclasses import replace
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from cityscapes.errors import ParameterError
from cityscapes.workspace import output_folder
from dlv3p.evaluation.published_figures import choose, published_figures
from dlv3p.experiments.comparable import Result, read_recipe
from dlv3p.experiments.published_tables import Report, backbone_costs, command_for, find_counterparts, run_name
from dlv3p.experiments.report import main, measured_results, write_report
from dlv3p.experiments.table import WHILE_TRAINING
from dlv3p.parameters import notebooks as parameters
from dlv3p.parameters.cases import Case
from dlv3p.pictures.comparisons import ranking_chart, tradeoff_chart
from dlv3p.runs.folders import write_json

FIGURES = published_figures()
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SCORES = {"mIoU": 0.8042, "mPA": 0.875, "pixel_accuracy": 0.9612, "mDice": 0.88}
RECIPE = read_recipe("cityscapes_deeplabv3plus_resnet101_os16_vainf").as_dict()
OURS = Result("mine", "best", "Cityscapes val", "whole_image", "Cityscapes train", SCORES, RECIPE)
STARLIGHT = "ICT-ANS/StarLight"


def report(*results: Result) -> Report:
    return Report(FIGURES, results)


def test_ours_stands_beside_the_published_training_that_it_repeats(workspace):
    table = report(OURS).tables(STARLIGHT)[0].cells.set_index(("", "network"))
    (scores,) = (name for name in table.columns if name[0] == "mIoU, %")
    float_network, pruned, *int8 = table[scores]
    assert float_network == "76.21 / 80.42"
    assert pruned == "68.43 / (2)"
    assert int8 == ["75.64 / -", "68.08 / -"]
    assert "95.87 / 96.12" in table.iloc[0].tolist(), "pixel accuracy"


def test_seeds_of_one_recipe_are_a_mean_and_its_deviation(workspace):
    other = replace(OURS, run="again", scores=SCORES | {"mIoU": 0.8142}, parameters=RECIPE | {"seed": 1})
    same = replace(OURS, run="twice")
    found = find_counterparts(choose(FIGURES, system=STARLIGHT, written="76.21"), [OURS, other, same])
    assert [one.text for one in found] == ["80.92 ± 0.71, 2 seeds"]


def test_a_result_of_another_protocol_is_never_ranked(workspace):
    """Planted beside a sound one: far better, but by another protocol, on other images, or trained on others."""
    better = SCORES | {"mIoU": 0.99}
    planted = [
        replace(OURS, run="windows", protocol="windows_513", scores=better),
        replace(OURS, run="half", protocol="whole_image, images at 0.5", scores=better),
        replace(OURS, run="training", protocol=WHILE_TRAINING, scores=better),
        replace(OURS, run="demo", data="demo_city val, 40 images", scores=better),
        replace(OURS, run="leaked", trained_on="cityscapes trainval, 3475 images", scores=better),
        replace(OURS, run="several", protocol="six_scales_flip", scores=better),
    ]
    told = report(OURS, *planted)
    ranked = told.ranking()
    assert set(ranked[ranked["ours"]]["from"]) == {"mine", "several"}
    whole = ranked[(ranked["protocol"] == "whole_image") & (ranked["trained on"] == "Cityscapes train")]
    assert whole["mIoU, %"].max() < 81
    assert whole.set_index("from").loc["mine", ["rank", "of"]].tolist() == [4, len(whole)]
    own = told.own_results().set_index("run")
    assert own.loc["mine", "rank"] == f"4 of {len(whole)}"
    assert own.loc["several", "rank"].startswith("1 of "), "among scores by its own protocol"
    for name in ("windows", "half", "training", "demo", "leaked"):
        assert own.loc[name, "rank"] == "-"
        assert own.loc[name, "why unranked"]
    assert {one.text for one in told.counterparts("mmsegmentation")} == {""}


def test_ranks_never_mix_protocols_images_or_training_splits(workspace):
    table = report(OURS).ranking()
    for _, group in table.groupby(["images", "protocol", "trained on"]):
        assert group["of"].eq(len(group)).all()
        best = group["mIoU, %"].max()
        assert group[group["rank"] == 1]["mIoU, %"].eq(best).all()
        assert group["mIoU, %"].is_monotonic_decreasing
    assert set(table["protocol"]) <= {one.protocol for one in FIGURES if one.is_score}
    assert "void" not in " ".join(table["protocol"])
    assert not table["mIoU, %"].isin([77.21, 65.09, 76.17, 76.0]).any(), "of no protocol of ours"


def test_every_figure_has_ours_or_a_command_or_a_reason(workspace):
    told = find_counterparts([one for one in FIGURES if one.metric not in ("parameters", "GMACs")], [])
    assert all(one.command or one.why for one in told)
    assert not any(one.text for one in told)
    scores = [one for one in told if one.figure.is_score and one.figure.recipe]
    assert len(scores) > 100
    assert all(f"evaluate.ipynb -p run {run_name(one.figure)} -p protocol" in one.command for one in scores)
    assert all(one.why for one in told if one.figure.machine), "another machine"


def test_counts_are_made_without_a_run(workspace):
    (total,) = find_counterparts(choose(FIGURES, backbone="vovnet39", metric="parameters"), [])
    assert total.text == total.figure.written == "29.513621"
    (macs,) = find_counterparts(choose(FIGURES, written="16.82", metric="GMACs") or choose(FIGURES, written="17.0"), [])
    assert macs.text == "16.82"


def test_commands_name_notebooks_parameters_and_recipes_that_exist():
    commands = {step for one in FIGURES for step in command_for(one).split(" && ") if step}
    assert len(commands) > 100
    for step in commands:
        words = shlex.split(step)
        if words[0] == "python":
            assert (NOTEBOOKS / words[1]).is_file()
            continue
        assert words[0] == "papermill"
        kind = nbformat.read(NOTEBOOKS / words[1], as_version=4).metadata["dlv3p"]["parameters"]
        known = {field.name for field in dataclasses.fields(getattr(parameters, kind))}
        given = {words[place + 1]: words[place + 2] for place, word in enumerate(words) if word == "-p"}
        assert given.keys() <= known, step
        assert "{" not in step
        parameters.RunParameters(run=given.get("run", ""))
        recipes = [words[place + 1] for place, word in enumerate(words) if word == "-f"]
        assert all((NOTEBOOKS / recipe).is_file() for recipe in recipes)
        assert bool(recipes) == (words[1] == "train.ipynb") == ("long_run" in given)


def test_runs_are_called_as_the_recipes_that_start_from_them_expect():
    (third,) = choose(FIGURES, system="MindSpore model zoo", written="79.89")
    steps = command_for(third).split(" && ")
    named = [re.search(r"-p run (\S+)", step)[1] for step in steps]
    assert named == ["mindspore_s16", "mindspore_s8_r1", "mindspore_s8_r2", "mindspore_s8_r2"]
    assert steps[-1].endswith("-p protocol voc_long_side_513_five_scales_flip")
    (pruned,) = choose(FIGURES, system=STARLIGHT, written="68.43")
    steps = command_for(pruned).split(" && ")
    assert [shlex.split(step)[1] for step in steps] == [
        *("train.ipynb", "prune.ipynb", "train.ipynb", "evaluate.ipynb"),
    ]
    start = read_recipe(pruned.recipe).initial_weights
    assert f"saved/{re.search('-p pruned_run (.+?) ', steps[1])[1]}/" in start


def profile(name: str, asked: dict, case: Case, **row: object) -> None:
    measured = {"device": "cpu", "status": "ok", "stages_ms": {"end to end": 900.0}, "p50_ms": 691.0, "gmacs": 261.94}
    content = {"run": name, "asked": asked, "machine": {"processor": "a Xeon", "gpu": None}}
    write_json(output_folder(name) / "profile.json", content | {"rows": [case.as_dict() | measured | row]})


def test_a_stored_profile_stands_beside_a_published_time_with_both_machines(workspace):
    figures = choose(FIGURES, backbone="vovnet39", metric="latency")
    profile("demo", {"network": "vovnet_system"}, Case("vovnet39", 16, 513, 513))
    (one,) = find_counterparts(figures, [])
    assert one.text == "691"
    assert one.why == "measured on another machine, V100: side by side, never ranked; ours on a Xeon"


@pytest.mark.parametrize(
    ("asked", "case", "row"),
    [
        ({"network": "run"}, Case("vovnet39", 16, 513, 513), {}),
        ({"network": "vovnet_system"}, Case("vovnet39", 16, 257, 513), {}),
        ({"network": "vovnet_system"}, Case("vovnet39", 8, 513, 513), {}),
        ({"network": "vovnet_system"}, Case("vovnet57", 16, 513, 513), {}),
        ({"network": "vovnet_system"}, Case("vovnet39", 16, 513, 513, precision="bfloat16"), {}),
        ({"network": "vovnet_system"}, Case("vovnet39", 16, 513, 513, batch_size=2), {}),
        ({"network": "vovnet_system"}, Case("vovnet39", 16, 513, 513), {"status": "out of memory"}),
        ({"network": "vovnet_system"}, Case("vovnet39", 16, 513, 513), {"p50_ms": "not measured"}),
    ],
)
def test_another_profile_fills_no_cell(asked, case, row, workspace):
    profile("demo", asked, case, **row)
    write_json(output_folder("old") / "profile.json", {"rows": []})
    (one,) = find_counterparts(choose(FIGURES, backbone="vovnet39", metric="latency"), [])
    assert (one.text, bool(one.command)) == ("", True)


def test_a_profile_of_the_run_that_the_command_names_fills_its_cells(workspace):
    (macs,) = choose(FIGURES, details="half of the backbone pruned", metric="GMACs")
    profile("starlight", {"network": "run"}, Case("resnet101", 16, 1024, 2048))
    assert [one.text for one in find_counterparts([macs], [])] == ["261.9"]


def test_rows_with_the_same_command_share_a_number(workspace):
    tables = {one.title: one for one in report().tables("yoR-rihsihS/deeplabv3plus")}
    classes = tables["official server, classes"]
    assert len(classes.commands) == 1
    assert classes.cells.iloc[0].tolist()[-2:] == ["98.0066 / (1)", ""]
    assert len(classes.cells) == 19
    history = tables["last epoch of the training"].cells
    assert "65.09 / -" in history.iloc[0].tolist()


def test_the_formats_and_the_command(trained, tmp_path, capsys):
    assert main(["--system", "detectron2"]) == 0
    text = capsys.readouterr().out
    assert "scored while training" in text
    assert re.search(r"ResNet-101 stride 16, deeper stem, multi-grid +90k steps of 512x1024 +80\.0 / \(4\)", text)
    assert main(["--system", "detectron2", "--format", "csv", "--output", str(tmp_path / "report.csv")]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text())))
    assert [row["value"] for row in rows] == ["76.7", "78.5", "78.1", "80.0"]
    assert all(row["command"].startswith("papermill train.ipynb -f recipes/") for row in rows)
    told = Report.of(["done"])
    markdown = write_report(told, "markdown", "detectron2")
    assert "| 1    | 30" in markdown
    assert all(len(set(map(lambda line: line.count(" | "), block))) == 1 for block in blocks(markdown))
    latex = write_report(told, "latex", "detectron2")
    assert latex.count(r"\begin{tabular}") + latex.count("\nnone\n") == latex.count("\n% ") + 1
    with pytest.raises(ParameterError, match=r"system='detectron': no figures of it; allowed are yoR-rihsihS"):
        main(["--system", "detectron"])


def blocks(markdown: str) -> list[list[str]]:
    """The tables of a Markdown text, as lines."""
    parts = re.split(r"\n(?=## )", markdown)
    return [[line for line in part.splitlines() if line.startswith("| ")] for part in parts if "\n| " in part]


def test_own_measurements_name_what_made_them():
    rows = measured_results()
    assert len(rows) >= 8
    assert all(row["what"] and row["result"] and row["machine"] for row in rows)
    assert all(re.fullmatch(r"`.+`|\[.+\]\(.+\)", row["command"]) for row in rows)
    assert all(re.fullmatch(r"[0-9a-f]{7}", row["commit"]) for row in rows)


def test_the_demo_scored_what_the_stored_run_says():
    with open(NOTEBOOKS / "trained" / "metrics.csv", encoding="utf-8") as file:
        best = max(float(row["val_mIoU"]) for row in csv.DictReader(file) if row["val_mIoU"])
    assert f"val mIoU {best:.3f} " in measured_results()[0]["result"]


def test_the_ranking_is_drawn_a_row_per_protocol_with_ours_apart(workspace):
    several = replace(OURS, run="several", protocol="six_scales_flip")
    ranking = report(OURS, several).ranking()
    (axes,) = ranking_chart(ranking).axes
    rows = [label.get_text().split("\n")[0] for label in axes.get_yticklabels()]
    drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert drawn["ours: mine"] == [[pytest.approx(80.42), rows.index("whole_image")]]
    assert drawn["ours: several"] == [[pytest.approx(80.42), rows.index("six_scales_flip")]]
    assert sum(map(len, drawn.values())) == len(ranking)
    styles = [(line.get_color(), line.get_marker()) for line in axes.lines if not line.get_label().startswith("ours")]
    assert len(set(styles)) == len(styles)
    assert "D" not in dict(styles).values()


def test_backbones_are_drawn_over_each_cost():
    costs = pd.DataFrame({"mIoU": [74.27, 75.63], "ms": [24, 50], "GMACs": [50.4, 42.2]}, ["resnet50", "densenet201"])
    left, right = tradeoff_chart(costs, footer="").axes
    points = {"resnet50": [[24, 74.27]], "densenet201": [[50, 75.63]]}
    assert {line.get_label(): line.get_xydata().tolist() for line in left.lines} == points
    assert [line.get_xydata().tolist() for line in right.lines] == [[[50.4, 74.27]], [[42.2, 75.63]]]
    assert [text.get_text() for text in right.texts] == ["resnet50", "densenet201"]


@pytest.mark.slow
def test_the_published_backbones_are_counted_beside_their_scores():
    costs = backbone_costs()
    assert costs.iloc[:, 0].tolist() == [74.27, 75.63, 75.71, 76.81, 76.13, 77.4]
    assert costs.iloc[:, 2].tolist() == pytest.approx([50.44, 42.23, 53.80, 71.06, 64.35, 68.17], abs=0.01)


def test_a_table_is_shown_with_the_commands_below_it_whole(workspace):
    (table,) = report().tables("detectron2")
    shown = table._repr_html_()
    assert repr(table) == "detectron2: Cityscapes, published / ours"
    assert "80.0 / (4)" in shown
    assert all(html.escape(command, quote=False) in shown for command in table.commands["command"])
