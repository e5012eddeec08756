"""Images that look nearly alike in two splits are found, whatever was done to them, and different ones are not."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cityscapes.audit_rules import SplitCounts, find_nothing_to_learn, find_unscored
from cityscapes.findings import Finding, worst_of_each_kind
from dlv3p.data.audit import audit, worst_pictures
from dlv3p.data.demo import city_pictures
from dlv3p.data.likeness import describe_alike, find_alike_in_splits, look_at
from dlv3p.data.roots import open_split
from dlv3p.pictures.audits import findings_picture

CLASSES = "id,name\n0,ground\n1,thing\n"


@pytest.fixture(scope="module")
def streets():
    return [image for image, _ in city_pictures(12)]


def found(train, val):
    looks = {
        split: [look_at(f"{split}{index}", image.tobytes(), image) for index, image in enumerate(images)]
        for split, images in (("train", train), ("val", val))
    }
    return {finding.shows for finding in find_alike_in_splits(looks)}


def saved_anew(image):
    smaller, file = image.resize((image.width * 2 // 3, image.height * 2 // 3)), BytesIO()
    smaller.save(file, "JPEG", quality=40)
    return Image.open(file)


def moved(image):
    return image.crop((4, 2, image.width, image.height)).resize(image.size)


def brighter(image):
    return image.point(lambda level: level * 0.7 + 20)


def test_a_training_says_of_few_images_which_were_saved_twice(streets, tmp_path, monkeypatch) -> None:
    (tmp_path / "classes.csv").write_text(CLASSES)
    for split, images in (("train", streets[:6]), ("val", [saved_anew(streets[4]), *streets[6:8]])):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        for index, image in enumerate(images):
            image.save(tmp_path / "images" / split / f"{split}{index}.png")
            Image.new("L", image.size).save(tmp_path / "masks" / split / f"{split}{index}.png")
    training, validation = (open_split(tmp_path, split) for split in ("train", "val"))
    line = describe_alike(validation, training)
    said = f"{tmp_path}: 1 images of 'val' look nearly like images of 'train', the first val0 like train4; "
    assert line.startswith(said)
    monkeypatch.setattr("dlv3p.data.likeness.CHEAP", 1)
    assert describe_alike(validation, training) == "", "which the audit says of many"


@pytest.mark.parametrize("change", [saved_anew, moved, brighter])
def test_the_same_scene_is_found_in_another_split(streets, change) -> None:
    pairs = found(streets[:6], [change(image) for image in streets[3:]])
    assert pairs == {(("train", f"train{index + 3}"), ("val", f"val{index}")) for index in range(3)}


def test_equal_images_are_left_to_the_finding_of_equal_images(streets) -> None:
    assert found(streets[:6], streets[3:]) == set()


def test_flat_images_are_never_alike() -> None:
    flat = Image.fromarray(np.tile(np.linspace(20, 30, 64).astype(np.uint8), (48, 1)))
    assert found([flat], [brighter(flat)]) == set()
    slope = Image.fromarray(np.tile(np.linspace(20, 120, 64).astype(np.uint8), (48, 1)))
    assert found([slope], [brighter(slope)]) != set()


def test_images_of_a_few_pixels_are_never_alike() -> None:
    steps = Image.fromarray(np.array([[0, 90], [180, 255]], np.uint8))
    assert found([steps.resize((16, 16))], [brighter(steps.resize((16, 16)))]) == set()
    assert found([steps.resize((32, 32))], [brighter(steps.resize((32, 32)))]) != set()


def folder(root, images, masks):
    (root / "classes.csv").write_text(CLASSES)
    for (split, name), image in images.items():
        for kind, picture in (("images", image), ("masks", masks.get((split, name)))):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
            if picture is not None:
                picture.save(root / kind / split / f"{name}.png")
    return root


def mask_of(image, *ids):
    pixels = np.resize(np.array(ids, np.uint8), image.width * image.height)
    return Image.fromarray(pixels.reshape(image.height, image.width))


def test_the_audit_shows_both_images_and_refuses_the_data(tmp_path, streets) -> None:
    images = {("train", "a"): streets[0], ("train", "b"): streets[1], ("val", "c"): moved(streets[1])}
    masks = {key: mask_of(image, 0, 1) for key, image in images.items()}
    report = audit(folder(tmp_path, images, masks), ["train", "val"], progress="none")
    (finding,) = report.findings
    assert (finding.kind, finding.where, finding.is_error) == ("nearly the same image in two splits", "c", True)
    ((shown, places),) = worst_pictures(report)
    assert shown == finding
    assert [(split.split, split.name(index)) for split, index in places] == [("train", "b"), ("val", "c")]
    assert findings_picture(worst_pictures(report)).width > 100


def test_masks_that_teach_nothing_do_not_pass(tmp_path, streets) -> None:
    images = {("train", "a"): streets[0], ("val", "b"): streets[1]}
    masks = {("train", "a"): mask_of(streets[0], 255), ("val", "b"): mask_of(streets[1], 0, 1)}
    report = audit(folder(tmp_path, images, masks), ["train", "val"], progress="none")
    assert [finding.kind for finding in report.errors] == ["nothing to learn from"]
    assert "every pixel of its masks is ignored" in report.errors[0].problem
    (tmp_path / "masks" / "train" / "a.png").unlink()
    report = audit(tmp_path, ["train", "val"], progress="none")
    assert "no mask that can be used" in report.errors[0].problem


def test_a_class_that_only_the_first_split_has_is_never_scored() -> None:
    counts = [SplitCounts(name, ("ground", "thing")) for name in ("train", "val", "test")]
    counts[0].add_mask([5, 3] + [0] * 254, "few")
    counts[0].add_mask([5, 4] + [0] * 254, "most")
    counts[1].add_mask([8, 0] + [0] * 254, "other")
    (finding,) = find_unscored(counts[0], counts[1:])
    assert (finding.where, finding.is_error, finding.shows) == ("thing", False, (("train", "most"),))
    assert finding.problem == "occurs in train and never in val"
    counts[2].add_mask([8, 1] + [0] * 254, "rare")
    assert find_unscored(counts[0], counts[1:]) == []
    assert find_unscored(counts[0], []) == []
    assert find_nothing_to_learn(counts[0]) == []


def test_the_worst_finding_stands_for_its_kind() -> None:
    found = [Finding(kind, "val", str(size), "", "", severity=size) for kind, size in (("a", 1), ("b", 1), ("a", 2))]
    assert [finding.where for finding in worst_of_each_kind(found)] == ["2", "1"]
