"""An executed notebook says below its title what ran, when, on what and with which result, and links its neighbors."""

import re
from pathlib import Path

import nbformat
import papermill
import pytest

from cityscapes.errors import InputError
from dlv3p.jupyter.executed_copy import TAG, add_header, without_header
from dlv3p.jupyter.papermill_engine import FailedNotebook
from dlv3p.parameters.notebooks import AuditDataParameters
from dlv3p.parameters.training import TrainParameters

V4 = nbformat.v4


def executed(*outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook as papermill leaves it."""
    notebook = V4.new_notebook(cells=[V4.new_markdown_cell("# Title"), V4.new_code_cell("1", outputs=list(outputs))])
    facts = {"input_path": "notebooks/audit.ipynb", "output_path": "x.ipynb", "start_time": "2026-01-02T03:04:05+00:00"}
    notebook.metadata["papermill"] = facts
    return notebook


def header(notebook: nbformat.NotebookNode) -> list[str]:
    (cell,) = [cell for cell in notebook.cells if TAG in cell.metadata.get("tags", [])]
    assert notebook.cells[1] is cell, "it stands below the title"
    return [line.rstrip() for line in cell.source.splitlines()]


def printed(text: str) -> nbformat.NotebookNode:
    return V4.new_output("stream", name="stdout", text=text)


def test_it_says_what_ran_when_on_what_and_with_which_result(workspace: Path) -> None:
    notebook = executed(printed("first\n"), printed("images: 8\nall *good*\n"))
    add_header(notebook, AuditDataParameters(examples=3, data_root="a b"), workspace / "x.ipynb")
    what, when, on, result = header(notebook)
    assert what == "> **What ran** `papermill audit.ipynb -p data_root 'a b' -p examples 3`"
    assert re.fullmatch(r"> \*\*When\*\* 2026-01-02 03:04 UTC, for .+", when)
    assert re.fullmatch(r"> \*\*On\*\* .+ cores, (commit [0-9a-f]{7}|no commit)", on)
    assert result == r"> **Result** images: 8 · all \*good\*"


def test_a_failure_is_the_result(workspace: Path) -> None:
    notebook = executed(printed("1\n"), V4.new_output("error", ename="InputError", evalue="a.png: damaged\nmore"))
    add_header(notebook, AuditDataParameters(), workspace / "x.ipynb")
    assert header(notebook)[3] == "> **Result** failed: InputError: a.png: damaged"


def test_it_links_the_other_notebooks_of_the_folder_and_of_the_run(workspace: Path) -> None:
    for path in (
        "outputs/mine/evaluate.ipynb",
        "saved/mine/train.ipynb",
        "elsewhere/my audit.ipynb",
        "elsewhere/x.ipynb",
    ):
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).write_text("{}")
    notebook = executed()
    add_header(notebook, TrainParameters(run="mine"), workspace / "elsewhere" / "x.ipynb")
    links = dict(re.findall(r"\[([^]]+)\]\(([^)]+)\)", header(notebook)[-1]))
    assert links == {
        "my audit": "my%20audit.ipynb",
        "evaluate": "../outputs/mine/evaluate.ipynb",
        "train": "../saved/mine/train.ipynb",
        "saved/mine/": "../saved/mine",
    }


def test_a_copy_that_is_executed_again_says_it_once(workspace: Path) -> None:
    notebook = executed(printed("1\n"))
    for _ in range(2):
        add_header(notebook, AuditDataParameters(), workspace / "x.ipynb")
    assert len(header(notebook)) == 4
    without_header(notebook)
    assert len(notebook.cells) == 2


def notebook_of_suite(path: Path, *cells: str) -> Path:
    notebook = V4.new_notebook(metadata={"dlv3p": {"parameters": "AuditDataParameters"}})
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    parameters = V4.new_code_cell("examples: int = 2  # images", metadata={"tags": ["parameters"]})
    notebook.cells = [V4.new_markdown_cell("# Title"), parameters, *map(V4.new_code_cell, cells)]
    nbformat.write(notebook, path)
    return path


def test_papermill_writes_it_and_an_executed_copy_runs_again(workspace: Path) -> None:
    path, copy = notebook_of_suite(workspace / "audit.ipynb", "print('images:', examples)"), workspace / "copy.ipynb"
    papermill.execute_notebook(path, copy, {"examples": 3}, progress_bar=False)
    assert header(nbformat.read(copy, as_version=4))[3] == "> **Result** images: 3"
    papermill.execute_notebook(copy, copy, {"examples": 4}, progress_bar=False)
    assert header(nbformat.read(copy, as_version=4))[3] == "> **Result** images: 4"


def test_a_copy_of_a_notebook_that_failed_says_so(workspace: Path) -> None:
    cells = f"from {InputError.__module__} import InputError", "raise InputError('a.png: damaged')"
    path = notebook_of_suite(workspace / "audit.ipynb", *cells)
    with pytest.raises(FailedNotebook):
        papermill.execute_notebook(path, workspace / "copy.ipynb", progress_bar=False)
    sources = [found.source for found in nbformat.read(workspace / "copy.ipynb", as_version=4).cells]
    assert any("**Result** failed: InputError: a.png: damaged" in source for source in sources)
