"""Locate the notebooks, and the three folders that the suite writes to, `data/`, `outputs/` and `saved/`."""

import os
from pathlib import Path

WORKSPACE_VARIABLE = "DLV3P_WORKSPACE"
"""The environment variable that moves `data/`, `outputs/` and `saved/` elsewhere, for example to a large disk."""

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
"""The folder of the suite's notebooks, which exists where the repository was installed with -e."""


def workspace() -> Path:
    """Return the folder that holds `data/`, `outputs/` and `saved/`.

    `$DLV3P_WORKSPACE` when it is set; else the checkout that this package was installed from in editable mode; else
    the current folder.
    """
    if os.environ.get(WORKSPACE_VARIABLE):
        return Path(os.path.expanduser(os.environ[WORKSPACE_VARIABLE])).resolve()
    return NOTEBOOKS.parent if NOTEBOOKS.is_dir() else Path.cwd()


def data_folder() -> Path:
    """Return the folder of data sets and generated masks."""
    return workspace() / "data"


def demo_city_folder() -> Path:
    """Return the folder of the embedded city."""
    return data_folder() / "demo_city"


def generated_masks_folder() -> Path:
    """Return the folder of masks made from polygons: `data/generated_gt/<split>/<city>/`."""
    return data_folder() / "generated_gt"


def run_folder(run: str) -> Path:
    """Return the folder of one run: `saved/<run>/`."""
    return workspace() / "saved" / run


def output_folder(run: str) -> Path:
    """Return the folder of everything made from a run: `outputs/<run>/`."""
    return workspace() / "outputs" / run
