"""The promises of every notebook: parameters that are the manual, small cells, clean outputs, checks that can fail."""

import base64
import dataclasses
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import yaml
from click.testing import CliRunner
from papermill.cli import papermill as papermill_command
from PIL import Image
from support.notebook_contract import HEADING, README, RULES, broken
from support.notebook_contract import code_cells as code_cells_of
from support.refresh_notebooks import PAGE, page, with_parameters
from support.refresh_notebooks import parameters_class as named_class

from cityscapes.errors import InputError
from dlv3p.jupyter.parameters_cell import cell_source
from dlv3p.jupyter.stored_outputs import complaints
from dlv3p.parameters import notebooks as config
from dlv3p.parameters.network import BACKBONES
from dlv3p.prediction.jobs import Drive

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
RECIPES = sorted(FOLDER.glob("recipes/*.yaml"))
REFRESH = "python tests/support/refresh_notebooks.py --parameters"
PROMISED = {"train", "evaluate", "visualize_training", "save_predictions", "render_gif", "profile"}

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path, tag: str = "") -> list[nbformat.NotebookNode]:
    """The code cells of a notebook, or those with a tag."""
    return code_cells_of(nbformat.read(path, as_version=4), tag)


def parameters_class(path: Path) -> type:
    """The class of `dlv3p.parameters.notebooks` that a notebook's metadata names."""
    return named_class(nbformat.read(path, as_version=4))


def test_the_promised_notebooks_are_there() -> None:
    assert {path.stem for path in NOTEBOOKS} >= PROMISED


@notebooks
def test_a_notebook_keeps_the_contract(path: Path) -> None:
    assert broken(nbformat.read(path, as_version=4), path.stem) == {}


@notebooks
def test_the_parameters_cell_and_the_file_are_as_they_are_generated(path: Path) -> None:
    if with_parameters(path) != path.read_text(encoding="utf-8"):
        pytest.fail(f"{path.name}: its parameters cell is not what the fields say; run: {REFRESH}")


@notebooks
def test_papermill_prints_the_manual_of_every_parameter(path: Path) -> None:
    manual = CliRunner().invoke(papermill_command, [str(path), "--help-notebook"])
    assert manual.exit_code == 0
    assert all(f"  {field.name}: " in manual.output for field in dataclasses.fields(parameters_class(path)))


def palette_picture(mode: str = "P") -> str:
    """A small picture, as a notebook stores it."""
    buffer = io.BytesIO()
    Image.new(mode, (4, 4)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def good_notebook() -> nbformat.NotebookNode:
    """A small notebook that keeps the contract, as `audit_data`; each entry of `BAD` breaks one rule of it."""
    v4 = nbformat.v4
    table, picture = {"text/html": "<table></table>"}, {"image/png": palette_picture()}
    check = {"tags": ["nbval-check-output", "check"], "jupyter": {"source_hidden": True}}
    cells = [
        v4.new_markdown_cell("# Audit\n\n**Is it fit?**\n\n*Ten seconds. Pictures: one of each class.*"),
        v4.new_code_cell(cell_source(config.AuditDataParameters), metadata={"tags": ["parameters"]}),
        v4.new_markdown_cell("An invalid parameter stops the notebook here, before anything is loaded."),
        v4.new_code_cell(
            "config = AuditDataParameters.from_cell(globals())\ntable",
            outputs=[v4.new_output("execute_result", table, execution_count=2)],
        ),
        v4.new_markdown_cell("Each class once."),
        v4.new_code_cell("picture", outputs=[v4.new_output("display_data", picture)]),
        v4.new_markdown_cell("What holds at the end."),
        v4.new_code_cell("print(1)", metadata=check, outputs=[v4.new_output("stream", name="stdout", text="1\n")]),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "dlv3p": {"parameters": AUDIT}})
    for count, cell in enumerate(code_cells_of(notebook), 1):
        cell.execution_count = count
    return notebook


AUDIT = config.AuditDataParameters.__name__
BAD = {
    "duration": {
        "no duration": lambda nb: nb.cells[0].update(source="# Audit\n\n*Pictures: one of each class.*"),
        "no picture named": lambda nb: nb.cells[0].update(source="# Audit\n\n*Ten seconds.*"),
    },
    "parameters": {
        "no cell": lambda nb: nb.cells[1].metadata.update(tags=[]),
        "two cells": lambda nb: nb.cells[3].metadata.update(tags=["parameters"]),
        "a computed value": lambda nb: replace_in(nb, 1, "examples: int = 2", "examples: int = 1 + 1"),
        "another default": lambda nb: replace_in(nb, 1, "examples: int = 2", "examples: int = 3"),
        "another type": lambda nb: replace_in(nb, 1, "examples: int = 2", "examples: float = 2"),
        "an unknown name": lambda nb: replace_in(nb, 1, "examples: int", "example: int"),
        "no type": lambda nb: replace_in(nb, 1, "examples: int = 2", "examples = 2"),
        "another order": lambda nb: nb.cells[1].update(source="\n".join(reversed(nb.cells[1].source.splitlines()))),
    },
    "help": {
        "none": lambda nb: nb.cells[1].update(source=re.sub("  #.*", "", nb.cells[1].source)),
        "another": lambda nb: replace_in(nb, 1, "  # ", "  # so: "),
        "a second sign": lambda nb: replace_in(nb, 1, "  # ", "  # = "),
        "too long": lambda nb: nb.cells[1].update(source=nb.cells[1].source + " and so on" * 10),
        "a comment that is no heading": lambda nb: nb.cells[1].update(source=f"# data\n{nb.cells[1].source}"),
    },
    "kernel": {
        "another": lambda nb: nb.metadata.kernelspec.update(name="my-environment"),
        "none": lambda nb: nb.metadata.pop("kernelspec"),
    },
    "metadata": {
        "widgets": lambda nb: nb.metadata.update(widgets={}),
        "of a tool": lambda nb: nb.cells[3].metadata.update(vscode={}),
        "shown": lambda nb: nb.cells[7].metadata.jupyter.update(source_hidden=True, outputs_hidden=True),
    },
    "lengths": {
        "long": lambda nb: nb.cells[5].update(source="\n".join(["table"] * 16)),
        "wide": lambda nb: nb.cells[5].update(source=f"table  # {'of all' * 16}"),
        "a function": lambda nb: nb.cells[5].update(source="def show():\n    return table"),
        "a class": lambda nb: nb.cells[5].update(source="class Table:\n    pass"),
        "a loop without an end": lambda nb: nb.cells[5].update(source="while table:\n    table = None"),
        "what is tried": lambda nb: nb.cells[5].update(source="try:\n    table\nfinally:\n    table"),
        "cases": lambda nb: nb.cells[5].update(source="match table:\n    case 1:\n        table"),
    },
    "prose": {
        "no title": lambda nb: replace_in(nb, 0, "# Audit", "Audit"),
        "none": lambda nb: nb.update(cells=[cell for cell in nb.cells if cell.source[:4] not in ("Each", "What")]),
    },
    "names": {
        "a variable": lambda nb: replace_in(nb, 3, "table", "examples = config.examples"),
        "one of several": lambda nb: replace_in(nb, 5, "picture", "picture, examples = 1, 2"),
        "of an import": lambda nb: replace_in(nb, 5, "picture", "from pathlib import Path as examples\npicture"),
        "of a loop": lambda nb: replace_in(nb, 5, "picture", "for examples in range(2):\n    picture"),
    },
    "refusal": {
        "unchecked parameters": lambda nb: nb.cells[3].update(source="table"),
        "other parameters": lambda nb: nb.cells[3].update(source="config = TrainParameters.from_cell(globals())"),
        "not said": lambda nb: nb.cells[2].update(source="The parameters."),
        "said twice": lambda nb: nb.cells[4].update(source=nb.cells[2].source),
    },
    "size": {"large": lambda nb: replace_in(nb, 4, "Each class once.", "Each class. " * 30_000)},
    "paths": {
        "in prose": lambda nb: replace_in(nb, 4, "once", "once, from /home/me/data"),
        "in an output": lambda nb: nb.cells[3].outputs[0].data.update({"text/html": "<table>/root/x</table>"}),
        "of Windows": lambda nb: replace_in(nb, 4, "once", "once, from C:\\data"),
    },
    "outputs": {
        "not executed": lambda nb: nb.cells[3].update(execution_count=None),
        "an error": lambda nb: nb.cells[3].outputs.append(nbformat.v4.new_output("error", ename="E", evalue="e")),
        "a kind": lambda nb: nb.cells[3].outputs[0].data.update({"application/json": {}}),
        "a true-color picture": lambda nb: nb.cells[5].outputs[0].data.update({"image/png": palette_picture("RGB")}),
    },
    "stable": {
        "seconds": lambda nb: nb.cells[7].outputs[0].update(text="epoch 1  12.3 s\n"),
        "an address": lambda nb: nb.cells[3].outputs[0].data.update({"text/plain": "<Table at 0x7f00>"}),
        "a warning": lambda nb: nb.cells[7].outputs[0].update(text="warning: old\n"),
        "a measured figure": lambda nb: nb.cells[5].metadata.update(tags=["nbval-ignore-output"]),
    },
    "readable": {
        "no table": lambda nb: nb.cells[3].update(outputs=[]),
        "no picture": lambda nb: nb.cells[5].update(outputs=[]),
    },
    "figures": {
        "a fixed format": lambda nb: nb.cells[5].update(source='save_figure(chart, "chart.png")'),
        "a figure that is shown only": lambda nb: nb.cells[5].update(source="class_share_bars(report)"),
    },
    "check": {
        "not the last": lambda nb: nb.cells.append(nbformat.v4.new_code_cell("1", execution_count=5)),
        "not compared": lambda nb: nb.cells[7].metadata.update(tags=["check"]),
        "not folded": lambda nb: nb.cells[7].metadata.pop("jupyter"),
        "no output": lambda nb: nb.cells[7].update(outputs=[]),
    },
}
"""Bad notebooks by the rule that they break: what spoils a good one."""


def replace_in(notebook: nbformat.NotebookNode, cell: int, old: str, new: str) -> None:
    """Replace the first such text in a cell, which has to be there."""
    assert old in notebook.cells[cell].source
    notebook.cells[cell].source = notebook.cells[cell].source.replace(old, new, 1)


def test_the_good_notebook_of_the_corpus_keeps_the_contract() -> None:
    assert broken(good_notebook(), "audit_data") == {}


@pytest.mark.parametrize(("rule", "how"), [(rule, how) for rule, bad in BAD.items() for how in bad])
def test_each_rule_is_red_on_a_bad_notebook(rule: str, how: str) -> None:
    notebook = good_notebook()
    BAD[rule][how](notebook)
    told = broken(notebook, "audit_data")
    assert rule in told
    others = told.keys() - {rule}
    assert others <= {"parameters": {"help"}, "refusal": {"prose"}}.get(rule, set()), "it breaks others as well"


def test_a_notebook_that_the_readme_does_not_list_is_red() -> None:
    assert broken(good_notebook(), "audit_datum").keys() == {"index"}


def test_the_readme_lists_no_notebook_that_is_not_there_and_counts_right() -> None:
    text = README.read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\(notebooks/(\w+)\.ipynb\) \|", text)) == [path.stem for path in NOTEBOOKS]
    assert f"\n{len(NOTEBOOKS)} notebooks · " in text
    assert f"[{len(BACKBONES)} backbones, plus timm's]" in text
    assert f" · {len(RECIPES)} recipes · " in text


def test_every_rule_has_a_bad_notebook() -> None:
    assert BAD.keys() | {"index"} == RULES.keys()
    assert all(check.__doc__ for check in RULES.values())


def test_the_reference_page_is_what_the_fields_say() -> None:
    if PAGE.read_text(encoding="utf-8") != page():
        pytest.fail(f"docs/{PAGE.name} is not what the fields say; run: {REFRESH}")


def test_the_parameters_of_train_stand_under_headings_with_what_people_change_first_on_top() -> None:
    (cell,) = code_cells(FOLDER / "train.ipynb", "parameters")
    headings = [HEADING.fullmatch(line)[1].split()[0] for line in cell.source.splitlines() if line.startswith("#")]
    assert headings == ["What", "Data", "Network", "Augmentation", "Schedule", "Loss", "Machine"]
    page_text = PAGE.read_text(encoding="utf-8").partition("\n## train\n")[2].partition("\n## ")[0]
    assert [line.split()[1] for line in page_text.splitlines() if line.startswith("### ")] == headings
    first = ["run", "data_root", "architecture", "backbone", "output_stride"]
    assert [line.partition(":")[0] for line in cell.source.splitlines()[1:6]] == first


@notebooks
def test_every_choice_of_a_few_is_named_in_its_help(path: Path) -> None:
    for field in dataclasses.fields(parameters_class(path)):
        allowed = field.metadata.get("allowed", ())
        if len(allowed) <= 4:
            assert [value for value in allowed if str(value) not in field.metadata["help"]] == [], field.name


def test_the_suite_compares_outputs_in_more_than_one_notebook() -> None:
    assert sum(bool(code_cells(path, "nbval-check-output")) for path in NOTEBOOKS) >= 2


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_holds_parameters_of_train(path: Path) -> None:
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    parameters = config.TrainParameters.from_mapping(recipe)
    assert recipe
    assert {name: parameters.as_dict()[name] for name in recipe} == recipe


def checked_texts(path: Path) -> list[str]:
    """What the cells print that nbval would compare; a busy machine sends a cell's text in several parts."""
    return ["".join(output.text for output in cell.outputs) for cell in code_cells(path, "nbval-check-output")]


def test_train_comes_to_its_stored_outputs_in_a_small_run(executed_train: Path) -> None:
    """papermill executes it, since nbval takes no parameters."""
    assert len(checked_texts(executed_train)) == 2
    assert checked_texts(executed_train) == checked_texts(FOLDER / "train.ipynb")
    assert (executed_train.parent / "saved" / "small" / "model.safetensors").is_file()
    assert [found for cell in code_cells(executed_train) for found in complaints(cell.outputs)] == []


def test_quickstart_comes_to_its_stored_outputs_in_a_small_run(city: Path, workspace: Path) -> None:
    copy = workspace / "quickstart.ipynb"
    papermill.execute_notebook(
        FOLDER / "quickstart.ipynb", copy, {"data_root": str(city), "epochs": 1, "threads": 1}, progress_bar=False
    )
    assert len(checked_texts(copy)) == 1
    assert checked_texts(copy) == checked_texts(FOLDER / "quickstart.ipynb")
    assert [found for cell in code_cells(copy) for found in complaints(cell.outputs)] == []


def altered(notebook: nbformat.NotebookNode) -> tuple[nbformat.NotebookNode, int]:
    """Alter one digit of the first checked output; return the notebook and the number of the code cell."""
    notebook = nbformat.from_dict(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for index, cell in enumerate(cells):
        if "nbval-check-output" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                text = output.text if output.output_type == "stream" else output.data["text/plain"]
                if digit := re.search(r"\d", text):
                    start, other = digit.start(), str((int(digit[0]) + 1) % 10)
                    text = text[:start] + other + text[start + 1 :]
                    output.update({"text": text} if output.output_type == "stream" else {"data": {"text/plain": text}})
                    return notebook, index
    raise AssertionError("no checked output has a number")


def test_a_number_that_changes_fails_its_cell(trained_once, tmp_path: Path, workspace: Path) -> None:
    """Proof that nbval can fail: a copy with one digit altered fails in that cell, and an unaltered copy passes."""
    shutil.copytree(trained_once[0], workspace, dirs_exist_ok=True)
    original = nbformat.read(FOLDER / "save_predictions.ipynb", as_version=4)
    wrong, cell = altered(original)
    nbformat.write(original, tmp_path / "same.ipynb")
    nbformat.write(wrong, tmp_path / "wrong.ipynb")
    words = ["-m", "pytest", "--rootdir=.", "--nbval-lax", "--nbval-current-env", "-rA", "same.ipynb", "wrong.ipynb"]
    result = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    failed = re.findall(r"^FAILED (\S+?)::\S*?:?Cell (\d+)", result.stdout, re.MULTILINE)
    assert result.returncode == 1, result.stdout
    assert failed == [("wrong.ipynb", str(cell))]
    assert re.search(rf"^PASSED same.ipynb::\S*?:?Cell {cell}\b", result.stdout, re.MULTILINE)


def test_evaluate_saves_the_scores_before_a_second_protocol_starts() -> None:
    """Another protocol takes many times as long, and is off unless asked for: a stop then costs no score."""
    (cell,) = [cell for cell in code_cells(FOLDER / "evaluate.ipynb") if "evaluations = [evaluation]" in cell.source]
    assert config.EvaluateParameters().second_protocol == "none"
    saved = []

    def evaluate(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    scored = SimpleNamespace(protocol="single scale", save=lambda: saved.append(True) or "evaluation.json")
    names = {"evaluation": scored, "predictor": None, "scored_on": None, "evaluate": evaluate}
    with pytest.raises(KeyboardInterrupt):
        exec(cell.source, names | {"config": config.EvaluateParameters(second_protocol="six_scales_flip")})
    assert saved == [True]
    exec(cell.source, names | {"config": config.EvaluateParameters()})


@pytest.mark.parametrize("name", ["prune", "quantize"])
def test_no_cell_draws_by_itself(name: str) -> None:
    """Axes, ticks and colors are plumbing, and belong into functions."""
    for cell in code_cells(FOLDER / f"{name}.ipynb"):
        assert not re.search(r"\.axes|subplots|set_y|seaborn", cell.source), cell.source


@pytest.mark.parametrize("name", ["predict", "prepare_annotations", "render_gif"])
def test_an_image_that_could_not_be_read_ends_a_notebook_with_its_status(name: str, monkeypatch) -> None:
    """In its last cell, when all others are done."""
    monkeypatch.setattr("dlv3p.pictures.gif.animation_size", lambda path: (1, 960))
    shares = pd.DataFrame({"road": [1.0]})
    problems = []
    variables = {"drive": Drive(Path("val.gif"), ("a", "b"), iter(()), problems), "config": SimpleNamespace(width=960)}
    variables |= {"predictions": SimpleNamespace(folder="photos", done=("a",), problems=problems), "shares": shares}
    variables |= {"table": pd.DataFrame(index=["a"]), "source": SimpleNamespace(images=("a",)), "np": np}
    prepared = SimpleNamespace(folder="mine", class_names=(), splits=(), problems=problems)
    variables |= {"prepared": prepared, "report": SimpleNamespace(errors=())}
    source = code_cells(FOLDER / f"{name}.ipynb")[-1].source
    exec(source, variables)
    problems.append("b.png: damaged")
    with pytest.raises(InputError, match="b.png: damaged") as refused:
        exec(source, variables)
    assert refused.value.exit_status == 3


def test_images_that_are_called_by_numbers_keep_their_names_in_the_table_of_predictions(tmp_path):
    table = tmp_path / "predictions.csv"
    table.write_text("image,width,share of road\n000,4,1\n001,4,1\n")
    cells = nbformat.read(FOLDER / "predict.ipynb", as_version=4).cells
    (source,) = [cell.source for cell in cells if "predictions.table" in cell.source]
    variables = {"predictions": SimpleNamespace(table=table)}
    exec(source, variables)
    assert list(variables["table"].index) == ["000", "001"]
