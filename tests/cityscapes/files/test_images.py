"""How a stored image becomes pixels, and a stored mask ids: the same rule for every reader."""

import io
import sys
import warnings
import zlib
from functools import partial
from struct import pack

import numpy as np
import pytest
from PIL import Image, ImageOps

from cityscapes.errors import InputError
from cityscapes.files.images import (
    _TURNS,
    PICTURE_FORMATS,
    decode_image,
    inspect_image,
    inspect_picture,
    read_ids,
    read_image,
)
from cityscapes.files.png_read import png_size

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (6, 9, 3)).astype(np.uint8)
IDS = RNG.integers(0, 2, (6, 9)).astype(np.uint8)


def oriented(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def save_bits(path, ids, bits):
    """Write a gray PNG of 1, 2 or 4 bits, which Pillow itself cannot for two and four."""
    rows = []
    for row in ids:
        padded = np.pad(row, (0, -len(row) % (8 // bits)))
        digits = (padded[:, None] >> np.arange(bits)[::-1] & 1).ravel()
        rows.append(b"\0" + np.packbits(digits.astype(np.uint8)).tobytes())
    header = pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(b"".join(rows)), b"IEND": b""}
    parts = [pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data)) for kind, data in chunks.items()]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def test_16_bit_gray_is_scaled_to_8_bits(tmp_path):
    gray = np.array([[0, 128, 129, 257, 20300, 32768, 65535]], np.uint16)
    Image.fromarray(gray).save(tmp_path / "a.png")
    pixels = np.asarray(read_image(tmp_path / "a.png"))
    assert pixels[0, :, 0].tolist() == [0, 0, 1, 1, 79, 128, 255]
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_a_viewer_turns_it(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PICTURE).save(path, exif=oriented(orientation))
    expected = ImageOps.exif_transpose(Image.open(path))
    image = read_image(path)
    assert np.array_equal(image, expected)
    assert inspect_image(Image.open(path)) == (expected.size, "RGB", orientation > 1)
    assert image.size == ((6, 9) if orientation > 4 else (9, 6))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_once_and_its_header_says_the_size_that_it_then_has(tmp_path, orientation):
    Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=oriented(orientation))
    Image.fromarray(PICTURE).save(tmp_path / "a.tif", exif=oriented(orientation))
    expected = read_image(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.tif", formats=PICTURE_FORMATS), expected)
    header, ignored = inspect_picture(tmp_path / "a.tif")
    assert (header, ignored) == ((expected.size, "RGB", orientation > 1), ())


def test_a_tiff_of_other_channels_is_called_one_where_rgb_is_expected(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((6, 9, 4), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(InputError, match="a.tif: is a TIFF of other channels .* train with a data.yaml of channels"):
        inspect_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("known", [True, False], ids=["with EXIF", "without"])
@pytest.mark.parametrize("suffix", ["heic", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_of_a_phone_is_upright_whatever_its_file_is_called(tmp_path, monkeypatch, orientation, suffix, known):
    """Its turn stands beside its pixels, and once more in EXIF or not; it is turned once, in a process that is new."""
    heif = pytest.importorskip("pillow_heif")
    corners = np.full((64, 96, 3), 40, np.uint8)
    corners[:20, :30], corners[:20, -30:], corners[-20:, :30] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    laid = Image.fromarray(corners)
    if orientation > 1:
        laid = laid.transpose(_TURNS[{6: 8, 8: 6}.get(orientation, orientation)])
    content, exif = io.BytesIO(), oriented(orientation).tobytes()
    if suffix == "heic":
        heif.from_pillow(laid).save(content, exif=exif)
    else:
        laid.save(content, "AVIF", exif=exif)
    stored = content.getvalue()
    assert (b"irot" in stored or b"imir" in stored) == (orientation > 1)
    entry = pack(">HHL", 0x0112, 3, 1)
    (tmp_path / "a.jpg").write_bytes(stored if known else stored.replace(entry, pack(">HHL", 0x7F12, 3, 1)))
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    image = np.asarray(read_image(tmp_path / "a.jpg", formats=PICTURE_FORMATS)).astype(int)
    assert inspect_picture(tmp_path / "a.jpg")[0].size == (96, 64)
    assert image.shape == corners.shape
    assert abs(image[[9, 9, -9, -9], [15, -15, 15, -15]] - corners[[9, 9, -9, -9], [15, -15, 15, -15]]).max() < 40


@pytest.mark.parametrize("read", [inspect_picture, partial(read_image, formats=PICTURE_FORMATS)])
def test_a_picture_of_a_phone_without_its_package_is_not_called_damaged(tmp_path, monkeypatch, read):
    (tmp_path / "a.heic").write_bytes(pack(">L", 24) + b"ftypheic" + bytes(4) + b"mif1heic")
    monkeypatch.setattr("cityscapes.errors.find_spec", lambda name: None)
    with pytest.raises(InputError) as error:
        read(tmp_path / "a.heic")
    told = "a HEIC image needs pillow_heif; install with: pip install 'dlv3p[heic]'"
    assert str(error.value) == f"{tmp_path / 'a.heic'}: {told}"


def test_a_picture_of_a_phone_whose_package_cannot_be_imported_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(pack(">L", 24) + b"ftypheic" + bytes(4) + b"mif1heic")
    (tmp_path / "pillow_heif.py").write_text("raise ImportError('libheif.so: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pillow_heif", raising=False)
    with pytest.raises(InputError, match=r"pillow_heif, which cannot be imported \(libheif\.so: .*; install it again"):
        inspect_picture(tmp_path / "a.heic")


def test_an_orientation_behind_the_pixels_or_in_a_text_counts_too(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=oriented(6))
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4])
    behind = content[:start] + content[end:-12] + content[start:end] + content[-12:]
    (tmp_path / "b.png").write_bytes(behind)
    assert read_image(tmp_path / "b.png").size == (6, 9)
    assert png_size(behind) is None


def test_metadata_that_no_viewer_can_read_are_ignored(tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*nonsense")
    assert np.array_equal(read_image(tmp_path / "a.png"), PICTURE)


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk_is_inverted_only_with_the_marker_of_adobe(adobe):
    stream = io.BytesIO()
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red.save(stream, "JPEG", quality=100)
    content = stream.getvalue()
    if not adobe:  # without the marker the same numbers mean the opposite inks: cyan and black
        start = content.index(b"\xff\xee")
        content = content[:start] + content[start + 2 + int.from_bytes(content[start + 2 : start + 4]) :]
    pixel = decode_image(io.BytesIO(content), "a.jpg").getpixel((8, 8))
    assert pixel == pytest.approx((255, 0, 0) if adobe else (0, 0, 0), abs=3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_is_ignored(tmp_path, mode):
    image = Image.fromarray(PICTURE).convert("P" if mode == "P" else mode[:-1])
    expected = np.asarray(image.convert("RGB"))
    if mode == "P":
        image.save(tmp_path / "a.png", transparency=0)
    else:
        image.putalpha(Image.fromarray(IDS * 200))
        image.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("read", [read_image, read_ids])
def test_one_limit_holds_for_images_and_masks_and_asks_for_tiles(tmp_path, read, monkeypatch):
    Image.new("1", (64 * 1024, 1025)).save(tmp_path / "a.png")  # above 64 million pixels, below Pillow's limit
    Image.new("1", (64 * 1024, 3000)).save(tmp_path / "b.png")  # above Pillow's limit too
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        for name in "ab":
            with pytest.raises(InputError, match=f"{name}.png: has .*more than 64 million pixels; cut .* into tiles"):
                read(tmp_path / f"{name}.png")
    assert not caught


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_are_read_as_the_ids_that_are_stored(tmp_path, bits):
    ids = RNG.integers(0, 2**bits, (6, 9)).astype(np.uint8)
    save_bits(tmp_path / "a.png", ids, bits)
    assert np.array_equal(read_ids(tmp_path / "a.png"), ids)
    palette = Image.fromarray(ids, mode="P")
    palette.putpalette(bytes(range(3 * 16)))
    palette.save(tmp_path / "b.png", bits=bits)
    assert (tmp_path / "b.png").read_bytes()[24] == bits
    assert np.array_equal(read_ids(tmp_path / "b.png"), ids)


def test_an_image_of_few_bits_is_stretched(tmp_path):
    save_bits(tmp_path / "a.png", np.array([[0, 1, 2, 3]], np.uint8), 2)
    assert np.asarray(read_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 85, 170, 255]


def test_a_mask_is_never_turned_and_one_that_exif_would_turn_is_refused(tmp_path):
    Image.fromarray(IDS).save(tmp_path / "a.png", exif=oriented(1))
    assert np.array_equal(read_ids(tmp_path / "a.png"), IDS)
    Image.fromarray(IDS).save(tmp_path / "a.png", exif=oriented(6))
    with pytest.raises(InputError, match=r"a\.png: has the EXIF orientation 6, and masks are read as they are stored"):
        read_ids(tmp_path / "a.png")


def test_a_mask_that_is_a_jpeg_is_refused(tmp_path):
    Image.fromarray(IDS).save(tmp_path / "a.png", "JPEG")
    with pytest.raises(InputError, match=r"a\.png: is a JPEG, which changes ids"):
        read_ids(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "BMP"])
def test_another_format_under_the_name_of_a_png_is_called_no_png(tmp_path, kind):
    path = tmp_path / "a.png"
    Image.new("L", (8, 8)).save(path, format=kind)
    with pytest.raises(InputError, match=r"a\.png: .* as an image \(it is not a PNG or JPEG file\); replace"):
        read_image(path)
    with pytest.raises(InputError, match=r"a\.png: cannot be read as an image \(it is not a PNG file\); replace"):
        read_ids(path)
