"""The audit of any data set finds every injected mistake, explains it, and finds nothing in a sound one."""

import re
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cityscapes.files.png_chunks import SIGNATURE, chunk
from dlv3p.data.audit import audit
from dlv3p.data.demo import FLAWED_COUNTS, write_flawed_folder
from dlv3p.data.roots import open_split, resolve_data_root
from dlv3p.data.write_shards import write_shards
from dlv3p.pictures.audits import class_table, split_table

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
    assert split_table(report)["images"].to_dict() == {"train": 3, "val": 3}
    assert class_table(report)["train, share of pixels"].sum() == pytest.approx(1)


def test_the_six_mistakes_are_found_and_nothing_else(flawed):
    report = audit(flawed, ["train", "val"], progress="none")
    assert {(finding.kind, finding.split, finding.where) for finding in report.errors} == {
        ("mask that cannot be used", "train", "street_002"),
        ("image and mask of different sizes", "train", "street_005"),
        ("mask that cannot be used", "train", "street_007"),
        ("image without a mask", "train", "street_011"),
        ("mask without an image", "val", "old_street"),
        ("image in two splits", "val", "street_018"),
    }
    words = "\n".join(report.lines())
    assert "these look like Cityscapes label ids" in words
    assert "the mask has 248 x 120 pixels, its image 256 x 128" in words


def test_the_flawed_folder_is_written_once(workspace):
    root = resolve_data_root("flawed_folder")
    (root / "masks" / "train" / "street_000.png").unlink()
    assert resolve_data_root("flawed_folder") == root
    assert len(list((root / "masks" / "train").iterdir())) == FLAWED_COUNTS["train"] - 2


def test_an_image_that_was_saved_anew_is_still_the_same_image(sound):
    Image.open(sound / "images/train/b.png").save(sound / "images/train/d.png", compress_level=1)
    shutil.copy(sound / "masks/train/b.png", sound / "masks/train/d.png")
    assert found(sound) == {("duplicate image", "train", "d")}


def test_absent_rare_and_unlearnable_classes_are_different_findings(sound):
    for name in ("a", "b", "c"):
        Image.fromarray(np.zeros((8, 12), np.uint8)).save(sound / "masks" / "train" / f"{name}.png")
    report = audit(sound, ["train", "val"], progress="none")
    assert {(finding.kind, finding.split, finding.where) for finding in report.findings} == {
        ("classes that never occur", "train", "train"),
        ("class that cannot be learned", "val", "car"),
    }
    assert "  train: no pixel is car" in report.lines()
    mask = np.zeros((100, 100), np.uint8)
    mask[0, 0] = 1
    for name in ("a", "b", "c"):
        Image.fromarray(mask).save(sound / "masks" / "train" / f"{name}.png")
        Image.fromarray(np.full((100, 100, 3), ord(name), np.uint8)).save(sound / "images" / "train" / f"{name}.png")
    assert found(sound) == {("rare class", "train", "car")}


def test_masks_of_ignored_pixels_and_gray_images_are_notes(sound):
    Image.fromarray(np.full((8, 12), 255, np.uint8)).save(sound / "masks/val/a.png")
    Image.open(sound / "images/val/b.png").convert("L").save(sound / "images/val/b.png")
    report = audit(sound, ["train", "val"], progress="none")
    kinds = {finding.kind for finding in report.findings}
    assert kinds == {"mask without a labeled pixel", "image that is not RGB"}
    assert report.errors == ()


def png_of_16_bits(gray):
    """A PNG of 16-bit colors, which Pillow does not write, with the same values in all channels."""
    (height, width), rows = gray.shape, np.stack([gray] * 3, axis=2).astype(">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return SIGNATURE + b"".join(chunk(*part) for part in parts)


def test_images_of_16_bits_are_notes_in_gray_and_in_color(sound):
    gray = np.random.default_rng(1).integers(0, 2**16, (8, 12)).astype(np.uint16)
    Image.fromarray(gray).save(sound / "images/val/b.png")
    (sound / "images/val/c.png").write_bytes(png_of_16_bits(gray))
    report = audit(sound, ["train", "val"], progress="none")
    shown = [(finding.where, finding.problem) for finding in report.findings if finding.where in "bc"]
    assert shown == [("b", "its mode is I;16"), ("c", "its mode is RGB, 16 bits")]
    assert all("cut to 8 bits" in finding.remedy for finding in report.findings if finding.where in "bc")
    assert report.errors == ()


def test_images_of_16_bits_whose_values_fill_fewer_come_out_nearly_black_and_are_notes(sound):
    gray = np.random.default_rng(1).integers(0, 2**12, (8, 12)).astype(np.uint16)
    gray[0, 0] = 2**12 - 1
    Image.fromarray(gray).save(sound / "images/val/b.png")
    (sound / "images/val/c.png").write_bytes(png_of_16_bits(gray))
    report = audit(sound, ["train", "val"], progress="none")
    shown = [finding for finding in report.findings if finding.kind == "image that is nearly black"]
    reached = [(finding.where, re.search("reach ([0-9]+) of the levels", finding.problem)[1]) for finding in shown]
    assert reached == [("b", "16"), ("c", "15")]
    assert all("stretch the values" in finding.remedy and "value_range" in finding.remedy for finding in shown)
    assert report.errors == ()


def test_images_that_cannot_be_read_are_named(sound):
    content = (sound / "images/train/a.png").read_bytes()
    (sound / "images/train/a.png").write_bytes(content[: len(content) // 2])
    assert found(sound) == {("image that cannot be read", "train", "a")}


def test_cityscapes_is_audited_without_making_masks(city, workspace):
    report = audit(city, ["train"], progress="none")
    assert split_table(report)["usable masks"].to_dict() == {"train": 0}
    assert not (workspace / "data").exists()


def test_shards_are_audited_like_the_files_that_they_were_made_from(sound):
    Image.open(sound / "images" / "val" / "b.png").convert("L").save(sound / "images" / "val" / "b.png")
    for split in ("train", "val"):
        write_shards(open_split(sound, split), sound / "shards")
    files, shards = (audit(root, ["train", "val"], progress="none") for root in (sound, sound / "shards"))
    assert [finding.kind for finding in shards.findings] == ["image that is not RGB"]
    assert shards.findings == files.findings
    assert split_table(shards).equals(split_table(files))
