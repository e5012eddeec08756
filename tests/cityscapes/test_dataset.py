"""Images and masks of a split: where they are looked for, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from cityscapes.dataset import open_cityscapes
from cityscapes.errors import InputError, MissingInputError
from cityscapes.layout import LABEL_IDS_SUFFIX, POLYGONS_SUFFIX, TRAIN_IDS_SUFFIX, Frame

FRAME = Frame("val", "town", "000000", "000001")


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def split(tmp_path):
    write(FRAME.image(tmp_path), np.zeros((4, 6, 3), np.uint8))
    return open_cityscapes(tmp_path, "val", generated=tmp_path / "generated")


def test_a_generated_mask_comes_before_a_provided_one(split):
    polygons = FRAME.annotation(split.root, POLYGONS_SUFFIX)
    polygons.parent.mkdir(parents=True)
    polygons.touch()
    write(FRAME.annotation(split.root, TRAIN_IDS_SUFFIX), np.full((4, 6), 1, np.uint8))
    write(FRAME.generated(split.generated, TRAIN_IDS_SUFFIX), np.full((4, 6), 2, np.uint8))
    assert (split.mask(0) == 2).all()


def test_without_polygons_a_provided_mask_comes_before_what_was_generated_elsewhere(split):
    write(FRAME.generated(split.generated, TRAIN_IDS_SUFFIX), np.full((4, 6), 2, np.uint8))
    assert (split.mask(0) == 2).all()
    write(FRAME.annotation(split.root, LABEL_IDS_SUFFIX), np.full((4, 6), 7, np.uint8))
    assert (split.mask(0) == 0).all()


def test_provided_label_ids_are_turned_into_train_ids(split):
    write(FRAME.annotation(split.root, LABEL_IDS_SUFFIX), np.array([[7, 26, 0, 33, 4, 29]] * 4, np.uint8))
    assert split.mask(0)[0].tolist() == [0, 13, 255, 18, 255, 255]


def test_a_missing_mask_names_the_command_that_makes_it(split):
    assert not split.has_mask(0)
    with pytest.raises(MissingInputError, match=r"python cityscapes/generate_gt\.py"):
        split.mask(0)


def test_label_ids_in_place_of_train_ids_are_recognized(split):
    write(FRAME.annotation(split.root, TRAIN_IDS_SUFFIX), np.full((4, 6), 26, np.uint8))
    with pytest.raises(InputError, match=r"ids 26.*look like Cityscapes label ids"):
        split.mask(0)


def test_a_mask_of_another_size_is_refused_with_both_sizes(split):
    write(FRAME.annotation(split.root, TRAIN_IDS_SUFFIX), np.zeros((4, 5), np.uint8))
    with pytest.raises(InputError, match=r"has 5 x 4 pixels and its image 6 x 4"):
        split.pair(0)


def test_images_that_are_left_out_for_their_type_or_name_are_counted_and_named(split):
    folder = FRAME.image(split.root).parent
    for name in ("town_000000_000002_leftImg8bit.jpg", "other_000000_000003_leftImg8bit.png", ".hidden.png"):
        write(folder / name, np.zeros((4, 6, 3), np.uint8))
    write(folder.parent / "loose.tif", np.zeros((4, 6, 3), np.uint8))
    (line,) = split.unread
    assert "leftImg8bit/val holds 3 images that are not read, the first loose.tif; they must be PNG files" in line
    assert len(split) == 1


@pytest.mark.parametrize("suffix", [LABEL_IDS_SUFFIX, POLYGONS_SUFFIX])
def test_annotated_frames_without_an_image_are_counted_and_named(split, suffix):
    for frame in (FRAME, FRAME._replace(frame="000002"), FRAME._replace(frame="000003")):
        path = frame.annotation(split.root, suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (line,) = split.unread
    assert "2 annotated frames of 'val' are left out, the first town_000000_000002, because they have no image" in line


def test_of_a_whole_split_nothing_is_said(city):
    for name in ("train", "val", "test"):
        assert open_cityscapes(city, name, generated=city / "generated").unread == ()


def test_a_color_image_is_not_a_mask(split):
    write(FRAME.annotation(split.root, TRAIN_IDS_SUFFIX), np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(InputError, match="mode RGB"):
        split.mask(0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99])
def test_a_truncated_image_is_reported_by_name(split, share):
    path = FRAME.image(split.root)
    write(path, np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=path.name) as refusal:
        split.image(0)
    assert "\n" not in str(refusal.value)


def test_another_image_format_under_the_name_is_refused(split):
    path = FRAME.image(split.root)
    Image.new("RGB", (6, 4)).save(path, "BMP")
    with pytest.raises(InputError, match="cannot be read"):
        split.image(0)
