"""Run notebooks as they are committed, and store again what nbval compares: the outputs of cells tagged for it.

    python tests/refresh_notebooks.py [NAME ...]      (all of them by default; train first, for the others use its run)

All other outputs, counts and run-time metadata are dropped, so that a notebook's history shows its story alone.
"""

import argparse
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from cityscapes.files.atomic import write_text

FOLDER = Path(__file__).parents[1] / "notebooks"
CHECKED = "nbval-check-output"


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
    """Refresh the notebooks that are named."""
    parser = argparse.ArgumentParser(description="Store again the outputs that nbval compares.")
    parser.add_argument("names", nargs="*", help="notebooks without .ipynb; all by default")
    names = parser.parse_args().names or [path.stem for path in FOLDER.glob("*.ipynb")]
    for name in sorted(names, key=lambda name: (name != "train", name)):
        print(name, flush=True)
        refresh(FOLDER / f"{name}.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main())
