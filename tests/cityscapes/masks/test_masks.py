"""The fill rule of the official masks, their three encodings, and the files that hold them."""

import json
import math
import os
import subprocess
import sys
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.real_frames import ABSENT, POLYGON_FILES, beside, restored

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.png_read import read_instance_image, read_label_bytes, read_label_image
from cityscapes.files.png_write import encode_png, pack_pixels
from cityscapes.files.stamps import is_made_from
from cityscapes.labels import CITYSCAPES, LABEL_ID_TO_COLOR, LABEL_ID_TO_TRAIN_ID
from cityscapes.masks.draw import draw_instance_ids, draw_label_ids, rgba_of_label_ids, to_label_ids, to_train_ids
from cityscapes.masks.polygons import Annotation, Polygon, parse_polygons, read_polygons

HEIGHT, WIDTH = 20, 30


def annotation(*objects: tuple[str, list], height: int = HEIGHT, width: int = WIDTH) -> Annotation:
    polygons = [Polygon(CITYSCAPES.by_name[name], np.array(points, np.int32)) for name, points in objects]
    return Annotation(height, width, tuple(polygons))


def by_the_rule(points: list[tuple[int, int]]) -> np.ndarray:
    """Return which pixels one polygon fills, by the written rule, a row and an edge at a time; bool (H, W)."""
    filled = np.zeros((HEIGHT, WIDTH), bool)
    edges = list(zip(points, points[1:], strict=False))
    if points[-1] != points[0]:
        edges.append((points[-1], points[0]))
    for y in range(HEIGHT):
        sample, crossings = np.float32(y + 0.5), []
        for (x0, y0), (x1, y1) in edges:
            if y0 != y1 and min(y0, y1) <= sample <= max(y0, y1):
                slope = np.float32(np.float32(x1 - x0) / np.float32(y1 - y0))
                crossings.append(np.float32(np.float32(np.float32(sample - np.float32(y0)) * slope) + np.float32(x0)))
        crossings.sort()
        for a, b in zip(crossings[::2], crossings[1::2], strict=True):
            for x in range(math.ceil(float(a) - 0.5), math.floor(float(b) + 0.5) + 1):
                if 0 <= x < WIDTH:
                    filled[y, x] = True
    return filled


@pytest.mark.skipif(not POLYGON_FILES, reason=ABSENT)
@pytest.mark.parametrize("path", POLYGON_FILES, ids=lambda path: path.name[:-21])
def test_official_masks_are_reproduced_pixel_for_pixel(path):
    label_ids = read_label_image(beside(path, "labelIds.png"))
    instance_ids = read_instance_image(beside(path, "instanceIds.png"))
    assert instance_ids.max() > 1000
    drawn = parse_polygons(restored(path), path)
    assert np.count_nonzero(draw_label_ids(read_polygons(path)) != label_ids) == 0
    assert np.count_nonzero(draw_label_ids(drawn) != label_ids) == 0
    assert np.count_nonzero(draw_instance_ids(drawn) != instance_ids) == 0
    assert np.count_nonzero(to_label_ids(instance_ids) != label_ids) == 0


NEAR = st.tuples(st.integers(-5, WIDTH + 5), st.integers(-5, HEIGHT + 5))
FAR = st.tuples(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6))


@settings(max_examples=200, deadline=None)
@given(st.lists(NEAR, min_size=2, max_size=9) | st.lists(NEAR | FAR, min_size=2, max_size=30))
@example([(0, 0), (-2, 3)])
@example([(3, 3), (3, 3)])
@example([(2, 5), (9, 5), (20, 5)])
@example([(2, 5), (9, 5)])
@example([(2, 2), (2, 15)])
@example([(-9, -9), (99, -9), (99, 99), (-9, 99)])
@example([(0, 0), (29, 19), (29, 0), (0, 19)])
@example([(1, 1), (9, 1), (9, 9), (1, 9), (1, 1)])
@example([(x, y) for x in range(40) for y in (-1, 21)])
def test_any_polygon_fills_what_the_written_rule_says(points):
    drawn = draw_label_ids(annotation(("car", points)))
    np.testing.assert_array_equal(drawn == CITYSCAPES.by_name["car"].label_id, by_the_rule(points))


def test_nothing_drawn_is_unlabeled_ignored_and_black():
    label_ids = draw_label_ids(annotation())
    assert label_ids.shape == (HEIGHT, WIDTH)
    assert label_ids.dtype == np.uint8
    assert set(np.unique(label_ids)) == {0}
    assert set(np.unique(to_train_ids(label_ids))) == {255}
    assert {tuple(color) for color in rgba_of_label_ids(CITYSCAPES)[label_ids].reshape(-1, 4)} == {(0, 0, 0, 255)}


def test_later_polygons_cover_earlier_ones():
    whole = [(-1, -1), (40, -1), (40, 40), (-1, 40)]
    assert set(np.unique(draw_label_ids(annotation(("road", whole), ("car", whole))))) == {26}
    assert set(np.unique(draw_label_ids(annotation(("car", whole), ("road", whole))))) == {7}


def test_license_plates_are_not_drawn():
    whole = [(-1, -1), (40, -1), (40, 40), (-1, 40)]
    assert set(np.unique(draw_label_ids(annotation(("car", whole), ("license plate", whole))))) == {26}


def square(left: int) -> list[tuple[int, int]]:
    return [(left, 0), (left + 1, 0), (left + 1, 9), (left, 9)]


def test_instances_are_numbered_by_label_in_file_order_even_where_hidden():
    names = ["car", "road", "person", "license plate", "car", "cargroup", "polegroup", "car"]
    objects = [{"label": name, "polygon": square(4 if i == 4 else 3 * i)} for i, name in enumerate(names)]
    objects.append({"label": "sky", "polygon": square(4)})  # hides the second car, which keeps its number
    objects.append({"label": "car", "polygon": square(27), "deleted": 1})
    document = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects}
    drawn = parse_polygons(json.dumps(document).encode(), "file.json")
    instance_ids = draw_instance_ids(drawn)
    assert (instance_ids.dtype, instance_ids.shape) == (np.uint16, (HEIGHT, WIDTH))
    assert sorted(np.unique(instance_ids).tolist()) == [0, 7, 18, 23, 26, 24000, 26000, 26002]
    assert (instance_ids[0, 15], instance_ids[0, 21]) == (26, 26002)
    np.testing.assert_array_equal(to_label_ids(instance_ids), draw_label_ids(drawn))


def test_more_instances_than_three_digits_can_number_are_refused():
    assert draw_instance_ids(annotation(*[("car", square(2))] * 1000)).max() == 26999
    with pytest.raises(InputError, match="1001 objects are labeled 'car'"):
        draw_instance_ids(annotation(*[("car", square(2))] * 1001))


def test_instance_images_of_another_mode_are_refused(tmp_path):
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="expected one 16-bit channel"):
        read_instance_image(tmp_path / "mask.png")


def test_encodings_follow_the_label_table():
    label_ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(to_train_ids(label_ids), LABEL_ID_TO_TRAIN_ID[label_ids])
    rgba = rgba_of_label_ids(CITYSCAPES)[label_ids]
    assert rgba.shape == (16, 16, 4)
    np.testing.assert_array_equal(rgba[..., :3], LABEL_ID_TO_COLOR[label_ids])
    assert (rgba[..., 3] == 255).all()


@pytest.mark.parametrize("broken", ["not a folder", "full"])
def test_drawing_works_where_compiled_code_cannot_be_kept(tmp_path, broken):
    if broken == "full" and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "not a folder").write_bytes(b"")
    code = """
import sys
if sys.argv[1] == "full":
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
import numpy as np
from cityscapes.labels import CITYSCAPES
from cityscapes.masks.draw import draw_label_ids
from cityscapes.masks.polygons import Annotation, Polygon
square = Polygon(CITYSCAPES.by_name["road"], np.array([[0, 0], [9, 0], [9, 9], [0, 9]], np.int32))
print(draw_label_ids(Annotation(10, 10, (square,))).sum())
"""
    cache = tmp_path / ("not a folder/cache" if broken == "not a folder" else "cache")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    arguments = [sys.executable, "-c", code, broken]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 7 * 90


PIXELS = np.random.default_rng(0).integers(0, 34, (HEIGHT, WIDTH), np.uint8)


def opened(content: bytes) -> Image.Image:
    return Image.open(BytesIO(content))


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (1, 1), (1, 7), (7, 1), (5, 3, 4)])
def test_png_files_hold_the_pixels_they_were_given(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = opened(encode_png(pixels, made_from=b"x"))
    assert image.mode == ("L" if len(shape) == 2 else "RGBA")
    np.testing.assert_array_equal(np.array(image), pixels)


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (1, 1), (1, 9), (9, 1), (300, 1000), (3, 200_000)])
@pytest.mark.parametrize("noisy", [False, True])
def test_look_up_tables_are_applied_while_packing(shape, noisy):
    random = np.random.default_rng(1)
    pixels = np.zeros(shape, np.uint8) + np.uint8(5)
    pixels[random.random(shape) < (0.9 if noisy else 0.02)] = 200
    pixels[:, shape[1] // 2 :] += np.uint8(3)
    pixels.flags.writeable = False
    for table in (random.integers(0, 256, 256, np.uint8), random.integers(0, 256, (256, 4), np.uint8)):
        content = encode_png(pixels, table=table)
        assert (
            content
            == encode_png(pixels, table=table)
            == encode_png(pixels, packed=pack_pixels(pixels, table=table), table=table)
        )
        image = opened(content)
        assert image.mode == ("L" if table.ndim == 1 else "RGBA")
        np.testing.assert_array_equal(np.array(image), table[pixels])


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH), (1, 1), (300, 1000)])
def test_instance_files_hold_sixteen_bits(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 2**16, shape, np.uint16)
    (tmp_path / "mask.png").write_bytes(encode_png(pixels, made_from=b"x"))
    assert Image.open(tmp_path / "mask.png").mode == "I;16"
    read = read_instance_image(tmp_path / "mask.png", size=shape)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels)


def test_palette_files_hold_the_ids_and_show_the_colors():
    image = opened(encode_png(PIXELS, palette=LABEL_ID_TO_COLOR, packed=pack_pixels(PIXELS)))
    assert encode_png(PIXELS, palette=LABEL_ID_TO_COLOR) == encode_png(
        PIXELS, palette=LABEL_ID_TO_COLOR, packed=pack_pixels(PIXELS)
    )
    assert image.mode == "P"
    np.testing.assert_array_equal(np.array(image), PIXELS)
    np.testing.assert_array_equal(np.array(image.convert("RGB")), LABEL_ID_TO_COLOR[PIXELS])


def test_a_seal_holds_for_its_origin_only(tmp_path):
    path = tmp_path / "mask.png"
    assert not is_made_from(path, b"polygons")
    path.write_bytes(encode_png(PIXELS, made_from=b"polygons"))
    assert is_made_from(path, b"polygons")
    assert not is_made_from(path, b"other polygons")
    path.write_bytes(encode_png(PIXELS))
    assert not is_made_from(path, b"polygons")


def test_seals_of_earlier_versions_hold():
    """The seal's keyword is in every mask ever written; whatever the modules are called, it stays."""
    content = encode_png(PIXELS, made_from=b"polygons")
    assert content[33 + 4 : 33 + 8 + 22] == b"tEXtcityscapes.mask_files\0"


def test_every_flipped_bit_and_every_cut_breaks_the_seal(tmp_path):
    path, content = tmp_path / "mask.png", encode_png(PIXELS[:3, :3], made_from=b"polygons")
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        assert not is_made_from(path, b"polygons"), place
        path.write_bytes(content[:place])
        assert not is_made_from(path, b"polygons"), place


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "I;16", "LA"])
def test_label_images_of_another_mode_are_refused(tmp_path, mode):
    Image.new(mode, (WIDTH, HEIGHT)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match="expected one 8-bit channel"):
        read_label_image(tmp_path / "mask.png")


def test_label_images_of_another_size_or_absent_or_of_another_format_are_refused(tmp_path):
    path = tmp_path / "mask.png"
    with pytest.raises(MissingInputError):
        read_label_image(path)
    path.write_bytes(encode_png(PIXELS))
    np.testing.assert_array_equal(read_label_image(path, size=(HEIGHT, WIDTH)), PIXELS)
    with pytest.raises(InputError, match=f"20 x 30, found mode L, {WIDTH} x {HEIGHT}"):
        read_label_image(path, size=(WIDTH, HEIGHT))
    Image.fromarray(PIXELS).save(path, "GIF")
    with pytest.raises(InputError, match="not a whole PNG"):
        read_label_image(path)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=20), st.integers(0, 300), st.integers(0, 20), st.booleans())
def test_any_damage_to_a_png_is_either_harmless_or_refused(junk, place, length, cut):
    content = encode_png(PIXELS[:5, :5], made_from=b"x")
    damaged = content[:place] + junk + (b"" if cut else content[place + length :])
    with suppress(InputError):
        assert read_label_bytes(damaged, "mask", size=(5, 5)).shape == (5, 5)
