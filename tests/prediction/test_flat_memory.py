"""Predicting and auditing thousands of images takes the memory that a few take: nothing piles up."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WORK = """
import sys
from pathlib import Path
import numpy as np
from dlv3p.data.audit import audit
from dlv3p.prediction.predict import predict_images
from dlv3p.prediction.predictor import ImagePredictor, Prediction, load_predictor
from dlv3p.prediction.results import Outputs
from dlv3p.prediction.sources import find_images

what, root = sys.argv[1], Path(sys.argv[2])
if what == "predict":
    predictor = load_predictor("done", device="cpu", threads=1)
    blank = lambda image: Prediction(np.zeros(image.size[::-1], np.uint8))
    ImagePredictor.predict = lambda self, images, confidence=False: [blank(image) for image in images]  # a stand-in
for name in ("few", "many"):
    folder = root / name
    if what == "predict":
        images, output = find_images(folder / "images"), root / f"of_{name}"
        found = predict_images(predictor, images, output, Outputs(), progress="none")
        assert not found.problems and len(found.done) == len(list((folder / "images").rglob("*.png")))
    else:
        report = audit(folder, ["train", "val"], progress="none")
        assert not report.errors, report.lines()
    print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
"""

PAIR_BYTES = 8 * 1024
"""What may be kept of an image: its name, its row of the table, its hash."""
SLACK_MIB = 24
"""What the allocator may take besides, whatever the number of images."""


def write_data(root: Path, count: int) -> None:
    """Write a plain folder of `count` different images of 96 x 64 pixels and their masks, a tenth of them in val."""
    generator = np.random.default_rng(count)
    for index in range(count):
        split = "val" if index % 10 == 0 else "train"
        image = np.repeat(np.repeat(generator.integers(0, 256, (8, 12, 3), np.uint8), 8, axis=0), 8, axis=1)
        for kind, pixels in (("images", image), ("masks", (image[..., 0] > 127).astype(np.uint8))):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / split / f"{index:05d}.png", compress_level=1)
    (root / "classes.csv").write_text("id,name\n0,dark\n1,light\n")


def peaks(what: str, root: Path, many: int) -> list[float]:
    """Return the peak of resident memory, MiB, after ten images and after `many`, of one process of its own."""
    for name, count in (("few", 10), ("many", many)):
        write_data(root / name, count)
    words = [sys.executable, "-c", WORK, what, str(root)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    few, most = (float(line) for line in done.stdout.split()[-2:])
    print(f"{what}: {few:.0f} MiB after 10 images, {most:.0f} after {many}")
    assert most - few < SLACK_MIB + many * PAIR_BYTES / 2**20
    return [few, most]


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("what", ["predict", "audit"])
def test_memory_is_that_of_a_few_images(tmp_path: Path, what: str) -> None:
    peaks(what, tmp_path, 400)


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("what", ["predict", "audit"])
def test_memory_of_5000_images_is_that_of_a_few(tmp_path: Path, what: str) -> None:
    peaks(what, tmp_path, 5000)
