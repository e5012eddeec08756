"""Masks written as polygons for a person to correct, and read back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage

from cityscapes.errors import InputError, MissingInputError, ParameterError
from cityscapes.files.checksums import file_sha256, write_recorded
from cityscapes.labels import CLASS_NAMES, TRAIN_ID_TO_COLOR, TRAIN_ID_TO_LABEL_ID
from dlv3p.annotations.__main__ import main
from dlv3p.annotations.coco import CocoFile
from dlv3p.annotations.correct import FILES, simplify, trace, without_specks, write_corrections
from dlv3p.annotations.cvat import CvatFile
from dlv3p.annotations.shapes import AnnotatedImage, draw

NAMES = [str(number) for number in range(256)]
IDS = {name: number for number, name in enumerate(NAMES)}


def random_masks() -> list[np.ndarray]:
    """Masks of noise and of blobs, of all sizes from one pixel, with holes, corners that touch, and lines."""
    random, found = np.random.default_rng(0), []
    for turn in range(60):
        mask = random.integers(0, random.integers(1, 5), random.integers(1, 24, 2)).astype(np.uint8)
        found.append(ndimage.median_filter(mask, 3) if turn % 2 else mask)
    return found


def test_traced_outlines_give_back_every_pixel() -> None:
    for mask in random_masks():
        image = AnnotatedImage("a", mask.shape[::-1], trace(mask, NAMES))
        np.testing.assert_array_equal(draw(image, IDS, unlabeled=255).mask, mask)


def test_simplified_outlines_stay_within_the_tolerance() -> None:
    angles = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    circle = np.stack([100 + 80 * np.cos(angles), 100 + 80 * np.sin(angles)], axis=1)
    simple = simplify(circle, 1.0)
    assert 10 < len(simple) < 50
    dense = np.concatenate([np.linspace(a, b, 50) for a, b in zip(simple, np.roll(simple, -1, axis=0), strict=True)])
    distances = np.hypot(*(circle[:, None] - dense[None]).transpose(2, 0, 1)).min(axis=1)
    assert distances.max() < 1.05


def test_specks_go_to_what_is_around_them() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[:, 10:] = 2
    mask[5:7, 3:5], mask[5, 15] = 1, 1
    cleaned = without_specks(mask, 4)
    assert cleaned[5, 15] == 2
    assert (cleaned[5:7, 3:5] == 1).all()
    assert (without_specks(mask, 5) == np.where(np.arange(20) < 10, 0, 2)).all()


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Results as `dlv3p predict` writes them, of two images whose masks are blobs of label ids."""
    folder = tmp_path / "predict"
    random = np.random.default_rng(1)
    for name in ("below/a", "b"):
        mask = ndimage.median_filter(random.integers(0, 4, (40, 60)).astype(np.uint8), 7)
        for path, pixels in (
            (folder / "ids", TRAIN_ID_TO_LABEL_ID[mask]),
            (tmp_path / "photos", np.zeros((40, 60, 3))),
        ):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path / f"{name}.png")
    record = {"class_names": CLASS_NAMES, "colors": TRAIN_ID_TO_COLOR[:19].tolist(), "ids": "own"}
    (folder / "predictions.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("format", ["coco", "cvat"])
def test_predictions_come_back_from_a_tool_that_changes_nothing_as_they_were(format: str, predictions: Path) -> None:
    written = write_corrections(
        predictions, predictions.parent / "photos", format=format, tolerance=0, smallest=0, progress="none"
    )
    assert (written.images, written.differing, written.problems) == (2, 0.0, ())
    read = list((CocoFile if format == "coco" else CvatFile)(written.path))
    assert [image.name for image in read] == ["b.png", "below/a.png"]
    ids = {name: TRAIN_ID_TO_LABEL_ID[index] for index, name in enumerate(CLASS_NAMES)}
    for image in read:
        expected = np.asarray(Image.open(predictions / "ids" / image.name))
        np.testing.assert_array_equal(draw(image, ids, unlabeled=255).mask, expected)


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_pycocotools_takes_the_file_and_finds_the_same_regions(predictions: Path) -> None:
    """Its own fill rule leaves out up to a pixel along right and lower edges, since ours includes the last one."""
    path = write_corrections(predictions, predictions.parent / "photos", format="coco", progress="none").path
    coco = COCO(path)
    (number,) = [image["id"] for image in coco.dataset["images"] if image["file_name"] == "b.png"]
    entries = coco.loadAnns(coco.getAnnIds(imgIds=[number]))
    ours = np.asarray(Image.open(predictions / "ids" / "b.png"))
    theirs = np.zeros_like(ours)
    for entry in entries:
        theirs[coco.annToMask(entry) > 0] = TRAIN_ID_TO_LABEL_ID[entry["category_id"] - 1]
    inner = ndimage.maximum_filter(ours, 5) == ndimage.minimum_filter(ours, 5)
    assert inner.sum() > 200
    assert (ours == theirs)[inner].mean() > 0.97


def test_ignored_pixels_of_ones_own_masks_stay_ignored(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
        mask = np.zeros((20, 30), np.uint8)
        mask[3:12, 4:20], mask[5:9, 6:12] = 1, 255
        Image.fromarray(mask).save(tmp_path / "masks" / split / f"{split}_0.png")
        Image.new("RGB", (30, 20)).save(tmp_path / "images" / split / f"{split}_0.jpg")
    (tmp_path / "classes.csv").write_text("id,name\n0,background\n1,cell\n")
    written = write_corrections(tmp_path, "", tolerance=0, smallest=0, progress="none")
    assert (written.images, written.differing) == (2, 0.0)
    assert [shape.label for shape in next(iter(CvatFile(written.path))).shapes] == ["background", "cell", "ignore"]


def test_predictions_of_other_files_than_the_images_are_said(predictions: Path, capsys: pytest.CaptureFixture) -> None:
    photos = predictions.parent / "photos"
    rows = {path.stem: file_sha256(path) for path in photos.rglob("*.*")}
    for changed in ({}, {"b": "0" * 64}):
        lines = [f"{name},{digest}\n" for name, digest in (rows | changed).items()]
        write_recorded(predictions / "predictions.csv", f"image,sha256\n{''.join(lines)}".encode())
        write_corrections(predictions, photos, progress="none")
        said = f"warning: Other images: 1 masks of {predictions} were predicted of other files than {photos} holds now"
        assert (said in capsys.readouterr().out) == bool(changed)


def test_results_below_the_images_are_not_taken_for_images(predictions: Path) -> None:
    """Nor those of another network, whose colors have the names of the images, too."""
    for folder in (predictions, predictions.parent / "second"):
        for kind in ("ids", "colors", "confidence")[folder == predictions :]:
            shutil.copytree(predictions.parent / "photos", folder / kind, dirs_exist_ok=True)
        write_recorded(folder / "predictions.csv", b"image,sha256\n")
    written = write_corrections(predictions, predictions.parent, progress="none")
    assert [image.name for image in CvatFile(written.path)] == ["photos/b.png", "photos/below/a.png"]
    assert not written.problems


def test_bad_masks_are_a_line_each_and_the_others_are_written(predictions: Path, capsys: pytest.CaptureFixture) -> None:
    for name, pixels in (("lost", np.zeros((4, 4))), ("wide", np.zeros((40, 90)))):
        Image.fromarray(pixels.astype(np.uint8)).save(predictions / "ids" / f"{name}.png")
    Image.new("RGB", (60, 40)).save(predictions.parent / "photos" / "wide.png")
    (predictions / "ids" / "cut.png").write_bytes((predictions / "ids" / "b.png").read_bytes()[:60])
    Image.new("RGB", (60, 40)).save(predictions.parent / "photos" / "cut.png")
    assert main(["correct", str(predictions), "--images", str(predictions.parent / "photos"), "--format", "coco"]) == 3
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 3
    for words in ("lost.png: no image below", "has 90 x 40 pixels and its image 60 x 40", "cut.png: cannot be read"):
        assert words in shown.err
    assert "points in 2 images; read again, " in shown.out
    assert len(json.loads((predictions / "annotations.json").read_text())["images"]) == 2


@pytest.mark.parametrize("format", ["coco", "cvat"])
def test_frames_of_a_video_are_called_as_cvat_calls_them(format: str, predictions: Path, tmp_path: Path) -> None:
    (video := tmp_path / "clip.mp4").write_bytes(b"is not read")
    with pytest.raises(ParameterError, match="clip.mp4': is a file, as for frames of a video, and .*.png is no frame"):
        write_corrections(predictions, video, format=format)
    frames = [(predictions / "ids" / name).rename(predictions / "ids" / f"frame_00000{number}.png")
              for number, name in enumerate(("below/a.png", "b.png"))]  # fmt: skip
    written = write_corrections(predictions, video, format=format, tolerance=0, smallest=0)
    read = list((CocoFile if format == "coco" else CvatFile)(written.path))
    assert [image.name for image in read] == ["frame_000000", "frame_000001"]
    assert (written.images, written.differing, written.problems) == (2, 0, ())
    assert read[0].size == Image.open(frames[0]).size


def test_what_holds_no_masks_is_refused_in_words(predictions: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="format='xml': allowed are coco, cvat"):
        write_corrections(predictions, tmp_path, format="xml")
    with pytest.raises(MissingInputError, match=r"neither predictions.json, .* nor classes.csv"):
        write_corrections(tmp_path / "photos", tmp_path)
    (predictions / "predictions.json").write_text("{}")
    with pytest.raises(InputError, match="not a record of predictions"):
        write_corrections(predictions, tmp_path)


@pytest.mark.parametrize("format", ["coco", "cvat"])
def test_a_file_by_whose_name_no_tool_would_know_it_is_refused(format: str, predictions: Path, tmp_path: Path) -> None:
    """Such as a folder's: `prepare` would not take it back."""
    with pytest.raises(ParameterError, match=f"output='.*mine': .* ends in {Path(FILES[format]).suffix};"):
        write_corrections(predictions, images=str(predictions), format=format, output=tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
