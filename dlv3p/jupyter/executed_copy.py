"""Say at the top of an executed notebook what ran, when, on what, and with which result, and link its neighbors."""

import html
import os
import shlex
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat

from cityscapes.workspace import output_folder, run_folder
from dlv3p.parameters.base import Parameters
from dlv3p.runs.provenance import git_commit, processor
from dlv3p.runtime.lines import format_duration

TAG = "executed"
"""The tag of the cell that says it; a copy that is executed again gets a new one."""
MOST_LINES, MOST_CHARACTERS = 6, 1000
"""At most so many printed lines are a result, and so many characters of parameters are repeated."""


def without_header(notebook: nbformat.NotebookNode) -> None:
    """Take out what an earlier execution has said."""
    notebook.cells = [cell for cell in notebook.cells if TAG not in cell.metadata.get("tags", [])]


def add_header(notebook: nbformat.NotebookNode, parameters: Parameters, copy: Path) -> None:
    """Say at the top of an executed notebook, below its title, what became of it; `copy` is where it is written."""
    without_header(notebook)
    lines = [f"> **{_quoted(line[0])}** {line[1]}  " for line in _facts(notebook, parameters, copy.absolute())]
    cell = nbformat.v4.new_markdown_cell("\n".join(lines), metadata={"tags": [TAG]})
    cell.metadata["papermill"] = {"status": "completed"}
    titled = notebook.cells and notebook.cells[0].cell_type == "markdown"
    notebook.cells.insert(int(bool(titled)), cell)


def _facts(notebook: nbformat.NotebookNode, parameters: Parameters, copy: Path) -> Iterator[tuple[str, str]]:
    facts = notebook.metadata.papermill
    values = [(item.name, getattr(parameters, item.name), item.default) for item in fields(parameters)]
    changed = {name: value for name, value, default in values if value != default}
    words = " ".join(f"-p {name} {shlex.quote(str(value))}" for name, value in changed.items())
    source = Path(str(facts.get("input_path") or "notebook.ipynb")).name
    yield "What ran", f"`papermill {source}{' ' * bool(words)}{words[:MOST_CHARACTERS]}`".replace("\n", " ")
    began = datetime.fromisoformat(facts["start_time"]) if facts.get("start_time") else datetime.now(UTC)
    seconds = (datetime.now(UTC) - began.astimezone(UTC)).total_seconds()
    yield "When", f"{began.astimezone(UTC):%Y-%m-%d %H:%M} UTC, for {format_duration(seconds)}"
    commit = git_commit()
    threads = getattr(parameters, "threads", None)
    on = [_quoted(processor()), f"{os.cpu_count()} cores", f"{threads} threads" if threads else ""]
    yield "On", ", ".join([*filter(None, on), f"commit {commit[:7]}" if commit else "no commit"])
    yield "Result", _quoted(_result(notebook))
    if links := _links(parameters, copy):
        yield "Beside it", ", ".join(links)


def _result(notebook: nbformat.NotebookNode) -> str:
    """Return the error that ended a notebook, else what its check or its last cell that printed anything has said."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    errors = [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]
    if errors:
        return f"failed: {errors[0].splitlines()[0]}"
    printed = [output.text for output in outputs if output.output_type == "stream" and output.name == "stdout"]
    return " · ".join(printed[-1].strip().splitlines()[:MOST_LINES]) if printed else "finished"


def _links(parameters: Parameters, copy: Path) -> list[str]:
    """Return links to the other notebooks of the same folder and of the run, and to the run's folder."""
    folder = copy.parent
    run = getattr(parameters, "run_name", None) or getattr(parameters, "run", "")
    places = [folder, *([output_folder(run), run_folder(run)] if run else [])]
    found: dict[Path, str] = {}
    for place in dict.fromkeys(place.absolute() for place in places):
        found |= {path: path.stem for path in sorted(place.glob("*.ipynb"))}
    found.pop(copy, None)
    if run and run_folder(run).is_dir():
        found[run_folder(run).absolute()] = f"saved/{run}/"
    return [f"[{name}]({quote(os.path.relpath(path, folder))})" for path, name in found.items()]


def _quoted(text: Any) -> str:
    """Return a text that Markdown shows as it is."""
    return html.escape(str(text), quote=False).replace("*", r"\*").replace("_", r"\_").replace("`", "'")
