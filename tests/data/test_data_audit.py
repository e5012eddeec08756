"""The audit of any data set finds what was done to it, says so in words, and finds nothing in a sound one."""

import shutil

import numpy as np
import pytest
from PIL import Image

from dlv3p.data.audit import audit
from dlv3p.data.demo_flawed import COUNTS, write_flawed_folder
from dlv3p.data.roots import open_split, resolve_data_root
from dlv3p.data.write_shards import write_shards
from dlv3p.pictures.audits import class_share_bars, overlays_picture

CLASSES = "id,name,red,green,blue\n0,road,128,64,128\n1,car,0,0,142\n"


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
    return write_flawed_folder(tmp_path_factory.mktemp("flawed"))


@pytest.fixture
def sound(tmp_path):
    generator = np.random.default_rng(0)
    (tmp_path / "classes.csv").write_text(CLASSES)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for name in ("a", "b", "c"):
            image, mask = generator.integers(0, 256, (8, 12, 3)), generator.integers(0, 2, (8, 12))
            Image.fromarray(image.astype(np.uint8)).save(tmp_path / "images" / split / f"{name}.png")
            Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "masks" / split / f"{name}.png")
    return tmp_path


def found(root, splits=("train", "val")):
    report = audit(root, splits, progress="none")
    return {(finding.kind, finding.split, finding.where) for finding in report.findings}


def test_a_sound_folder_has_no_finding(sound):
    report = audit(sound, ["train", "val"], progress="none")
    assert report.findings == ()
    assert report.summary()["images"].to_dict() == {"train": 3, "val": 3}
    assert report.classes()["train, share of pixels"].sum() == pytest.approx(1)


def test_the_six_mistakes_are_found_and_nothing_else(flawed):
    report = audit(flawed, ["train", "val"], progress="none")
    assert {(finding.kind, finding.split, finding.where) for finding in report.errors} == {
        ("mask that cannot be used", "train", "street_002"),
        ("image and mask of different size", "train", "street_005"),
        ("mask that cannot be used", "train", "street_007"),
        ("image without a mask", "train", "street_011"),
        ("mask without an image", "val", "old_street"),
        ("picture in two splits", "val", "street_018"),
    }
    words = "\n".join(report.lines())
    assert "these look like Cityscapes label ids" in words
    assert "256 x 128 pixels, the mask 248 x 120" in words


def test_the_flawed_folder_is_written_once(workspace):
    root = resolve_data_root("flawed_folder")
    (root / "masks" / "train" / "street_000.png").unlink()
    assert resolve_data_root("flawed_folder") == root
    assert len(list((root / "masks" / "train").iterdir())) == COUNTS["train"] - 2


def test_a_picture_that_was_saved_anew_is_still_the_same_picture(sound):
    Image.open(sound / "images/train/b.png").save(sound / "images/train/d.png", compress_level=1)
    shutil.copy(sound / "masks/train/b.png", sound / "masks/train/d.png")
    assert found(sound) == {("picture that is there twice", "train", "d")}


def test_absent_rare_and_unlearnable_classes_are_told_apart(sound):
    for name in ("a", "b", "c"):
        Image.fromarray(np.zeros((8, 12), np.uint8)).save(sound / "masks" / "train" / f"{name}.png")
    assert found(sound) == {("class that never occurs", "train", "car"), ("class that cannot be learned", "val", "car")}
    mask = np.zeros((100, 100), np.uint8)
    mask[0, 0] = 1
    for name in ("a", "b", "c"):
        Image.fromarray(mask).save(sound / "masks" / "train" / f"{name}.png")
        Image.fromarray(np.full((100, 100, 3), ord(name), np.uint8)).save(sound / "images" / "train" / f"{name}.png")
    assert found(sound) == {("rare class", "train", "car")}


def test_masks_of_ignored_pixels_and_grey_images_are_notes(sound):
    Image.fromarray(np.full((8, 12), 255, np.uint8)).save(sound / "masks/val/a.png")
    Image.open(sound / "images/val/b.png").convert("L").save(sound / "images/val/b.png")
    report = audit(sound, ["train", "val"], progress="none")
    kinds = {finding.kind for finding in report.findings}
    assert kinds == {"mask without a labelled pixel", "images of another kind"}
    assert report.errors == ()


def test_images_that_cannot_be_read_are_named(sound):
    content = (sound / "images/train/a.png").read_bytes()
    (sound / "images/train/a.png").write_bytes(content[: len(content) // 2])
    assert found(sound) == {("image that cannot be read", "train", "a")}


def test_cityscapes_is_looked_at_without_making_masks(city, workspace):
    report = audit(city, ["train"], progress="none")
    assert report.summary()["with a mask"].to_dict() == {"train": 0}
    assert not (workspace / "data").exists()


def test_pictures_show_every_class_and_only_sound_images(flawed):
    report = audit(flawed, ["train", "val"], progress="none")
    figure = class_share_bars(report.classes().filter(like="share of pixels"))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    shares = report.classes()["train, share of pixels"]
    assert names[-1] == shares.idxmax()
    assert len(names) == 19
    assert overlays_picture(report, count=3).width == 1200


def test_shards_are_audited_like_the_files_that_they_were_made_from(sound):
    Image.open(sound / "images" / "val" / "b.png").convert("L").save(sound / "images" / "val" / "b.png")
    for split in ("train", "val"):
        write_shards(open_split(sound, split), sound / "shards")
    files, shards = (audit(root, ["train", "val"], progress="none") for root in (sound, sound / "shards"))
    assert [finding.kind for finding in shards.findings] == ["images of another kind"]
    assert shards.findings == files.findings
    assert shards.summary().equals(files.summary())
