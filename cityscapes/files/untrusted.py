"""Read files and JSON from untrusted sources: bound sizes, refuse ambiguous JSON, and quote only printable text."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from cityscapes.errors import InputError, MissingInputError, reason


def load_json(content: bytes, source: str | Path) -> Any:
    """Parse UTF-8 JSON, with or without a byte order mark; `source` is what messages call it.

    Raises InputError for other encodings, broken or too deeply nested JSON, NaN and infinities, and for a key that
    stands twice in one object.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source}: not UTF-8 at byte {error.start}; save it as UTF-8 JSON or copy it again"
        ) from error
    try:
        return json.loads(text, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{source}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}; copy it again"
        ) from error
    except RecursionError as error:
        raise InputError(f"{source}: brackets nested too deeply") from error
    except ValueError as error:  # the two hooks below, and Python's own limit on the digits of an integer
        raise InputError(f"{source}: {str(error).split(';')[0]}") from error


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice[:60]!r} stands twice in one object, so its value is ambiguous")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON knows")


def read_at_most(path: Path, most: int, *, missing: str, too_large: str) -> bytes:
    """Read a file of at most `most` bytes.

    Raises MissingInputError with `missing` where there is none, InputError with `too_large` for a larger one, and
    InputError for one that cannot be read; the texts stand behind the path.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: {missing}")
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); mend its rights or copy it again") from error
    if len(content) > most:
        raise InputError(f"{path}: {too_large}")
    return content


LONGEST = 80
"""So many letters of a name from a file are printed."""


def sanitize(text: object, limit: int = LONGEST) -> str:
    """Return a text from a file as it may be printed: escaped where it is not printable, and cut to `limit` letters."""
    letters = str(text)[: limit + 1]
    escaped = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in letters)
    return escaped if len(escaped) <= limit else f"{escaped[: limit - 3]}..."


def safe_reason(error: Exception) -> str:
    """Return what another library says of a file, as it may be printed."""
    return sanitize(reason(error), 200)
