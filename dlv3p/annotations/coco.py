"""Read and write COCO's JSON: polygons, and run lengths as they are stored; only one image's annotations are in memory.

A file is scanned once for where each of its annotations begins and ends. Of those, the places stay in memory, 24 bytes
for each, and the text stays on the disk, so that a file of any size can be read.
"""

import json
import mmap
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.untrusted import load_json_fast, safe_reason, sanitize
from dlv3p.annotations.shapes import (
    AnnotatedImage,
    Label,
    Region,
    Shape,
    as_area,
    box,
    check_size,
    decode_runs,
    named_split,
    outline,
)

TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]', re.DOTALL)
LARGEST_ENTRY = 64 * 2**20
"""Bytes of one entry of a list, such as an annotation with its outlines."""
RELEASED = 16 * 2**20
"""Bytes of a file after whose reading their memory is released."""
LISTS = ("images", "annotations", "categories")


class CocoFile:
    """The images of one COCO file, in its order; `labels` are its categories by id, `problems` entries of no image."""

    def __init__(self, path: Path, subset: str = "") -> None:
        self.path, self.subset = path, subset
        self.problems: list[str] = []
        self._places: dict[str, array] = {name: array("q") for name in LISTS}
        try:
            self._file = open(path, "rb")  # noqa: SIM115 - its entries are read as long as this object lives
            with mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                for name, start, end in _entries(text, path):
                    if name in self._places:
                        self._places[name].extend((start, end))
        except FileNotFoundError as error:
            raise MissingInputError(f"{path}: no such file") from error
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: cannot be read ({safe_reason(error)}); copy it again") from error
        self._label_of = self._read_categories()
        self.labels = tuple(label for _, label in sorted(self._label_of.items()))
        self._sort_annotations()

    def __len__(self) -> int:
        return len(self._places["images"]) // 2

    def __iter__(self) -> Iterator[AnnotatedImage]:
        for index in range(len(self)):
            item = self._entry("images", index)
            name = str(item.get("file_name", ""))
            subset = self.subset or named_split(PurePosixPath(name).parent)
            try:
                yield self._image(index, item, name, subset)
            except InputError as error:
                yield AnnotatedImage(name, subset=subset, problem=str(error))

    def _image(self, index: int, item: dict[str, Any], name: str, subset: str) -> AnnotatedImage:
        if not name:
            raise InputError(f"{self.path}: /images/{index}/file_name is missing")
        size = check_size(item.get("width"), item.get("height"), f"{self.path}: /images/{index}")
        shapes, notes = [], []
        for number in self._order[self._begins[index] : self._begins[index + 1]].tolist():
            shape = self._shape(number, size)
            notes += ["outline of fewer than three points"] * (not shape.rings and shape.region is None)
            shapes += [shape] * bool(shape.rings or shape.region)
        return AnnotatedImage(name, size, tuple(shapes), subset, tuple(notes))

    def _shape(self, number: int, size: tuple[int, int]) -> Shape:
        item, where = self._entry("annotations", number), f"{self.path}: /annotations/{number}"
        category = item.get("category_id")
        if type(category) is not int or category not in self._label_of:
            known = ", ".join(map(str, list(self._label_of)[:8]))
            shown = repr(sanitize(category)) if isinstance(category, str) else sanitize(category)
            raise InputError(f"{where}: category_id {shown} is not in /categories ({known} ...)")
        label, outlines = self._label_of[category].name, item.get("segmentation")
        if isinstance(outlines, dict):
            return Shape(label, region=_region(outlines, size, where))
        if not outlines:
            corner = item.get("bbox")
            if type(corner) is not list or len(corner) != 4:
                raise InputError(f"{where}: has neither a segmentation nor a bbox of four numbers")
            x, y, width, height = outline(corner, where).ravel().tolist()
            return Shape(label, (box(x, y, x + width, y + height, where),), is_box=True)
        if type(outlines) is not list or set(map(type, outlines)) != {list}:
            raise InputError(f"{where}/segmentation: expected a list of outlines [x, y, x, y, ...], or run lengths")
        rings = [outline(numbers, f"{where}/segmentation/{part}") for part, numbers in enumerate(outlines)]
        return Shape(label, tuple(ring for ring in rings if len(ring) > 2))

    def _entry(self, name: str, index: int) -> dict[str, Any]:
        start, end = self._places[name][2 * index : 2 * index + 2]
        if end - start > LARGEST_ENTRY:
            raise InputError(f"{self.path}: /{name}/{index} is larger than {LARGEST_ENTRY >> 20} MB")
        text = os.pread(self._file.fileno(), end - start, start)
        return load_json_fast(text, f"{self.path}: /{name}/{index}", constants=True)  # numbers are checked later

    def _read_categories(self) -> dict[int, Label]:
        labels: dict[int, Label] = {}
        for index in range(len(self._places["categories"]) // 2):
            item, where = self._entry("categories", index), f"{self.path}: /categories/{index}"
            number, name, color = item.get("id"), item.get("name"), item.get("color")
            if type(number) is not int or type(name) is not str or not name:
                raise InputError(f"{where}: expected an id, a whole number, and a name")
            if number in labels:
                raise InputError(f"{where}: the id {number} is {sanitize(labels[number].name)} already")
            given = type(color) is list and len(color) == 3 and all(type(v) is int and 0 <= v < 256 for v in color)
            labels[number] = Label(name, tuple(color) if given else None)
        if not labels or not len(self):
            raise InputError(
                f"{self.path}: has {len(self)} images and {len(labels)} categories; COCO's format is an object with "
                "the lists images, annotations and categories"
            )
        return labels

    def _sort_annotations(self) -> None:
        """Sort the numbers of the annotations by image, those of one image in the order of the file.

        Raises InputError for one that cannot be read: of which image it is is unknown, and no mask may lack a shape.
        """
        ids = [self._entry("images", index).get("id") for index in range(len(self))]
        if wrong := [index for index, found in enumerate(ids) if type(found) not in (int, str)]:
            raise InputError(f"{self.path}: /images/{wrong[0]}: expected an id, a whole number")
        places = {found: index for index, found in enumerate(ids)}
        if len(places) < len(self):
            raise InputError(f"{self.path}: two of its images have the same id; each needs one of its own")
        images, strays = array("q"), 0
        for number in range(len(self._places["annotations"]) // 2):
            found = self._entry("annotations", number).get("image_id")
            place = places.get(found, -1) if type(found) in (int, str) else -1
            strays += place < 0
            images.append(place)
        if strays:
            self.problems.append(f"{self.path}: {strays} annotations have an image_id that no image has")
        found = np.frombuffer(images, np.int64) if len(images) else np.zeros(0, np.int64)
        self._order = np.argsort(found, kind="stable")
        self._begins = np.searchsorted(found[self._order], np.arange(len(self) + 1))


def _entries(text: mmap.mmap, path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield the list, the start and the end of each object that is an entry of a list of the outermost object."""
    depth, key, name, start, released = 0, b"", "", 0, 0
    begun: set[str] = set()
    for match in TOKEN.finditer(text):
        if match.start() - released > RELEASED and hasattr(mmap, "MADV_DONTNEED"):  # not on every system
            released = match.start()
            text.madvise(mmap.MADV_DONTNEED)  # what has been read need not stay in memory
        first = text[match.start()]
        if first == 0x22:  # a quote
            if depth == 1:
                key = match[0]
            continue
        if first in b"{[":
            if depth == 1:
                name = key.decode(errors="replace").strip('"') if first == 0x5B else ""
                if name in LISTS and name in begun:
                    raise InputError(f"{path}: has two lists {name}; merge them to one")
                begun.add(name)
            elif depth == 2 and first == 0x7B:
                start = match.start()
            depth += 1
        else:
            depth -= 1
            if depth == 2 and first == 0x7D and name:
                yield name, start, match.end()
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path}: is in UTF-16; save it as UTF-8")
    if depth or not text[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        raise InputError(f"{path}: no whole JSON object; copy it again, and unpack it first if it is an archive")


def _region(stored: dict[str, Any], size: tuple[int, int], where: str) -> Region:
    counts, (width, height) = stored.get("counts"), size
    if stored.get("size") != [height, width]:
        raise InputError(f"{where}: run lengths of size {sanitize(stored.get('size'))}; its image is {height}, {width}")
    if type(counts) is list and set(map(type, counts)) <= {int}:
        return Region(0, 0, repr(counts).encode(), partial(_by_columns, counts, height, width, where))
    if type(counts) is not str or not counts.isascii():
        raise InputError(f"{where}: its counts are not run lengths; expected a list of numbers or COCO's text")
    return Region(0, 0, counts.encode(), lambda: _by_columns(_unpacked(counts, where), height, width, where))


def _by_columns(counts: list[int], height: int, width: int, where: str) -> np.ndarray:
    return decode_runs(counts, width, height, where).T


def _unpacked(counts: str, where: str) -> list[int]:
    """Return the runs of COCO's text: five bits a character, lowest first, and differences from the last but one.

    pycocotools, which writes it, reads memory that nobody has written where a text is too short.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise InputError(f"{where}: its run lengths are damaged; export it again")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << 1 << (shift - 5)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise InputError(f"{where}: its run lengths break off; export it again")
    return runs


class CocoWriter:
    """Write a COCO file an image at a time into an open file; `finish` ends it."""

    def __init__(self, file: BinaryIO, class_names: Sequence[str], colors: np.ndarray) -> None:
        self._file, self._images, self._count = file, [], 0
        self._number_of = {name: index for index, name in enumerate(class_names, start=1)}
        shown = zip(self._number_of.items(), colors.tolist(), strict=True)
        categories = [{"id": number, "name": name, "color": color} for (name, number), color in shown]
        file.write(b'{"info": {}, "licenses": [], "categories": ' + json.dumps(categories).encode())
        file.write(b', "annotations": [')

    def add(self, image: AnnotatedImage) -> None:
        """Write the shapes of an image, which are outlines, in their order."""
        self._images.append({"id": len(self._images) + 1, "file_name": image.name, "width": image.size[0]})
        self._images[-1]["height"] = image.size[1]
        for shape in image.shapes:
            rings = [as_area(ring) for ring in shape.rings]
            low, high = np.concatenate(rings).min(axis=0), np.concatenate(rings).max(axis=0)
            self._count += 1
            entry = {
                "id": self._count,
                "image_id": len(self._images),
                "category_id": self._number_of[shape.label],
                "segmentation": [ring.ravel().tolist() for ring in rings],
                "area": float(sum(map(_area, rings))),
                "bbox": [*low.tolist(), *(high - low).tolist()],
                "iscrowd": 0,
            }
            self._file.write((b",\n" if self._count > 1 else b"\n") + json.dumps(entry).encode())

    def finish(self) -> None:
        """Write the list of images and the end of the file."""
        self._file.write(b'], "images": ' + json.dumps(self._images).encode() + b"}\n")


def _area(ring: np.ndarray) -> float:
    following = np.roll(ring, -1, axis=0)
    return abs(float((ring[:, 0] * following[:, 1] - following[:, 0] * ring[:, 1]).sum())) / 2
