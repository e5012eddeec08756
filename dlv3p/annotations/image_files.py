"""Read annotations that are a file per image: LabelMe's JSON, and masks of colors or ids."""

import base64
import binascii
import hashlib
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.images import decode_mask, ids_or_colors, read_file, stored_ids
from cityscapes.files.listing import walk
from cityscapes.files.untrusted import load_json_fast, read_at_most, safe_reason, sanitize
from dlv3p.annotations.shapes import (
    AnnotatedImage,
    Label,
    Region,
    Shape,
    box,
    check_size,
    ellipse,
    named_split,
    outline,
)
from dlv3p.data.fingerprints import result_folders
from dlv3p.data.folder import IMAGE_SUFFIXES, UNREAD_SUFFIXES

LARGEST_FILE = 256 * 2**20
"""Bytes of an annotation file of one image; LabelMe stores the image inside."""
WITHOUT_AREA = {"point", "points", "line", "linestrip"}
WITH_AREA = ("polygon", "rectangle", "oriented_rectangle", "circle", "mask")


class ImageIndex:
    """The images below a folder by name, without those below the folders `without`, and without results of `predict`.

    Their pictures have the names of the images that they were made of.
    """

    def __init__(self, folder: Path, without: Sequence[Path] = ()) -> None:
        if not folder.is_dir():
            raise MissingInputError(f"images={str(folder)!r}: no such folder; give the one that holds the images")
        self.folder, self._by_name, self.unread = folder, defaultdict(list), 0
        self._by_stem: dict[str, list[Path]] = {}
        paths = list(walk(folder))
        left_out = [path.resolve() for path in (*without, *result_folders(paths))]
        for path in paths:
            if any(path.resolve().is_relative_to(other) for other in left_out):
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES:
                self._by_name[_normal(path.name)].append(path)
            self.unread += path.suffix.lower() in UNREAD_SUFFIXES

    def __iter__(self) -> Iterator[Path]:
        return iter(sorted(path for paths in self._by_name.values() for path in paths))

    def name(self, path: Path) -> str:
        """Return the name of an image below the folder."""
        return path.relative_to(self.folder).as_posix()

    def find_named(self, path: Path, ends: Sequence[str] = ()) -> Path:
        """Return the image whose name is that of `path` up to the suffix, or up to one of `ends` before it.

        Raises MissingInputError for none, and InputError where several fit alike.
        """
        self._by_stem = self._by_stem or _by_stem(self)
        stem = _normal(path.stem)
        for name in (stem, _normal(path.name), *(stem.removesuffix(end) for end in ends if stem.endswith(end))):
            if found := self._by_stem.get(name, []):
                return _closest(found, [*path.parent.parts, name], str(path), whole=False)
        unread = f" ({self.unread} below it are of types that are not read: convert them to PNG)" if self.unread else ""
        raise MissingInputError(
            f"{path}: no image below {self.folder} has its name up to the suffix{unread}; give images="
        )

    def find(self, name: str) -> Path:
        """Return the image that an annotation calls `name`: the one whose path ends most like it.

        A name without a suffix, or with that of another type, stands for the image that is called so otherwise. Raises
        MissingInputError for none, and InputError where several fit alike.
        """
        wanted = _normal(name.replace("\\", "/")).split("/")
        found = self._by_name.get(wanted[-1], [])
        suffix = PurePosixPath(wanted[-1]).suffix.lower()
        if not found and (not suffix or suffix in IMAGE_SUFFIXES):
            with suppress(MissingInputError):
                return self.find_named(Path("/".join(wanted)))
        if not found:
            types = f"is not read as {suffix}; convert it to PNG or JPEG" if suffix in UNREAD_SUFFIXES else "is missing"
            raise MissingInputError(f"{sanitize(name)}: the image {types}; looked in {self.folder}, give images=")
        return _closest(found, wanted, sanitize(name))


def _by_stem(images: Iterable[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in images:
        found[_normal(path.stem)].append(path)
        found[_normal(path.name)].append(path)
    return found


def _closest(found: Sequence[Path], wanted: Sequence[str], asked: str, *, whole: bool = True) -> Path:
    """Return the path that ends most like the wanted one, the last part left out unless `whole`."""
    end = None if whole else -1
    alike = [_alike(_normal(path.as_posix()).split("/")[:end], wanted[:end]) for path in found]
    best = [path for path, count in zip(found, alike, strict=True) if count == max(alike)]
    if len(best) > 1:
        raise InputError(f"{asked}: {len(best)} images have this name, {best[0]} and {best[1]}; rename one")
    return best[0]


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _alike(parts: Sequence[str], wanted: Sequence[str]) -> int:
    """Return how many parts at the end of two paths are the same."""
    pairs = zip(reversed(parts), reversed(wanted), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(parts), len(wanted)))


class LabelMeFolder:
    """LabelMe's JSON files below a folder, or one of them; `labels` are those of its `labels.txt`, if there is one."""

    def __init__(self, path: Path) -> None:
        self.problems: list[str] = []
        self._paths = [path] if path.is_file() else sorted(p for p in walk(path) if p.suffix.lower() == ".json")
        self._folder = path.parent if path.is_file() else path
        listed = self._folder / "labels.txt"
        names = file_text(listed).splitlines() if listed.is_file() else []
        self.labels = tuple(Label(name.strip()) for name in names if name.strip())

    def __len__(self) -> int:
        return len(self._paths)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        for path in self._paths:
            subset = named_split(path.relative_to(self._folder).parent)
            try:
                yield self._image(path, subset)
            except InputError as error:
                yield AnnotatedImage(path.stem, subset=subset, problem=str(error))

    def _image(self, path: Path, subset: str) -> AnnotatedImage:
        content = file_bytes(path)
        item = load_json_fast(content, path)
        if type(item) is not dict or type(item.get("shapes")) is not list:
            raise InputError(f"{path}: not a LabelMe file, which has a list shapes and an imagePath")
        name = str(item.get("imagePath") or "").replace("\\", "/")
        if not name:
            raise InputError(f"{path}: /imagePath is missing")
        size = check_size(item.get("imageWidth"), item.get("imageHeight"), str(path))
        shapes, notes = [], []
        for number, entry in enumerate(item["shapes"]):
            shape = _labelme_shape(entry, f"{path}: /shapes/{number}")
            if isinstance(shape, str):
                notes.append(shape)
            else:
                shapes.append(shape)
        below = path.parent.relative_to(self._folder) / name
        return AnnotatedImage(_below(below.as_posix()), size, tuple(shapes), subset, tuple(notes))


def _labelme_shape(entry: Any, where: str) -> Shape | str:
    """Return a shape of LabelMe, or what it is that has no area."""
    if type(entry) is not dict or type(entry.get("label")) is not str or type(entry.get("points")) is not list:
        raise InputError(f"{where}: expected an object with label, points and shape_type")
    kind, label = entry.get("shape_type") or "polygon", entry["label"]
    if kind in WITHOUT_AREA:
        return str(kind)
    if kind not in WITH_AREA:
        raise InputError(f"{where}: shape_type {sanitize(kind)} is not known; allowed are {', '.join(WITH_AREA)}")
    points = outline([value for point in entry["points"] for value in _pair(point, where)], where)
    if kind == "polygon":
        return Shape(label, (points,)) if len(points) > 2 else "outline of fewer than three points"
    if kind == "oriented_rectangle" and len(points) == 4:
        return Shape(label, (points,), is_box=True)
    if len(points) != 2:
        raise InputError(f"{where}: a {sanitize(kind)} of {len(points)} points; expected two")
    (left, top), (right, bottom) = np.sort(points, axis=0).tolist()
    if kind == "rectangle":
        return Shape(label, (box(left, top, right, bottom, where),), is_box=True)
    if kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        return Shape(label, (ellipse(*points[0].tolist(), radius, radius, where),))
    return Shape(label, region=_labelme_mask(entry.get("mask"), round(left), round(top), where))


def _labelme_mask(text: Any, left: int, top: int, where: str) -> Region:
    try:
        content = base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise InputError(f"{where}/mask: not the base64 text of a PNG ({safe_reason(error)})") from error
    return Region(left, top, content, partial(_decode_labelme_mask, content, where))


def _decode_labelme_mask(content: bytes, where: str) -> np.ndarray:
    ids = ids_or_colors(content, f"{where}/mask")
    if not isinstance(ids, np.ndarray):
        raise InputError(f"{where}/mask: has colors; expected one channel of 0 and 1")
    return ids > 0


def _pair(point: Any, where: str) -> list[float]:
    if type(point) is not list or len(point) != 2:
        raise InputError(f"{where}: expected points [x, y]")
    return point


def _below(name: str) -> str:
    """Return a name without the `..` at its begin: images of LabelMe may lie beside the folder of its files."""
    return "/".join(part for part in posixpath.normpath(name).split("/") if part not in ("..", "."))


class MaskFolder:
    """Masks as PNG, named as their images: a label is a color of a mask, or the number of its one channel.

    `labelmap.txt` (CVAT, VOC) or `label_colors.txt` (CamVid) beside them names the colors; else a color is called as
    #ff8000, and an id as 7. An image may have more to its name: the mask of a.jpg is a.png, a_mask.png or a_L.png.
    """

    def __init__(self, path: Path, images: ImageIndex) -> None:
        self.problems: list[str] = []
        self._images, folders = images, mask_folders(path)
        files = sorted(found for folder in folders for found in walk(folder))
        self._masks = [found for found in files if found.suffix.lower() == ".png"]
        if others := [found for found in files if found.suffix.lower() in OTHER_MASKS]:
            self.problems += [f"{others[0]}: is no PNG, and so are {len(others) - 1} more; masks are stored as PNG"]
        self._folder = folders[0] if len(folders) == 1 else path
        self._name_of = _read_colors([*folders, path, path.parent])
        self.labels = tuple(Label(name, color) for color, name in self._name_of.items())

    def __len__(self) -> int:
        return len(self._masks)

    def __iter__(self) -> Iterator[AnnotatedImage]:
        for path in self._masks:
            below = path.relative_to(self._folder)
            subset = named_split(below.parent)
            try:
                name = self._images.name(self._images.find_named(path, MASK_ENDS))
                subset = subset or named_split(PurePosixPath(name).parent)
                size, shapes = self._shapes(path)
                yield AnnotatedImage(name, size, shapes, subset)
            except InputError as error:
                yield AnnotatedImage(below.as_posix(), subset=subset, problem=str(error))

    def _shapes(self, path: Path) -> tuple[tuple[int, int], tuple[Shape, ...]]:
        content = read_file(path)
        digest = hashlib.sha256(content).digest()
        mask = decode_mask(content, str(path))
        if mask.info["bits"] > 8:
            raise InputError(f"{path}: has 16 bits a pixel, and ids and colors have 8; store it with 8 bits")
        ids = stored_ids(mask)
        if ids is not None and not (mask.mode == "P" and self._name_of):
            codes, names = ids.astype(np.int32), {index: str(index) for index in range(256)}
        else:
            codes = (np.asarray(mask.convert("RGB")).astype(np.int32) << np.array([16, 8, 0])).sum(axis=2)
            known = {red << 16 | green << 8 | blue: name for (red, green, blue), name in self._name_of.items()}
            names = {code: known.get(code, f"#{code:06x}") for code in np.unique(codes).tolist()}
        shapes = [
            Shape(names[code], region=Region(0, 0, digest + str(code).encode(), partial(np.equal, codes, code)))
            for code in np.unique(codes).tolist()
        ]
        return (mask.width, mask.height), tuple(shapes)


def mask_folders(path: Path) -> list[Path]:
    """Return the folders of the masks: those below `path` that are called so, or `path` itself."""
    kinds = (sorted(found for found in path.glob(name) if found.is_dir()) for name in MASK_FOLDERS)
    return next((folders for folders in kinds if folders), [path])


MASK_FOLDERS = ("SegmentationClass", "masks", "*annot")
"""Where masks lie beside their images: in exports of VOC's kind, in plain folders, and of CamVid's kind, by split."""
OTHER_MASKS = (*IMAGE_SUFFIXES[:-1], *UNREAD_SUFFIXES)
"""Suffixes of what may be meant as a mask; JPEG changes ids and colors."""
MASK_ENDS = ("_mask", "-mask", "_L", "_label", "_labels", "_gt", "_seg")
"""What names of masks have behind those of their images."""


def _read_colors(places: Sequence[Path]) -> dict[tuple[int, int, int], str]:
    """Return names by color from the table beside masks; none where there is no table."""
    for place in places:
        for file, pattern in COLOR_TABLES.items():
            if (place / file).is_file():
                lines = file_bytes(place / file).decode("utf-8-sig", "replace").splitlines()
                found = [re.fullmatch(pattern, line.strip()) for line in lines if not line.startswith("#")]
                rows = [match.groupdict() for match in found if match]
                if not rows:
                    raise InputError(f"{place / file}: names no color; a line of it is 'name:red,green,blue::'")
                return {(int(row["r"]), int(row["g"]), int(row["b"])): row["name"].strip() for row in rows}
    return {}


COLOR_TABLES = {
    "labelmap.txt": r"(?P<name>[^:]+):(?P<r>\d{1,3}),(?P<g>\d{1,3}),(?P<b>\d{1,3}):.*",
    "label_colors.txt": r"(?P<r>\d{1,3})\s+(?P<g>\d{1,3})\s+(?P<b>\d{1,3})\s+(?P<name>.+)",
}
"""Tables of colors by the name of their file, and the pattern of a line: of CVAT and VOC, and of CamVid."""


def file_text(path: Path) -> str:
    """Return the text of an annotation file; raises InputError, too, where it is not UTF-8."""
    try:
        return file_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error


def file_bytes(path: Path) -> bytes:
    """Return the bytes of an annotation file; raises InputError for one that is larger than any, or cannot be read."""
    return read_at_most(path, LARGEST_FILE, missing="no such file", too_large=f"more than {LARGEST_FILE >> 20} MB")
