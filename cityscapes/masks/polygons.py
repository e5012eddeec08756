"""Read `*_gtFine_polygons.json` into polygons in drawing order, with every limit checked before memory is spent.

Annotations may come from anywhere and are not trusted: sizes, counts and coordinates are bounded, numbers are
finite, and each error names the file and the place inside it as a JSON pointer such as `/objects/3/polygon/0`.
"""

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from cityscapes.errors import InputError
from cityscapes.files.untrusted import MAX_PIXELS, load_json_fast, read_at_most
from cityscapes.labels import CITYSCAPES, Label, LabelTable

MAX_FILE_BYTES = 8 * 2**20
MAX_SIDE = 16_384
MAX_OBJECTS = 10_000
MAX_POINTS = 20_000
MAX_COORDINATE = 1_000_000
MAX_CROSSINGS = 2**22
"""The most image rows that all edges of a file may cross in total, which takes time; real frames stay below 2**17."""
MAX_PAINTED = 2**32
"""The most pixels in the bounding boxes of all polygons in total; real frames stay below 2**24."""


class Polygon(NamedTuple):
    """One drawn object: its class, and its vertices as int32 (P, 2) in x, y pixels; they may lie outside the image.

    `is_group` marks several objects in one outline (`cargroup`).
    """

    label: Label
    points: np.ndarray
    is_group: bool = False


@dataclass(frozen=True, eq=False)
class Annotation:
    """The polygons of one frame in file order, where later ones cover earlier ones.

    `height` and `width` are in pixels. Deleted objects are left out. `warnings` says what was skipped, a line each.
    """

    height: int
    width: int
    polygons: tuple[Polygon, ...]
    warnings: tuple[str, ...] = ()


def read_polygons(path: str | Path, *, table: LabelTable = CITYSCAPES) -> Annotation:
    """Read and check one polygon file; raises InputError or MissingInputError with one line that names the place."""
    return parse_polygons(read_polygon_bytes(path), path, table=table)


def read_polygon_bytes(path: str | Path) -> bytes:
    """Read a polygon file's bytes, at most MAX_FILE_BYTES; raises InputError or MissingInputError."""
    too_large = f"larger than {MAX_FILE_BYTES >> 20} MB, the most a polygon file may hold"
    return read_at_most(Path(path), MAX_FILE_BYTES, missing="no such polygon file", too_large=too_large)


def parse_polygons(content: bytes, source: str | Path, *, table: LabelTable = CITYSCAPES) -> Annotation:
    """Check the bytes of a polygon file and return its annotation; `source` is what messages call it.

    Labels follow the official rule: an unknown name that ends in `group` counts as the name without it. Raises
    InputError for everything that cannot be drawn as specified.
    """
    with _collector_paused():
        return _parse(content, source, table)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause Python's collector of cyclic garbage.

    A file has thousands of small, short-lived lists without cycles, but their number makes the collector search the
    whole process again and again, which takes as long as making the masks.
    """
    was_running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_running:  # of concurrent threads at least the first found it running and restarts it
            gc.enable()


def _parse(content: bytes, source: str | Path, table: LabelTable) -> Annotation:
    document = load_json_fast(content, source)
    if type(document) is not dict:
        _refuse(source, "", f"expected an object with imgHeight, imgWidth and objects, found {_kind(document)}")
    height, width = (_side(document, key, source) for key in ("imgHeight", "imgWidth"))
    if height * width > MAX_PIXELS:
        _refuse(source, "/imgWidth", f"{width} x {height} is more than {MAX_PIXELS >> 20} million pixels")
    objects = _member(document, "objects", list, "", source)
    if len(objects) > MAX_OBJECTS:
        _refuse(source, "/objects", f"{len(objects)} objects, at most {MAX_OBJECTS} are allowed")
    polygons: list[Polygon] = []
    warnings: list[str] = []
    unknown: Counter[str] = Counter()
    outlines = _all_points(objects) or [None] * len(objects)
    for index, (item, points) in enumerate(zip(objects, outlines, strict=True)):
        polygon = _polygon(item, points, index, source, table, warnings, unknown)
        if polygon is not None:
            polygons.append(polygon)
    if unknown:
        listed = ", ".join(f"{name[:60]!r} x {count}" for name, count in unknown.most_common(20))
        more = f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
        raise InputError(
            f"{source}: labels that are not in the label table: {listed}{more}; correct the names, or give a table "
            "with --labels"
        )
    _refuse_endless_drawing(polygons, height, width, source)
    return Annotation(height, width, tuple(polygons), tuple(warnings))


def _refuse(source: str | Path, pointer: str, problem: str) -> NoReturn:
    raise InputError(f"{source}: {pointer or '/'}: {problem}")


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    shown = str(value)[:20] if type(value) is float else f"{value:.0e}" if _is_huge(value) else str(value)
    return names.get(type(value)) or f"the number {shown}"


def _is_huge(value: Any) -> bool:
    return type(value) is int and 10**12 < abs(value) < 10**300


def _member(item: Any, key: str, expected: type, pointer: str, source: str | Path) -> Any:
    if type(item) is not dict:
        _refuse(source, pointer, f"expected an object, found {_kind(item)}")
    if key not in item:
        _refuse(source, f"{pointer}/{key}", "is missing")
    if type(item[key]) is not expected:
        kind = {list: "a list", str: "a string"}[expected]
        _refuse(source, f"{pointer}/{key}", f"expected {kind}, found {_kind(item[key])}")
    return item[key]


def _side(document: dict[str, Any], key: str, source: str | Path) -> int:
    if key not in document:
        _refuse(source, f"/{key}", "is missing")
    value = document[key]
    if type(value) is not int or not 1 <= value <= MAX_SIDE:
        _refuse(source, f"/{key}", f"expected a whole number of pixels from 1 to {MAX_SIDE}, found {_kind(value)}")
    return value


def _polygon(
    item: Any,
    points: np.ndarray | None,
    index: int,
    source: str | Path,
    table: LabelTable,
    warnings: list[str],
    unknown: Counter[str],
) -> Polygon | None:
    """Check one object; return None when it is deleted, too short to draw, or of an unknown label (counted)."""
    name = item.get("label") if type(item) is dict else None
    if type(name) is not str:
        _member(item, "label", str, f"/objects/{index}", source)
    deleted = item.get("deleted", 0)
    if type(deleted) not in (int, bool) or deleted not in (0, 1):
        _refuse(source, f"/objects/{index}/deleted", f"expected 0 or 1, found {_kind(deleted)}")
    if points is None:
        pointer = f"/objects/{index}"
        points = _points(_member(item, "polygon", list, pointer, source), f"{pointer}/polygon", source)
    if deleted:
        return None
    label, is_group = table.by_name.get(name), False
    if label is None and name.endswith("group"):
        label, is_group = table.by_name.get(name.removesuffix("group")), True
    if label is None:
        unknown[name] += 1
        return None
    if len(points) < 2:
        warnings.append(f"{source}: /objects/{index}/polygon: skipped a {name!r} of {len(points)} points")
        return None
    return Polygon(label, points, is_group)


def _all_points(objects: list[Any]) -> list[np.ndarray] | None:
    """Return the points of all objects, checked in bulk for speed; None where one has to be checked by itself."""
    try:
        outlines = [item["polygon"] for item in objects]
        vertices = list(chain.from_iterable(outlines))
        numbers = list(chain.from_iterable(vertices))
        lists = set(map(type, outlines)) | set(map(type, vertices)) <= {list}
        if not lists or set(map(len, vertices)) - {2} or max(map(len, outlines), default=0) > MAX_POINTS:
            return None
        points, ends = _pixels(numbers), list(accumulate(map(len, outlines), initial=0))
        return [points[start:end] for start, end in pairwise(ends)]
    except (TypeError, KeyError, ValueError):
        return None


def _pixels(numbers: list[Any]) -> np.ndarray:
    """Convert x, y, x, y, ... to whole pixels, int32 (P, 2); raises ValueError for invalid coordinates."""
    if not set(map(type, numbers)) <= {int, float}:
        raise ValueError("not numbers")
    try:
        points = np.array(numbers, np.float64).reshape(-1, 2)
    except OverflowError as error:
        raise ValueError("too large") from error
    if not (np.abs(points) <= MAX_COORDINATE).all():
        raise ValueError("too far away, or not finite")
    return points.astype(np.int32)  # truncates, as the official tool does


def _points(polygon: list[Any], pointer: str, source: str | Path) -> np.ndarray:
    if len(polygon) > MAX_POINTS:
        _refuse(source, pointer, f"{len(polygon)} points, at most {MAX_POINTS} are allowed")
    for index, point in enumerate(polygon):
        if type(point) is not list or len(point) != 2 or not {type(value) for value in point} <= {int, float}:
            _refuse(source, f"{pointer}/{index}", "expected a point [x, y] of two numbers")
        if not all(abs(value) <= MAX_COORDINATE for value in point):
            _refuse(source, f"{pointer}/{index}", f"a coordinate lies beyond {MAX_COORDINATE} pixels or is not finite")
    return _pixels(list(chain.from_iterable(polygon)))


def _refuse_endless_drawing(polygons: list[Polygon], height: int, width: int, source: str | Path) -> None:
    """Bound the time that drawing takes: the rows that edges cross, and the pixels of all bounding boxes."""
    if not polygons:
        return
    points = np.concatenate([polygon.points for polygon in polygons]).clip(0, (width, height))
    ends = np.cumsum([len(polygon.points) for polygon in polygons])
    starts = np.concatenate([[0], ends[:-1]])
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = starts
    crossings = int(np.abs(points[following, 1] - points[:, 1]).sum())
    if crossings > MAX_CROSSINGS:
        _refuse(source, "/objects", f"edges cross {crossings} image rows in total, at most {MAX_CROSSINGS} are allowed")
    boxes = np.maximum.reduceat(points, starts) - np.minimum.reduceat(points, starts)
    painted = int(boxes.prod(axis=1, dtype=np.int64).sum())
    if painted > MAX_PAINTED:
        _refuse(source, "/objects", f"polygons span {painted} pixels in total, at most {MAX_PAINTED} are allowed")
