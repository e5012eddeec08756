"""Read files and JSON from untrusted sources: bound sizes, refuse ambiguous JSON, and quote only printable text."""

import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import orjson

from cityscapes.errors import InputError, MissingInputError, ParameterError, reason

MAX_PIXELS = 64 * 2**20
"""The most pixels that an image, a mask or an annotation may claim, 32 times those of a Cityscapes frame; a file that
claims more is damaged, or meant to exhaust the memory."""


class DuplicateKeyError(ValueError):
    """A key that occurs twice in one object, so that its value is ambiguous."""

    def __init__(self, key: str) -> None:
        super().__init__(f"duplicate key {key[:60]!r}; keep one of them")


def load_json(content: bytes, source: str | Path, *, constants: bool = False) -> Any:
    """Parse UTF-8 JSON, with or without a byte order mark; `source` is what messages call it.

    Raises InputError for other encodings, broken or too deeply nested JSON, duplicate keys, and NaN and infinities,
    which are numbers with `constants`, for a reader that checks them.
    """
    try:
        return parse_json(content.decode("utf-8-sig"), constants=constants)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source}: not UTF-8 at byte {error.start}; save it as UTF-8 JSON or copy it again"
        ) from error
    except ValueError as error:
        raise InputError(f"{source}: {error}") from error


def load_json_fast(content: bytes, source: str | Path, *, constants: bool = False) -> Any:
    """Parse large JSON with the fast parser where it cannot have missed a duplicate key, else as `load_json` does.

    The fast parser silently keeps the last of duplicate keys. But each key has a colon, so when there are no more
    colons than members, none was dropped.
    """
    with suppress(orjson.JSONDecodeError):
        document = orjson.loads(content)
        if content.count(b":") == _count_members(document):
            return document
    return load_json(content, source, constants=constants)


def _count_members(value: Any) -> int:
    """Count the members of all objects in a parsed document; lists that begin with a number are passed over."""
    members, left = 0, [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            members += len(value)
            left.extend(value.values())
        elif isinstance(value, list):
            first = value
            while isinstance(first, list) and first:
                first = first[0]
            left.extend(() if isinstance(first, int | float) else value)
    return members


def parse_json(text: str, *, constants: bool = False) -> Any:
    """Parse JSON strictly; raises ValueError, which says why, for what `load_json` refuses."""
    try:
        return json.loads(
            text, object_pairs_hook=_unique_members, parse_constant=None if constants else _refuse_constant
        )
    except json.JSONDecodeError as error:
        raise ValueError(
            f"not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}; copy it again"
        ) from error
    except RecursionError as error:
        raise ValueError("brackets nested too deeply") from error
    except DuplicateKeyError:
        raise
    except ValueError as error:  # a constant, or more digits than Python takes for an integer
        raise ValueError(str(error).split(";")[0]) from error


def refuse_duplicates(keys: Sequence[str]) -> None:
    """Raise DuplicateKeyError for the first of the keys of one object that occurs twice."""
    if len(set(keys)) < len(keys):
        raise DuplicateKeyError(next(key for key, count in Counter(keys).items() if count > 1))


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    refuse_duplicates([key for key, _ in pairs])
    return dict(pairs)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def given_path(text: str | Path, *, variables: bool = False) -> Path:
    """Return the path that a user gave, with `~`, and if asked for environment variables, replaced.

    It need not lead anywhere. Raises ParameterError where no file can have that name, InputError where it may not be
    looked up.
    """
    path = Path(os.path.expanduser(os.path.expandvars(text) if variables else text))
    shown = f"{sanitize(str(text))[:80]}"
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ParameterError(f"{shown}...: too long for the name of a file") from error
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise InputError(f"{path}: {reason(error)}") from error
    except ValueError as error:
        raise ParameterError(f"{shown}: holds a character that no file's name can have") from error
    return path


def regular(path: Path) -> Path:
    """Return the path of a file to read; raises InputError for a folder, and for a pipe or a device, which may hang.

    A path that leads nowhere is returned as well: its reader says what is missing.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError):
        return path
    if kind != stat.S_IFREG:
        what = "a folder" if kind == stat.S_IFDIR else "a pipe, a socket or a device"
        raise InputError(f"{path}: is {what}, where a file is expected; move it away")
    return path


def read_at_most(path: Path, limit: int, *, missing: str, too_large: str) -> bytes:
    """Read a file of at most `limit` bytes.

    Raises MissingInputError with `missing` where there is none, InputError with `too_large` for a larger one, and
    InputError for one that cannot be read; the texts follow the path in the message.
    """
    if not regular(path).is_file():
        raise MissingInputError(f"{path}: {missing}")
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); correct its permissions or copy it again"
        ) from error
    if len(content) > limit:
        raise InputError(f"{path}: {too_large}")
    return content


LONGEST = 80
"""The most characters of a name from a file that are printed."""


def check_row(row: Mapping[str | None, object], where: str) -> None:
    """Raise InputError for a row of `csv.DictReader` with more values than the first line has names.

    It would lose what comes behind a comma in a name, without a word.
    """
    if None in row:
        raise InputError(f"{where}: more values than columns; put a value that holds a comma in double quotes")


def why_no_heading(names: Sequence[str] | None) -> str:
    """Return why the first line of a CSV file may have other names than it should, with the remedy; "" if unknown.

    Spreadsheets of some languages separate columns by semicolons, and some write UTF-16.
    """
    line = ",".join(names or ())
    if "\0" in line:
        return "; it is not in UTF-8, save it so"
    separators = {";": "semicolons", "\t": "tabs", "|": "bars"}
    found = next((called for separator, called in separators.items() if separator in line), "")
    return f"; its columns are separated by {found}, save it with commas" if found else ""


def sanitize(text: object, limit: int = LONGEST) -> str:
    """Return a text from a file, safe to print: escaped where it is not printable, and cut to `limit` characters."""
    letters = str(text)[: limit + 1]
    escaped = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in letters)
    return escaped if len(escaped) <= limit else f"{escaped[: limit - 3]}..."


def safe_reason(error: Exception) -> str:
    """Return what another library says about a file, safe to print."""
    return sanitize(reason(error), 200)
