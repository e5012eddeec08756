"""A corner of a PNG equals what Pillow decodes, whatever its filters; anything odd or damaged is left to Pillow."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError
from cityscapes.files import png_read as png
from cityscapes.files.images import decode_ids, decode_image
from cityscapes.files.png_read import decode_corner, png_size, read_label_bytes

RNG = np.random.default_rng(0)
SMOOTH = np.cumsum(RNG.integers(-3, 4, (40, 57, 3)), axis=1).astype(np.uint8)


def encoded(image, **options):
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def filtered_png(lines, width, *, extra=b""):
    """A PNG of scan lines that are given with their filters: any bytes are an image."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(lines), 8, 2, 0, 0, 0))
    packed = zlib.compress(b"".join(lines))
    half = len(packed) // 2
    data = chunk(b"IDAT", packed[:half]) + chunk(b"IDAT", packed[half:])
    return png.SIGNATURE + header + extra + data + chunk(b"IEND", b"")


def pillow(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("kinds", [(0,), (1,), (2,), (3,), (4,), (4, 3, 2, 1, 0)])
def test_every_filter_is_undone_as_pillow_does(kinds):
    lines = [bytes([kinds[y % len(kinds)]]) + RNG.integers(0, 256, 3 * 23, dtype=np.uint8).tobytes() for y in range(19)]
    content = filtered_png(lines, 23)
    assert np.array_equal(decode_corner(content, 19, 23), pillow(content))


@pytest.mark.parametrize(("bottom", "right"), [(40, 57), (1, 1), (40, 1), (1, 57), (17, 31)])
def test_a_corner_is_a_corner_of_the_whole(bottom, right):
    content = encoded(Image.fromarray(SMOOTH))
    assert png_size(content) == (40, 57)
    assert np.array_equal(decode_corner(content, bottom, right), SMOOTH[:bottom, :right])


def test_without_its_faster_library_the_result_is_the_same(monkeypatch):
    monkeypatch.setattr(png, "inflate", zlib)
    assert np.array_equal(decode_corner(encoded(Image.fromarray(SMOOTH)), 30, 40), SMOOTH[:30, :40])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "I;16"])
def test_other_kinds_of_images_are_left_to_pillow(mode):
    image = (
        Image.fromarray(SMOOTH).convert(mode) if mode != "I;16" else Image.fromarray(SMOOTH[..., 0].astype("uint16"))
    )
    assert png_size(encoded(image)) is None


def test_a_jpeg_and_nothing_at_all_are_left_to_pillow():
    stream = io.BytesIO()
    Image.fromarray(SMOOTH).save(stream, "JPEG")
    assert png_size(stream.getvalue()) is None
    assert png_size(b"") is None


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9, 0.99])
def test_a_file_that_is_cut_short_is_noticed_even_where_the_corner_is_whole(share):
    content = encoded(Image.fromarray(SMOOTH))
    assert decode_corner(content[: int(share * len(content))], 1, 1) is None


def test_a_flipped_bit_is_noticed_anywhere():
    content = encoded(Image.fromarray(SMOOTH))
    for position in range(33, len(content), 97):
        damaged = bytearray(content)
        damaged[position] ^= 4
        assert decode_corner(bytes(damaged), 1, 1) is None


def test_too_few_rows_and_filters_that_do_not_exist_are_refused():
    line = bytes([1]) + bytes(9)
    assert decode_corner(filtered_png([line] * 4, 3), 4, 3) is not None
    assert decode_corner(filtered_png([line] * 3 + [bytes([5]) + bytes(9)], 3), 4, 3) is None
    short = filtered_png([line] * 4, 3).replace(struct.pack(">II", 3, 4), struct.pack(">II", 3, 8), 1)
    start = short.index(b"IHDR")
    short = short[: start + 17] + struct.pack(">I", zlib.crc32(short[start : start + 17])) + short[start + 21 :]
    assert png_size(short) == (8, 3)
    assert decode_corner(short, 8, 3) is None


@pytest.mark.parametrize("kind", ["mask", "image"])
def test_a_flipped_bit_changes_no_pixel_in_silence(kind):
    """Every bit of a small file, through the readers that hand damaged files over to Pillow."""
    random = np.random.default_rng(0)
    small = random.integers(0, 19, (8, 16, 3)[: 2 if kind == "mask" else 3]).astype(np.uint8)
    pixels = small.repeat(8, axis=0).repeat(8, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    content, readers = buffer.getvalue(), [lambda file: decode_image(io.BytesIO(file), "file")]
    if kind == "mask":
        readers = [lambda file: decode_ids(file, "file"), lambda file: read_label_bytes(file, "file")]
    refused = 0
    for read in readers:
        assert np.array_equal(read(content), pixels)
        for place in range(8 * len(content)):
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << place % 8
            try:
                assert np.array_equal(read(bytes(flipped)), pixels), place
            except InputError:
                refused += 1
    assert refused > 0.9 * 8 * len(content) * len(readers)
