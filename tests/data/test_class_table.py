"""The class table says what stands for a class in the masks, which no one has to touch."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.channel_folder import SIDE, SWITCHES, write_folder
from support.tiny import tiny

from cityscapes.errors import InputError
from cityscapes.labels import IGNORE
from dlv3p.data.audit import audit
from dlv3p.data.fingerprints import content_fingerprint, labels_fingerprint, masks_fingerprint
from dlv3p.data.roots import open_split
from dlv3p.data.write_shards import write_shards
from dlv3p.evaluation.evaluate import evaluate
from dlv3p.evaluation.inference import load_saved
from dlv3p.export.__main__ import main as export
from dlv3p.prediction.predict import predict_images
from dlv3p.prediction.predictor import load_predictor
from dlv3p.prediction.results import Outputs
from dlv3p.prediction.sources import find_images
from dlv3p.train import train

STORED = np.array([[0, 255, 7], [7, 8, 3]], np.uint8)


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("val/*")}


def folder(root: Path, table: str, mask: np.ndarray = STORED) -> Path:
    (root / "classes.csv").write_text(table)
    for kind, pixels in (("images", np.full((*mask.shape[:2], 3), 90, np.uint8)), ("masks", mask)):
        (root / kind / "train").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / kind / "train" / "a.png")
    return root


def test_classes_are_merged_renamed_and_ignored(tmp_path: Path) -> None:
    root = folder(tmp_path, "id,name,stored\n0,ground,0\n1,vehicle,7 8 255\n255,ignored,3\n")
    split = open_split(root, "train")
    assert split.class_names == ("ground", "vehicle")
    assert split.mask(0).tolist() == [[0, 1, 1], [1, 1, 255]]
    write_shards(split, tmp_path / "shards")
    assert np.array_equal(open_split(tmp_path / "shards", "train").mask(0), split.mask(0))


def test_merged_and_ignored_classes_are_audited_trained_exported_and_predicted(workspace: Path, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", channels=1, count=8)
    for path in (root / "masks").rglob("*.png"):
        mask = np.array(Image.open(path))
        mask[:, ::2][mask[:, ::2] == 255] = 100
        mask[:4] = 7
        Image.fromarray(mask).save(path)
    before = content_of(root / "masks")
    (root / "classes.csv").write_text("id,name,stored\n0,ground,0\n1,thing,100 255\n255,unknown,7\n")
    report = audit(root, ["train", "val"], progress="none")
    assert report.errors == ()
    assert report.splits[0].ignored_share == pytest.approx(4 / SIDE)

    train(tiny(root, run="merged", epochs=10, validate_every=10, **SWITCHES))
    split = open_split(root, "val")
    assert (split.mask(0)[:4] == IGNORE).all()
    assert evaluate(load_saved("merged", device="cpu", threads=1), split, progress="none").scores.mean_iou > 0.6
    predictor, images = load_predictor("merged", device="cpu", threads=1), find_images(root / "images" / "val")
    found = predict_images(predictor, images, tmp_path / "out", Outputs(), progress="none")
    assert (found.made, found.problems) == (8, ())
    assert {"share of ground", "share of thing"} <= set(found.table.read_text().splitlines()[0].split(","))
    labels = np.array(Image.open(tmp_path / "out" / "ids" / "0.png"))
    assert (labels == split.mask(0))[4:].mean() > 0.8
    export(["--run", "merged", "--output", str(tmp_path / "merged.onnx")])
    exported = load_predictor(tmp_path / "merged.onnx", threads=1)(root / "images" / "val" / "0.png")
    assert (exported == labels).mean() > 0.999
    assert content_of(root / "masks") == before, "no mask is touched"


@pytest.mark.parametrize("channels", [1, 3])
def test_masks_of_0_and_255_are_two_classes(tmp_path: Path, channels: int) -> None:
    mask = np.repeat(np.array([[0, 255], [255, 0]], np.uint8)[..., None], channels, axis=2)
    root = folder(tmp_path, "id,name,stored\n0,background,0\n1,tumor,255\n", mask if channels == 3 else mask[..., 0])
    assert open_split(root, "train").mask(0).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (
            "id,name,stored\n0,a,0\n1,b,7\n",
            "a.png: holds the values 3, 8, 255, which no row of classes.csv lists",
        ),
        ("id,name,stored\n0,a,0 7\n1,b,7\n", "line 3: the stored value 7 already belongs to another class"),
        ("id,name,stored\n0,a,0 7 8 3 255\n1,b,\n", "line 3: stored is empty; list the values of this class, or"),
        ("id,name,stored\n0,a,0\n1,b,7 x\n", "line 3: a stored value is 'x'; expected a whole number from 0 to 255"),
        ("id,name,stored\n0,a,0\n1,b,7,8\n", "line 3: more values than columns; put a value that holds a comma"),
        ("id,name,stored\n0,a,0\n1,b,256\n", "line 3: a stored value is '256'; expected a whole number from 0 to 255"),
    ],
)
def test_a_table_that_does_not_settle_every_value_is_refused(tmp_path: Path, table: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        open_split(folder(tmp_path, table), "train").mask(0)


def test_other_values_are_other_labels_to_every_fingerprint(tmp_path: Path) -> None:
    def fingerprints(table: str) -> tuple[str | None, ...]:
        split = open_split(folder(tmp_path, table), "train")
        names = (masks_fingerprint(split), content_fingerprint(split))
        return (*names, labels_fingerprint(split, version="1").split()[0])

    first = fingerprints("id,name,stored\n0,a,0\n1,b,7 8 3 255\n")
    second = fingerprints("id,name,stored\n0,a,0 3\n1,b,7 8 255\n")
    assert not set(first) & set(second)
