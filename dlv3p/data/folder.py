"""Read a plain folder of images and masks with a CSV table of its classes: the layout for your own data.

my_data/
  classes.csv                     id,name,red,green,blue: ids from 0, a row each; colors are optional
  images/train/*.jpg (or .png)    any names, also in subfolders
  masks/train/*.png               the same names: one channel of ids (255 is ignored), the same ids in three equal
                                  channels, or the colors of classes.csv
  images/val/ masks/val/ ...      further splits; a split without masks can be predicted, not trained on

Hidden files and folders are left out. Links are followed within the data set. Names are compared whatever their Unicode
form.
"""

import csv
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.images import decode_mask, read_file, stored_ids
from cityscapes.files.listing import is_shown_folder, walk
from cityscapes.files.untrusted import regular, sanitize
from cityscapes.labels import IGNORE
from dlv3p.data.classes import default_color, voc_palette
from dlv3p.data.pairs import Classes, Pair, PairedSplit, inside, printable

HEADING = "id,name,red,green,blue"

IGNORED_NAMES = ("ignore", "ignored", "void", "unlabeled", "unlabelled", "unknown", "border", "boundary", "nothing")
"""What a row with id 255 may be called that gives no color."""

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

    A row with id 255 gives a color of ignored pixels and is not a class; without a color it may only say so. Classes
    without a color get one.
    """
    rows = _read_rows(path)
    for row in rows:
        if row.id == IGNORE and row.color is None and row.name.lower() not in IGNORED_NAMES:
            raise InputError(
                f"{row.where}: {IGNORE} marks ignored pixels and cannot be the class {row.name!r}; store and list the "
                f"class under the next id, or call the row one of {', '.join(IGNORED_NAMES)}"
            )
    classes = sorted((row for row in rows if row.id != IGNORE), key=lambda row: row.id)
    colors = np.zeros((256, 3), np.uint8)
    for expected, row in enumerate(classes):
        if row.id != expected:
            raise InputError(f"{row.where}: id {row.id}, expected {expected}; ids run from 0 without a gap")
        colors[row.id] = row.color or default_color(row.id, row.name)
    colors[IGNORE] = next(
        (row.color for row in rows if row.id == IGNORE and row.color), _ignored_color(colors, classes)
    )
    _refuse_repeated(classes)
    id_of_color: dict[Color, int] = {}
    for row in rows:
        if row.color is not None and id_of_color.setdefault(row.color, row.id) != row.id:
            raise InputError(f"{row.where}: the color {row.color} already belongs to another class")
    return ClassTable(Classes(tuple(row.name for row in classes), colors), id_of_color)


def _ignored_color(colors: np.ndarray, classes: Sequence[_Row]) -> Color:
    """Return black, or the cream of PASCAL VOC where a class is black: the two must not look the same."""
    black = any(not colors[row.id].any() for row in classes)
    return tuple(int(value) for value in voc_palette()[IGNORE]) if black else (0, 0, 0)


def _read_rows(path: Path) -> list[_Row]:
    try:
        with open(regular(path), newline="", encoding="utf-8-sig") as file:
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
    if not name.isprintable():
        raise InputError(f"{where}: the name {sanitize(name)} holds a character that cannot be shown; use letters")
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
MASK_SUFFIXES = (".png",)
UNREAD_SUFFIXES = (".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".ppm", ".pgm", ".avif", ".heic", ".jfif", ".npy")
"""The suffixes of images that are not read; they are counted and named."""


class FolderSplit(PairedSplit):
    """One split of a plain folder, whose masks hold ids or the colors of its class table."""

    def __init__(self, root: Path, split: str, pairs: Sequence[Pair], table: ClassTable, **more: Sequence[str]) -> None:
        super().__init__(root, split, pairs, table.classes, **more)
        self._table = table

    def read_mask(self, path: Path) -> np.ndarray:
        """Read ids as they are stored, or look them up by the colors of `classes.csv` in a mask of three channels.

        Without colors in the table, three equal channels are ids. Raises InputError where the colors of a palette, or
        a white that is stored as gray, belong to another class than the ids.
        """
        mask = decode_mask(read_file(path), str(path))
        ids = stored_ids(mask)
        if ids is not None:
            self._refuse_contradiction(ids, mask.getpalette("RGB") if mask.mode == "P" else None, path)
            return ids
        if mask.mode not in ("RGB", "RGBA"):
            raise InputError(f"{path}: has mode {mask.mode}; a mask holds one channel of ids, or RGB colors")
        pixels = np.asarray(mask.convert("RGB"))
        if self._table.id_of_color:
            return self._ids_of_colors(pixels, path)
        if (pixels != pixels[..., :1]).any():
            raise InputError(
                f"{path}: holds RGB colors and {CLASSES_FILE} has none; add the columns red,green,blue to the table, "
                "or store ids in one channel"
            )
        return np.ascontiguousarray(pixels[..., 0])

    def _refuse_contradiction(self, ids: np.ndarray, palette: list[int] | None, path: Path) -> None:
        """Raise InputError where the colors under which ids are stored are those of other classes."""
        of_color, found = self._table.id_of_color, np.unique(ids).tolist()
        for index in found if palette and of_color else ():
            color = tuple(palette[3 * index : 3 * index + 3])
            wanted = of_color.get(color, index)
            if wanted != index and len(set(color)) > 1:  # the gray ramp of a palette says nothing
                raise InputError(
                    f"{path}: its palette shows id {index} ({self._called(index)}) in the color {color} of id {wanted} "
                    f"({self._called(wanted)}) in {CLASSES_FILE}; correct the table, or store the ids of the table"
                )
        white = of_color.get((IGNORE, IGNORE, IGNORE), IGNORE)
        if white != IGNORE and IGNORE in found and all((gray, gray, gray) in of_color for gray in found):
            raise InputError(
                f"{path}: holds {IGNORE}, which in one channel marks ignored pixels, and {CLASSES_FILE} shows id "
                f"{white} ({self._called(white)}) in white; store {white} for it, or the mask as RGB colors"
            )

    def _called(self, index: int) -> str:
        return self.class_names[index] if index < self.num_classes else "ignored" if index == IGNORE else "no class"

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


def open_folder(root: Path, split: str, *, labeled: bool) -> FolderSplit:
    """Open one split of a plain folder; `labeled` requires a mask for each image and lists missing ones."""
    listed, stored = _Listing(root, "images", split), _Listing(root, "masks", split)
    images, masks = listed.files, stored.files
    unread = [text for text in (listed.unread(), stored.unread()) if text]
    if not images:
        more = f"; {'; '.join(unread)}" if unread else ""
        raise MissingInputError(f"{root / 'images' / split}: holds no image ({', '.join(IMAGE_SUFFIXES)}){more}")
    if labeled:
        _refuse_unpaired(root, split, images, masks, unread)
    folder = root / "masks" / split
    names = {key: path.relative_to(listed.folder).with_suffix("").as_posix() for key, path in images.items()}
    pairs = [Pair(printable(name), images[key], masks.get(key, folder / f"{name}.png")) for key, name in names.items()]
    orphans = sorted(map(printable, masks.keys() - images.keys()))
    table = read_class_table(root / CLASSES_FILE)
    return FolderSplit(root, split, pairs, table, orphans=orphans, unread=unread)


def is_folder(root: Path) -> bool:
    """Return whether a folder has this layout."""
    return (root / "images").is_dir()


class _Listing:
    """The images or masks of a split, `files` by name without suffix and in one Unicode form, in the order of paths.

    Raises InputError when two files differ only in the suffix or in the Unicode form of their names.
    """

    def __init__(self, root: Path, kind: str, split: str) -> None:
        self.folder = root / kind / split
        if kind == "images" and not self.folder.is_dir():
            found = sorted(entry.name for entry in self.folder.parent.iterdir() if is_shown_folder(entry))
            raise MissingInputError(
                f"{self.folder}: no such split; {self.folder.parent} holds {', '.join(found) or 'none'}"
            )
        suffixes = IMAGE_SUFFIXES if kind == "images" else MASK_SUFFIXES
        found: dict[str, list[Path]] = defaultdict(list)
        left_out: list[Path] = []
        for path in sorted(walk(self.folder, checked=partial(inside, root))):
            if path.suffix.lower() in suffixes:
                name = path.relative_to(self.folder).with_suffix("").as_posix()
                found[unicodedata.normalize("NFC", name)].append(path)
            elif path.suffix.lower() in (*UNREAD_SUFFIXES, *IMAGE_SUFFIXES):
                left_out.append(path)
        for paths in found.values():
            if len(paths) > 1:
                what = "has the same name"
                if paths[0].name != paths[1].name and paths[0].suffix == paths[1].suffix:
                    what = "has the same name in another Unicode form"
                raise InputError(f"{paths[1]}: {paths[0].name} {what}; remove one, or rename it with its mask")
        self.kind, self.files, self._left_out = kind, {name: paths[0] for name, paths in found.items()}, left_out

    def unread(self) -> str:
        """Return what is left out for the type of its files, with the remedy; "" where there is none."""
        if not self._left_out:
            return ""
        counts = Counter(path.suffix.lower() for path in self._left_out)
        listed = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())
        kinds, target = ("images", "PNG or JPEG") if self.kind == "images" else ("masks", "PNG")
        return (
            f"{self.folder} holds {listed} files, the first {printable(self._left_out[0].name)}, which are not read; "
            f"convert them to {target}, which {kinds} must be, or remove them"
        )


def _refuse_unpaired(
    root: Path, split: str, images: dict[str, Path], masks: dict[str, Path], unread: Sequence[str]
) -> None:
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
        texts += ["an image and its mask have the same name up to the suffix", *unread]
        raise InputError(f"{root}: {'; '.join(texts)}")
