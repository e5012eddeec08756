"""A person opens a notebook in JupyterLab and runs it: widgets are drawn, and no cell fails."""

import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="the browser test needs the Python package playwright")
sys.path.insert(0, str(Path(__file__).parent))
from run_notebook import run_in_jupyterlab

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "outputs" / "browser"

pytestmark = pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium: apt-get install chromium")


def test_quickstart_draws_its_progress_and_curves() -> None:
    parameters = {"epochs": 2, "threads": 2}
    seen = run_in_jupyterlab(
        ROOT / "notebooks" / "quickstart.ipynb", parameters=parameters, screenshot=PICTURES / "quickstart.png"
    )
    assert seen.errors == []
    assert seen.run == seen.cells
    assert seen.full_bars >= 1, "no progress bar ended well"
    assert seen.images >= 1, "the curves were not drawn"
