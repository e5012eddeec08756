"""Label tables of other polygon data sets, as CSV or JSON files.

    python cityscapes/label_files.py > labels.csv           write the Cityscapes table as a start
    python cityscapes/label_files.py labels.csv --json      check a table, and write it as JSON

The columns are the fields of `cityscapes.labels.Label`, which documents what follows from each. In CSV the first line
names them; JSON is a list of objects. Colors are `#rrggbb`; `has_instances` and `ignored` are true or false.
"""

import argparse
import csv
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cityscapes.errors import InputError, run_command
from cityscapes.files.untrusted import read_at_most, why_no_heading

if TYPE_CHECKING:
    from cityscapes.labels import Label, LabelTable

MAX_FILE_BYTES = 2**20
COLUMNS = ("name", "label_id", "train_id", "category", "has_instances", "ignored", "color")


def read_label_table(path: str | Path) -> "LabelTable":
    """Read and check a label table: JSON where the name ends in `.json`, else CSV.

    Raises MissingInputError, or InputError with one line that names file, row and column. The rows of a CSV file are
    numbered as in a spreadsheet, where the heading is row 1; those of JSON from 1.
    """
    from cityscapes.labels import LabelTable, check_labels

    path = Path(path)
    content = _read(path)
    rows = _json_rows(content, path) if path.suffix.lower() == ".json" else _csv_rows(content, path)

    def place(index: int) -> str:
        return f"{path}: row {rows[index][0]}" if rows else f"{path}: has no rows"

    labels = tuple(_label(row, place(index)) for index, (_, row) in enumerate(rows))
    check_labels(labels, place)
    return LabelTable(labels)


def to_csv(table: "LabelTable") -> str:
    """Return the table as a CSV file, which `read_label_table` reads back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for label in table.labels:
        writer.writerow([str(cell).lower() if type(cell) is bool else cell for cell in _cells(label).values()])
    return text.getvalue()


def to_json(table: "LabelTable") -> str:
    """Return the table as a JSON file, which `read_label_table` reads back."""
    rows = ",\n".join(f"  {json.dumps(_cells(label), ensure_ascii=False)}" for label in table.labels)
    return f"[\n{rows}\n]\n"


def _cells(label: "Label") -> dict[str, Any]:
    return {**label._asdict(), "color": "#" + bytes(label.color).hex()}


def _read(path: Path) -> bytes:
    too_large = "larger than 1 MB, so not a label table"
    return read_at_most(path, MAX_FILE_BYTES, missing="no such label table", too_large=too_large)


def _csv_rows(content: bytes, path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8 CSV") from error
    except csv.Error as error:
        raise InputError(f"{path}: not valid CSV ({error}); save it again, with commas") from error
    names = [name.strip() for name in lines[0]] if lines else []
    if sorted(names) != sorted(COLUMNS):
        found = f"{','.join(names)[:100]!r}{why_no_heading(names)}"
        raise InputError(f"{path}: row 1: expected the columns {','.join(COLUMNS)}, found {found}")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        if len(line) not in (0, len(COLUMNS)):
            raise InputError(f"{path}: row {number}: {len(line)} cells, where row 1 names {len(COLUMNS)} columns")
        if line:
            rows.append((number, dict(zip(names, map(str.strip, line), strict=True))))
    return rows


def _json_rows(content: bytes, path: Path) -> list[tuple[int, dict[str, Any]]]:
    from cityscapes.files.untrusted import load_json

    rows = load_json(content, path)
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of labels, each an object with {', '.join(COLUMNS)}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or sorted(row) != sorted(COLUMNS):
            found = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise InputError(f"{path}: row {number}: expected {', '.join(COLUMNS)}, found {found[:100]}")
    return list(enumerate(rows, 1))


def _label(row: dict[str, Any], place: str) -> "Label":
    from cityscapes.labels import Label

    readers: dict[str, Callable[[Any], Any]] = {
        "label_id": _integer,
        "train_id": _integer,
        "has_instances": _flag,
        "ignored": _flag,
        "color": _color,
    }
    values = {}
    for column in COLUMNS:
        try:
            values[column] = readers.get(column, _text)(row[column])
        except ValueError as error:
            raise InputError(f"{place}, column {column}: {error}, found {row[column]!r:.60}") from error
    return Label(**values)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("expected one line of text")
    return value


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value):
        return int(value)
    raise ValueError("expected a whole number")


def _flag(value: Any) -> bool:
    flags = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if isinstance(value, (bool, str)) and str(value).lower() in flags:
        return flags[str(value).lower()]
    raise ValueError("expected true or false")


def _color(value: Any) -> tuple[int, int, int]:
    if not isinstance(value, str) or not re.fullmatch(r"#[0-9A-Fa-f]{6}", value):
        raise ValueError("expected a color such as #804080")
    return tuple(bytes.fromhex(value[1:]))


def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description="Write a label table as CSV or JSON, the Cityscapes table by default.")
    parser.add_argument("file", type=Path, nargs="?", help="a table to check and write instead")
    parser.add_argument("--json", action="store_true", help="write JSON")
    arguments = parser.parse_args()
    if arguments.file is None:
        from cityscapes.labels import CITYSCAPES as table
    else:
        table = read_label_table(arguments.file)
    sys.stdout.write(to_json(table) if arguments.json else to_csv(table))
    return 0


if __name__ == "__main__":
    run_command(main)
