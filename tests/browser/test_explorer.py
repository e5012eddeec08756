"""In JupyterLab a class is chosen, its worst image comes first, and the pointer reads what stands in the file."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("playwright", reason="the browser test needs the Python package playwright")
sys.path.insert(0, str(Path(__file__).parent))
from playwright.sync_api import Page
from run_notebook import CLIPPED, jupyterlab
from support.stored_predictions import write_predictions

from cityscapes.files.images import read_ids
from dlv3p.data.roots import open_split

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium: apt-get install chromium")


def test_a_class_brings_its_worst_image_and_the_pointer_reads_the_file(city: Path, tmp_path: Path) -> None:
    split = open_split(city, "val")
    shares = np.linspace(0.2, 0.8, len(split)).tolist()
    folder = write_predictions(tmp_path / "first", split, shares=shares, label_ids=True)
    title, told, at = [], [], (0.37, 0.81)

    def use(page: Page) -> None:
        assert page.evaluate(CLIPPED) == [], "a text that does not fit into its place"
        page.get_by_label("sort by").select_option("IoU car")
        page.get_by_text("· IoU car", exact=False).first.wait_for()
        picture = page.get_by_alt_text("prediction", exact=True)
        picture.hover()
        box = picture.bounding_box()
        picture.hover(position={"x": at[0] * box["width"], "y": at[1] * box["height"]})
        title.append(page.locator(".widget-label", has_text="· IoU car").first.text_content())
        told.append(page.locator(".dlv3p-under-pointer").text_content())

    with jupyterlab(tmp_path / "workspace") as lab:
        seen = lab.run(
            ROOT / "notebooks" / "explore_predictions.ipynb",
            parameters={"data_root": str(city), "predictions": str(folder), "progress": "none"},
            screenshot=ROOT / "outputs" / "browser" / "explore_predictions.png",
            seconds=600,
            afterwards=use,
        )
    assert seen.errors == []
    table = pd.read_csv(next((tmp_path / "workspace" / "outputs").glob("explored_*/explored.csv"))).set_index("image")
    worst = table["IoU car"].idxmin()
    assert title[0].startswith(f"{worst}  (1 of {len(split)})")
    x, y, name, shown = re.match(r"x (\d+), y (\d+) .*prediction: (.+?) \((\d+)\), confidence", told[0]).groups()
    stored = read_ids(folder / "ids" / f"{worst}.png")
    assert int(shown) == stored[int(y), int(x)]
    assert abs(int(x) - at[0] * stored.shape[1]) <= 2
    assert abs(int(y) - at[1] * stored.shape[0]) <= 2
