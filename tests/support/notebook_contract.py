"""The contract of a notebook, a function per rule: each yields what a notebook has against it, in one line.

`tests/notebooks/test_notebooks.py` holds every notebook of the suite to it, and shows each rule red on a bad one.
"""

import ast
import base64
import dataclasses
import io
import re
import tempfile
import tokenize
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbformat import NotebookNode
from PIL import Image
from support.refresh_notebooks import ROOT, parameters_class

from dlv3p.jupyter.parameters_cell import cell_source
from dlv3p.jupyter.stored_outputs import MEASURED, complaints, without_variation
from dlv3p.parameters import notebooks as config

HEADING = re.compile(r"# --- (.+?) -+")
WIDTH = 100
"""Columns of a cell that JupyterLab shows on a common screen; `notebooks/.ruff.toml` wraps code at as many."""
LONGEST_CELL = 15
LARGEST_FILE = 300_000
MACHINE_PATH = re.compile(r"/(root|home|Users|work|tmp|mnt)/|[A-Z]:\\\\")
LOGIC = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.While, ast.Try, ast.Match)
"""What no cell holds."""
KINDS = {"text/plain", "text/html", "text/markdown", "image/png"}
MEASURES = {"profile", "quantize"}
"""The notebooks whose figures all show measurements, which are not stored."""
README = ROOT / "README.md"

Complaints = Iterator[str]


def code_cells(notebook: NotebookNode, tag: str = "") -> list[NotebookNode]:
    """Return the code cells of a notebook, or those with a tag."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [cell for cell in cells if not tag or tag in cell.metadata.get("tags", [])]


def broken(notebook: NotebookNode, name: str) -> dict[str, list[str]]:
    """Return the rules that a notebook breaks, with what there is against it; `name` is its file's, without .ipynb."""
    found = {}
    for rule, check in RULES.items():
        try:
            found[rule] = list(check(notebook, name))
        except (LookupError, ValueError, AttributeError, SyntaxError) as error:
            found[rule] = [f"cannot be checked: {type(error).__name__}: {error}"]
    return {rule: told for rule, told in found.items() if told}


def _duration(notebook: NotebookNode, name: str) -> Complaints:
    """The first cell says how long it takes, and which pictures come."""
    *_, last = notebook.cells[0].source.split("\n\n")
    if not re.fullmatch(r"\*[^*]*(second|minute)s?[^*]*\. Pictures?: [^*]+\.\*", last):
        yield f"ends with {last!r}"


def _parameters(notebook: NotebookNode, name: str) -> Complaints:
    """One cell holds the parameters as literals, the fields of its class in their order."""
    cells = code_cells(notebook, "parameters")
    if len(cells) != 1:
        yield f"{len(cells)} cells are tagged 'parameters'"
        return
    found = []
    for statement in ast.parse(cells[0].source).body:
        if not isinstance(statement, ast.AnnAssign):
            yield f"line {statement.lineno} is not `name: type = literal`"
            return
        target, kind = ast.unparse(statement.target), ast.unparse(statement.annotation)
        found.append((target, kind, ast.literal_eval(statement.value)))
    kind = parameters_class(notebook)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    order = [*kind.FIRST, *(target for target, _, _ in found if target not in kind.FIRST)]
    if sorted(order) != sorted(fields):
        yield f"names other parameters than {kind.__name__}: {sorted({*order} ^ {*fields})}"
        return
    expected = [(one, getattr(fields[one].type, "__name__", fields[one].type), fields[one].default) for one in order]
    yield from (f"{one} should be {other}" for one, other in zip(found, expected, strict=True) if one != other)
    if kind is not config.TrainParameters and order != list(fields):
        yield "only train has headings that rearrange the fields"


def _help(notebook: NotebookNode, name: str) -> Complaints:
    """The parameters cell is what the fields say, each line with its help, and papermill shows it."""
    (cell,) = code_cells(notebook, "parameters")
    tokens = tokenize.generate_tokens(io.StringIO(cell.source).readline)
    helped = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    lines = cell.source.splitlines()
    yield from (f"has no help: {line}" for number, line in enumerate(lines, 1) if number not in helped)
    yield from (f"is no heading: {line}" for line in lines if line.startswith("#") and not HEADING.fullmatch(line))
    yield from (f"JupyterLab cuts the help off: {line}" for line in lines if len(line) > WIDTH)
    kind = parameters_class(notebook)
    if cell.source != cell_source(kind):
        yield "is not what the fields say; run: python tests/support/refresh_notebooks.py --parameters"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.ipynb"
        nbformat.write(notebook, path)
        shown = papermill.inspect_notebook(path)
    said = {field.name: field.metadata["help"] for field in dataclasses.fields(kind)}
    if {one: found["help"] for one, found in shown.items()} != said:
        yield "papermill does not show what the fields say: is there a second '='?"


def _kernel(notebook: NotebookNode, name: str) -> Complaints:
    """The kernel is python3."""
    if (found := notebook.metadata.get("kernelspec", {}).get("name")) != "python3":
        yield f"the kernel is {found!r}"


def _metadata(notebook: NotebookNode, name: str) -> Complaints:
    """Nothing else stands in the metadata, of the notebook or of a cell."""
    if more := set(notebook.metadata) - {"dlv3p", "kernelspec", "language_info"}:
        yield f"has {sorted(more)}"
    for cell in notebook.cells:
        folded = {"jupyter"} if "check" in cell.metadata.get("tags", []) else set()
        if more := set(cell.metadata) - {"tags"} - folded:
            yield f"a cell has {sorted(more)}: {cell.source:.40}"
        if cell.metadata.get("jupyter", {"source_hidden": True}) != {"source_hidden": True}:
            yield f"a cell has {cell.metadata.jupyter}: {cell.source:.40}"


def _lengths(notebook: NotebookNode, name: str) -> Complaints:
    """Cells are short and narrow, and define nothing: logic lives in the packages."""
    for cell in code_cells(notebook):
        if "parameters" in cell.metadata.get("tags", []):
            continue
        if (lines := len(cell.source.splitlines())) > LONGEST_CELL:
            yield f"{lines} lines: {cell.source:.40}"
        yield from (f"JupyterLab cuts it off: {line}" for line in cell.source.splitlines() if len(line) > WIDTH)
        if any(isinstance(node, LOGIC) for node in ast.walk(ast.parse(cell.source))):
            yield f"holds logic: {cell.source:.40}"


def _prose(notebook: NotebookNode, name: str) -> Complaints:
    """Prose leads through the notebook, from its title on."""
    kinds = [cell.cell_type for cell in notebook.cells]
    if not notebook.cells[0].source.startswith("# "):
        yield "begins without a title"
    if kinds.count("markdown") < 0.8 * kinds.count("code"):
        yield f"{kinds.count('markdown')} cells of prose beside {kinds.count('code')} of code"


def _refusal(notebook: NotebookNode, name: str) -> Complaints:
    """The cell after the parameters checks them, and that a wrong value stops the notebook is said once."""
    cells, parameters = code_cells(notebook), code_cells(notebook, "parameters")
    following = [after.source for cell, after in pairwise(cells) if cell in parameters]
    if following and f"{parameters_class(notebook).__name__}.from_cell(globals())" not in following[0]:
        yield "the cell after the parameters does not call from_cell(globals()) of their class"
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    said = [text for text in prose if text.startswith("An invalid parameter stops the notebook here")]
    if len(said) != 1:
        yield f"says it {len(said)} times"


def _names(notebook: NotebookNode, name: str) -> Complaints:
    """No variable takes the name of a parameter, so that the parameters cell can be run again alone, with its class."""
    cells, parameters = code_cells(notebook), code_cells(notebook, "parameters")
    typed = set().union(*(_assigned(cell.source) for cell in parameters))
    for cell in cells:
        if cell not in parameters and (taken := sorted(_assigned(cell.source) & typed)):
            yield f"takes the name of a parameter, {', '.join(taken)}: {cell.source:.40}"


def _assigned(source: str) -> set[str]:
    """Return the names that a cell assigns or imports, without those that live in a comprehension alone."""
    kinds = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    nodes = list(ast.walk(ast.parse(source)))
    inner = {id(part) for node in nodes if isinstance(node, kinds) for part in ast.walk(node)}
    names = [node for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    imported = {node.asname or node.name for node in nodes if isinstance(node, ast.alias)}
    return {node.id for node in names if id(node) not in inner} | imported


def _size(notebook: NotebookNode, name: str) -> Complaints:
    """The file can be looked at and kept in a repository."""
    if (size := len(f"{nbformat.writes(notebook)}\n".encode())) > LARGEST_FILE:
        yield f"{size} bytes"


def _paths(notebook: NotebookNode, name: str) -> Complaints:
    """No path of a machine is in it."""
    yield from (f"holds {found.group()}" for found in MACHINE_PATH.finditer(nbformat.writes(notebook)))


def _outputs(notebook: NotebookNode, name: str) -> Complaints:
    """Stored outputs are texts and palette pictures, without errors, and every cell was executed."""
    for cell in code_cells(notebook):
        if not cell.execution_count:  # nbval compares no cell without a count, and fails one that has outputs as well
            yield f"was not executed: {cell.source:.40}"
        for output in cell.outputs:
            data = output.get("data", {})
            if output.output_type not in ("stream", "display_data", "execute_result") or output.get("name") == "stderr":
                yield f"an {output.output_type} of {output.get('name')}: {cell.source:.40}"
            if more := set(data) - KINDS:
                yield f"holds {sorted(more)}: {cell.source:.40}"
            if "image/png" in data and Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).mode != "P":
                yield f"a picture without a palette: {cell.source:.40}"


def _stable(notebook: NotebookNode, name: str) -> Complaints:
    """Stored outputs hold nothing that varies from run to run, and nothing that nobody can act on."""
    for cell in code_cells(notebook):
        datas = _datas(cell)
        texts = [output.text for output in cell.outputs if output.output_type == "stream"]
        texts += [text for data in datas for kind, text in data.items() if kind.startswith("text/")]
        yield from (f"varies: {text:.60}" for text in texts if without_variation(text) != text)
        yield from complaints([output for output in cell.outputs if output.output_type == "stream"])
        if MEASURED in cell.metadata.get("tags", []) and any("image/png" in data for data in datas):
            yield f"a figure of what was measured: {cell.source:.40}"


def _readable(notebook: NotebookNode, name: str) -> Complaints:
    """It can be read where it lies: a table and a picture are stored."""
    datas = [data for cell in code_cells(notebook) for data in _datas(cell)]
    if not any("<table" in data.get("text/html", "") for data in datas):
        yield "has no table"
    if not any("image/png" in data for data in datas) and name not in MEASURES:
        yield "has no picture"


def _figures(notebook: NotebookNode, name: str) -> Complaints:
    """A cell saves every figure that it draws, in the format asked for, and with it the numbers.

    Only training has no such parameter, which would be part of a run.
    """
    for cell in code_cells(notebook):
        called = [node.func.id for node in ast.walk(ast.parse(cell.source)) if _is_call(node)]
        drawn = [one for one in called if one in figure_functions()]
        if len(drawn) > called.count("save_figure"):
            yield f"draws {', '.join(drawn)} without saving: {cell.source:.40}"
        saved = [line for line in cell.source.splitlines() if line.startswith("save_figure(")]
        yield from (
            f"ignores config.figures: {line}" for line in saved if ".{config.figures}" not in line and name != "train"
        )


@cache
def figure_functions() -> set[str]:
    """Return the names of all functions of `dlv3p/pictures` that return a figure."""
    paths = (ROOT / "dlv3p" / "pictures").glob("*.py")
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.returns]
    return {one.name for one in functions if re.search(r"\bFigure\b", ast.unparse(one.returns))}


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


def _check(notebook: NotebookNode, name: str) -> Complaints:
    """The last cell checks what holds, for nbval: it is tagged and folded, and every checked cell has an output."""
    checks = code_cells(notebook, "check")
    if checks != code_cells(notebook)[-1:]:
        yield f"{len(checks)} cells are tagged 'check'; the last one alone should be"
        return
    if checks[0].metadata.get("jupyter", {}).get("source_hidden") is not True:
        yield "the check is not folded"
    if "nbval-check-output" not in checks[0].metadata.tags:
        yield "the check is not compared"
    for cell in code_cells(notebook, "nbval-check-output"):
        if not cell.outputs:  # nbval passes it silently
            yield f"has nothing to compare: {cell.source:.40}"


def _index(notebook: NotebookNode, name: str) -> Complaints:
    """README's table has a row for it, whose question the notebook answers."""
    if f"](notebooks/{name}.ipynb) |" not in README.read_text(encoding="utf-8"):
        yield "has no row in README.md"


def _datas(cell: NotebookNode) -> list[dict[str, Any]]:
    return [output.get("data", {}) for output in cell.outputs]


RULES = {
    "duration": _duration,
    "parameters": _parameters,
    "help": _help,
    "kernel": _kernel,
    "metadata": _metadata,
    "lengths": _lengths,
    "prose": _prose,
    "refusal": _refusal,
    "names": _names,
    "size": _size,
    "paths": _paths,
    "outputs": _outputs,
    "stable": _stable,
    "readable": _readable,
    "figures": _figures,
    "check": _check,
    "index": _index,
}
