"""The search for label errors: who may judge what, what it finds, what it writes, and how little memory it takes."""

import json
import shutil
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.tiny import tiny

from cityscapes.dataset import Split
from cityscapes.errors import InputError, IntegrityError, ParameterError
from cityscapes.files.checksums import file_sha256
from cityscapes.files.png_write import encode_png
from cityscapes.labels import IGNORE
from dlv3p.annotations.coco import CocoFile
from dlv3p.annotations.cvat import CvatFile
from dlv3p.annotations.shapes import draw
from dlv3p.data.roots import open_split
from dlv3p.evaluation.evaluate import hash_scored
from dlv3p.evaluation.results import MadeFrom
from dlv3p.parameters.notebooks import FindLabelErrorsParameters
from dlv3p.parameters.protocols import WHOLE_IMAGE
from dlv3p.parameters.training import TrainParameters
from dlv3p.pictures.label_errors import regions_picture, save_pictures
from dlv3p.prediction import label_errors
from dlv3p.prediction.label_errors import LabelErrors, find_judges, find_label_errors, fold_parameters, judge, main
from dlv3p.runs.folders import checkpoint_path, list_runs
from dlv3p.runs.record import read_record, write_record
from dlv3p.train import train


class Sharp:
    """A stand-in for a network that knows the truth of an image by its pixels, and doubts little."""

    parameters, meaning, weights_sha256 = TrainParameters(), None, "1" * 64

    def __init__(self, truths: dict[bytes, np.ndarray], classes: int, run: str = "sharp") -> None:
        self.truths, self.run, self.class_names = truths, run, tuple(map(str, range(classes)))

    def whole_logits(self, image: Image.Image) -> np.ndarray:
        truth = self.truths[image.tobytes()]
        return np.where(np.eye(len(self.class_names), dtype=bool)[truth], 4.0, 0.0).astype(np.float32)

    def pixel_logits(self, logits: np.ndarray, image: Image.Image):
        for row in range(0, image.height, 16):
            part = (slice(row, row + 16), slice(0, image.width))
            yield part, logits[part].reshape(-1, logits.shape[-1])


class Frames(Split):
    """Frames that are drawn when they are read: stripes, one of which has a wrong label in every frame."""

    root, split = Path("frames"), "train"
    class_names, num_classes = ("0", "1", "2", "3"), 4
    colors = np.zeros((256, 3), np.uint8)

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"{index:06d}"

    def image_path(self, index: int) -> Path:
        return Path(f"{index:06d}.png")

    mask_path = image_path

    def image_bytes(self, index: int) -> bytes:
        return self.image(index).tobytes()

    def has_mask(self, index: int) -> bool:
        return True

    def truth(self) -> np.ndarray:
        return np.repeat(np.arange(4, dtype=np.uint8), 16)[None].repeat(32, axis=0)

    def mask(self, index: int) -> np.ndarray:
        given = self.truth()
        given[8:24, 20 : 28 - index % 3] = 3
        given[:, 0] = IGNORE
        return given

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.truth()).convert("RGB")


def config(**values) -> FindLabelErrorsParameters:
    return FindLabelErrorsParameters(**({"progress": "none", "threads": 1, "device": "cpu", "smallest": 20} | values))


@pytest.fixture
def sharp(monkeypatch: pytest.MonkeyPatch):
    """Let a network judge that knows the truths of a split."""

    def use(split: Split, truths: Split) -> None:
        known = {
            split.image(index).tobytes(): np.minimum(truths.mask(index), truths.num_classes - 1)
            for index in range(len(split))
        }
        monkeypatch.setattr(label_errors, "find_judges", lambda split, runs: [0] * len(split))
        network = Sharp(known, split.num_classes)
        network.class_names = split.class_names
        monkeypatch.setattr(
            label_errors, "load_run_predictor", lambda asked: network if asked.checkpoint == "last" else None
        )

    return use


@pytest.fixture
def spoiled(city: Path, tmp_path: Path) -> Path:
    """The tiny city's validation images as a plain folder, in one of which a car-sized box is a truck; with holes."""
    split = open_split(city, "val")
    rows = [f"{index},{name}" for index, name in enumerate(split.class_names)]
    root = tmp_path / "spoiled"
    for index in range(len(split)):
        mask = split.mask(index).copy()
        if index == 1:
            mask[20:40, 30:60] = 14
            mask[28:32, 40:50] = split.mask(index)[28:32, 40:50]
        for kind, content in (("images", split.image_bytes(index)), ("masks", encode_png(mask))):
            path = root / kind / "train" / "street" / f"{split.name(index)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (root / "classes.csv").write_text("\n".join(["id,name", *rows]) + "\n")
    return root


def test_a_wrong_polygon_is_found_and_written_for_correction(city, spoiled, sharp, workspace) -> None:
    split, truths = open_split(spoiled, "train"), open_split(city, "val")
    sharp(split, truths)
    errors = judge(split, ["sharp"], config(border=0, smallest=1))
    wrong = split.mask(1) != truths.mask(1)
    found = np.zeros(wrong.shape, bool)
    for region in errors.regions:
        assert region.image == 1
        assert region.given == 14
        found[region.place] |= region.mask()
    np.testing.assert_array_equal(found, wrong & (truths.mask(1) != IGNORE))
    table = pd.read_csv(errors.save("cvat")[0])
    assert table["rank"].tolist() == list(range(1, len(errors.regions) + 1))
    assert set(table["given"]) == {"truck"}
    expected = np.where(found, truths.mask(1), IGNORE)
    ids = {name: index for index, name in enumerate(split.class_names)} | {"ignore": IGNORE}
    for path, kind in ((errors.folder / "annotations.xml", CvatFile), (errors.write_polygons("coco"), CocoFile)):
        (image,) = kind(path)
        assert image.name == f"{truths.name(1)}.png"
        np.testing.assert_array_equal(draw(image, ids, unlabeled=IGNORE).mask, expected)


def test_what_judged_is_recorded_as_it_was_read(city, spoiled, sharp, workspace, monkeypatch) -> None:
    split, truths = open_split(spoiled, "train"), open_split(city, "val")
    sharp(split, truths)
    errors = judge(split, ["sharp"], config(border=0, smallest=1))
    made_from = json.loads(errors.save("none")[0].with_suffix(".json").read_text())["made_from"]
    assert made_from["checkpoints"] == {"sharp": "1" * 64}, "not of what lies there at the end"
    assert made_from["mask_contents_sha256"] == hash_scored(split, WHOLE_IMAGE, progress="none").masks
    assert made_from["image_contents_sha256"] == MadeFrom.of(split).image_contents_sha256

    load, digits = label_errors.load_run_predictor, iter("12")
    monkeypatch.setattr(label_errors, "load_run_predictor", lambda asked: replaced(load(asked), next(digits) * 64))
    with pytest.raises(IntegrityError, match="run='sharp': was trained on while it judged"):
        judge(split, ["sharp"], config(border=0, smallest=1))


def replaced(network: Sharp, sha256: str) -> Sharp:
    network.weights_sha256 = sha256
    return network


def test_a_split_without_labels_is_refused_before_anything_is_trained(spoiled, workspace) -> None:
    for path in (spoiled / "masks").rglob("*.png"):
        path.write_bytes(encode_png(np.full((64, 128), IGNORE, np.uint8)))
    with pytest.raises(ParameterError, match="split='train': has no labels to judge, only ignored pixels; name anoth"):
        main([str(spoiled), "--split", "train", "--folds", "2"])
    assert list_runs() == []


def test_data_of_one_name_in_two_folders_have_results_of_their_own(tmp_path, workspace) -> None:
    found = []
    for place in ("one", "two"):
        split = SimpleNamespace(root=tmp_path / place / "data", split="val")
        found.append(LabelErrors(split, (), 0, np.zeros((1, 1)), np.zeros(1), ()).folder)
    assert found[0] != found[1]
    assert all(folder.name.startswith("label_errors_data_val-") for folder in found)


def test_a_run_may_not_judge_what_it_was_trained_on_under_no_name(city, workspace, tmp_path) -> None:
    train(tiny(city, run="plain", epochs=1))
    assert find_judges(open_split(city, "val"), ["plain"]) == [0, 0, 0]
    with pytest.raises(ParameterError, match="runs='plain': trained on 6 of the 6 images of 'train'.*folds=5"):
        find_label_errors(config(data_root=str(city), split="train", runs="plain"))
    copies = tmp_path / "copies"
    split = open_split(city, "train")
    for index, name in enumerate(("x", "y")):
        for kind, path in (("images", split.image_path(index)), ("masks", split.mask_path(index))):
            (copies / kind / "val").mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copies / kind / "val" / f"{name}.png")
    (copies / "classes.csv").write_text(
        "id,name\n" + "".join(f"{i},{name}\n" for i, name in enumerate(split.class_names))
    )
    with pytest.raises(ParameterError, match="trained on 2 of the 2 images of 'val', the first x"):
        find_judges(open_split(copies, "val"), ["plain"])


def test_imported_networks_do_not_judge_and_borrowed_weights_are_said(city, workspace, capsys) -> None:
    folder = train(tiny(city, run="plain", epochs=1)).folder
    record = read_record(folder / "run.json")
    pruned = str(folder / "pruning" / "start.safetensors")
    for named, said in (
        (("coco.pt", ""), "coco.pt"),
        (("coco.pt", "big"), "coco.pt and big"),
        ((pruned, "big"), "big"),
    ):
        borrowed = dict(zip(("initial_weights", "teacher"), named, strict=True))
        write_record(folder / "run.json", {**record, "parameters": {**record["parameters"], **borrowed}})
        find_judges(open_split(city, "val"), ["plain"])
        assert f"plain learned from {said}; if trained on these images" in capsys.readouterr().out
    write_record(folder / "run.json", {**record, "imported": {}})
    with pytest.raises(InputError, match="nothing says what it was trained on"):
        find_judges(open_split(city, "val"), ["plain"])


def test_a_judge_whose_training_images_were_moved_is_a_warning(city, workspace, tmp_path, capsys) -> None:
    root = shutil.copytree(city, tmp_path / "moved")
    train(tiny(root, run="plain", epochs=1))
    find_judges(open_split(root, "val"), ["plain"])
    assert capsys.readouterr().out == ""
    path = open_split(root, "train").image_path(0)
    path.rename(path.with_suffix(".gone"))
    find_judges(open_split(root, "val"), ["plain"])
    told = capsys.readouterr().out
    assert f"warning: plain: images of 'train' of {root} were added, removed or replaced since it was trained" in told


def test_each_fold_judges_what_it_has_not_seen_and_is_not_trained_twice(city, workspace, tmp_path, capsys) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(tiny(city).as_dict()))
    asked = config(data_root=str(city), split="train", folds=3, recipe=str(recipe), epochs=1, run="mine", smallest=1)
    errors = find_label_errors(asked)
    assert sorted(list_runs()) == ["mine-fold0", "mine-fold1", "mine-fold2"]
    for fold in range(3):
        held = open_split(city, f"train.fold{fold}of3")
        judged = {errors.split.name(i) for i, run in enumerate(errors.runs) if run == f"mine-fold{fold}"}
        assert judged == {held.name(index) for index in range(len(held))}
    labeled = sum((errors.split.mask(index) != IGNORE).sum() for index in range(6))
    assert 0 < errors.joint.sum() <= labeled
    before = [(workspace / "saved" / run / "checkpoints" / "last.pt").stat().st_mtime_ns for run in list_runs()]
    again = judge(errors.split, ["mine-fold2", "mine-fold1", "mine-fold0"], asked)  # as runs of a sweep would be named
    assert again.runs == errors.runs
    assert [(one.image, one.pixels) for one in again.regions] == [(one.image, one.pixels) for one in errors.regions]
    find_label_errors(asked)
    assert [(workspace / "saved" / run / "checkpoints" / "last.pt").stat().st_mtime_ns for run in list_runs()] == before
    words = [str(city), "--split", "train", "--folds", "3", "--recipe", str(recipe), "--epochs", "1", "--run", "mine"]
    assert (
        main([*words, "--threads", "1", "--device", "cpu", "--progress", "none", "--smallest", "1", "--examples", "2"])
        == 0
    )
    told = capsys.readouterr().out
    assert f"regions in {len(errors.split)} images" in told
    assert sorted(path.name for path in (errors.folder / "regions").iterdir()) == ["0001.png", "0002.png"]
    save_pictures(errors.split, errors.regions[:1], errors.folder, footer=errors.footer)
    assert [path.name for path in (errors.folder / "regions").iterdir()] == ["0001.png"]
    made_from = json.loads((errors.folder / "label_errors.json").read_text())["made_from"]
    assert made_from["checkpoints"]["mine-fold0"] == file_sha256(checkpoint_path("mine-fold0", "last"))


def test_folds_without_a_name_get_one_of_the_recipe(city) -> None:
    first, second = (fold_parameters(config(data_root=str(city), split="train", folds=2), fold) for fold in range(2))
    assert first.run.removesuffix("-fold0") == second.run.removesuffix("-fold1")
    assert (first.training_split, second.validation_split) == ("train.without0of2", "train.fold1of2")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"folds": 1}, "folds=1: allowed are 2"),
        ({"folds": 2, "runs": "a"}, "give one of them"),
        ({"epochs": 5}, "give folds"),
        ({"run": "a/b", "folds": 2}, "run='a/b'"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(values, told) -> None:
    with pytest.raises(ParameterError, match=told):
        config(**values)


def test_pictures_show_a_region_of_any_size_and_place(sharp, tmp_path) -> None:
    split = Frames(2)
    truth = type("Truth", (Frames,), {"mask": lambda self, index: self.truth()})(2)
    sharp(split, truth)
    errors = judge(split, ["sharp"], config(border=0))
    picture = regions_picture(split, errors.regions, footer=errors.footer)
    assert picture.width == 1200
    assert [path.name for path in save_pictures(split, errors.regions, tmp_path, footer="")] == ["0001.png", "0002.png"]
    assert regions_picture(split, [], footer="").width == 1200


KIB_OF_A_FRAME = 0.6
"""What may stay of a frame: its number, its judge, and two hashes with its name; its mask alone has 2 KiB."""


def peak_kib(count: int, use) -> float:
    split = Frames(count)
    use(split, type("Truth", (Frames,), {"mask": lambda self, index: self.truth()})(1))
    tracemalloc.start()
    errors = judge(split, ["sharp"], config(border=0, count=20))
    peak = tracemalloc.get_traced_memory()[1] / 1024
    tracemalloc.stop()
    assert errors.found == count
    assert len(errors.regions) == min(count, 20)
    return peak


def test_memory_does_not_grow_with_the_frames(sharp) -> None:
    few, many = peak_kib(10, sharp), peak_kib(400, sharp)
    assert many - few < 390 * KIB_OF_A_FRAME


@pytest.mark.slow
def test_memory_of_5000_frames_is_that_of_ten(sharp) -> None:
    few, many = peak_kib(10, sharp), peak_kib(5000, sharp)
    assert many - few < 4990 * KIB_OF_A_FRAME
