"""Say at the top of an executed notebook what ran, when, on what, and with which result, and link its neighbors.

A copy that was executed to its end is sealed: its metadata has a hash of it, that of the network that it began with,
and that of the data, so that nobody takes a changed copy, or one of another network or other data, for finished.
"""

import html
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat

from cityscapes.errors import IntegrityError, MissingInputError, UserError
from cityscapes.files.checksums import content_sha256, file_sha256
from cityscapes.workspace import output_folder, run_folder
from dlv3p.parameters.base import Parameters
from dlv3p.parameters.data_roots import EMBEDDED
from dlv3p.parameters.training import TRAINED_RUN
from dlv3p.runs.folders import checkpoint_path, list_runs
from dlv3p.runs.provenance import git_commit, processor
from dlv3p.runs.record import read_record
from dlv3p.runtime.lines import format_duration

SEAL, NETWORK, DATA = "executed", "network_sha256", "data_sha256"
"""The key of a seal in the suite's metadata of a notebook, and those of the network's and the data's hash in it."""
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


def seal(notebook: nbformat.NotebookNode, used: Mapping[str, str]) -> None:
    """Record in an executed notebook its hash, and those of what it used or trained, from `what_is_used`."""
    known = {"sha256": _sha256(json.loads(nbformat.writes(notebook))), **used}
    notebook.metadata["dlv3p"] = {**notebook.metadata.get("dlv3p", {}), SEAL: known}


def is_current(content: Mapping[str, Any], parameters: Parameters) -> bool | None:
    """Return whether an executed notebook, as JSON, is of what is there now; None for one of earlier versions.

    Raises IntegrityError where the notebook was changed since.
    """
    found = content["metadata"].get("dlv3p", {}).get(SEAL)
    if found is None:
        return None
    if found["sha256"] != _sha256(content):
        raise IntegrityError("the executed notebook was changed since")
    return all(found.get(name, value) == value for name, value in what_is_used(parameters).items())


def what_is_used(parameters: Parameters) -> dict[str, str]:
    """Return the hashes of the network and of the data that a notebook's parameters name, each "" for none."""
    return {NETWORK: network_sha256(parameters), DATA: _data_sha256(parameters)}


def network_sha256(parameters: Parameters) -> str:
    """Return the hash of the checkpoint that a notebook's parameters name, of a training the best; "" for none."""
    path = _checkpoint(parameters)
    return file_sha256(path) if path.is_file() else ""


def _checkpoint(parameters: Parameters) -> Path:
    run = getattr(parameters, "run_name", None) or getattr(parameters, "run", None)
    if run == "" and not getattr(parameters, "weights", ""):
        run = [TRAINED_RUN, *list_runs()][-1]
    return checkpoint_path(run, getattr(parameters, "checkpoint", "best")) if run else Path()


def _data_sha256(parameters: Parameters) -> str:
    """Return the hash of the images and masks of a split, by their bytes; "" for embedded data and for a training."""
    root, split = getattr(parameters, "data_root", None), getattr(parameters, "split", "")
    if root is None or not split:
        return ""
    from dlv3p.data.fingerprints import content_fingerprint, data_fingerprint
    from dlv3p.data.roots import open_images, resolve_data_root

    with suppress(UserError, OSError, ValueError, LookupError):  # what is wrong with it, the notebook says
        root = root or read_record(_checkpoint(parameters).parents[1] / "run.json")["parameters"]["data_root"]
        if root in EMBEDDED:
            return ""
        opened = open_images(resolve_data_root(root), split)
        with suppress(MissingInputError):  # of a split without masks
            return content_fingerprint(opened) or opened.fingerprint
        return data_fingerprint(opened)
    return ""


def _sha256(content: Mapping[str, Any]) -> str:
    facts = content["metadata"]["papermill"]
    return content_sha256({"cells": content["cells"], "parameters": facts["parameters"], "ended": facts["end_time"]})


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
