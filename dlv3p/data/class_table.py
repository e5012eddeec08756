"""The classes of a plain folder: a CSV file with a row for each."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cityscapes.errors import InputError, MissingInputError
from cityscapes.labels import IGNORE
from dlv3p.data.classes import voc_palette
from dlv3p.data.pairs import Classes

HEADING = "id,name,red,green,blue"

Color = tuple[int, int, int]


class ClassTable(NamedTuple):
    """The classes, and the id that each given colour stands for in a mask of colours; 255 is ignored."""

    classes: Classes
    id_of_color: dict[Color, int]


class _Row(NamedTuple):
    where: str
    id: int
    name: str
    color: Color | None


def read_class_table(path: Path) -> ClassTable:
    """Read the table; raises InputError with the line for ids that do not run from 0, and names or colours that repeat.

    A row with id 255 gives a colour of ignored pixels and is no class. Classes without a colour get one.
    """
    rows = _read_rows(path)
    classes = sorted((row for row in rows if row.id != IGNORE), key=lambda row: row.id)
    colors = np.zeros((256, 3), np.uint8)
    for expected, row in enumerate(classes):
        if row.id != expected:
            raise InputError(f"{row.where}: id {row.id}, where {expected} comes next; ids run from 0 without a gap")
        colors[row.id] = row.color or voc_palette()[row.id + 1]
    _refuse_repeated(classes)
    id_of_color: dict[Color, int] = {}
    for row in rows:
        if row.color is not None and id_of_color.setdefault(row.color, row.id) != row.id:
            raise InputError(f"{row.where}: the colour {row.color} stands for another class already")
    return ClassTable(Classes(tuple(row.name for row in classes), colors), id_of_color)


def _read_rows(path: Path) -> list[_Row]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            lines.fieldnames = [name.strip().lower() for name in lines.fieldnames or []]
            if not {"id", "name"} <= set(lines.fieldnames):
                raise InputError(f"{path}: its first line must be {HEADING} (the colours may be left out)")
            rows = [_row(f"{path}, line {lines.line_num}", fields) for fields in lines]
    except FileNotFoundError as error:
        raise MissingInputError(
            f"{path}: no such file; it names the classes, a line each, under the heading {HEADING}"
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
    values = [_number(text, f"{where}: a colour") for text in texts if text]
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
            raise InputError(f"{row.where}: the name {row.name!r} stands twice")
        seen.add(row.name)
