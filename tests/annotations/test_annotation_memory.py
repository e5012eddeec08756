"""The memory of a preparation depends neither on the number of images nor on the size of a COCO file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

CODE = """
import sys
from pathlib import Path
from dlv3p.annotations.prepare import prepare_annotations
from dlv3p.parameters.annotations import PrepareAnnotationsParameters
folder = sys.argv[1]
options = {"images": f"{folder}/images", "output": f"{folder}/out", "progress": "none", "workers": 2}
found = prepare_annotations(PrepareAnnotationsParameters(f"{folder}/coco.json", image_files="hardlink", **options))
assert (found.made, found.problems) == (int(sys.argv[2]), ())
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1000)
"""


linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux reports the peak of a process")


def peak(folder: Path, images: int, megabytes: int) -> float:
    """Prepare so many images with a COCO file of that size in a process of its own; return its peak in MB."""
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(folder / "one.png")
    listed = [{"id": n, "file_name": f"{n:06d}.png", "width": 64, "height": 48} for n in range(images)]
    for image in listed:
        os.link(folder / "one.png", folder / "images" / image["file_name"])
    outline = [0, 24, 63, 20, 63, 47, 0, 47]
    padding = "x" * (megabytes * 10**6 // images)
    with open(folder / "coco.json", "w") as file:
        file.write(f'{{"categories": [{{"id": 1, "name": "road"}}], "images": {json.dumps(listed)}, "annotations": [')
        for n in range(images):
            entry = {"id": n, "image_id": n, "category_id": 1, "segmentation": [outline], "note": padding}
            file.write((", " if n else "") + json.dumps(entry))
        file.write("]}")
    command = [sys.executable, "-c", CODE, str(folder), str(images)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@linux
def test_a_large_coco_file_is_not_held_in_memory(tmp_path: Path) -> None:
    small = peak(tmp_path / "small", 10, 1)
    assert peak(tmp_path / "large", 100, 90) < small + 40


@linux
@pytest.mark.slow
def test_five_thousand_images_take_the_memory_of_ten(tmp_path: Path) -> None:
    small = peak(tmp_path / "small", 10, 1)
    assert peak(tmp_path / "large", 5000, 400) < small + 60
