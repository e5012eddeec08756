"""Write the embedded city as a plain folder with wrong polygons, for a search for label errors to find.

Half of the wrong polygons have the label of another class, and half are missing, so that what lies behind them is drawn
instead, as annotators confuse and overlook objects. `planted.csv` lists them, and `planted/` has their pixels.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cityscapes.demo.city import write_demo_city
from cityscapes.demo.random_numbers import Dice
from cityscapes.errors import InputError, ParameterError
from cityscapes.files.atomic import write_bytes, write_text
from cityscapes.files.images import read_ids
from cityscapes.files.png_write import encode_png
from cityscapes.labels import CITYSCAPES, CLASS_NAMES, IGNORE, TRAIN_ID_TO_COLOR
from cityscapes.layout import POLYGONS_SUFFIX, Frame, find_frames
from cityscapes.masks.draw import draw_label_ids, to_train_ids
from cityscapes.masks.polygons import Annotation, read_polygons
from cityscapes.workspace import demo_city_folder
from dlv3p.data.class_table import CLASSES_FILE, HEADING

PLANTED = "planted.csv"
COUNT = 50
SMALLEST, LARGEST = 0.002, 0.1
"""The pixels that a wrong polygon changes, as a share of the image."""


class Planted(NamedTuple):
    """A wrong polygon: its image, the class that is given in most of its pixels, the true one, and how many it has."""

    image: str
    kind: str
    given: str
    true: str
    pixels: int


def write_mislabeled_city(root: Path, *, count: int = COUNT, seed: int = 0) -> Path:
    """Write the folder, unless it is finished, with `count` wrong polygons in as many training images; return `root`.

    Raises ParameterError where the city has not so many images with a polygon of a fitting size, and InputError for a
    folder that holds something else.
    """
    title = f"the embedded city with {count} wrong polygons, seed {seed}\n"
    finished = root / "README.txt"
    if finished.is_file() and finished.read_text(encoding="utf-8") == title:
        return root
    if root.is_dir() and any(root.iterdir()) and not (root / CLASSES_FILE).is_file():
        raise InputError(f"{root}: holds other data; choose another folder")
    finished.unlink(missing_ok=True)
    city = write_demo_city(demo_city_folder())
    colors = (",".join(map(str, color)) for color in TRAIN_ID_TO_COLOR[: len(CLASS_NAMES)].tolist())
    rows = [f"{index},{name},{color}" for index, (name, color) in enumerate(zip(CLASS_NAMES, colors, strict=True))]
    write_text(root / CLASSES_FILE, "\n".join([HEADING, *rows]) + "\n")
    planted = []
    for split in ("train", "val"):
        frames = find_frames(city, split)
        for frame, spoiled in _spoil(city, frames, count if split == "train" else 0, seed):
            right = _mask(read_polygons(frame.annotation(city, POLYGONS_SUFFIX)))
            mask = right
            if spoiled:
                mask, one = spoiled
                planted.append(one)
                write_bytes(_pixels_path(root, one.image), encode_png(_changed(right, mask)), durable=False)
            name = f"{split}/{frame.city}/{frame.name}.png"
            write_bytes(root / "images" / name, frame.image(city).read_bytes(), durable=False)
            write_bytes(root / "masks" / name, encode_png(mask), durable=False)
    if len(planted) < count:
        raise ParameterError(f"count={count}: only {len(planted)} images of the city have a polygon of a fitting size")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Planted._fields, *planted])
    write_text(root / PLANTED, text.getvalue())
    write_text(finished, title)
    return root


def read_planted(root: Path) -> list[Planted]:
    """Return the wrong polygons of a folder; none for other data."""
    path = Path(root) / PLANTED
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [Planted(**{**row, "pixels": int(row["pixels"])}) for row in csv.DictReader(file)]


def read_planted_pixels(root: Path, image: str) -> np.ndarray:
    """Return the pixels of an image whose class a wrong polygon has changed: bool (H,W)."""
    return read_ids(_pixels_path(root, image)) > 0


def _pixels_path(root: Path, image: str) -> Path:
    return Path(root) / "planted" / f"{image}.png"


def _changed(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    return ((wrong != right) & (wrong != IGNORE) & (right != IGNORE)).astype(np.uint8)


def _spoil(
    city: Path, frames: list[Frame], count: int, seed: int
) -> Iterator[tuple[Frame, tuple[np.ndarray, Planted] | None]]:
    """Yield each frame, and for `count` of them a mask with a wrong polygon, and which."""
    order, left = Dice(seed, "frames").shuffled(frames), count
    chosen = {}
    for frame in order:
        if not left:
            break
        kind = ("relabeled", "missing")[left % 2]
        annotation = read_polygons(frame.annotation(city, POLYGONS_SUFFIX))
        if found := _plant(annotation, f"{frame.city}/{frame.name}", kind, Dice(seed, frame.name)):
            chosen[frame], left = found, left - 1
    yield from ((frame, chosen.get(frame)) for frame in frames)


def _plant(annotation: Annotation, image: str, kind: str, dice: Dice) -> tuple[np.ndarray, Planted] | None:
    """Return the mask with one wrong polygon of a fitting size, None where there is none."""
    right = _mask(annotation)
    for place in dice.shuffled(range(len(annotation.polygons))):
        polygons = list(annotation.polygons)
        if polygons[place].label.train_id in (IGNORE, -1):
            continue
        if kind == "missing":
            del polygons[place]
        else:
            others = [label for label in CITYSCAPES.labels if label.name in CLASS_NAMES]
            label = dice.pick([label for label in others if label.name != polygons[place].label.name])
            polygons[place] = polygons[place]._replace(label=label)
        wrong = _mask(replace(annotation, polygons=tuple(polygons)))
        changed = _changed(right, wrong) > 0
        if SMALLEST * right.size <= changed.sum() <= LARGEST * right.size:
            given, true = (CLASS_NAMES[np.bincount(mask[changed]).argmax()] for mask in (wrong, right))
            return wrong, Planted(image, kind, given, true, int(changed.sum()))
    return None


def _mask(annotation: Annotation) -> np.ndarray:
    return to_train_ids(draw_label_ids(annotation))
