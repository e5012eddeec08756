"""What every test gets: a workspace of its own, few threads, and the notebooks in an order that suits them."""

import os
import shutil
import tempfile

import pytest

FIRST = "train.ipynb"
"""The notebook whose run the others look at."""
LAST = "prune.ipynb"
"""The notebook that makes another run, which is then the newest."""


def pytest_configure(config: pytest.Config) -> None:
    """Move `data/`, `outputs/` and `saved/` to a temporary folder, for all kernels and commands that tests start."""
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    if "DLV3P_WORKSPACE" not in os.environ:
        os.environ["DLV3P_WORKSPACE"] = workspace = tempfile.mkdtemp(prefix="dlv3p-tests-")
        config.add_cleanup(lambda: shutil.rmtree(workspace, ignore_errors=True))
        config.add_cleanup(lambda: os.environ.pop("DLV3P_WORKSPACE", None))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the notebook that trains before those that look at its run, and the one that prunes it after them."""
    cells = [item for item in items if item.path.suffix == ".ipynb"]
    cells.sort(key=lambda cell: (cell.path.name != FIRST, cell.path.name == LAST))
    items[:] = [item for item in items if item.path.suffix != ".ipynb"] + cells
