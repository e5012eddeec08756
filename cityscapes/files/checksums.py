"""Keep the checksum of a file with the file, and compare it when the file is read: a flipped bit is never silent.

A JSON file has the sha256 of its content among its keys. Beside a file of another format lies a small record with the
file's sha256. Files without a checksum, of earlier versions or other programs, are read unchecked; of the suite's own,
`call_unchecked` says so. Formats with a CRC-32 of their own compare that one, by `crc32`.
"""

import hashlib
import json
import sys
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from cityscapes.errors import IntegrityError
from cityscapes.files.atomic import write_bytes, write_text
from cityscapes.files.untrusted import parse_json, regular

try:
    from isal.isal_zlib import crc32  # twenty times as fast as zlib's
except ImportError:  # not built for every kind of processor
    crc32 = zlib.crc32

HASH_KEY = "content_sha256"
"""The key of a JSON file's checksum, that of all other keys."""


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal; read in blocks."""
    with open(regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(content: Mapping[str, Any], key: str = HASH_KEY) -> str:
    """Return the sha256 of a JSON object without its `key`, independent of key order and whitespace."""
    rest = json.loads(json.dumps({name: value for name, value in content.items() if name != key}))
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def with_checksum(content: Mapping[str, Any], key: str = HASH_KEY) -> dict[str, Any]:
    """Return a JSON object with its checksum."""
    return {**content, key: content_sha256(content, key)}


def check_content(content: Any, source: str | Path, key: str = HASH_KEY) -> None:
    """Raise IntegrityError for a JSON object that has changed since its checksum was made."""
    if isinstance(content, dict) and key in content and content[key] != content_sha256(content, key):
        raise IntegrityError(
            f"{source}: was changed since it was written ({key} differs); restore it, or delete its line {key!r} to "
            "take it as it is"
        )


def read_json(path: Path, key: str = HASH_KEY) -> Any:
    """Read a JSON file strictly, and compare its checksum if it has one.

    Raises IntegrityError where they differ, and ValueError, which says why, for what is not strict JSON in UTF-8.
    """
    content = parse_json(regular(path).read_text(encoding="utf-8"))
    check_content(content, path, key)
    return content


@lru_cache(maxsize=1024)
def call_unchecked(path: Path) -> None:
    """Say once that a file is read without a checksum, as one of an earlier version has none."""
    print(f"note: {path}: has no checksum, as files of earlier versions, so its bits are unchecked", file=sys.stderr)


def record_path(path: Path) -> Path:
    """Return the path of a file's record, the small JSON file beside it."""
    return path.with_name(path.name + ".json")


def write_recorded(path: Path, content: bytes, **facts: Any) -> None:
    """Write a file and its record, with `facts` beside the hashes.

    The record comes first and has the hash of the previous file, too, so that a crash between the two writes leaves a
    valid pair.
    """
    summary = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "previous_sha256": file_sha256(path) if path.is_file() else None,
        "bytes": len(content),
        **facts,
    }
    write_text(record_path(path), json.dumps(summary, indent=1) + "\n")
    write_bytes(path, content)


def check_recorded(path: Path, found: str) -> None:
    """Raise IntegrityError where `path` has a record without the hash `found`."""
    record = record_path(path)
    if not regular(record).is_file():
        return
    try:
        recorded = parse_json(record.read_text(encoding="utf-8"))
        known = (recorded["sha256"], recorded.get("previous_sha256"))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise IntegrityError(f"{record}: cannot be read; delete it to take {path.name} as it is") from None
    if found not in known:
        raise IntegrityError(
            f"{path}: its bytes are not those that were written (sha256 differs); restore or delete it"
        )


def read_recorded(path: Path) -> bytes:
    """Read a file, and compare its bytes with its record if it has one; raises IntegrityError where they differ."""
    content = regular(path).read_bytes()
    check_recorded(path, hashlib.sha256(content).hexdigest())
    return content
