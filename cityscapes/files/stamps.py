"""Stamp a PNG or JPEG file with a digest of what it was made from, and one of all else in the file.

So a file itself shows whether it is up to date and unchanged, and no separate list can disagree. The stamp is a text
chunk behind the header of a PNG, and a comment behind the first two bytes of a JPEG.
"""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

from cityscapes.errors import InputError
from cityscapes.files.png_chunks import SIGNATURE, chunk
from cityscapes.files.untrusted import regular

_KEYWORD = b"cityscapes.mask_files\0"  # in every mask ever written: never rename it
_JPEG_BEGINS, _JPEG_COMMENT = b"\xff\xd8", b"\xff\xfe"


def stamped(content: bytes, made_from: bytes) -> bytes:
    """Return a PNG or JPEG file with its stamp; `made_from` is anything that identifies what it was made from."""
    place, wrap = _place(content)
    return content[:place] + wrap(_text(content, made_from)) + content[place:]


def is_made_from(path: Path, made_from: bytes) -> bool:
    """Return whether a PNG or JPEG file was stamped with `made_from`, and is complete and unchanged since."""
    try:
        content = regular(path).read_bytes()
    except (OSError, InputError):
        return False
    place, wrap = _place(content)
    behind = place + len(wrap(_text(b"", made_from)))
    return content[place:behind] == wrap(_text(content[:place] + content[behind:], made_from))


def claims_origin(path: Path, made_from: bytes) -> bool:
    """Return whether a PNG or JPEG file was stamped with `made_from`, also if it was changed or damaged since."""
    try:
        content = regular(path).read_bytes()
    except (OSError, InputError):
        return False
    place, wrap = _place(content)
    origin = _KEYWORD + hashlib.sha256(made_from).hexdigest().encode()
    return origin in content[place : place + len(wrap(_text(b"", made_from)))]


def _place(content: bytes) -> tuple[int, Callable[[bytes], bytes]]:
    """Return where the stamp of a file is, and what makes a part of the file of its text."""
    if content.startswith(_JPEG_BEGINS):
        return len(_JPEG_BEGINS), _jpeg_comment
    return len(SIGNATURE) + len(chunk(b"IHDR", bytes(13))), _png_text


def _text(rest: bytes, made_from: bytes) -> bytes:
    origin, content = hashlib.sha256(made_from).hexdigest(), hashlib.sha256(rest).hexdigest()
    return _KEYWORD + f"{origin} {content}".encode()


def _png_text(text: bytes) -> bytes:
    return chunk(b"tEXt", text)


def _jpeg_comment(text: bytes) -> bytes:
    return _JPEG_COMMENT + struct.pack(">H", 2 + len(text)) + text
