"""Write a few streets of the embedded city as an annotation tool would, in every format that can be read."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from cityscapes.demo.city import write_demo_city
from cityscapes.files.atomic import open_atomically, write_bytes, write_text
from cityscapes.files.png_write import encode_png
from cityscapes.labels import CITYSCAPES
from cityscapes.layout import POLYGONS_SUFFIX, find_frames
from cityscapes.masks.polygons import read_polygons
from cityscapes.workspace import data_folder, demo_city_folder
from dlv3p.annotations.coco import CocoWriter
from dlv3p.annotations.cvat import CvatWriter
from dlv3p.annotations.shapes import AnnotatedImage, Shape, draw

NAMES = ("road", "sidewalk", "building", "vegetation", "sky", "person", "car")
"""The labels that the demo's annotators were asked for; they left out everything else."""
STREETS, CHOSEN = 20, (0, 2)
"""Of so many frames of the city's train split, which are four streets, those are annotated: two of the first."""
FOLDER = "demo_annotations"


def write_demo_annotations(kind: str) -> tuple[Path, Path]:
    """Write the demo's images and one of `DEMO_ANNOTATIONS`, unless they exist; return annotations and images."""
    root, name = data_folder() / FOLDER, kind.removeprefix("demo_")
    path, images = root / ANNOTATIONS[name], root / "images"
    finished = root / f".{name}.finished"
    if not finished.is_file():
        WRITERS[name](root, _write_images(images))
        write_text(finished, "")
    return path, images


def _write_images(folder: Path) -> list[AnnotatedImage]:
    """Write the images, a folder a street, and return their shapes."""
    city = write_demo_city(demo_city_folder())
    found = []
    frames = [frame for index, frame in enumerate(find_frames(city, "train")) if index % STREETS in CHOSEN]
    for frame in frames:
        street, _, number = frame.name.rpartition("_")
        name = f"{street}/{number}.png"
        write_bytes(folder / name, frame.image(city).read_bytes(), durable=False)
        annotation = read_polygons(frame.annotation(city, POLYGONS_SUFFIX))
        shapes = [Shape(p.label.name, (p.points.astype(np.float64),)) for p in annotation.polygons]
        shapes = [shape for shape in shapes if shape.label in NAMES and len(shape.rings[0]) > 2]
        found.append(AnnotatedImage(name, (annotation.width, annotation.height), tuple(shapes)))
    return found


def _colors() -> np.ndarray:
    by_name = {label.name: label.color for label in CITYSCAPES.labels}
    return np.array([by_name[name] for name in NAMES], np.uint8)


def _write_one_file(tool: str, writer_class: type, root: Path, images: list[AnnotatedImage]) -> None:
    with open_atomically(root / ANNOTATIONS[tool], durable=False) as file:
        writer = writer_class(file, NAMES, _colors())
        for image in images:
            writer.add(image)
        writer.finish()


def _write_labelme(root: Path, images: list[AnnotatedImage]) -> None:
    folder = root / ANNOTATIONS["labelme"]
    write_text(folder / "labels.txt", "\n".join(NAMES) + "\n", durable=False)
    for image in images:
        entry = {"version": "5.5.0", "flags": {}, "shapes": [], "imagePath": f"../../images/{image.name}"}
        for shape in image.shapes:
            points = {"label": shape.label, "points": shape.rings[0].tolist(), "group_id": None}
            entry["shapes"].append({**points, "shape_type": "polygon", "flags": {}})
        entry |= {"imageData": None, "imageHeight": image.size[1], "imageWidth": image.size[0]}
        path = (folder / image.name).with_suffix(".json")
        write_text(path, json.dumps(entry, indent=2), durable=False)


def _write_yolo(root: Path, images: list[AnnotatedImage]) -> None:
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(NAMES))
    for image in images:
        lines = []
        for shape in image.shapes:
            shares = (shape.rings[0] / image.size).ravel().tolist()
            lines.append(f"{NAMES.index(shape.label)} {' '.join(f'{share:.6f}' for share in shares)}\n")
        write_text((root / "labels" / image.name).with_suffix(".txt"), "".join(lines), durable=False)
    write_text(root / ANNOTATIONS["yolo"], f"path: .\ntrain: images\nnames:\n{names}", durable=False)


def _write_masks(root: Path, images: list[AnnotatedImage]) -> None:
    folder, ids = root / ANNOTATIONS["masks"], {name: index for index, name in enumerate(NAMES, start=1)}
    table = np.concatenate([np.zeros((1, 3), np.uint8), _colors()])
    opaque = np.full((256, 4), 255, np.uint8)
    opaque[: len(table), :3] = table
    names = zip(("background", *NAMES), table.tolist(), strict=True)
    rows = [f"{name}:{','.join(map(str, color))}::\n" for name, color in names]
    write_text(folder / "labelmap.txt", "# label:color_rgb:parts:actions\n" + "".join(rows), durable=False)
    for image in images:
        mask = draw(image, ids, unlabeled=0).mask
        write_bytes(folder / image.name, encode_png(mask, table=opaque), durable=False)


ANNOTATIONS = {
    "coco": "coco/annotations.json",
    "labelme": "labelme",
    "cvat": "cvat/annotations.xml",
    "yolo": "data.yaml",
    "masks": "masks",
}
"""Where each format lies below the folder of the demo."""
WRITERS: dict[str, Callable[[Path, list[AnnotatedImage]], None]] = {
    "coco": partial(_write_one_file, "coco", CocoWriter),
    "labelme": _write_labelme,
    "cvat": partial(_write_one_file, "cvat", CvatWriter),
    "yolo": _write_yolo,
    "masks": _write_masks,
}
