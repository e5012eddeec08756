"""Annotated shapes of any tool, and their raster: outlines by the rule of the official masks, stored pixels as is.

Shapes are drawn in order, so that later ones cover earlier ones, and what they cover is counted.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from cityscapes.errors import InputError
from cityscapes.files.untrusted import MAX_PIXELS, sanitize
from cityscapes.masks.polygons import MAX_COORDINATE, MAX_OBJECTS, MAX_PAINTED, MAX_POINTS, MAX_SIDE

RULE = 1
"""The number of the rules of this module; it grows when the same shapes become other pixels."""


NAMED_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"} | {
    "test": "test",
    "testing": "test",
}
"""What folders and files of a split are called, and how the suite calls that split."""


def named_split(path: PurePath) -> str:
    """Return the split that a folder or a file in a path is named after, such as instances_val2017.json; "" if none."""
    for part in reversed(path.parts):
        words = re.findall(r"[a-z]+", part.lower())
        found = [NAMED_SPLITS[word] for word in words if word in NAMED_SPLITS]
        if len(found) == 1:
            return found[0]
    return ""


class Label(NamedTuple):
    """A class as an annotation names it, and its RGB color, if it has one."""

    name: str
    color: tuple[int, int, int] | None = None


class Region(NamedTuple):
    """Pixels that are stored, not drawn: `decode()` returns them, bool (h,w), and `left`, `top` say where they lie.

    `key` are bytes that stand for them.
    """

    left: int
    top: int
    key: bytes
    decode: Callable[[], np.ndarray]


class Shape(NamedTuple):
    """One annotated object: the name of its class, and outlines, float64 (P,2) in x, y pixels, or stored pixels.

    The outlines of one object are filled one after another; with `nested`, one that lies within what is filled is a
    hole. `order` is the depth at which it is drawn; among equals, file order counts.
    """

    label: str
    rings: tuple[np.ndarray, ...] = ()
    region: Region | None = None
    is_box: bool = False
    nested: bool = False
    order: int = 0


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """What an annotation says of one image: its file's name, (width, height), and shapes in drawing order.

    `subset` is the split that the annotation itself puts it in. Where `problem` is not empty, it says in one line why
    the image cannot be used; `notes` says what was left out.
    """

    name: str
    size: tuple[int, int] = (0, 0)
    shapes: tuple[Shape, ...] = ()
    subset: str = ""
    notes: tuple[str, ...] = ()
    problem: str = ""

    def digest(self) -> bytes:
        """Return bytes that stand for all that the raster depends on."""
        content = hashlib.sha256(repr((RULE, self.size)).encode())
        for shape in self.shapes:
            rings = [ring.tobytes() for ring in shape.rings]
            key = shape.region[:3] if shape.region else None
            content.update(repr((shape.label, rings, key, shape.nested, shape.order)).encode())
        return content.digest()


class Drawing(NamedTuple):
    """A mask of ids, uint8 (H,W); pixels by (covered label, covering label); labels of which nothing is left.

    `outside` counts, by label, shapes without a pixel in the image.
    """

    mask: np.ndarray
    covered: Counter[tuple[str, str]]
    hidden: Counter[str]
    outside: Counter[str]


def check_size(width: object, height: object, where: str) -> tuple[int, int]:
    """Return the size of an annotated image, (width, height); raises InputError where no mask can have it."""
    for value in (width, height):
        if type(value) is not int or not 1 <= value <= MAX_SIDE:
            raise InputError(f"{where}: the image's size is {sanitize(width)} x {sanitize(height)}; expected pixels")
    if width * height > MAX_PIXELS:
        raise InputError(f"{where}: {width} x {height} is more than {MAX_PIXELS >> 20} million pixels; cut it to tiles")
    return width, height


def outline(numbers: Sequence[float], where: str) -> np.ndarray:
    """Return an outline, float64 (P,2), from x, y, x, y, ...; raises InputError for what no outline can be."""
    if len(numbers) % 2:
        raise InputError(f"{where}: an odd number of values, {len(numbers)}; expected x y x y ...")
    if len(numbers) > 2 * MAX_POINTS:
        raise InputError(f"{where}: {len(numbers) // 2} points; at most {MAX_POINTS} are allowed")
    if not set(map(type, numbers)) <= {int, float}:
        raise InputError(f"{where}: coordinates that are not numbers; expected x y x y ...")
    points = np.array(numbers, np.float64).reshape(-1, 2)
    if not (np.abs(points) <= MAX_COORDINATE).all():
        raise InputError(f"{where}: a coordinate is not finite, or beyond {MAX_COORDINATE} pixels")
    return points


def as_area(ring: np.ndarray) -> np.ndarray:
    """Return an outline with three points, as formats want, that gives the same pixels as one of fewer."""
    return ring if len(ring) > 2 else ring[[0, 0, -1]]


def box(left: float, top: float, right: float, bottom: float, where: str, rotation: float = 0.0) -> np.ndarray:
    """Return the outline of a rectangle, turned clockwise about its center by `rotation` degrees."""
    corners = outline([left, top, right, top, right, bottom, left, bottom], where)
    if not rotation:
        return corners
    center, angle = corners.mean(axis=0), math.radians(rotation)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (corners - center) @ turn + center


def ellipse(x: float, y: float, radius_x: float, radius_y: float, where: str, rotation: float = 0.0) -> np.ndarray:
    """Return the outline of an ellipse with a vertex for about every pixel of its circumference."""
    outline([x, y, radius_x, radius_y], where)
    count = int(min(max(8, 2 * math.pi * max(radius_x, radius_y)), MAX_POINTS))
    angles = np.arange(count) * 2 * np.pi / count
    points = np.stack([np.cos(angles) * radius_x, np.sin(angles) * radius_y], axis=1)
    turn = math.radians(rotation)
    points = points @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    return points + (x, y)


def decode_runs(runs: Sequence[int], height: int, width: int, where: str) -> np.ndarray:
    """Return pixels, bool (height,width), from runs along rows of 0 and 1 by turns; raises InputError."""
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise InputError(f"{where}: its runs are {sum(runs)} pixels, its size is {width} x {height}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, np.array(runs, np.int64)).reshape(height, width)


def without_boxes(image: AnnotatedImage, boxes: str) -> AnnotatedImage:
    """Return the image with its rectangles drawn, left out, or as a problem: `boxes` is draw, skip or refuse."""
    count = sum(shape.is_box for shape in image.shapes)
    if not count or boxes == "draw":
        return image
    if boxes == "skip":
        shapes = tuple(shape for shape in image.shapes if not shape.is_box)
        return replace(image, shapes=shapes, notes=(*image.notes, *["rectangle"] * count))
    problem = f"{image.name}: has {count} x rectangle, which outlines no object; choose boxes=draw or boxes=skip"
    return replace(image, shapes=(), problem=problem)


def draw(image: AnnotatedImage, ids: Mapping[str, int | None], *, unlabeled: int, by_area: bool = False) -> Drawing:
    """Draw the shapes of an image by the id of each label; those with None are left out.

    `unlabeled` is the id of pixels outside all shapes. With `by_area`, larger shapes are drawn first, else those of
    lower `order`. Raises InputError for stored pixels that do not fit, and for shapes that would take minutes.
    """
    brush = _Brush(image)
    shapes = sorted((shape for shape in image.shapes if ids[shape.label] is not None), key=lambda shape: shape.order)
    if by_area:
        areas = [int(brush.pixels(shape)[1].sum()) for shape in shapes]
        shapes = [shapes[index] for index in np.argsort(-np.array(areas, np.int64), kind="stable")]
    width, height = image.size
    mask, number_of = np.full((height, width), unlabeled, np.uint8), np.zeros((height, width), np.uint16)
    covered: Counter[tuple[str, str]] = Counter()
    outside: set[int] = set()
    for number, shape in enumerate(shapes, start=1):
        place, pixels = brush.pixels(shape)
        if not pixels.any():
            outside.add(number)
        below, id_ = number_of[place], ids[shape.label]
        differs = pixels & (below > 0) & (mask[place] != id_)
        for lower, count in enumerate(np.bincount(below[differs], minlength=1).tolist()):
            if count:
                covered[shapes[lower - 1].label, shape.label] += count
        mask[place][pixels] = id_
        below[pixels] = number
    left = np.bincount(number_of.ravel(), minlength=len(shapes) + 1)
    lost = [number for number, count in enumerate(left[1:].tolist(), start=1) if not count]
    hidden, beyond = (Counter(shapes[n - 1].label for n in lost if (n in outside) == out) for out in (False, True))
    return Drawing(mask, covered, hidden, beyond)


class _Brush:
    """Find the pixels of single shapes on one raster, of which only their bounding boxes are touched."""

    def __init__(self, image: AnnotatedImage) -> None:
        self.image, (width, height) = image, image.size
        if len(image.shapes) > MAX_OBJECTS:
            raise InputError(f"{image.name}: {len(image.shapes)} shapes; at most {MAX_OBJECTS} are allowed")
        self.raster, self.budget = np.zeros((height, width), np.uint8), 2 * MAX_PAINTED

    def pixels(self, shape: Shape) -> tuple[tuple[slice, slice], np.ndarray]:
        """Return the slices of rows and columns in which a shape lies, and its pixels there, bool."""
        return self._stored(shape.region) if shape.region else self._filled(shape)

    def _stored(self, region: Region) -> tuple[tuple[slice, slice], np.ndarray]:
        pixels, (width, height) = region.decode(), self.image.size
        bottom, right = region.top + pixels.shape[0], region.left + pixels.shape[1]
        if min(region.left, region.top) < 0 or right > width or bottom > height:
            raise InputError(
                f"{self.image.name}: stored pixels of {pixels.shape[1]} x {pixels.shape[0]} at {region.left}, "
                f"{region.top} do not fit into {width} x {height}"
            )
        return (slice(region.top, bottom), slice(region.left, right)), pixels

    def _filled(self, shape: Shape) -> tuple[tuple[slice, slice], np.ndarray]:
        rings = [np.floor(ring + 0.5).astype(np.int32) for ring in shape.rings]
        together = np.concatenate(rings)
        width, height = self.image.size
        left, top = np.maximum(together.min(axis=0), 0).tolist()
        right, bottom = np.minimum(together.max(axis=0) + 1, (width, height)).tolist()
        place = slice(top, max(bottom, top)), slice(left, max(right, left))
        window = self.raster[place]
        self.budget -= window.size * len(rings)
        if self.budget < 0:
            raise InputError(f"{self.image.name}: its shapes span more than {MAX_PAINTED} pixels in total")
        for ring in rings:
            self._fill(ring, window, nested=shape.nested)
        pixels = window > 0
        window[...] = 0
        return place, pixels

    def _fill(self, ring: np.ndarray, window: np.ndarray, *, nested: bool) -> None:
        from cityscapes.masks.draw import FILL_POLYGONS  # loads numba, which reading does not need

        before = window.copy() if nested and window.any() else None
        ends, value = np.array([len(ring)], np.int64), np.array([2], np.uint8)
        FILL_POLYGONS["uint8"](self.raster, np.ascontiguousarray(ring), ends, value)
        if before is not None:
            ours = window == 2
            if before[ours].all():  # a hole
                np.copyto(window, 0, where=ours)
        np.minimum(window, 1, out=window)


def split_at_bridges(ring: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the parts of an outline that joins several by lines between them, which it follows there and back.

    Converters to YOLO's text join the parts of an object so. Where the parts touch, the outline is one, as it is.
    """
    points = [tuple(point) for point in ring.tolist()]
    edges = Counter((a, b) for a, b in zip(points, [*points[1:], points[0]], strict=True) if a != b)
    single = {(a, b): count - edges[b, a] for (a, b), count in edges.items() if count > edges[b, a]}
    following = {a: b for a, b in single}
    if len(single) == len(edges) or len(following) < len(single) or max(single.values(), default=0) > 1:
        return (ring,)
    parts = []
    while following:
        at, part = next(iter(following)), []
        while at in following:
            part.append(at)
            at = following.pop(at)
        parts.append(np.array(part, np.float64))
    return tuple(parts) if len(parts) > 1 and min(map(len, parts)) > 2 else (ring,)
