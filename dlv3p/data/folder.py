"""Read a plain folder of images and masks with a CSV table of its classes: the layout for your own data.

my_data/
  classes.csv                     id,name,red,green,blue: ids from 0, a row each; colors are optional
  images/train/*.jpg (or .png)    any names, also in subfolders
  masks/train/*.png               the same names: one channel of ids (255 is ignored), or the colors of classes.csv
  images/val/ masks/val/ ...      further splits; a split without masks can be predicted, not trained on
"""

import csv
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.images import open_image
from cityscapes.labels import IGNORE
from dlv3p.data.classes import voc_palette
from dlv3p.data.pairs import Classes, Pair, PairedSplit, inside, printable

HEADING = "id,name,red,green,blue"

Color = tuple[int, int, int]


class ClassTable(NamedTuple):
    """The classes, and the id of each given color in a mask of colors; 255 is ignored."""

    classes: Classes
    id_of_color: dict[Color, int]


class _Row(NamedTuple):
    where: str
    id: int
    name: str
    color: Color | None


def read_class_table(path: Path) -> ClassTable:
    """Read the table; raises InputError with the line for ids that do not run from 0 and duplicate names or colors.

    A row with id 255 gives a color of ignored pixels and is not a class. Classes without a color get one.
    """
    rows = _read_rows(path)
    classes = sorted((row for row in rows if row.id != IGNORE), key=lambda row: row.id)
    colors = np.zeros((256, 3), np.uint8)
    for expected, row in enumerate(classes):
        if row.id != expected:
            raise InputError(f"{row.where}: id {row.id}, expected {expected}; ids run from 0 without a gap")
        colors[row.id] = row.color or voc_palette()[row.id + 1]
    _refuse_repeated(classes)
    id_of_color: dict[Color, int] = {}
    for row in rows:
        if row.color is not None and id_of_color.setdefault(row.color, row.id) != row.id:
            raise InputError(f"{row.where}: the color {row.color} already belongs to another class")
    return ClassTable(Classes(tuple(row.name for row in classes), colors), id_of_color)


def _read_rows(path: Path) -> list[_Row]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            lines.fieldnames = [name.strip().lower() for name in lines.fieldnames or []]
            if not {"id", "name"} <= set(lines.fieldnames):
                raise InputError(f"{path}: its first line must be {HEADING} (the colors are optional)")
            rows = [_row(f"{path}, line {lines.line_num}", fields) for fields in lines]
    except FileNotFoundError as error:
        raise MissingInputError(
            f"{path}: no such file; write one line per class under the heading {HEADING}"
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a table of classes ({error}); save it as CSV in UTF-8") from error
    if sum(row.id != IGNORE for row in rows) < 2:
        raise InputError(f"{path}: names fewer than two classes")
    return rows


def _row(where: str, fields: dict[str, str | None]) -> _Row:
    name = (fields.get("name") or "").strip()
    if not name:
        raise InputError(f"{where}: the name is empty")
    texts = [(fields.get(key) or "").strip() for key in ("red", "green", "blue")]
    if any(texts) and not all(texts):
        raise InputError(f"{where}: give red, green and blue together, or none of them")
    values = [_number(text, f"{where}: a color") for text in texts if text]
    return _Row(
        where, _number(fields.get("id"), f"{where}: id"), name, (values[0], values[1], values[2]) if values else None
    )


def _number(text: str | None, what: str) -> int:
    if text is None or not text.strip().isdecimal() or int(text) > 255:
        raise InputError(f"{what} is {text!r}; expected a whole number from 0 to 255")
    return int(text)


def _refuse_repeated(classes: list[_Row]) -> None:
    seen: set[str] = set()
    for row in classes:
        if row.name in seen:
            raise InputError(f"{row.where}: duplicate name {row.name!r}; give each class its own")
        seen.add(row.name)


CLASSES_FILE = "classes.csv"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class FolderSplit(PairedSplit):
    """One split of a plain folder; `labeled` requires a mask for each image and lists missing ones."""

    def __init__(self, root: Path, split: str, *, labeled: bool) -> None:
        images, masks = _files(root, "images", split, IMAGE_SUFFIXES), _files(root, "masks", split, (".png",))
        if not images:
            raise MissingInputError(f"{root / 'images' / split}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
        if labeled:
            _refuse_unpaired(root, split, images, masks)
        folder = root / "masks" / split
        pairs = [Pair(printable(name), path, masks.get(name, folder / f"{name}.png")) for name, path in images.items()]
        self._table = read_class_table(root / CLASSES_FILE)
        orphans = sorted(map(printable, masks.keys() - images.keys()))
        super().__init__(root, split, pairs, self._table.classes, orphans=orphans)

    def read_mask(self, path: Path) -> np.ndarray:
        """Read ids as they are stored, or look them up by the colors of `classes.csv` in a mask of three channels."""
        image = open_image(path)
        if image.mode in ("L", "P"):
            return np.array(image)
        if image.mode not in ("RGB", "RGBA"):
            raise InputError(f"{path}: has mode {image.mode}; a mask holds one channel of ids, or RGB colors")
        return self._ids_of_colors(np.asarray(image.convert("RGB")), path)

    def _ids_of_colors(self, pixels: np.ndarray, path: Path) -> np.ndarray:
        by_code = {
            red << 16 | green << 8 | blue: index for (red, green, blue), index in self._table.id_of_color.items()
        }
        codes = np.array(sorted(by_code))
        ids = np.array([by_code[code] for code in codes], np.uint8)
        wanted = (pixels.astype(np.int32) << np.array([16, 8, 0])).sum(axis=2)
        places = np.searchsorted(codes, wanted).clip(max=len(codes) - 1)
        unknown = wanted[codes[places] != wanted]
        if unknown.size:
            color = int(unknown[0])
            raise InputError(
                f"{path}: {unknown.size} pixels have colors that are not in {CLASSES_FILE}, the first RGB "
                f"{color >> 16}, {color >> 8 & 255}, {color & 255}; add a row (id {IGNORE} ignores it) or store ids"
            )
        return ids[places]


def is_folder(root: Path) -> bool:
    """Return whether a folder has this layout."""
    return (root / "images").is_dir()


def _files(root: Path, kind: str, split: str, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """List files by name without suffix, sorted; raises InputError when two differ only in the suffix."""
    folder = root / kind / split
    if kind == "images" and not folder.is_dir():
        found = sorted(entry.name for entry in folder.parent.iterdir() if entry.is_dir())
        raise MissingInputError(f"{folder}: no such split; {folder.parent} holds {', '.join(found) or 'none'}")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            found[path.relative_to(folder).with_suffix("").as_posix()].append(inside(root, path))
    for paths in found.values():
        if len(paths) > 1:
            raise InputError(f"{paths[1]}: {paths[0].name} has the same name; remove one, or rename it with its mask")
    return {name: paths[0] for name, paths in found.items()}


def _refuse_unpaired(root: Path, split: str, images: dict[str, Path], masks: dict[str, Path]) -> None:
    unpaired = {
        f"images without a mask in masks/{split}": sorted(map(printable, images.keys() - masks.keys())),
        f"masks without an image in images/{split}": sorted(map(printable, masks.keys() - images.keys())),
    }
    texts = [
        f"{len(names)} {what}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
        for what, names in unpaired.items()
        if names
    ]
    if texts:
        raise InputError(f"{root}: {'; '.join(texts)}; an image and its mask have the same name up to the suffix")
