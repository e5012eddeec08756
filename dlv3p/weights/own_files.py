"""What our own checkpoints carry beside their weights: the version of their format, and a record of their sha256."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cityscapes.errors import IntegrityError, NewerFormatError

FORMAT = 2
"""Version of what a checkpoint holds; a newer one is refused rather than half understood."""


def check_format(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a file whose `format` is newer, with NewerFormatError, or is none, with IntegrityError."""
    version = content["format"]
    if type(version) is not int or version < 1:
        raise IntegrityError(f"{path}: its format is no whole number from 1 to {FORMAT}; restore the file")
    if version > FORMAT:
        raise NewerFormatError(f"{path}: has format {version}, this version reads up to {FORMAT}; update the suite")


def check_hash(path: Path, found: str) -> None:
    """Raise IntegrityError where a record of `path` is there and does not know the hash `found`.

    It knows two: that of the file, and that of the one before it, which a crash between the two writes leaves in its
    place.
    """
    record = record_path(path)
    if not record.is_file():
        return
    try:
        recorded = json.loads(record.read_text())
        known = (recorded["sha256"], recorded.get("previous_sha256"))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise IntegrityError(f"{record}: cannot be read; delete it to take {path.name} as it is") from None
    if found not in known:
        raise IntegrityError(
            f"{path}: its bytes are not those that were written (sha256 differs); restore or delete it"
        )


def record_path(path: Path) -> Path:
    """Return the small JSON file beside a checkpoint."""
    return path.with_name(path.name + ".json")
