"""Make and walk the chunks of a PNG file; compare checksums, which Pillow does not do for chunks with the pixels."""

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from cityscapes.files.checksums import crc32

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTED = (b"Raw profile type exif", b"XML:com.adobe.xmp")


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk: the length of its data, its kind, the data and their checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))


def chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk, and where its data begin and end; a truncated one ends behind the file."""
    position = len(SIGNATURE)
    while position + 12 <= len(content):
        start = position + 8
        end = start + int.from_bytes(content[position : position + 4])
        yield content[position + 4 : start], start, end
        position = end + 4


def palette_of(content: bytes) -> bytes:
    """Return the palette of a PNG file, three bytes a color; empty where it has none."""
    return next((content[start:end] for kind, start, end in chunks(content) if kind == b"PLTE"), b"")


def may_be_turned(content: bytes) -> bool:
    """Return whether a PNG has EXIF, or a text in which programs keep an orientation; a walk from chunk to chunk."""
    return any(
        kind == b"eXIf" or (kind in _TEXTS and content.startswith(_ORIENTED, start))
        for kind, start, _ in chunks(content)
    )


def is_sound(content: bytes, start: int, end: int) -> bool:
    """Return whether a chunk, given by where its data begin and end, is whole and has the checksum that it states."""
    view = memoryview(content)
    return end + 4 <= len(content) and crc32(view[start - 4 : end]) == int.from_bytes(view[end : end + 4])


def has_damaged_chunk(file: str | Path | BytesIO) -> bool:
    """Return whether a chunk of a PNG file, up to the one that ends the image, is truncated or has a wrong checksum."""
    content = file.getvalue() if isinstance(file, BytesIO) else Path(file).read_bytes()
    for kind, start, end in chunks(content):
        if not is_sound(content, start, end):
            return True
        if kind == b"IEND":
            break
    return False
