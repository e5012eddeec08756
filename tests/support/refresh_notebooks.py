"""Write again what notebooks repeat: parameters cells, which come from the parameters classes, and their outputs.

    python tests/support/refresh_notebooks.py --parameters  (parameters cells, docs/parameters.md and the README's table
                                                             of results; runs nothing)
    python tests/support/refresh_notebooks.py [NAME ...]      (all by default)

The second does the first as well, and runs the notebooks as they are committed, each in a workspace of its own that
has the embedded city and the stored run. `train` and `quickstart` train the demo, once for both. What is stored of the
outputs, `dlv3p.jupyter.stored_outputs` says.
"""

import argparse
import fcntl
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import nbformat
from nbclient import NotebookClient

from cityscapes.files.atomic import write_text
from dlv3p.experiments.report import readme_results
from dlv3p.jupyter.parameters_cell import cell_source, reference_page
from dlv3p.jupyter.stored_outputs import prepare
from dlv3p.parameters import notebooks as parameters
from dlv3p.parameters.base import Parameters

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
PAGE = ROOT / "docs" / "parameters.md"
README = ROOT / "README.md"
TRAINING = ("train", "quickstart")
"""The notebooks that train the demo: the first does, and the second finds the same run finished."""


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


def readme() -> str:
    """Return the README with the table of results that is stored in the packages."""
    text = README.read_text(encoding="utf-8")
    start = text.index("| what | result |")
    return text[:start] + readme_results() + text[text.index("\n\n", start) + 1 :]


def refresh_parameters() -> None:
    """Write every parameters cell, docs/parameters.md and the README's results, and say which of them changed."""
    texts = {path: with_parameters(path) for path in sorted(FOLDER.glob("*.ipynb"))}
    texts |= {PAGE: page(), README: readme()}
    for path, text in texts.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            print(path.relative_to(ROOT), flush=True)
            write_text(path, text)


def make_workspace(folder: Path, name: str) -> Path:
    """Make the workspace of one notebook below a folder, with the embedded city and the stored run, and return it.

    Another process that makes one there meanwhile waits, and finds the city drawn.
    """
    from dlv3p.data.roots import resolve_data_root
    from dlv3p.runs.trained import install_trained_run

    source, workspace = folder / "source", folder / name
    if workspace.exists():
        return workspace
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not source.exists():
            with patch.dict(os.environ, DLV3P_WORKSPACE=str(source)):
                resolve_data_root("demo_city")
                install_trained_run()
    return Path(shutil.copytree(source, workspace, copy_function=os.link))


def train_demo(workspace: Path) -> None:
    """Train the demo in a workspace, unless `train` has."""
    from dlv3p.train import TrainParameters, train

    with patch.dict(os.environ, DLV3P_WORKSPACE=str(workspace)):
        train(TrainParameters(progress="none"))


def refresh(path: Path, workspace: Path) -> None:
    """Execute one notebook in its folder, with a workspace, and write it back with the outputs to store."""
    notebook = nbformat.read(path, as_version=4)
    options = {"kernel_name": "python3", "timeout": None}
    with patch.dict(os.environ, DLV3P_WORKSPACE=str(workspace)):
        NotebookClient(notebook, resources={"metadata": {"path": str(FOLDER)}}, **options).execute()
    prepare(notebook)
    write_text(path, nbformat.writes(notebook) + "\n")


def refresh_all(names: list[str]) -> None:
    """Refresh notebooks, and say how long each took and how large it is."""
    with tempfile.TemporaryDirectory(prefix="dlv3p-refresh-") as folder:
        for name in sorted(names, key=lambda name: (name not in TRAINING, name == "quickstart", name)):
            began = time.monotonic()
            workspace = make_workspace(Path(folder), TRAINING[0] if name in TRAINING else name)
            if name == "quickstart":
                train_demo(workspace)
            path = FOLDER / f"{name}.ipynb"
            refresh(path, workspace)
            print(f"{name:<20} {path.stat().st_size / 1000:5.0f} kB  {time.monotonic() - began:5.0f} s", flush=True)


def main() -> int:
    """Refresh the parameters, and the notebooks that are named."""
    parser = argparse.ArgumentParser(description="Write again the parameters cells and the outputs of the notebooks.")
    parser.add_argument("--parameters", action="store_true", help="parameters cells and docs/parameters.md alone")
    known = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="a notebook to run, without .ipynb; all by default")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(known)):
        parser.error(f"{unknown[0]!r}: no such notebook; there are {', '.join(known)}")
    refresh_parameters()
    if not options.parameters:
        os.environ.setdefault("OMP_NUM_THREADS", "2")
        refresh_all(options.names or known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
