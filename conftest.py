"""What every test gets: a workspace of its own, few threads; and what every notebook gets: a small trained run."""

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path
from unittest.mock import patch

import papermill
import pytest

NOTEBOOKS = Path(__file__).parent / "notebooks"
WITH_PARAMETERS = ("train.ipynb", "quickstart.ipynb")
"""Notebooks that train for minutes as they are committed: tests execute them with small parameters, nbval cannot."""
LAST = "prune.ipynb"
"""The notebook that makes another run, which is then the newest."""
SMALL_RUN = {"run": "small", "crop_height": 64, "crop_width": 128, "batch_size": 4, "epochs": 8, "validate_every": 4}
SMALL_RUN |= {"backbone": "resnet18", "channels": 128, "learning_rate": 0.001, "color_jitter": 0.0, "threads": 1}
SMALL_RUN |= {"class_uniform": 0.0, "warmup_steps": 0, "average_decay": 0.0}
"""A short training of a network that still learns something in the eyes of its last check (0.105 mIoU).

Seeds 0 to 2 come to 0.14 to 0.16; with a learning rate of 0.003 and a jitter of 0.3, to 0.08 to 0.15.
"""
SMALL_CITY = {"train": 32, "val": 8, "test": 4}
"""Frames of the city that the run is trained on: as many as are calibrated with when it is quantized."""
WORKSPACE = pytest.StashKey[Path]()

collect_ignore = [str(NOTEBOOKS / name) for name in WITH_PARAMETERS]


def pytest_configure(config: pytest.Config) -> None:
    """Move `data/`, `outputs/` and `saved/` to a temporary folder, for all kernels and commands that tests start."""
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # by the shell that started this in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the commands under test are to hear it
    config.stash[WORKSPACE] = workspace = Path(tempfile.mkdtemp(prefix="dlv3p-tests-"))
    os.environ["DLV3P_WORKSPACE"] = str(workspace)
    config.add_cleanup(lambda: shutil.rmtree(workspace, ignore_errors=True))
    config.add_cleanup(lambda: os.environ.pop("DLV3P_WORKSPACE", None))


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the notebook that prunes after those that look at the run, and a file's tests in one process.

    nbval's cells are not to be grouped: `make` runs the notebooks in a process of their own.
    """
    items.sort(key=lambda item: (not _is_cell(item), item.path.name == LAST))
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give the notebooks a folder of their own, so that they see the small run and nothing that other tests made."""
    workspace = item.config.stash[WORKSPACE]
    notebooks = workspace / "notebooks"
    if _is_cell(item):
        train_small_run(notebooks)
        os.environ["DLV3P_WORKSPACE"] = str(notebooks)
    elif os.environ.get("DLV3P_WORKSPACE") == str(notebooks):  # a fixture of a whole module may have set another
        os.environ["DLV3P_WORKSPACE"] = str(workspace)


def _is_cell(item: pytest.Item) -> bool:
    return item.path.suffix == ".ipynb"


@pytest.fixture(scope="session")
def executed_train(pytestconfig: pytest.Config) -> Path:
    """The train notebook, executed with small parameters: the run that all other notebooks look at."""
    return train_small_run(pytestconfig.stash[WORKSPACE] / "notebooks")


def train_small_run(workspace: Path) -> Path:
    """Execute the train notebook once, and return the executed copy; where that has failed, fail again at once."""
    copy = workspace / "train.ipynb"
    if not copy.exists():
        from cityscapes.demo.city import write_demo_city

        city = write_demo_city(workspace / "small_city", frames=SMALL_CITY)
        with patch.dict(os.environ, DLV3P_WORKSPACE=str(workspace)):
            parameters = {**SMALL_RUN, "data_root": str(city)}
            papermill.execute_notebook(
                NOTEBOOKS / "train.ipynb", copy, parameters, kernel_name="python3", progress_bar=False
            )
    if json.loads(copy.read_text(encoding="utf-8"))["metadata"]["papermill"]["exception"]:
        pytest.fail(f"{NOTEBOOKS / 'train.ipynb'} has failed, and this notebook has no run to look at")
    return copy
