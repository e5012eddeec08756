"""A user opens a notebook in JupyterLab and runs it: widgets are drawn, and no cell fails."""

import re
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="the browser test needs the Python package playwright")
sys.path.insert(0, str(Path(__file__).parent))
from run_notebook import run_in_jupyterlab

from dlv3p.weights.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "outputs" / "browser"

pytestmark = pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium: apt-get install chromium")


def test_quickstart_draws_its_progress_and_curves(city: Path) -> None:
    parameters = {"data_root": str(city), "epochs": 2, "threads": 1}  # the browser wants the other core
    seen = run_in_jupyterlab(
        ROOT / "notebooks" / "quickstart.ipynb",
        parameters=parameters,
        screenshot=PICTURES / "quickstart.png",
        seconds=600,
    )
    assert seen.errors == []
    assert seen.run == seen.cells
    assert seen.full_bars >= 1, "no progress bar ended well"
    assert seen.images >= 1, "the curves were not drawn"


def test_the_stop_button_ends_training_after_a_step_with_a_checkpoint(city: Path, tmp_path: Path) -> None:
    """The click arrives while the cell runs: otherwise, ten thousand epochs would pass first."""
    tiny = {"backbone": "mobilenet_v2", "channels": 8, "crop_height": 64, "crop_width": 64, "batch_size": 2}
    parameters = tiny | {"run": "stopped", "data_root": str(city), "epochs": 10_000, "workers": 0, "threads": 1}
    seen = run_in_jupyterlab(
        ROOT / "notebooks" / "train.ipynb",
        parameters=parameters,
        screenshot=PICTURES / "stopped.png",
        workspace=tmp_path,
        press="Stop",
        seconds=600,
    )
    (error,) = seen.errors
    assert re.search(r"StoppedError: run='stopped': stopped after step \d+ of 30000; run again to continue", error)
    assert "Traceback" not in error
    state = load_checkpoint(tmp_path / "saved" / "stopped" / "checkpoints" / "last.pt")
    assert state["epoch"] < 10_000
    assert f"stopped after step {state['epoch'] * 3 + state['step']} of" in error
