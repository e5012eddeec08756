"""A plain folder of one's own: what is read, and what is refused with a line that says how to mend it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError, MissingInputError
from dlv3p.data.folder import open_folder
from dlv3p.data.roots import open_for_viewing, open_images, open_split, open_training, resolve_data_root
from dlv3p.parameters.training import TrainingDataParameters

REAL = Path(__file__).parents[3] / "shared" / "data" / "camvid"
CLASSES = "id,name,red,green,blue\n0,road,128,64,128\n1,car,0,0,142\n2,sky,70,130,180\n"
IDS = np.array([[0, 1, 2, 255], [0, 1, 2, 0]], np.uint8)


def write_image(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, **options).save(path)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "classes.csv").write_text(CLASSES)
    for split, names in {"train": ["a", "b"], "val": ["a"]}.items():
        for name in names:
            write_image(tmp_path / "images" / split / f"{name}.jpg", np.full((2, 4, 3), 90, np.uint8))
            write_image(tmp_path / "masks" / split / f"{name}.png", IDS)
    return tmp_path


def test_images_masks_names_and_colors_come_back(folder):
    split = open_split(folder, "train")
    assert [split.name(index) for index in range(len(split))] == ["a", "b"]
    assert split.class_names == ("road", "car", "sky")
    assert split.colors[1].tolist() == [0, 0, 142]
    image, mask = split.pair(1)
    assert image.mode == "RGB"
    assert np.array_equal(mask, IDS)


def test_equal_names_in_two_splits_are_two_images(folder):
    training, validation = open_training(TrainingDataParameters(data_root=str(folder)))
    assert (len(training), len(validation)) == (2, 1)


def test_a_split_within_another_one_cannot_be_its_validation(folder):
    for kind in ("images", "masks"):
        shutil.copytree(folder / kind / "val", folder / kind / "train" / "held_out")
    with pytest.raises(InputError, match="'train' and 'train/held_out' share 1 images, the first a;"):
        open_training(TrainingDataParameters(data_root=str(folder), val_split="train/held_out"))


def test_a_split_can_be_viewed_with_all_some_or_none_of_its_masks(folder):
    assert open_for_viewing(folder, "train").has_mask(0)
    (folder / "masks/train/a.png").unlink()
    assert [open_for_viewing(folder, "train").has_mask(index) for index in range(2)] == [False, True]
    shutil.rmtree(folder / "masks/val")
    assert len(open_for_viewing(folder, "val")) == 1
    with pytest.raises(MissingInputError, match="no such split"):
        open_for_viewing(folder, "drive")


def test_a_palette_mask_gives_its_indices_not_its_colors(folder):
    image = Image.fromarray(IDS, mode="P")
    image.putpalette(bytes(range(255, -1, -1)) * 3)
    image.save(folder / "masks/train/a.png")
    assert np.array_equal(open_folder(folder, "train", labeled=True).mask(0), IDS)


def test_a_mask_of_colors_is_read_by_the_class_table(folder):
    (folder / "classes.csv").write_text(CLASSES + "255,nothing,0,0,0\n")
    colors = np.array([[128, 64, 128], [0, 0, 142], [70, 130, 180], [0, 0, 0]], np.uint8)
    write_image(folder / "masks/train/a.png", colors[np.minimum(IDS, 3)])
    assert np.array_equal(open_folder(folder, "train", labeled=True).mask(0), IDS)


def test_an_unknown_color_is_refused_with_its_value(folder):
    write_image(folder / "masks/train/a.png", np.full((2, 4, 3), 17, np.uint8))
    with pytest.raises(InputError, match="8 pixels have colors .* 17, 17, 17"):
        open_folder(folder, "train", labeled=True).mask(0)


def test_names_may_hold_blanks_dots_and_folders(folder):
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        target = folder / kind / "train" / "night 1" / f"frame.v2 ü.{suffix}"
        target.parent.mkdir()
        shutil.copy(folder / kind / "train" / f"a.{suffix}", target)
    split = open_split(folder, "train")
    assert split.name(2) == "night 1/frame.v2 ü"
    assert np.array_equal(split.mask(2), IDS)


@pytest.mark.parametrize(
    "name", [b"\xff", b"two words", b'it\'s "quoted"', b"a\nb", "\N{SNOWMAN} \N{GRINNING FACE}".encode(), b"n" * 251]
)
def test_l4_any_name_that_the_disk_takes_is_read_and_can_be_shown(folder, name):
    for kind, suffix in ((b"images", b".jpg"), (b"masks", b".png")):
        source = os.fsencode(folder) + b"/" + kind + b"/train/"
        shutil.copy(source + b"a" + suffix, source + name + suffix)
    split = open_split(folder, "train")
    (index,) = [index for index in range(3) if split.name(index) not in ("a", "b")]
    assert split.name(index).isprintable()
    split.name(index).encode()
    assert np.array_equal(split.pair(index)[1], IDS)


def test_a_split_without_masks_opens_for_its_images_alone(folder):
    shutil.rmtree(folder / "masks" / "val")
    split = open_images(folder, "val")
    assert len(split) == 1
    assert not split.has_mask(0)
    with pytest.raises(InputError, match="1 images without a mask in masks/val: a"):
        open_split(folder, "val")


def test_l1_images_and_masks_without_a_partner_are_all_counted(folder):
    (folder / "masks/train/a.png").rename(folder / "masks/train/lonely.png")
    with pytest.raises(InputError, match="1 images without a mask .*: a; 1 masks without an image .*: lonely"):
        open_split(folder, "train")


def test_l1_two_files_of_one_name_are_refused(folder):
    shutil.copy(folder / "images/train/a.jpg", folder / "images/train/a.png")
    with pytest.raises(InputError, match=r"a\.png: a\.jpg has the same name"):
        open_split(folder, "train")


def test_l2_sizes_that_differ_are_both_named(folder):
    write_image(folder / "masks/train/a.png", np.zeros((3, 5), np.uint8))
    with pytest.raises(InputError, match="5 x 3 pixels and its image 4 x 2"):
        open_split(folder, "train").pair(0)


@pytest.mark.parametrize("prepare", ["no folder", "empty folder", "other files"])
def test_l7_a_split_without_images_is_refused(folder, prepare):
    if prepare != "no folder":
        (folder / "images" / "new").mkdir()
    if prepare == "other files":
        (folder / "images" / "new" / "notes.txt").write_text("nothing")
    with pytest.raises(MissingInputError, match=r"no such split; .* holds train, val|holds no image"):
        open_split(folder, "new")


def test_l7_a_file_of_no_bytes_is_named(folder):
    (folder / "images/train/a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.jpg: cannot be read as an image"):
        open_split(folder, "train").image(0)


@pytest.mark.parametrize(
    ("value", "hint"),
    [(3, "3 looks like an id for unlabeled pixels: store 255"), (200, "the 3 classes are 0 to 2")],
)
def test_l8_ids_outside_the_table_are_refused(folder, value, hint):
    write_image(folder / "masks/train/a.png", np.full((2, 4), value, np.uint8))
    with pytest.raises(InputError, match=f"holds the ids {value};.*{hint}"):
        open_split(folder, "train").mask(0)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (None, "no such file; write one line per class"),
        ("name,color\n", "first line must be id,name,red,green,blue"),
        ("id;name\n0;road\n1;car\n", "columns are separated by semicolons, save it with commas"),
        ("id\tname\n0\troad\n1\tcar\n", "columns are separated by tabs, save it with commas"),
        ("id,name,name\n0,road,street\n1,car,auto\n", "line 1: duplicate key 'name'"),
        ("id,name\n0,road\n", "fewer than two classes"),
        ("id,name\n0,road\n2,car\n", "line 3: id 2, expected 1"),
        ("id,name\n0,road\n1,road\n", "line 3: duplicate name 'road'"),
        ("id,name\n0,road\n1,\n", "line 3: the name is empty"),
        ('id,name\n0,road\n1,"c\nar"\n', r"line 4: the name c\\nar holds a character that cannot be shown"),
        ("id,name\n0,road\n1,c\0ar\n", r"line 3: the name c\\x00ar holds a character that cannot be shown"),
        ("id,name\n0,road\nx,car\n", "line 3: id is 'x'"),
        ("id,name\n0,road\n256,car\n", "line 3: id is '256'"),
        ("id,name,red,green,blue\n0,road,1,2\n1,car,1,2,3\n", "line 2: give red, green and blue together"),
        (
            "id,name,red,green,blue\n0,road,1,2,3\n1,car,1,2,3\n",
            "line 3: the color .* already belongs to another class",
        ),
    ],
)
def test_a_wrong_class_table_is_refused_with_its_line(folder, table, complaint):
    (folder / "classes.csv").unlink()
    if table is not None:
        (folder / "classes.csv").write_text(table)
    with pytest.raises(InputError, match=complaint):
        open_split(folder, "train")


def test_classes_without_colors_get_distinct_ones(folder):
    (folder / "classes.csv").write_text("id,name\n" + "".join(f"{index},class {index}\n" for index in range(40)))
    colors = open_split(folder, "train").colors[:40]
    assert len({tuple(color) for color in colors.tolist()}) == 40


@pytest.mark.parametrize("target", ["outside", "dead", "circle"])
def test_l6_links_that_lead_astray_are_refused(folder, tmp_path_factory, target):
    link = folder / "images" / "train" / "b.jpg"
    link.unlink()
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "b.jpg"
    shutil.copy(folder / "images/train/a.jpg", elsewhere)
    link.symlink_to({"outside": elsewhere, "dead": "nothing.jpg", "circle": "b.jpg"}[target])
    complaint = {"outside": "a link out of", "dead": "a broken link", "circle": "a circular link"}[target]
    with pytest.raises(InputError, match=f"b.jpg: {complaint}"):
        open_split(folder, "train")


def test_l6_links_are_followed_on_request(folder, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "b.jpg"
    (folder / "images/train/b.jpg").rename(elsewhere)
    (folder / "images/train/b.jpg").symlink_to(elsewhere)
    monkeypatch.setenv("DLV3P_FOLLOW_LINKS", "1")
    assert open_split(folder, "train").image(1).size == (4, 2)


def test_a_folder_of_no_known_kind_says_what_it_holds(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(MissingInputError, match=r"classes\.csv \(a plain folder\); this folder holds pictures"):
        open_split(tmp_path, "train")


@pytest.mark.skipif(not REAL.is_dir(), reason="the CamVid frames are not beside this checkout")
def test_a_real_folder_opens_with_every_mask_in_the_table():
    training, validation = open_training(TrainingDataParameters(data_root=str(REAL)))
    assert (len(training), len(validation), training.num_classes) == (367, 101, 11)
    for split in (training, validation):
        for index in range(0, len(split), 25):
            assert split.pair(index)[1].shape == (360, 480)


def test_classes_without_colors_get_different_ones_and_the_background_a_quiet_one():
    from dlv3p.data.classes import class_colors, default_color

    colors = [default_color(index, f"class {index}") for index in range(40)]
    assert len(set(colors)) == 40
    assert default_color(0, "Background") == (64, 64, 64)
    assert (0, 0, 0) not in colors
    assert class_colors([f"class {index}" for index in range(40)]).tolist() == [list(color) for color in colors]


@pytest.mark.parametrize(
    ("table", "ignored"),
    [
        (CLASSES, [0, 0, 0]),
        (CLASSES.replace("128,64,128", "0,0,0"), [224, 224, 192]),
        (CLASSES + "255,void,9,9,9\n", [9, 9, 9]),
    ],
)
def test_ignored_pixels_have_a_color_that_no_class_has(folder, table, ignored):
    (folder / "classes.csv").write_text(table)
    split = open_split(folder, "train")
    assert split.colors[255].tolist() == ignored
    assert ignored not in split.colors[:3].tolist()


def test_a_folder_of_annotations_is_named_what_makes_data_of_it(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.jpg").touch()
    (tmp_path / "annotations.json").touch()
    with pytest.raises(MissingInputError, match=f"holds none; .* by: dlv3p annotations prepare {tmp_path} --output"):
        open_split(tmp_path, "train")
    with pytest.raises(MissingInputError, match=r": a file, not .*: dlv3p annotations prepare .*/annotations\.json$"):
        resolve_data_root(str(tmp_path / "annotations.json"))


@pytest.mark.parametrize("given", [".", "my_data/images", "my_data/masks"])
def test_a_folder_that_is_one_too_high_or_too_low_is_refused_with_the_one_that_is_meant(tmp_path, given):
    for below in ("images/train", "masks/train"):
        (tmp_path / "my_data" / below).mkdir(parents=True)
    with pytest.raises(MissingInputError) as refusal:
        open_split(tmp_path / given, "train")
    assert f": not a supported data set; did you mean {tmp_path / 'my_data'}? " in str(refusal.value)
    (tmp_path / "other").mkdir()
    with pytest.raises(MissingInputError, match=r"other: not a supported data set; one holds "):
        open_split(tmp_path / "other", "train")
