"""Locate the three folders that the suite writes to, `data/`, `outputs/` and `saved/`, wherever it is started from."""

import os
from pathlib import Path

WORKSPACE_VARIABLE = "DLV3P_WORKSPACE"
"""The environment variable that moves `data/`, `outputs/` and `saved/` elsewhere, for example to a large disk."""


def workspace() -> Path:
    """The folder that holds `data/`, `outputs/` and `saved/`.

    `$DLV3P_WORKSPACE` when it is set; else the checkout that this package was installed from in editable mode; else
    the current folder.
    """
    if os.environ.get(WORKSPACE_VARIABLE):
        return Path(os.environ[WORKSPACE_VARIABLE]).expanduser().resolve()
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "notebooks").is_dir() else Path.cwd()


def data_folder() -> Path:
    """Where data sets are looked for and generated masks go."""
    return workspace() / "data"


def demo_city_folder() -> Path:
    """Where the embedded city is written."""
    return data_folder() / "demo_city"


def generated_masks_folder() -> Path:
    """Where masks made from polygons go: `data/generated_gt/<split>/<city>/`."""
    return data_folder() / "generated_gt"


def run_folder(run: str) -> Path:
    """The folder of one training run: `saved/<run>/`."""
    return workspace() / "saved" / run


def output_folder(run: str) -> Path:
    """Where everything made from a run goes: `outputs/<run>/`."""
    return workspace() / "outputs" / run
