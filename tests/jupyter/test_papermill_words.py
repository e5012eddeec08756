"""papermill's command line as users type it: where the executed copy goes, and text that looks like a number."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import nbformat
import pytest
from papermill.cli import papermill as papermill_command
from support.terminal import in_terminal

from cityscapes.errors import InputError, MissingInputError, ParameterError
from dlv3p.jupyter.papermill_words import (
    INFORMATIVE,
    LONGEST_NAME,
    OPTION_VALUES,
    check_sources,
    completed,
    parameters_class,
    with_notebook_found,
)
from dlv3p.parameters.notebooks import TrainParameters

ROOT = Path(__file__).parents[2]
PAPERMILL = str(Path(sys.executable).with_name("papermill"))
CLASSES = {
    "train": "TrainParameters",
    "evaluate": "EvaluateParameters",
    "audit_data": "AuditDataParameters",
    "render_gif": "RenderGifParameters",
    "profile": "ProfileParameters",
}


def write_notebook(folder: Path, name: str, *cells: str) -> Path:
    """A notebook of the suite: the real parameters cell, and the given code cells."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    notebook.cells = [parameters, *map(nbformat.v4.new_code_cell, cells)]
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder `notebooks/` of a workspace, with a notebook of each kind that shows its text."""
    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    show = (
        "print([value for name, value in sorted(globals().items()) if name in ('run', 'sequence', 'output_strides')])"
    )
    for name in CLASSES:
        write_notebook(tmp_path / "notebooks", name, show)
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path / "notebooks"


@pytest.fixture
def default(folder: Path) -> Callable[..., str]:
    """The place below outputs/ that a command line's copy gets; `-` where it gets none."""

    def place(*words: str) -> str:
        added = [word for word in completed(words) if word not in words and word != "-r"]
        return str(Path(*added).relative_to(folder.parent / "outputs")) if added else "-"

    return place


def run_of(**values: object) -> str:
    return TrainParameters.from_mapping(values).run_name


def test_the_copy_of_a_training_goes_to_its_run_however_its_options_are_written(default: Callable[..., str]) -> None:
    assert default("train.ipynb") == f"{run_of()}/train.ipynb"
    assert default("-p", "epochs", "2", "train.ipynb") == f"{run_of(epochs=2)}/train.ipynb"
    assert default("train.ipynb", "-pepochs", "2", "--parameters_raw=run", "a") == "a/train.ipynb"
    assert default("train.ipynb", "-p", "seed", "1", "-k", "python3", "--log-output") == f"{run_of(seed=1)}/train.ipynb"
    assert default("train.ipynb", "-y", "{seed: 2, run: b}") == "b/train.ipynb"
    assert default("train.ipynb", "-p", "run", "007") == "007/train.ipynb"


def test_the_copy_of_a_recipe_goes_to_its_run(folder: Path, default: Callable[..., str]) -> None:
    (folder / "a.yaml").write_text("epochs: 3\nrun: from_file\n")
    assert default("-f", "a.yaml", "--cwd=..", "--", "train.ipynb") == "from_file/train.ipynb"
    assert default("-f", "a.yaml", "train.ipynb", "-p", "run", "typed") == "typed/train.ipynb"
    assert default("-f", "missing.yaml", "train.ipynb") == f"{run_of()}/train.ipynb"


def test_the_copy_of_another_notebook_goes_to_the_run_that_it_takes(folder: Path, default: Callable[..., str]) -> None:
    assert default("evaluate.ipynb") == "trained_demo/evaluate.ipynb"
    for run in ("older", "newest"):
        best = folder.parent / "saved" / run / "checkpoints" / "best.pt"
        best.parent.mkdir(parents=True)
        best.touch()
        os.utime(best, ns=(run == "newest", run == "newest"))
        (best.parents[1] / "metrics.csv").touch()
    assert default("evaluate.ipynb") == "newest/evaluate.ipynb"
    assert default("evaluate.ipynb", "-p", "run", "older") == "older/evaluate.ipynb"
    assert default("evaluate.ipynb", "-p", "run", "older", "-p", "flip", "True") == "older/evaluate_flip=True.ipynb"
    assert default("audit_data.ipynb", "-p", "examples", "3") == "audit_data_examples=3.ipynb"


def test_what_will_be_refused_gets_a_plain_place(default: Callable[..., str]) -> None:
    assert default("train.ipynb", "-p", "seed", "-1") == "train.ipynb"
    assert default("train.ipynb", "-p", "no_such_name", "1") == "train.ipynb"


def test_default_path_is_left_out_where_it_would_do_harm(default: Callable[..., str]) -> None:
    assert default("train.ipynb", "other.ipynb") == "-"
    assert default("train.ipynb", "--help-notebook") == "-"
    assert default("missing.ipynb") == "-"
    assert default("-", "-p", "epochs", "2") == "-"
    assert default() == "-"


def test_default_path_survives_any_value_and_stays_short(default: Callable[..., str]) -> None:
    words = ["audit_data.ipynb", "-p", "data_root"]
    assert default(*words, "/data/{x}/../é") == "audit_data_data_root=-data-x-..-.ipynb"
    assert len(default(*words, "x" * 1000)) == LONGEST_NAME + len(".ipynb")
    assert re.fullmatch(r"[\w.-]+/train\.ipynb", default("train.ipynb", "-p", "data_root", "/data/{x}/../é"))


def test_an_executed_copy_does_not_overwrite_itself(folder: Path, default: Callable[..., str]) -> None:
    copy = write_notebook(folder.parent / "outputs" / run_of(), "train")
    assert default(str(copy)) == f"{run_of()}/train_again.ipynb"


def test_default_path_is_not_taken_for_a_missing_value(folder: Path) -> None:
    words = completed(["train.ipynb", "-p", "epochs"])
    assert words == ["train.ipynb", str(folder.parent / "outputs" / run_of() / "train.ipynb"), "-p", "epochs"]


def test_option_table_is_that_of_papermill() -> None:
    options = [option for option in papermill_command.params if isinstance(option, click.Option)]
    words = {name: 0 if option.is_flag else option.nargs for option in options for name in option.opts}
    assert {name: number for name, number in words.items() if number} == OPTION_VALUES
    assert INFORMATIVE - {"-h", "--help"} <= words.keys()


@pytest.mark.parametrize("text", ["001", "2024_01", "1e5", "000002", "-1", "nan", "0.50"])
@pytest.mark.parametrize("form", [["-p", "run"], ["-prun"], ["--parameters", "run"], ["--parameters=run"]])
def test_text_that_looks_like_a_number_is_passed_as_text(folder: Path, form: list[str], text: str) -> None:
    words = completed(["train.ipynb", "x.ipynb", *form, text, "-p", "seed", "1"])
    assert words == ["train.ipynb", "x.ipynb", "-r", "run", text, "-p", "seed", "1"]


def test_only_numbers_for_text_are_passed_as_text(folder: Path) -> None:
    for words in (["-p", "seed", "001"], ["-p", "run", "None"], ["-p", "run", "a"], ["-p", "unknown", "1"]):
        assert completed(["train.ipynb", "x.ipynb", *words]) == ["train.ipynb", "x.ipynb", *words]


@pytest.mark.parametrize(
    ("name", "words", "shown"),
    [
        ("train", ["run", "001"], "['001']"),
        ("render_gif", ["sequence", "000002"], "['', '000002']"),
        ("profile", ["output_strides", "[8, 16]"], "['[8, 16]', '']"),
        ("profile", ["output_strides", "8"], "['8', '']"),
    ],
)
def test_text_arrives_in_the_notebook_as_it_was_typed(folder: Path, name: str, words: list[str], shown: str) -> None:
    """In a terminal, through papermill and the kernel; what a cell prints appears there."""
    status, seen = in_terminal(PAPERMILL, f"{name}.ipynb", "-p", *words, cwd=folder)
    assert status == 0, seen
    assert shown in seen


@pytest.mark.parametrize("words", [["trian.ipynb"], ["trian.ipynb", "x.ipynb"], ["trian.ipynb", "--help-notebook"]])
def test_a_wrong_notebook_path_is_one_line_with_the_nearest(folder: Path, words: list[str]) -> None:
    status, shown = in_terminal(PAPERMILL, *words, cwd=folder)
    assert status == 3
    (line,) = shown.splitlines()
    assert line == "Error: trian.ipynb: no such notebook; did you mean train.ipynb?"


def test_a_notebook_of_the_suite_is_found_from_anywhere(folder: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(
        MissingInputError, match=r"^save_prediction\.ipynb: .* mean .*notebooks/save_predictions\.ipynb\?"
    ):
        with_notebook_found(["save_prediction.ipynb"], stdin_is_terminal=True)
    with pytest.raises(MissingInputError, match=r"render_gif\.ipynb or .*/prepare_voc\.ipynb\?$"):
        with_notebook_found(["render_voc.ipynb"], stdin_is_terminal=True)
    with pytest.raises(MissingInputError, match=r"^gif\.ipynb: .*notebooks/render_gif\.ipynb\?$"):
        with_notebook_found(["gif.ipynb"], stdin_is_terminal=True)
    with pytest.raises(MissingInputError, match=r"^qqqq\.ipynb: no such notebook; the suite's are in notebooks/$"):
        with_notebook_found(["qqqq.ipynb"], stdin_is_terminal=True)
    with pytest.raises(MissingInputError, match=r": a folder, not a notebook"):
        with_notebook_found([str(folder), "x.ipynb"], stdin_is_terminal=False)


RECIPE = "recipes/cityscapes_deeplabv3_resnet101_os16_chenxi.yaml"


@pytest.mark.parametrize("words", [["train.ipynb"], ["train.ipynb", "x.ipynb"], ["-f", RECIPE, "train.ipynb"]])
def test_the_bare_name_of_a_notebook_of_the_suite_is_taken_from_anywhere(tmp_path: Path, monkeypatch, words) -> None:
    """A person who forgot `cd notebooks` gets the notebook and the recipe that the README's command means."""
    monkeypatch.chdir(tmp_path)
    assert (ROOT / "notebooks" / RECIPE).is_file()
    taken = with_notebook_found(words, stdin_is_terminal=True)
    meant = [os.path.relpath(ROOT / "notebooks" / word) if word in ("train.ipynb", RECIPE) else word for word in words]
    assert taken == meant
    write_notebook(tmp_path, "train")
    assert with_notebook_found(["train.ipynb"], stdin_is_terminal=True) == ["train.ipynb"], "one that is here is meant"
    with pytest.raises(MissingInputError, match=r"^own/train\.ipynb: no such notebook"):
        with_notebook_found(["own/train.ipynb"], stdin_is_terminal=True)


def test_the_commands_of_the_readme_work_in_the_root_as_well() -> None:
    status, shown = in_terminal(PAPERMILL, "train.ipynb", "--help-notebook", cwd=ROOT)
    assert status == 0, shown
    assert "Parameters inferred for notebook 'notebooks/train.ipynb'" in shown


@pytest.mark.parametrize("words", [["trian.ipynb"], ["trian.ipynb", "x.ipynb"]])
@pytest.mark.parametrize("piped", [None, b"", b"hi\n", b'{"cells": 1}'], ids=["/dev/null", "nothing", "text", "JSON"])
def test_a_wrong_notebook_path_is_one_line_without_a_terminal_too(folder: Path, words: list[str], piped) -> None:
    stdin = {"stdin": subprocess.DEVNULL} if piped is None else {"input": piped}
    done = subprocess.run([PAPERMILL, *words], cwd=folder, capture_output=True, check=False, **stdin)
    assert done.stderr.decode() == "Error: trian.ipynb: no such notebook; did you mean train.ipynb?\n"
    assert (done.returncode, done.stdout) == (3, b"")
    assert not (folder / "trian.ipynb").exists()


def test_a_notebook_that_comes_through_a_pipe_is_written_to_the_single_path(folder: Path) -> None:
    content = (folder / "train.ipynb").read_bytes()
    words = [PAPERMILL, "new.ipynb", "--prepare-only"]
    done = subprocess.run(words, cwd=folder, input=content, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads((folder / "new.ipynb").read_text())["cells"]


def test_a_single_path_with_a_pipe_as_stdin_is_where_papermill_writes(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"cells": []}'))
    with_notebook_found(["new.ipynb"], stdin_is_terminal=False)
    assert sys.stdin.read() == '{"cells": []}', "papermill still has to read it"
    with_notebook_found(["-", "new.ipynb"], stdin_is_terminal=True)
    with_notebook_found(["https://example.org/a.ipynb", "new.ipynb"], stdin_is_terminal=True)


@pytest.fixture
def train_notebook(tmp_path):
    path = tmp_path / "train.ipynb"
    path.write_text(json.dumps({"metadata": {"dlv3p": {"parameters": "TrainParameters"}}}))
    return str(path)


TORN = r"line 1, column 18: expected ',' or '\]', but got '<stream end>'"


@pytest.mark.parametrize("option", ["-f", "--parameters_file"])
@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        (None, MissingInputError, "no such file"),
        ("output_stride: [8", InputError, f"cannot be read as JSON or YAML: {TORN}"),
        ("a: " + "[" * 20_000, InputError, "cannot be read as JSON or YAML: "),
        ("a: 1\na: 2", ParameterError, "duplicate key 'a'"),
        ("- 8", InputError, "holds no parameters; give a run.json or a recipe"),
    ],
)
def test_a_file_that_papermill_could_not_read_is_refused(train_notebook, tmp_path, option, text, kind, told):
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    for words in ([option, str(path)], ["out.ipynb", option, str(path)], ["-p", "seed", "1", option, str(path)]):
        with pytest.raises(kind, match=f"^{option} {path}: {told}") as refused:
            check_sources([train_notebook, *words])
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-y", "output_stride: [8"], f"cannot be read as YAML: {TORN}"),
        (["--parameters_yaml", "a: " + "[" * 20_000], "cannot be read as YAML: "),
        (["--parameters_yaml=8"], "holds no parameters; give 'name: value'"),
        (["-b", "8"], "not YAML in base64"),
        (["-b", "OA=="], "holds no parameters"),
    ],
)
def test_yaml_that_papermill_could_not_read_is_refused(train_notebook, words, told):
    with pytest.raises(ParameterError, match=f"^{words[0].partition('=')[0]} .*{told}") as refused:
        check_sources([train_notebook, *words])
    assert "\n" not in str(refused.value)


def test_what_can_be_read_is_left_to_papermill(train_notebook, tmp_path):
    (tmp_path / "recipe.yaml").write_text("output_stride: 8\n")
    check_sources(
        [train_notebook, "-f", str(tmp_path / "recipe.yaml"), "-y", "seed: 1", "-b", "c2VlZDogMQ==", "-p", "a", "b"]
    )
    check_sources([train_notebook, "-f", "s3://bucket/recipe.yaml"])
    check_sources([train_notebook, "-f", "nosuch.yaml", "--help-notebook"])
    check_sources(["-f"])


def test_other_notebooks_are_left_to_papermill(tmp_path):
    path = tmp_path / "own.ipynb"
    path.write_text(json.dumps({"metadata": {}}))
    assert parameters_class(path) is None
    check_sources([str(path), "-f", "nosuch.yaml"])
    check_sources(["nosuch.ipynb", "-f", "nosuch.yaml"])
