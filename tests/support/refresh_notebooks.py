"""Write again what notebooks repeat: parameters cells, which come from the parameters classes, and compared outputs.

    python tests/support/refresh_notebooks.py --parameters  (parameters cells and docs/parameters.md; runs nothing)
    python tests/support/refresh_notebooks.py [NAME ...]      (all by default; train first, for the others use its run)

The second does the first as well, runs the notebooks as they are committed, and stores what nbval compares: the outputs
of cells tagged for it. All other outputs, counts and run-time metadata are dropped, so that a notebook's history shows
its story alone.
"""

import argparse
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from cityscapes.files.atomic import write_text
from dlv3p.jupyter.parameters_cell import cell_source, reference_page
from dlv3p.parameters import notebooks as parameters
from dlv3p.parameters.base import Parameters

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
PAGE = ROOT / "docs" / "parameters.md"
CHECKED = "nbval-check-output"


def parameters_class(notebook: nbformat.NotebookNode) -> type[Parameters]:
    """Return the class of `dlv3p.parameters.notebooks` that a notebook's metadata names."""
    return getattr(parameters, notebook.metadata["dlv3p"]["parameters"])


def with_parameters(path: Path) -> str:
    """Return the text of a notebook whose parameters cell is what its class says."""
    notebook = nbformat.read(path, as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source = cell_source(parameters_class(notebook))
    return nbformat.writes(notebook) + "\n"


def page() -> str:
    """Return docs/parameters.md as the parameters classes say it."""
    paths = sorted(FOLDER.glob("*.ipynb"))
    return reference_page({path.stem: parameters_class(nbformat.read(path, as_version=4)) for path in paths})


def refresh_parameters() -> None:
    """Write every parameters cell and docs/parameters.md, and say which of them changed."""
    texts = {path: with_parameters(path) for path in sorted(FOLDER.glob("*.ipynb"))} | {PAGE: page()}
    for path, text in texts.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            print(path.relative_to(ROOT), flush=True)
            write_text(path, text)


def refresh(path: Path) -> None:
    """Execute one notebook in its folder and write it back with the outputs of its checked cells alone."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}, timeout=None
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        if CHECKED not in cell.metadata.get("tags", []):
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    write_text(path, nbformat.writes(notebook) + "\n")


def main() -> int:
    """Refresh the parameters, and the notebooks that are named."""
    parser = argparse.ArgumentParser(description="Write again what notebooks repeat and nbval compares.")
    parser.add_argument("--parameters", action="store_true", help="parameters cells and docs/parameters.md alone")
    parser.add_argument("names", nargs="*", help="notebooks to run, without .ipynb; all by default")
    options = parser.parse_args()
    refresh_parameters()
    if options.parameters:
        return 0
    names = options.names or [path.stem for path in FOLDER.glob("*.ipynb")]
    for name in sorted(names, key=lambda name: (name != "train", name)):
        print(name, flush=True)
        refresh(FOLDER / f"{name}.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main())
