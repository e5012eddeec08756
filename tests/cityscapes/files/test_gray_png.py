"""The fast reader of gray PNG files: the same pixels as Pillow's or none at all."""

import struct
import tracemalloc
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.png_chunks import chunks, palette_of
from cityscapes.files.png_read import decode_gray_png, read_instance_image, read_label_bytes, read_label_image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: bytes, width: int, height: int, bits: int = 8, pieces: int = 1, extra: bytes = b"", end: bool = True):
    """A PNG file of filtered rows; `extra` chunks stand before the pixels, which are cut into `pieces`."""
    packed = zlib.compress(rows)
    cuts = [len(packed) * i // pieces for i in range(pieces + 1)]
    data = b"".join(chunk(b"IDAT", packed[a:b]) for a, b in zip(cuts, cuts[1:], strict=False))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + data + (chunk(b"IEND", b"") if end else b"")


def by_pillow(content: bytes) -> np.ndarray:
    return np.array(Image.open(BytesIO(content)))


@st.composite
def filtered_images(draw) -> tuple[bytes, int]:
    """Rows of every filter with bytes that are mostly zeros, as in label images, or not; and the bits of a pixel."""
    bits = draw(st.sampled_from([8, 16]))
    width, height = draw(st.tuples(st.integers(1, 40), st.integers(1, 30)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.integers(0, 256, (height, 1 + width * bits // 8), np.uint8)
    rows[rng.random(rows.shape) < draw(st.sampled_from([0.0, 0.5, 0.95]))] = 0
    rows[:, 0] = draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    extra = draw(st.sampled_from([b"", chunk(b"tEXt", b"Comment\0x"), chunk(b"gAMA", b"\0\0\xb1\x8f")]))
    return png(rows.tobytes(), width, height, bits, draw(st.integers(1, 3)), extra), bits


@settings(max_examples=200, deadline=None)
@given(filtered_images())
def test_every_filter_gives_the_pixels_that_pillow_gives(image):
    content, bits = image
    decoded = decode_gray_png(content, bits=bits)
    assert decoded is not None
    assert decoded.dtype == (np.uint8 if bits == 8 else np.uint16)
    np.testing.assert_array_equal(decoded, by_pillow(content))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_of_several_blocks_are_read_whole(tmp_path, dtype):
    blocks = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (40, 41)).astype(dtype)
    pixels = np.ascontiguousarray(np.kron(blocks, np.ones((13, 17), dtype))[:511])
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_label_image if dtype is np.uint8 else read_instance_image
    np.testing.assert_array_equal(read(tmp_path / "a.png"), pixels)
    assert decode_gray_png((tmp_path / "a.png").read_bytes(), bits=8 * pixels.itemsize) is not None


ROWS = (b"\1" + bytes(range(20))) * 10
GOOD, ZEROS = png(ROWS, 20, 10), png(bytes(210), 20, 10)


def test_no_damage_passes_as_other_pixels():
    whole = by_pillow(GOOD)
    for position in range(len(GOOD)):
        for bit in range(8):
            damaged = bytearray(GOOD)
            damaged[position] ^= 1 << bit
            decoded = decode_gray_png(bytes(damaged), bits=8)
            assert decoded is None or np.array_equal(decoded, whole)
        assert decode_gray_png(GOOD[:position], bits=8) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        GOOD[:8],
        png(ROWS, 20, 9),  # more rows than the header says
        png(ROWS, 20, 11),  # fewer
        png(b"\5" + ROWS[1:], 20, 10),  # a filter that does not exist
        png(ROWS, 20, 10, extra=chunk(b"WHAT", b"")),  # a chunk that no reader may skip
        png(ROWS, 0, 10),
        ZEROS[:16] + struct.pack(">II", 14, 14) + ZEROS[24:],  # as many bytes, but the header's checksum is another
        png(ROWS, 20, 10, end=False),
        png(ROWS, 10, 10, bits=16),  # another depth than asked for
    ],
    ids=range(10),
)
def test_what_is_unusual_is_left_to_pillow(content):
    assert decode_gray_png(content, bits=8) is None


@pytest.mark.parametrize("mode", ["RGB", "P", "1", "LA"])
def test_other_modes_are_left_to_pillow_which_names_them(tmp_path, mode):
    Image.fromarray(by_pillow(GOOD)).convert(mode).save(tmp_path / "a.png")
    assert decode_gray_png((tmp_path / "a.png").read_bytes(), bits=8) is None
    with pytest.raises(InputError, match=f"a.png: .*found mode {mode}, 20 x 10"):
        read_label_image(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"one 16-bit channel"):
        read_instance_image(tmp_path / "a.png")


def test_a_palette_gives_its_indices_where_it_is_asked_for(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 200, (40, 50), np.uint8)
    image = Image.fromarray(pixels, "P")
    image.putpalette(list(range(255, -1, -1)) * 3)
    image.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(decode_gray_png(content, bits=8, palette=True), pixels)
    assert palette_of(content) == bytes(image.getpalette())
    assert decode_gray_png(content, bits=8) is None
    kinds = {kind: content[start - 8 : end + 4] for kind, start, end in chunks(content)}
    for odd in (b"", 2 * kinds[b"PLTE"]):  # a palette is missing, or there are two
        assert decode_gray_png(content.replace(kinds[b"PLTE"], odd), bits=8, palette=True) is None
    late = content.replace(kinds[b"PLTE"], b"").replace(kinds[b"IDAT"], kinds[b"IDAT"] + kinds[b"PLTE"])
    assert decode_gray_png(late, bits=8, palette=True) is None
    damaged = bytearray(content)
    damaged[content.index(b"PLTE") + 7] ^= 1
    assert decode_gray_png(bytes(damaged), bits=8, palette=True) is None


def test_what_is_not_an_image_is_explained_by_pillow(tmp_path):
    with pytest.raises(MissingInputError, match="no such label image"):
        read_label_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="expected one 8-bit channel .* 20 x 9, found mode L, 20 x 10"):
        read_label_bytes(GOOD, "a", size=(9, 20))
    np.testing.assert_array_equal(read_label_bytes(GOOD, "a", size=(10, 20)), by_pillow(GOOD))


def test_a_bomb_takes_no_memory():
    bomb = png(bytes(50_000_000), 20, 10)
    tracemalloc.start()
    assert decode_gray_png(bomb, bits=8) is None
    assert decode_gray_png(png(ROWS, 2**31 - 1, 2**31 - 1), bits=8) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000
