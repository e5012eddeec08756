"""The promises of every notebook: parameters that are the manual, small cells, clean outputs, checks that can fail."""

import ast
import base64
import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
import tokenize
from pathlib import Path
from types import SimpleNamespace

import nbformat
import papermill
import pytest
import yaml
from click.testing import CliRunner
from papermill.cli import papermill as papermill_command
from PIL import Image
from support.refresh_notebooks import PAGE, page, with_parameters
from support.refresh_notebooks import parameters_class as named_class

from dlv3p.jupyter.stored_outputs import MEASURED, complaints, without_variation
from dlv3p.parameters import notebooks as config

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
RECIPES = sorted(FOLDER.glob("recipes/*.yaml"))
REFRESH = "python tests/support/refresh_notebooks.py --parameters"
HEADING = re.compile(r"# --- (.+?) -+")
WIDTH = 100
"""Columns of a parameters cell that JupyterLab shows on a common screen."""
MEASURES = {"profile", "quantize"}
"""The notebooks whose figures all show measurements, which are not stored."""
PROMISED = {"train", "evaluate", "visualize_training", "save_predictions", "render_gif", "profile"}

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path, tag: str = "") -> list[nbformat.NotebookNode]:
    """The code cells of a notebook, or those with a tag."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return [cell for cell in cells if not tag or tag in cell.metadata.get("tags", [])]


def parameters_class(path: Path) -> type:
    """The class of `dlv3p.parameters.notebooks` that a notebook's metadata names."""
    return named_class(nbformat.read(path, as_version=4))


def test_the_promised_notebooks_are_there() -> None:
    assert {path.stem for path in NOTEBOOKS} >= PROMISED


@notebooks
def test_the_first_cell_says_how_long_it_takes_and_which_pictures_come(path: Path) -> None:
    *_, last = nbformat.read(path, as_version=4).cells[0].source.split("\n\n")
    assert re.fullmatch(r"\*[^*]*(second|minute)s?[^*]*\. Pictures?: [^*]+\.\*", last), last


@notebooks
def test_parameters_cell_repeats_its_class(path: Path) -> None:
    (cell,) = code_cells(path, "parameters")
    cell_parameters = []
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.AnnAssign), f"line {statement.lineno} is not `name: type = literal`"
        name, kind = ast.unparse(statement.target), ast.unparse(statement.annotation)
        cell_parameters.append((name, kind, ast.literal_eval(statement.value)))
    kind = parameters_class(path)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    order = [*kind.FIRST, *(name for name, _, _ in cell_parameters if name not in kind.FIRST)]
    assert sorted(order) == sorted(fields)
    assert cell_parameters == [
        (name, getattr(fields[name].type, "__name__", fields[name].type), fields[name].default) for name in order
    ]
    assert kind is config.TrainParameters or order == list(fields), "only train has headings that rearrange the fields"


@notebooks
def test_the_help_stands_at_the_field_and_the_parameters_cell_takes_it_from_there(path: Path) -> None:
    if with_parameters(path) != path.read_text(encoding="utf-8"):
        pytest.fail(f"{path.name}: its parameters cell is not what the fields say; run: {REFRESH}")


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


@notebooks
def test_every_parameter_has_its_help_and_papermill_shows_it(path: Path) -> None:
    (cell,) = code_cells(path, "parameters")
    tokens = tokenize.generate_tokens(io.StringIO(cell.source).readline)
    helped = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    lines = cell.source.splitlines()
    assert [line for number, line in enumerate(lines, 1) if number not in helped] == []
    assert [line for line in lines if line.startswith("#") and not HEADING.fullmatch(line)] == []
    assert [line for line in lines if len(line) > WIDTH] == [], "JupyterLab cuts the help off at the right edge"
    shown = papermill.inspect_notebook(path)
    for field in dataclasses.fields(parameters_class(path)):
        assert field.name in shown, f"papermill cannot read the line of {field.name}: is there a second '='?"
        assert shown[field.name]["help"] == field.metadata["help"]
    assert len(shown) == len(dataclasses.fields(parameters_class(path)))
    manual = CliRunner().invoke(papermill_command, [str(path), "--help-notebook"])
    assert manual.exit_code == 0
    assert all(f"  {name}: " in manual.output for name in shown)


@notebooks
def test_logic_lives_in_the_packages(path: Path) -> None:
    for cell in code_cells(path):
        if "parameters" not in cell.metadata.get("tags", []):
            assert len(cell.source.splitlines()) <= 15, cell.source
        definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert not any(isinstance(node, definitions) for node in ast.walk(ast.parse(cell.source))), cell.source


@notebooks
def test_prose_leads_through_the_notebook(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    kinds = [cell.cell_type for cell in cells]
    assert cells[0].source.startswith("# ")
    assert kinds.count("markdown") >= 0.8 * kinds.count("code")


@notebooks
def test_notebook_runs_anywhere_and_shows_no_trace_of_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) <= 300_000
    assert not re.search(r"/(root|home|Users|work|tmp|mnt)/|[A-Z]:\\\\", text)
    notebook = json.loads(text)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook["metadata"]) <= {"dlv3p", "kernelspec", "language_info"}
    for cell in notebook["cells"]:
        folded = {"jupyter"} if "check" in cell["metadata"].get("tags", []) else set()
        assert set(cell["metadata"]) <= {"tags"} | folded
        assert cell["metadata"].get("jupyter", {"source_hidden": True}) == {"source_hidden": True}


@notebooks
def test_stored_outputs_are_texts_and_palette_pictures_without_errors(path: Path) -> None:
    for cell in code_cells(path):
        assert cell.execution_count, "nbval compares no cell without a count, and fails one that has outputs as well"
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data", "execute_result"), cell.source
            assert set(output.get("data", {})) <= {"text/plain", "text/html", "text/markdown", "image/png"}, cell.source
            assert output.get("name") != "stderr", cell.source
            if "image/png" in output.get("data", {}):
                assert Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).mode == "P", cell.source


@notebooks
def test_stored_outputs_hold_nothing_that_varies_from_run_to_run(path: Path) -> None:
    for cell in code_cells(path):
        datas = [output.get("data", {}) for output in cell.outputs]
        texts = [output.text for output in cell.outputs if output.output_type == "stream"]
        texts += [text for data in datas for kind, text in data.items() if kind.startswith("text/")]
        assert [text for text in texts if without_variation(text) != text] == []
        assert complaints(cell.outputs) == []
        if MEASURED in cell.metadata.get("tags", []):
            assert [data for data in datas if "image/png" in data] == [], cell.source


@notebooks
def test_a_notebook_can_be_read_where_it_lies(path: Path) -> None:
    datas = [output.get("data", {}) for cell in code_cells(path) for output in cell.outputs]
    assert any("<table" in data.get("text/html", "") for data in datas)
    assert any("image/png" in data for data in datas) or path.stem in MEASURES, "no picture"


@notebooks
def test_checked_cells_have_something_to_compare(path: Path) -> None:
    """nbval silently passes a check cell whose output or count has been stripped."""
    for cell in code_cells(path, "nbval-check-output"):
        assert cell.execution_count, cell.source
        assert cell.outputs, cell.source


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
    names = {"evaluation": scored, "predictor": None, "split": None, "evaluate": evaluate}
    with pytest.raises(KeyboardInterrupt):
        exec(cell.source, names | {"config": config.EvaluateParameters(second_protocol="six_scales_flip")})
    assert saved == [True]
    exec(cell.source, names | {"config": config.EvaluateParameters()})


@notebooks
def test_the_check_at_the_end_is_tagged_and_folded(path: Path) -> None:
    """It serves nbval: a reader sees what holds, and unfolds how that is found."""
    checks = code_cells(path, "check")
    assert checks == code_cells(path)[-1:]
    assert checks[0].metadata.jupyter.source_hidden is True
    assert "nbval-check-output" in checks[0].metadata.tags


@notebooks
def test_that_a_wrong_value_stops_the_notebook_is_said_once(path: Path) -> None:
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    assert len([source for source in cells if source.startswith("An invalid parameter stops the notebook here")]) == 1


@pytest.mark.parametrize("name", ["prune", "quantize"])
def test_no_cell_draws_by_itself(name: str) -> None:
    """Axes, ticks and colors are plumbing, and belong into functions."""
    for cell in code_cells(FOLDER / f"{name}.ipynb"):
        assert not re.search(r"\.axes|subplots|set_y|seaborn", cell.source), cell.source
