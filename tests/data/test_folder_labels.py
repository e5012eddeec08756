"""Labels that would vanish or change their meaning are refused, or read as the class table says."""

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError
from dlv3p.data.audit import audit
from dlv3p.data.class_pixels import class_pixels, describe_absent, describe_palettes, refuse_one_class
from dlv3p.data.roots import open_split

PLAIN = "id,name\n0,road\n1,car\n2,sky\n"
COLORED = "id,name,red,green,blue\n0,road,128,64,128\n1,car,0,0,142\n2,sky,70,130,180\n"
BLACK_AND_WHITE = "id,name,red,green,blue\n0,background,0,0,0\n1,object,255,255,255\n"
IDS = np.array([[0, 1, 2, 255], [0, 1, 2, 0]], np.uint8)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def write(folder, *, table=PLAIN, masks=(IDS,), splits=("train", "val"), palette=None):
    """Write a plain folder with these masks in each split."""
    (folder / "classes.csv").write_text(table)
    for seed, split in enumerate(splits):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for number, mask in enumerate(masks):
            picture = np.random.default_rng(100 * seed + number).integers(0, 256, (*mask.shape[:2], 3))
            Image.fromarray(picture.astype(np.uint8)).save(folder / "images" / split / f"{number}.png")
            image = Image.fromarray(mask)
            if palette:
                image = Image.fromarray(mask, mode="P")
                image.putpalette(palette + [0] * (3 * 256 - len(palette)))  # or Pillow stores 255 in two bits
            image.save(folder / "masks" / split / f"{number}.png")
    return open_split(folder, "train")


def test_three_equal_channels_are_ids_where_the_table_has_no_colors(folder):
    assert np.array_equal(write(folder, masks=[np.repeat(IDS[..., None], 3, 2)]).mask(0), IDS)


def test_four_channels_with_equal_colors_are_ids_too(folder):
    assert np.array_equal(write(folder, masks=[np.dstack([IDS, IDS, IDS, 255 - IDS])]).mask(0), IDS)


def test_colors_without_colors_in_the_table_are_refused(folder):
    split = write(folder, masks=[np.dstack([IDS, IDS, IDS + 1])])
    with pytest.raises(InputError, match=r"0\.png: holds RGB colors and classes\.csv has none; add the columns"):
        split.mask(0)


def test_equal_channels_are_colors_where_the_table_has_colors(folder):
    split = write(folder, masks=[np.repeat(IDS[..., None], 3, 2)], table=COLORED)
    with pytest.raises(InputError, match="pixels have colors that are not in"):
        split.mask(0)


def test_a_palette_in_the_colors_of_other_classes_is_refused_by_name(folder):
    swapped = [0, 0, 142, 128, 64, 128, 70, 130, 180]
    split = write(folder, table=COLORED, palette=swapped)
    with pytest.raises(InputError, match=r"its palette shows id 0 \(road\) in the color .* of id 1 \(car\)"):
        split.mask(0)
    assert "mask that cannot be used" in {f.kind for f in audit(folder, ["train"], progress="none").errors}


@pytest.mark.parametrize(
    "palette",
    [[128, 64, 128, 0, 0, 142, 70, 130, 180], [level for level in range(256) for _ in range(3)], [9, 9, 8] * 256],
)
def test_a_palette_that_agrees_or_says_nothing_is_no_reason(folder, palette):
    assert np.array_equal(write(folder, table=COLORED, palette=palette).mask(0), IDS)


def test_palettes_that_show_one_id_in_two_colors_are_an_error_and_a_line(folder, workspace):
    split = write(folder, masks=[IDS, IDS], palette=[128, 64, 128, 0, 0, 142, 70, 130, 180])
    class_pixels(split)
    assert describe_palettes(split) == ""
    path = folder / "masks" / "train" / "1.png"
    swapped = Image.fromarray(IDS, mode="P")
    swapped.putpalette([0, 0, 142, 128, 64, 128, 70, 130, 180] + [0] * 249 * 3)
    swapped.save(path)
    for _ in range(2):  # counts that are kept would say nothing
        split = open_split(folder, "train")
        class_pixels(split)
        line = describe_palettes(split)
        assert line.startswith(
            f"{path}: its palette shows id 0 in the color (0, 0, 142), that of {folder}/masks/train/0"
        )
    (finding,) = [one for one in audit(folder, ["train", "val"]).findings if one.kind == "palettes that disagree"]
    assert finding.is_error


def test_a_column_of_train_ids_is_not_passed_over(folder):
    split = write(folder, table="id,name,trainId\n0,road,0\n1,car,1\n2,sky,\n")
    assert np.array_equal(split.mask(0), IDS), "which says nothing else"
    (folder / "classes.csv").write_text("id,name,trainId\n0,road,0\n1,car,255\n2,sky,1\n")
    with pytest.raises(InputError, match=r"classes\.csv, line 3: trainid is 255, which is not read; give the class's"):
        open_split(folder, "train")


@pytest.mark.parametrize("name", ["data.yml", "Data.yaml"])
def test_what_a_misnamed_data_file_states_is_not_passed_over(folder, name):
    write(folder)
    (folder / name).write_text("names: [road, car, sky]\n")
    open_split(folder, "train")  # YOLO's says nothing of this
    (folder / name).write_text("channels: 3\nvalue_range: [0, 128]\n")
    with pytest.raises(InputError, match=rf"{name}: is not read under this name; call it data\.yaml"):
        open_split(folder, "train")


def test_gray_255_that_the_table_shows_as_a_white_class_is_refused(folder):
    split = write(folder, table=BLACK_AND_WHITE, masks=[np.array([[0, 255, 0]], np.uint8)])
    with pytest.raises(InputError, match=r"holds 255, .* shows id 1 \(object\) in white; store 1 for it, or .* RGB"):
        split.mask(0)


def test_white_in_a_mask_of_colors_is_the_class_of_the_table(folder):
    mask = np.repeat(np.array([[[0], [255], [0]]], np.uint8), 3, 2)
    assert write(folder, table=BLACK_AND_WHITE, masks=[mask]).mask(0).tolist() == [[0, 1, 0]]


def test_ids_with_ignored_pixels_are_fine_beside_a_white_class(folder):
    ids = np.array([[0, 1, 255]], np.uint8)
    assert write(folder, table=BLACK_AND_WHITE, masks=[ids]).mask(0).tolist() == ids.tolist()


@pytest.mark.parametrize("name", ["object", "car"])
def test_a_class_with_id_255_is_refused(folder, name):
    with pytest.raises(InputError, match=f"line 4: 255 marks ignored pixels and cannot be the class '{name}'"):
        write(folder, table=f"id,name\n0,a\n1,b\n255,{name}\n")


def test_a_row_with_id_255_may_say_what_is_ignored(folder):
    assert write(folder, table="id,name\n0,a\n1,b\n2,c\n255,Void\n").num_classes == 3


@pytest.mark.parametrize(
    ("table", "remedy"), [(PLAIN, "the ids of the other classes"), ("id,name\n0,ground\n1,object\n", r"1 \(object\)")]
)
def test_masks_of_one_class_and_255_are_an_error_and_stop(folder, table, remedy, workspace):
    split = write(folder, table=table, masks=[np.array([[0, 255]], np.uint8)] * 2)
    report = audit(folder, ["train", "val"], progress="none")
    assert {(f.kind, f.split) for f in report.errors} == {
        ("masks of one class", "train"),
        ("masks of one class", "val"),
        ("classes that never occur", "train"),
    }
    with pytest.raises(
        InputError, match=rf"the masks of 'train' hold only 0 \(\w+\) and 255, .*; store {remedy} .* 'stored' of"
    ):
        refuse_one_class(split, class_pixels(split))


@pytest.mark.parametrize("mask", [[[0, 1, 255]], [[0, 0, 0]]])
def test_masks_of_two_classes_or_without_255_do_not_stop(folder, mask, workspace):
    split = write(folder, masks=[np.array(mask, np.uint8)])
    pixels = class_pixels(split)
    refuse_one_class(split, pixels)
    assert pixels.tolist() == np.bincount(np.ravel(mask), minlength=256).tolist()


def test_a_class_without_a_labeled_pixel_in_training_is_an_error_and_a_line(folder, workspace):
    split = write(folder, masks=[np.array([[0, 1, 255]], np.uint8)])
    errors = {(f.kind, f.split, f.problem) for f in audit(folder, ["train", "val"], progress="none").errors}
    assert errors == {("classes that never occur", "train", "no pixel is sky")}
    assert "no pixel of 'train' is labeled sky, 1 of 3 classes" in describe_absent(split, class_pixels(split))


def test_pixels_are_counted_once_and_again_when_a_mask_changes(folder, workspace, monkeypatch):
    split = write(folder)
    assert class_pixels(split)[[0, 1, 2, 255]].tolist() == [3, 2, 2, 1]
    again = open_split(folder, "train")
    with monkeypatch.context() as patched:
        patched.setattr(again, "mask", None)
        assert class_pixels(again)[[0, 1, 2, 255]].tolist() == [3, 2, 2, 1]
    Image.fromarray(np.full((2, 4), 2, np.uint8)).save(folder / "masks/train/0.png")
    assert class_pixels(again)[[0, 1, 2, 255]].tolist() == [0, 0, 8, 0]


def test_a_mask_that_cannot_be_used_is_left_out_and_nothing_is_kept(folder, workspace):
    split = write(folder, masks=[IDS, np.full((2, 4), 9, np.uint8)])
    with pytest.raises(InputError, match="holds the ids 9"):
        class_pixels(split)
    assert class_pixels(split, skip_bad=True).sum() == IDS.size
    with pytest.raises(InputError, match="holds the ids 9"):
        class_pixels(split)
