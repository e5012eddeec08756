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

root = Path(sys.argv[1])
predictor = load_predictor("done", device="cpu", threads=1)
blank = lambda image: Prediction(np.zeros(image.size[::-1], np.uint8))
ImagePredictor.predict = lambda self, images, confidence=False: [blank(image) for image in images]  # a stand-in
for name in ("few", "many"):
    folder = root / name
    found = predict_images(predictor, find_images(folder / "images"), root / f"of_{name}", Outputs(), progress="none")
    assert not found.problems and len(found.done) == len(list((folder / "images").rglob("*.png")))
    report = audit(folder, ["train", "val"], progress="none")
    assert not report.errors, report.lines()
    print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024)
"""

PAIR_BYTES = 12 * 1024
"""What may be kept of an image: its names, its row of the table, its hash, its findings."""
SLACK_MIB = 24
"""What the allocator may take besides, whatever the number of images; pixels of 60 images are more."""
FEW = 20


def write_data(root: Path, count: int) -> None:
    """Write a plain folder of `count` different images of 480 x 320 pixels and their masks, a tenth of them in val."""
    generator = np.random.default_rng(count)
    for index in range(count):
        split = "val" if index % 10 == 0 else "train"
        image = np.repeat(np.repeat(generator.integers(0, 256, (8, 12, 3), np.uint8), 40, axis=0), 40, axis=1)
        for kind, pixels in (("images", image), ("masks", (image[..., 0] > 127).astype(np.uint8))):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / kind / split / f"{index:05d}.png", compress_level=1)
    (root / "classes.csv").write_text("id,name\n0,dark\n1,light\n")


def check_memory(root: Path, many: int) -> None:
    """Compare the peaks of resident memory, in a process of its own, after `FEW` images and after `many`."""
    for name, count in (("few", FEW), ("many", many)):
        write_data(root / name, count)
    words = [sys.executable, "-c", WORK, str(root)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    few, most = (float(line) for line in done.stdout.split()[-2:])
    print(f"{few:.0f} MiB after {FEW} images, {most:.0f} after {many}")
    assert most - few < SLACK_MIB + many * PAIR_BYTES / 2**20


@pytest.mark.usefixtures("trained")
def test_memory_is_that_of_a_few_images(tmp_path: Path) -> None:
    check_memory(tmp_path, 120)


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_memory_of_5000_images_is_that_of_a_few(tmp_path: Path) -> None:
    check_memory(tmp_path, 5000)
