"""Frames of the real data set, where a sample of it lies beside the checkout, with the object names it came with.

The sample's polygon files have the official geometry and order, but their names were read off the official label
images: several cars in one outline are called `car` and not `cargroup`, a license plate is called what is below it, and
an object that others hide is `unlabeled`. The official instance ids show what it was, and `restored` puts it back.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from cityscapes.labels import CITYSCAPES, LABEL_BY_ID
from cityscapes.masks.draw import FILL_POLYGONS
from cityscapes.masks.polygons import read_polygons

ROOT = Path(__file__).parents[3] / "shared" / "data" / "cityscapes"
POLYGON_FILES = sorted(ROOT.glob("gtFine/*/*/*_gtFine_polygons.json"))
ABSENT = "the Cityscapes sample is not here"


def beside(path: Path, kind: str) -> Path:
    """The official file of another kind, such as `labelIds.png`, beside a polygon file."""
    return path.with_name(path.name.replace("polygons.json", kind))


def restored(path: Path) -> bytes:
    """A polygon file of the sample with the official object names."""
    document = json.loads(path.read_text())
    objects = document["objects"]
    official = np.array(Image.open(beside(path, "instanceIds.png")))
    hidden, counts = [], Counter()
    for item, shown in zip(objects, _shown(path, official), strict=True):
        if item["label"] == "unlabeled" and not shown:
            hidden.append(item)
        elif CITYSCAPES.by_name[item["label"]].has_instances:
            assert len(shown) == 1, "an object has one instance id, unless its outline is not the official one"
            (value,) = shown
            number = value % 1000
            if value < 1000:
                item["label"] += "group"
            elif number < counts[value // 1000]:  # this one was shown before: here lies its license plate
                item["label"] = "license plate"
            else:
                for _ in range(number - counts[value // 1000]):
                    hidden.pop()["label"] = LABEL_BY_ID[value // 1000].name
                counts[value // 1000] = number + 1
    return json.dumps(document).encode()


def _shown(path: Path, official: np.ndarray) -> list[set[int]]:
    """Which official ids each object shows where nothing later covers it."""
    annotation = read_polygons(path)
    image = np.zeros((annotation.height, annotation.width), np.uint16)
    points = np.concatenate([polygon.points for polygon in annotation.polygons])
    ends = np.cumsum([len(polygon.points) for polygon in annotation.polygons])
    FILL_POLYGONS["uint16"](image, points, ends, np.arange(1, len(ends) + 1, dtype=np.uint16))
    shown: list[set[int]] = [set() for _ in ends]
    for pair in np.unique(image.astype(np.int64) * 2**16 + official):
        if pair >= 2**16:
            shown[pair // 2**16 - 1].add(int(pair % 2**16))
    return shown
