"""What the listing of a plain folder leaves out is hidden, or is said; links within the data set are followed."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError, MissingInputError
from dlv3p.data import roots
from dlv3p.data.audit import audit
from dlv3p.data.roots import open_images, open_split, open_training
from dlv3p.data.write_shards import write_shards
from dlv3p.parameters.training import TrainingDataParameters


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    roots._warn_once.cache_clear()
    (tmp_path / "classes.csv").write_text("id,name\n0,road\n1,sky\n")
    for number, split in enumerate(("train", "val")):
        for name in "ab":
            picture = np.random.default_rng(number * 256 + ord(name)).integers(0, 256, (4, 6, 3))
            save(tmp_path / "images" / split / f"{name}.png", picture.astype(np.uint8))
            save(tmp_path / "masks" / split / f"{name}.png", np.indices((4, 6))[1].astype(np.uint8) % 2)
    return tmp_path


def names(split):
    return [split.name(index) for index in range(len(split))]


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", ".cache/deeper"])
def test_hidden_folders_are_left_out(folder, hidden):
    for kind in ("images", "masks"):
        save(folder / kind / "train" / hidden / "a-checkpoint.png", np.zeros((4, 6), np.uint8))
    assert names(open_split(folder, "train")) == ["a", "b"]
    (folder / "images" / ".ipynb_checkpoints").mkdir()
    with pytest.raises(MissingInputError, match="holds train, val$"):
        open_images(folder, "other")


def test_linked_folders_within_the_data_set_are_read(folder):
    for kind in ("images", "masks"):
        shutil.copytree(folder / kind / "val", folder / "elsewhere" / kind)
        os.symlink(f"../../elsewhere/{kind}", folder / kind / "train" / "city")
    split = open_split(folder, "train")
    assert names(split) == ["a", "b", "city/a", "city/b"]
    assert split.pair(2)[1].shape == (4, 6)


def test_a_link_from_training_to_validation_is_a_leak(folder):
    for kind in ("images", "masks"):
        os.symlink("../val", folder / kind / "train" / "more")
    with pytest.raises(InputError, match="'train' and 'val' share 2 images, the first a;"):
        open_training(TrainingDataParameters(data_root=str(folder)))


@pytest.mark.parametrize(
    ("target", "complaint"),
    [(".", "a circular link"), ("..", "a circular link"), ("nowhere", "a broken link"), (None, "a link out of")],
)
def test_linked_folders_that_lead_astray_are_refused(folder, tmp_path_factory, target, complaint):
    os.symlink(target or tmp_path_factory.mktemp("outside"), folder / "images" / "train" / "city")
    with pytest.raises(InputError, match=f"city: {complaint}|more: {complaint}"):
        open_images(folder, "train")


def test_images_of_types_that_are_not_read_are_counted_and_named(folder, capsys):
    for name in ("c.tif", "d.TIF", "e.bmp", "f.webp"):
        save(folder / "images" / "train" / name, np.zeros((4, 6, 3), np.uint8))
    assert names(open_split(folder, "train")) == ["a", "b"]
    open_split(folder, "train")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ")
    assert "images/train holds 2 .tif, 1 .bmp, 1 .webp files, the first c.tif, which are not read; convert" in line
    (finding,) = audit(folder, ["train", "val"], progress="none").errors
    assert (finding.kind, finding.where) == ("files that are not read", "train")
    assert "convert them to PNG or JPEG" in finding.remedy


def test_masks_of_types_that_are_not_read_are_named_with_the_images_that_lack_one(folder):
    for name in "ab":
        save(folder / "masks" / "train" / f"{name}.jpg", np.zeros((4, 6), np.uint8))
        (folder / "masks" / "train" / f"{name}.png").unlink()
    with pytest.raises(InputError, match=r"2 images without a mask .*: a, b; .* holds 2 \.jpg files, .* to PNG"):
        open_split(folder, "train")


def test_a_split_of_other_types_alone_says_which(folder):
    save(folder / "images" / "new" / "a.tiff", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(MissingInputError, match=r"holds no image \(.*\); .*holds 1 \.tiff files, the first a\.tiff"):
        open_images(folder, "new")


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_two_unicode_forms_are_one(folder, forms):
    of_image, of_mask = (unicodedata.normalize(form, "stra\u00dfe \u00fc") for form in forms)
    (folder / "images/train/b.png").rename(folder / "images" / "train" / f"{of_image}.png")
    (folder / "masks/train/b.png").rename(folder / "masks" / "train" / f"{of_mask}.png")
    split = open_split(folder, "train")
    assert names(split) == ["a", of_image]
    assert split.pair(1)[1].shape == (4, 6)


def test_two_files_whose_names_differ_in_unicode_form_alone_are_refused(folder):
    for form in ("NFC", "NFD"):
        save(folder / "images" / "train" / (unicodedata.normalize(form, "\u00fc") + ".png"), np.zeros((4, 6), np.uint8))
    with pytest.raises(InputError, match="has the same name in another Unicode form"):
        open_images(folder, "train")


def test_a_hard_link_to_a_training_image_is_that_image(folder):
    (folder / "images" / "val" / "again.png").hardlink_to(folder / "images" / "train" / "a.png")
    shutil.copy(folder / "masks" / "train" / "a.png", folder / "masks" / "val" / "again.png")
    with pytest.raises(InputError, match="'train' and 'val' share 1 images, the first again;"):
        open_training(TrainingDataParameters(data_root=str(folder)))


def test_shards_of_two_class_orders_are_not_trained_together(folder, tmp_path):
    for split, order in (("train", "0,road\n1,sky\n"), ("val", "0,sky\n1,road\n")):
        (folder / "classes.csv").write_text(f"id,name\n{order}")
        write_shards(open_split(folder, split), tmp_path / "shards")
    with pytest.raises(InputError, match="'train' and 'val' differ in their class names; write both as shards again"):
        open_training(TrainingDataParameters(data_root=str(tmp_path / "shards")))
