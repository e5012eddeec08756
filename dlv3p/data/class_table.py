"""Read the table of a plain folder's classes: their ids, names and colors, and what stands for each in the masks.

classes.csv                     id,name,red,green,blue,stored: ids from 0, a row each; colors and stored are optional

`stored` lists the values of a one-channel mask that become a class, separated by blanks. Several values merge classes,
those of the row with id 255 are ignored, and masks of 0 and 255 say `0` and `255`. A value that no row lists is an
error. Without that column, values are ids, and 255 is ignored. No mask is touched.
"""

import csv
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.untrusted import (
    DuplicateKeyError,
    check_row,
    refuse_duplicates,
    regular,
    sanitize,
    why_no_heading,
)
from cityscapes.ids import list_ids
from cityscapes.labels import IGNORE
from dlv3p.data.classes import Classes, default_color, voc_palette

CLASSES_FILE = "classes.csv"
HEADING = "id,name,red,green,blue"

IGNORED_NAMES = ("ignore", "ignored", "void", "unlabeled", "unlabelled", "unknown", "border", "boundary", "nothing")
"""What a row with id 255 may be called that gives no color."""

Color = tuple[int, int, int]


class ClassTable(NamedTuple):
    """The classes, and the id of each given color in a mask of colors; 255 is ignored.

    `id_of_stored` is the id of each value in a mask of one channel; empty where values are ids.
    """

    classes: Classes
    id_of_color: dict[Color, int]
    id_of_stored: dict[int, int]

    def ids(self, stored: np.ndarray, source: str) -> np.ndarray:
        """Return the ids, uint8 (H,W), of a mask's values; `source` begins the error for one that has no row."""
        if not self.id_of_stored:
            return stored
        known = np.zeros(256, bool)
        known[list(self.id_of_stored)] = True
        if unknown := np.unique(stored[~known[stored]]).tolist():
            raise InputError(
                f"{source}: holds the values {list_ids(set(unknown))}, which no row of {CLASSES_FILE} lists under "
                f"stored; add them to a class, or to a row with id {IGNORE}, which ignores them"
            )
        table = np.full(256, IGNORE, np.uint8)
        table[list(self.id_of_stored)] = list(self.id_of_stored.values())
        return table[stored]

    @property
    def rule(self) -> str:
        """What stands for what, for fingerprints of labels; "" where values are ids."""
        return " ".join(f"{value}:{index}" for value, index in sorted(self.id_of_stored.items()))

    @property
    def color_rule(self) -> str:
        """What each given color stands for."""
        return " ".join(f"{red},{green},{blue}:{i}" for (red, green, blue), i in sorted(self.id_of_color.items()))


class _Row(NamedTuple):
    where: str
    id: int
    name: str
    color: Color | None
    stored: tuple[int, ...]


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
    return ClassTable(Classes(tuple(row.name for row in classes), colors), id_of_color, _id_of_stored(path, rows))


def _id_of_stored(path: Path, rows: Sequence[_Row]) -> dict[int, int]:
    """Return the id of each stored value; a column that is used must say of every class where it comes from."""
    id_of_stored: dict[int, int] = {}
    for row in rows:
        for value in row.stored:
            if id_of_stored.setdefault(value, row.id) != row.id:
                raise InputError(f"{row.where}: the stored value {value} already belongs to another class")
    without = [row.where for row in rows if not row.stored and row.id != IGNORE]
    if id_of_stored and without:
        raise InputError(f"{without[0]}: stored is empty; list the values of this class, or leave out the whole column")
    return id_of_stored


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
                why = why_no_heading(lines.fieldnames)
                raise InputError(f"{path}: its first line must be {HEADING} (optional: the colors, stored){why}")
            refuse_duplicates(lines.fieldnames)
            rows = [_row(f"{path}, line {lines.line_num}", fields) for fields in lines]
    except FileNotFoundError as error:
        raise MissingInputError(
            f"{path}: no such file; write one line per class under the heading {HEADING}"
        ) from error
    except DuplicateKeyError as error:
        raise InputError(f"{path}, line 1: {error}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a table of classes ({error}); save it as CSV in UTF-8") from error
    if sum(row.id != IGNORE for row in rows) < 2:
        raise InputError(f"{path}: names fewer than two classes")
    return rows


def _row(where: str, fields: dict[str | None, Any]) -> _Row:
    check_row(fields, where)
    name = (fields.get("name") or "").strip()
    if not name:
        raise InputError(f"{where}: the name is empty")
    if not name.isprintable():
        raise InputError(f"{where}: the name {sanitize(name)} holds a character that cannot be shown; use letters")
    texts = [(fields.get(key) or "").strip() for key in ("red", "green", "blue")]
    if any(texts) and not all(texts):
        raise InputError(f"{where}: give red, green and blue together, or none of them")
    values = [_number(text, f"{where}: a color") for text in texts if text]
    color = (values[0], values[1], values[2]) if values else None
    for key in ("train_id", "trainid", "train id"):
        if (other := (fields.get(key) or "").strip()) not in ("", (fields.get("id") or "").strip()):
            raise InputError(
                f"{where}: {key} is {other}, which is not read; give the class's number in training as its id, "
                f"{IGNORE} where it is ignored, and the values of the masks under stored"
            )
    stored = tuple(_number(text, f"{where}: a stored value") for text in (fields.get("stored") or "").split())
    return _Row(where, _number(fields.get("id"), f"{where}: id"), name, color, stored)


def _number(text: str | None, what: str) -> int:
    if text is None or not text.strip().isdecimal() or int(text) > 255:
        raise InputError(f"{what} is {text!r}; expected a whole number from 0 to 255")
    return int(text)


def _refuse_repeated(classes: list[_Row]) -> None:
    seen: set[str] = set()
    for row in classes:
        name = unicodedata.normalize("NFC", row.name)
        if name in seen:
            raise InputError(f"{row.where}: duplicate name {row.name!r}; give each class its own")
        seen.add(name)
