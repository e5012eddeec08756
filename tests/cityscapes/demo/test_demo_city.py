"""The embedded city: the same bytes from the same arguments, every class, honest labels, no mixing of cities."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.demo.annotation import annotation
from cityscapes.demo.city import CITIES, DESCRIPTION, DRIVES, VERSION, describe, frame_names, write_demo_city
from cityscapes.demo.paint import paint
from cityscapes.demo.scene import Film
from cityscapes.errors import InputError, ParameterError
from cityscapes.labels import CITYSCAPES, CLASS_NAMES, NUM_CLASSES
from cityscapes.layout import POLYGONS_SUFFIX, find_frames
from cityscapes.masks.draw import draw_label_ids, to_train_ids
from cityscapes.masks.polygons import read_polygons

COMMAND = Path(__file__).parents[3] / "cityscapes" / "demo" / "city.py"
FRAMES = {"train": 45, "val": 24, "test": 2}


@pytest.fixture(scope="module")
def city(tmp_path_factory) -> Path:
    return write_demo_city(tmp_path_factory.mktemp("city"), frames=FRAMES)


@pytest.fixture(scope="module")
def pixels(city) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (N, H, W, 3) and train-id masks (N, H, W) of train and val."""
    splits = {}
    for split in ("train", "val"):
        frames = find_frames(city, split)
        images = np.stack([np.asarray(Image.open(frame.image(city))) for frame in frames])
        masks = [draw_label_ids(read_polygons(frame.annotation(city, POLYGONS_SUFFIX))) for frame in frames]
        splits[split] = images, to_train_ids(np.stack(masks))
    return splits


def polygons(city: Path, split: str) -> list[dict]:
    frames = find_frames(city, split, suffix=POLYGONS_SUFFIX)
    return [json.loads(frame.annotation(city, POLYGONS_SUFFIX).read_bytes()) for frame in frames]


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def mean_iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    counted = truth < NUM_CLASSES
    pairs = truth[counted].astype(int) * NUM_CLASSES + prediction[counted]
    confusion = np.bincount(pairs, minlength=NUM_CLASSES**2).reshape(NUM_CLASSES, NUM_CLASSES)
    hits = np.diag(confusion)
    return float((hits / np.maximum(confusion.sum(0) + confusion.sum(1) - hits, 1)).mean())


def test_layout_is_that_of_the_data_set(city):
    for split, count in FRAMES.items():
        frames = find_frames(city, split)
        assert frames == find_frames(city, split, suffix=POLYGONS_SUFFIX)
        assert len(frames) == count
        assert {frame.city for frame in frames} <= set(CITIES[split])
    assert len({name for names in CITIES.values() for name in names}) == sum(map(len, CITIES.values()))


def test_annotations_are_accepted_without_a_warning(city):
    for split in FRAMES:
        for frame in find_frames(city, split, suffix=POLYGONS_SUFFIX):
            parsed = read_polygons(frame.annotation(city, POLYGONS_SUFFIX))
            assert (parsed.height, parsed.width) == (128, 256)
            assert not parsed.warnings


def test_same_arguments_give_the_same_bytes_in_another_process(tmp_path):
    frames = {"train": 2, "val": 1, "test": 1}
    write_demo_city(tmp_path / "a", height=64, width=128, frames=frames, seed=7)
    arguments = ["--height=64", "--width=128", "--train=2", "--val=1", "--test=1", "--seed=7"]
    subprocess.run([sys.executable, COMMAND, f"--output={tmp_path / 'b'}", *arguments], check=True, capture_output=True)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_polygons_are_those_of_this_version(city):
    # When this fails on purpose, raise VERSION: folders written before then are no longer taken for this city.
    content = json.dumps([polygons(city, split) for split in FRAMES]).encode()
    assert (VERSION, hashlib.sha256(content).hexdigest()[:16]) == (1, "d81163f3437def66")


def test_fewer_frames_are_the_first_of_more(city, tmp_path):
    some = files(write_demo_city(tmp_path, frames={"train": 3, "val": 0, "test": 0}))
    del some[DESCRIPTION]
    assert len(some) == 6
    whole = files(city)
    assert all(whole[name] == content for name, content in some.items())


def test_seeds_and_splits_are_different_cities():
    def objects(seed: int, split: str) -> list:
        view = Film(seed, split, 0).view(0, height=128, width=256)
        return annotation(view, height=128, width=256)["objects"]

    assert objects(0, "train") != objects(1, "train")
    assert objects(0, "train") != objects(0, "val")


def test_scene_is_the_same_at_any_size(tmp_path):
    masks = []
    for height in (128, 384):
        root = tmp_path / str(height)
        write_demo_city(root, height=height, width=2 * height, frames={"train": 0, "val": 1, "test": 0})
        (frame,) = find_frames(root, "val")
        label_ids = draw_label_ids(read_polygons(frame.annotation(root, POLYGONS_SUFFIX)))
        masks.append(label_ids[:: height // 128, :: height // 128])
    assert (masks[0] == masks[1]).mean() > 0.9


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 129), (128, 64), (64, 512)])
def test_any_aspect_is_filled_to_its_edges(height, width):
    film = Film(0, "train", 1)
    view = film.view(0, height=height, width=width)
    image = paint(view, film.street, height=height, width=width, dice=film.dice("noise", 0))
    content = annotation(view, height=height, width=width)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert (content["imgHeight"], content["imgWidth"]) == (height, width)


def test_every_class_is_in_a_quarter_of_the_frames_of_train_and_val(pixels):
    for split, (_, masks) in pixels.items():
        for train_id, name in enumerate(CLASS_NAMES):
            frames = ((masks == train_id).sum(axis=(1, 2)) >= 40).mean()
            assert frames > 1 / 4, f"{name} in {frames:.0%} of {split}"


def test_nearly_every_pixel_has_a_trained_class(pixels):
    for _, masks in pixels.values():
        assert (masks < NUM_CLASSES).mean() > 0.9


def test_special_labels_and_groups_appear(city):
    found = {
        item["label"] for split in ("train", "val") for content in polygons(city, split) for item in content["objects"]
    }
    assert {"ego vehicle", "out of roi", "license plate", "static", "dynamic", "persongroup", "cargroup"} <= found
    singles = {name if name in CITYSCAPES.by_name else name.removesuffix("group") for name in found}
    assert singles <= set(CITYSCAPES.by_name)


def test_vertices_are_integers_and_some_leave_the_image(city):
    corners = [c for content in polygons(city, "val") for item in content["objects"] for c in item["polygon"]]
    assert all(type(value) is int for corner in corners for value in corner)
    xs, ys = zip(*corners, strict=True)
    assert min(xs) < 0
    assert max(xs) > 256
    assert min(ys) < 0
    assert max(ys) > 128
    assert min(xs) > -256
    assert max(xs) < 512


def test_test_split_keeps_its_truth_to_itself(city):
    for content in polygons(city, "test"):
        assert {item["label"] for item in content["objects"]} == {"ego vehicle", "out of roi"}


def test_color_alone_does_not_give_the_class(pixels):
    (images, masks), (val_images, val_masks) = pixels["train"], pixels["val"]

    def bins(colors: np.ndarray) -> np.ndarray:
        return (colors.astype(np.int64) >> 4) @ np.array([256, 16, 1])

    counted = masks < NUM_CLASSES
    votes = np.bincount(bins(images)[counted] * NUM_CLASSES + masks[counted], minlength=4096 * NUM_CLASSES)
    votes = votes.reshape(4096, NUM_CLASSES).astype(float)
    for weights in (votes, votes / votes.sum(0), votes / np.sqrt(votes.sum(0))):
        assert mean_iou(weights.argmax(1)[bins(val_images)], val_masks) < 0.15


def test_pixels_change_where_the_labels_change(pixels):
    # The edges of the masks lie on edges of the images: shifted masks fit worse.
    images, masks = pixels["val"]
    light = images.astype(np.float32).mean(-1)
    step = np.abs(np.diff(light, axis=2))

    def contrast(shift: int) -> float:
        edges = np.diff(np.roll(masks, shift, axis=2).astype(int), axis=2)[:, :, 6:-6] != 0
        return float(step[:, :, 6:-6][edges].mean())

    assert contrast(0) > 1.3 * max(contrast(shift) for shift in (-3, 3))
    assert contrast(0) > max(contrast(shift) for shift in (-1, 1))


def test_frames_of_a_drive_differ_modestly(pixels):
    _, masks = pixels["val"]
    changes = (masks[1 : len(DRIVES["val"])] != masks[: len(DRIVES["val"]) - 1]).mean(axis=(1, 2))
    assert changes.min() > 0.03
    assert changes.max() < 0.5
    assert (masks[0] != masks[len(DRIVES["val"]) - 1]).mean() > changes.mean()


def test_finished_city_is_left_alone_and_an_interrupted_one_is_continued(tmp_path):
    frames = {"train": 1, "val": 1, "test": 0}
    write_demo_city(tmp_path, height=64, width=128, frames=frames)
    before = files(tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_demo_city(tmp_path, height=64, width=128, frames=frames)
    assert stamps == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    # What a killed run leaves behind: some frames and a description that does not say "complete".
    (frame,) = find_frames(tmp_path, "val")
    frame.image(tmp_path).unlink()
    description = tmp_path / DESCRIPTION
    description.write_text(description.read_text().replace("true", "false"))
    kept = find_frames(tmp_path, "train")[0].image(tmp_path)
    stamp = kept.stat().st_mtime_ns
    write_demo_city(tmp_path, height=64, width=128, frames=frames)
    assert files(tmp_path) == before
    assert kept.stat().st_mtime_ns == stamp


def test_another_city_is_refused_unless_forced(tmp_path):
    frames = {"train": 1, "val": 0, "test": 0}
    write_demo_city(tmp_path, height=64, width=128, frames=frames)
    with pytest.raises(InputError, match="seed 0 where 1 is asked for"):
        write_demo_city(tmp_path, height=64, width=128, frames=frames, seed=1)
    write_demo_city(tmp_path, height=64, width=128, frames=frames, seed=1, force=True)
    assert json.loads((tmp_path / DESCRIPTION).read_text())["seed"] == 1


def test_force_leaves_data_alone_that_is_no_demo_city(tmp_path):
    (tmp_path / "leftImg8bit").mkdir()
    for force in (False, True):
        with pytest.raises(InputError, match="not a demo city"):
            write_demo_city(tmp_path, force=force)
    write_demo_city(tmp_path / "mine", height=64, width=128, frames={"train": 1, "val": 0, "test": 0})
    foreign = tmp_path / "mine" / "leftImg8bit" / "train" / "aachen" / "aachen_000000_000019_leftImg8bit.png"
    foreign.parent.mkdir()
    foreign.write_bytes(b"precious")
    write_demo_city(tmp_path / "mine", height=64, width=128, frames={"train": 0, "val": 1, "test": 0}, force=True)
    assert foreign.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 63},
        {"height": 1025},
        {"width": 63},
        {"width": 2049},
        {"seed": -1},
        {"height": 128.0},
        {"frames": {"train": -1}},
        {"frames": {"trian": 1}},
    ],
)
def test_wrong_values_are_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(ParameterError, match="height|width|seed|train"):
        write_demo_city(tmp_path / "city", **wrong)
    assert not (tmp_path / "city").exists()


@pytest.mark.parametrize("arguments", [["--height=8"], ["--train=-1"], ["--seed=x"], ["--colour=blue"]])
def test_command_refuses_wrong_arguments_in_one_line(tmp_path, arguments):
    command = [sys.executable, COMMAND, f"--output={tmp_path / 'city'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr.splitlines()[-1]
    assert not (tmp_path / "city").exists()


def test_command_says_what_it_wrote_where(tmp_path):
    command = [sys.executable, COMMAND, "--height=64", "--width=128", "--train=1", "--val=0", "--test=0"]
    environment = {"DLV3P_WORKSPACE": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    folder = tmp_path / "data" / "demo_city"
    assert done.stdout == f"{folder}: 1 train, 0 val, 0 test frames of 64 x 128 pixels, seed 0\n"
    assert len(find_frames(folder, "train")) == 1


def test_names_are_unique_and_in_the_order_of_the_drive():
    frames = [frame for _, _, frame in frame_names("val", 100)]
    assert len(set(frames)) == 100
    assert [frame.frame for frame in frames[:8]] == sorted(frame.frame for frame in frames[:8])


def test_description_fills_in_the_default_counts():
    city = describe(height=64, width=64, frames={"val": 3}, seed=0)
    assert city["frames"] == {"train": 160, "val": 3, "test": 20}
