"""What every test gets: a workspace of its own, few threads, and the notebooks in an order that suits them."""

import os
import shutil
import signal
import tempfile

import pytest

FIRST = "train.ipynb"
"""The notebook whose run the others look at."""
LAST = "prune.ipynb"
"""The notebook that makes another run, which is then the newest."""
WORKSPACE = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Move `data/`, `outputs/` and `saved/` to a temporary folder, for all kernels and commands that tests start."""
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # by the shell that started this in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the commands under test are to hear it
    config.stash[WORKSPACE] = workspace = tempfile.mkdtemp(prefix="dlv3p-tests-")
    os.environ["DLV3P_WORKSPACE"] = workspace
    config.add_cleanup(lambda: shutil.rmtree(workspace, ignore_errors=True))
    config.add_cleanup(lambda: os.environ.pop("DLV3P_WORKSPACE", None))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give the notebooks a folder of their own within the workspace, so that they see nothing that other tests made."""
    if item.path.suffix == ".ipynb":
        os.environ["DLV3P_WORKSPACE"] = os.path.join(item.config.stash[WORKSPACE], "notebooks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the notebook that trains before those that look at its run, and the one that prunes it after them."""
    cells = [item for item in items if item.path.suffix == ".ipynb"]
    cells.sort(key=lambda cell: (cell.path.name != FIRST, cell.path.name == LAST))
    items[:] = [item for item in items if item.path.suffix != ".ipynb"] + cells
