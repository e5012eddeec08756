"""What every test gets: a workspace of its own, few threads; and what every notebook gets: the stored run."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import papermill
import pytest
from jupyter_client.provisioning import local_provisioner

from dlv3p.jupyter.stored_outputs import PICTURES, complaints, settled

NOTEBOOKS = Path(__file__).parent / "notebooks"
WITH_PARAMETERS = ("train.ipynb", "quickstart.ipynb", "sweep.ipynb")
"""Notebooks that train for minutes as they are committed: tests execute them with small parameters, nbval cannot."""
SMALL_RUN = {"run": "small", "crop_height": 64, "crop_width": 128, "epochs": 8, "validate_every": 4}
SMALL_RUN |= {"color_jitter": 0.0, "threads": 1, "class_uniform": 0.0, "warmup_steps": 0, "average_decay": 0.0}
SMALL_RUN |= {"class_weights": "none", "image_scale": 0.5, "batch_size": 2, "learning_rate": 0.006}
"""A short training of the default network that still learns something in the eyes of its last check (0.105 mIoU).

Seeds 0 to 3 come to 0.184 to 0.202, far enough from it for a processor on which other bits come out.
"""
SMALL_CITY = {"train": 32, "val": 8, "test": 4}
"""Frames of the city that the small run is trained on."""
WORKSPACE = pytest.StashKey[Path]()
NOTEBOOK_WORKSPACES = "DLV3P_TESTS_NOTEBOOK_WORKSPACES"
"""The variable that names the folder of the notebooks' workspaces, one for all processes that share the tests."""

collect_ignore = [str(NOTEBOOKS / name) for name in WITH_PARAMETERS]


def pytest_configure(config: pytest.Config) -> None:
    """Move `data/`, `outputs/` and `saved/` to a temporary folder, for all kernels and commands that tests start."""
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # by the shell that started this in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the commands under test are to hear it
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):  # of the `make test` that started this: no `make` under test is
        os.environ.pop(name, None)  # part of it, and would say which folder it enters
    config.stash[WORKSPACE] = workspace = Path(tempfile.mkdtemp(prefix="dlv3p-tests-"))
    os.environ["DLV3P_WORKSPACE"] = str(workspace)
    if not hasattr(config, "workerinput"):  # processes that share the tests find it in their environment
        os.environ[NOTEBOOK_WORKSPACES] = str(workspace / "notebooks")
    config.add_cleanup(lambda: shutil.rmtree(workspace, ignore_errors=True))
    config.add_cleanup(lambda: os.environ.pop("DLV3P_WORKSPACE", None))
    if hasattr(os, "pidfd_open"):  # Linux; elsewhere, each kernel imports torch itself
        from support.kernels import Kernels

        kernels = Kernels()
        local_provisioner.launch_kernel = kernels.launch  # for kernels of this process, not of the commands it starts
        config.add_cleanup(kernels.close)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Let nbval compare texts alone."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += PICTURES


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the cells of notebooks first, and compare their outputs as far as they are stable."""
    items.sort(key=lambda item: not _is_cell(item))
    for item in filter(_is_cell, items):
        exact = "nbval-check-output" in item.cell.metadata.get("tags", [])
        item.compare_outputs = partial(_compare_outputs, item.compare_outputs, exact=exact)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each notebook a workspace of its own, in which it sees the stored run and nothing that others made."""
    folder = Path(os.environ[NOTEBOOK_WORKSPACES])
    if _is_cell(item):
        from support.refresh_notebooks import make_workspace

        os.environ["DLV3P_WORKSPACE"] = str(make_workspace(folder, item.path.stem))
    elif folder in Path(os.environ.get("DLV3P_WORKSPACE", "")).parents:  # not what a fixture of a whole module has set
        os.environ["DLV3P_WORKSPACE"] = str(item.config.stash[WORKSPACE])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a cell of a notebook that shows stderr, a warning, or a remark on the machine's load."""
    yield
    if _is_cell(item) and (found := complaints(item.test_outputs)):
        pytest.fail(f"cell {item.cell_num} shows what its reader cannot act on: {found}", pytrace=False)


def _is_cell(item: pytest.Item) -> bool:
    return item.path.suffix == ".ipynb"


def _compare_outputs(compare, shown, stored, *, exact: bool) -> bool:
    """Compare without what varies from run to run and, unless `exact`, with decimal digits that hold everywhere."""
    return compare(settled(shown, stored, exact=exact), settled(stored, stored, exact=True))


@pytest.fixture(scope="session")
def executed_train(pytestconfig: pytest.Config) -> Path:
    """The train notebook, executed with small parameters."""
    from cityscapes.demo.city import write_demo_city

    workspace = pytestconfig.stash[WORKSPACE] / "small"
    copy = workspace / "train.ipynb"
    city = write_demo_city(workspace / "small_city", frames=SMALL_CITY)
    with patch.dict(os.environ, DLV3P_WORKSPACE=str(workspace)):
        parameters = {**SMALL_RUN, "data_root": str(city)}
        papermill.execute_notebook(
            NOTEBOOKS / "train.ipynb", copy, parameters, kernel_name="python3", progress_bar=False
        )
    assert not json.loads(copy.read_text(encoding="utf-8"))["metadata"]["papermill"]["exception"]
    return copy
