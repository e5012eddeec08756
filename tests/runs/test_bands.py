"""A run that goes wrong leaves the band of its recipe in the first epochs; one that only has another seed does not."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny import tiny

from cityscapes.demo.city import write_demo_city
from cityscapes.errors import InputError, MissingInputError, ParameterError, StoppedError
from cityscapes.labels import IGNORE, NUM_CLASSES, TRAIN_ID_TO_LABEL_ID
from dlv3p.data.class_pixels import class_pixels
from dlv3p.data.fingerprints import pixels_fingerprint
from dlv3p.data.roots import open_images, open_split, resolve_data_root
from dlv3p.parameters.notebooks import TrainParameters
from dlv3p.runs import bands
from dlv3p.runs.__main__ import main
from dlv3p.runs.bands import Band, EarlyWarning, band_for, read_band, write_band
from dlv3p.runs.record import write_record
from dlv3p.train import train
from dlv3p.training import callbacks


def of_the_band(city, **changes):
    """Parameters of a run of six epochs that learns steadily, so that seeds differ less than rates do."""
    network = {"backbone": "mobilenet_v2", "channels": 16, "crop_height": 64, "crop_width": 64, "batch_size": 3}
    steady = {"epochs": 6, "optimizer": "adamw", "learning_rate": 0.001, "color_jitter": 0.0}
    return tiny(city, **{**network, **steady, "checkpoint_minutes": 10.0, **changes})


def shift(mask):
    return np.where(mask == IGNORE, IGNORE, (mask + 1) % NUM_CLASSES).astype(np.uint8)


def write_with_other_ids(split_names, root, target, change, classes):
    """Copy a city as a plain folder whose masks hold other ids, as somebody would who mixes up two tables."""
    for name in split_names:
        split = open_split(root, name)
        for index in range(len(split)):
            for kind, image in (("images", split.image(index)), ("masks", Image.fromarray(change(split.mask(index))))):
                path = target / kind / name / f"{index:03}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    with open(target / "classes.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("id", "name", "red", "green", "blue"), *((i, f"class {i}", i, i, i) for i in classes)]
        )
    return target


def stop_after(epochs, monkeypatch):
    """Let the next trainings be stopped after so many epochs, as by the button."""

    class Stopper(callbacks.Callback):
        def __init__(self, mode, stop, history):
            self.stop = stop

        def on_epoch(self, row):
            if row["epoch"] == epochs:
                self.stop()

    monkeypatch.setattr(callbacks, "make_progress", Stopper)


def warnings(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]


@pytest.fixture
def band():
    """A band of two epochs and two classes."""
    intervals = {"train_loss": [(1.0, 2.0), (0.5, 1.0)], "val_mIoU": [None, (0.2, 0.4)]}
    return Band(TrainParameters().as_dict(), ["road", "sky"], [0.7, 0.3], intervals)


class Labels:
    """A split with the given mask."""

    def __init__(self, mask, names=("road", "sky")):
        self.labels, self.class_names, self.num_classes = np.array(mask, np.uint8), names, len(names)

    def __len__(self):
        return 3

    def image(self, index):
        raise InputError("damaged; the loader tells of it")


RIGHT = Labels([[0] * 7 + [1] * 3 + [IGNORE] * 9])


def watch_of(band, labels=RIGHT, **parameters):
    pixels = np.bincount(labels.labels.ravel(), minlength=256)
    return EarlyWarning(band, TrainParameters(**parameters), labels.class_names, pixels)


def test_within_the_band_nothing_is_said(band, capsys):
    watch = watch_of(band)
    watch.on_start(9, 3)
    for row in ({"epoch": 1, "train_loss": 1.0, "val_mIoU": 0.9}, {"epoch": 2, "train_loss": 1.0, "val_mIoU": 0.2}):
        watch.on_epoch(row)
    watch.on_epoch({"epoch": 2, "train_loss": float("nan"), "val_mIoU": None})
    watch.on_epoch({"epoch": 3, "train_loss": 99.0, "val_mIoU": 0.0})  # beyond what is known
    assert warnings(capsys) == []


def test_each_metric_that_leaves_the_band_is_told_once_with_likely_causes(band, capsys):
    watch = watch_of(band, learning_rate=0.08, loss="focal", seed=5, threads=1)
    watch.on_start(9, 3)
    watch.on_epoch({"epoch": 1, "train_loss": 2.1, "val_mIoU": 0.0})
    watch.on_epoch({"epoch": 2, "train_loss": 2.1, "val_mIoU": 0.1})
    first, second = warnings(capsys)
    assert first.startswith("warning: epoch 1: train_loss 2.100 is above the reference band 1.000 to 2.000")
    assert second.startswith("warning: epoch 2: val_mIoU 0.100 is below the reference band 0.200 to 0.400")
    assert "learning_rate (now 0.08, in the band 0.008), or loss (now focal, in the band cross_entropy)" in first
    assert "wrong ids" in first
    assert "seed" not in first
    assert "threads" not in first


def test_labels_that_are_permuted_are_told_before_the_first_step(band, capsys):
    watch_of(band, Labels([[1] * 7 + [0] * 3])).on_start(9, 3)
    (line,) = warnings(capsys)
    assert line.startswith(
        "warning: 30.0% of the labeled pixels are 'road', 70.0% in the band; likely masks with wrong"
    )
    watch_of(band, Labels([[0]], ["road", "sky", "car"])).on_start(9, 3)
    assert "has 3 classes, but runs of this recipe had 2" in warnings(capsys)[0]


def test_shares_count_labeled_pixels_only(band, capsys):
    watch_of(replace(band, class_shares=[0.7 - 0.24, 0.3 + 0.24])).on_start(9, 3)  # 255 is in neither share
    assert warnings(capsys) == []
    watch_of(replace(band, class_shares=[0.7 - 0.26, 0.3 + 0.26])).on_start(9, 3)
    assert warnings(capsys)[0].startswith("warning: 30.0% of the labeled pixels are 'sky', 56.0% in the band")
    watch_of(replace(band, class_shares=[0.2, 0.0]), Labels([[IGNORE]])).on_start(9, 3)
    assert warnings(capsys) == []  # no labeled pixel at all: the loader and the audit speak of it


@pytest.fixture(scope="module")
def own_city(tmp_path_factory):
    """The folder of a copy of the embedded city, as somebody may have put it among other data."""
    return write_demo_city(tmp_path_factory.mktemp("copies") / "my_streets")


@pytest.fixture(scope="module")
def recorded(city, tmp_path_factory):
    """The band of three tiny runs, as the command writes it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("recorded")
        patch.setenv("DLV3P_WORKSPACE", str(folder))
        for seed in (1, 2, 3):
            train(of_the_band(city, run=f"seed{seed}", seed=seed, band="none"))
        runs = [f"seed{seed}" for seed in (1, 2, 3)]
        assert main(["band", *runs, "--epochs", "5", "--output", str(folder / "band.json")]) == 0
        yield folder / "band.json"


def test_auto_takes_the_stored_band_of_the_same_recipe_only():
    default = TrainParameters()
    found = band_for(default, RIGHT)
    assert found.epochs >= 2
    assert len(found.class_shares) == NUM_CLASSES
    for same in ({"seed": 9}, {"learning_rate": 0.03}, {"run": "x", "threads": 1, "workers": 0}):
        assert band_for(TrainParameters(**same), RIGHT) == found
    for other in ({"epochs": 2}, {"loss": "focal"}, {"backbone": "resnet50"}, {"band": "none"}):
        assert band_for(TrainParameters(**other), RIGHT) is None


def test_auto_knows_the_data_of_a_band_wherever_it_lies(city, workspace, recorded, monkeypatch):
    def found(root):
        return band_for(of_the_band(root), open_images(root, "train"))

    monkeypatch.setattr(bands, "STORED", recorded.parent)
    moved = shutil.copytree(city, workspace / "my_streets")
    assert found(moved) == found(city) == read_band(recorded)
    next((moved / "leftImg8bit" / "train").rglob("*.png")).unlink()
    assert found(moved) is None


@pytest.mark.slow
def test_auto_knows_the_embedded_city_wherever_it_lies(own_city, city, workspace):
    def found(root):
        return band_for(TrainParameters(data_root=str(root)), open_images(root, "train"))

    assert found(own_city) == band_for(TrainParameters(), RIGHT)
    assert found(city) is None  # a smaller city, with other images
    assert found(resolve_data_root("demo_voc")) is None


def tell_wrong_ids(root, band, workspace, capsys):
    """Check what a band says of label ids, and of shifted ids, in copies of a city."""
    wrong = {"34 classes": (TRAIN_ID_TO_LABEL_ID.__getitem__, 34), "of the labeled pixels are": (shift, NUM_CLASSES)}
    for said, (change, classes) in wrong.items():
        folder = write_with_other_ids(("train",), root, workspace / str(classes), change, range(classes))
        split = open_split(folder, "train")
        pixels = class_pixels(split, skip_bad=True)
        watch = EarlyWarning(band, TrainParameters(data_root=str(folder)), split.class_names, pixels)
        watch.on_start(26, 20)
        (line,) = warnings(capsys)
        assert said in line
        watch.on_epoch({"epoch": 1, "train_loss": 99.0})
        assert len(warnings(capsys)) == (classes == NUM_CLASSES)  # curves of other classes say no more


def test_label_ids_in_a_copy_of_a_city_are_told_once_and_shifted_ids_too(city, workspace, recorded, capsys):
    tell_wrong_ids(city, read_band(recorded), workspace, capsys)


@pytest.mark.slow
def test_the_stored_band_tells_label_ids_in_a_copy_of_the_embedded_city(own_city, workspace, capsys):
    band = band_for(TrainParameters(data_root=str(own_city)), open_images(own_city, "train"))
    tell_wrong_ids(own_city, band, workspace, capsys)


def test_a_split_is_known_by_its_images_whatever_their_names_and_masks(city, workspace):
    other = write_with_other_ids(("train",), city, workspace / "other", shift, range(NUM_CLASSES))
    here, there = (pixels_fingerprint(open_images(root, "train")) for root in (city, other))
    assert here == there
    changed = other / "images" / "train" / "000.png"
    image = np.array(Image.open(changed))
    image[0, 0, 0] ^= 1
    Image.fromarray(image).save(changed)
    assert pixels_fingerprint(open_images(other, "train")) != here
    changed.unlink()
    assert pixels_fingerprint(open_images(other, "train")) != here
    assert pixels_fingerprint(RIGHT) == ""  # whose images cannot be read


def test_a_file_is_taken_whatever_it_is_of_and_must_be_a_band(tmp_path, band):
    path = tmp_path / "own.json"
    write_band(path, band)
    assert band_for(TrainParameters(band=str(path), loss="focal"), RIGHT).intervals["val_mIoU"] == [None, [0.2, 0.4]]
    with pytest.raises(MissingInputError, match="allowed are auto, none, or a band file"):
        read_band(tmp_path / "none.json")
    content = json.loads(path.read_text())
    del content["content_sha256"]  # or it would be refused for that alone
    for wrong in ({"format": 2}, {"class_shares": [1, 2, 3]}, {"intervals": {"speed": []}}, {"more": 1}):
        path.write_text(json.dumps(content | wrong))
        with pytest.raises(InputError, match=r"own.json: not a band file"):
            read_band(path)
    path.write_text("[")
    with pytest.raises(InputError, match="not a band file"):
        read_band(path)


def test_the_command_writes_mean_and_spread_of_the_runs(recorded):
    found = read_band(recorded)
    texts = [(recorded.parent / "saved" / f"seed{seed}" / "metrics.csv").read_text() for seed in (1, 2, 3)]
    tables = [list(csv.DictReader(text.splitlines())) for text in texts]
    assert found.epochs == 5
    for metric, floor in (("train_loss", None), ("val_mIoU", 0.05)):
        for epoch, (low, high) in enumerate(found.intervals[metric]):
            values = [float(table[epoch][metric]) for table in tables]
            half = max(4 * np.std(values, ddof=1), floor or 0.08 * np.mean(values))
            assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=1e-4)


def test_runs_that_do_not_belong_together_make_no_band(recorded, monkeypatch, tmp_path):
    monkeypatch.setenv("DLV3P_WORKSPACE", str(recorded.parent))
    for runs, said in (
        (["seed1", "seed2"], "three or more runs"),
        (["seed1", "seed2", "seed1"], "each needs a different one"),
    ):
        with pytest.raises(ParameterError, match=said):
            main(["band", *runs, "--output", str(tmp_path / "x.json")])
    with pytest.raises(ParameterError, match="allowed are 0 to 6, which all runs have"):
        main(["band", "seed1", "seed2", "seed3", "--epochs", "9", "--output", str(tmp_path / "x.json")])
    with pytest.raises(MissingInputError, match=r"nothing.run\.json"):
        main(["band", "seed1", "seed2", "nothing", "--output", str(tmp_path / "x.json")])
    record = recorded.parent / "saved" / "seed3" / "run.json"
    before = record.read_text()
    write_record(record, json.loads(before.replace('"channels": 16', '"channels": 32')))
    with pytest.raises(ParameterError, match="differ in channels"):
        main(["band", "seed1", "seed2", "seed3", "--output", str(tmp_path / "x.json")])
    record.write_text(before)


def test_another_seed_stays_within_the_band(city, workspace, recorded, capsys):
    train(of_the_band(city, seed=4, band=str(recorded)))
    assert warnings(capsys) == []


def test_a_tenfold_rate_leaves_it(city, workspace, recorded, capsys):
    train(of_the_band(city, learning_rate=0.01, seed=4, band=str(recorded)))
    found = warnings(capsys)
    assert found
    assert "learning_rate (now 0.01, in the band 0.001)" in found[0]


def test_wrong_ids_are_told_before_the_first_step(city, workspace, recorded, capsys, monkeypatch):
    stop_after(1, monkeypatch)
    folder = write_with_other_ids(("train", "val"), city, workspace / "shifted", shift, range(NUM_CLASSES))
    with pytest.raises(StoppedError):
        train(of_the_band(folder, band=str(recorded)))
    assert "of the labeled pixels are" in warnings(capsys)[0]


WRONG = {
    "a new seed": ({"seed": 4}, None, False),
    "a tenfold rate": ({"learning_rate": 0.08}, None, True),
    "shifted ids": ({}, (shift, NUM_CLASSES), True),
    "label ids": ({}, (TRAIN_ID_TO_LABEL_ID.__getitem__, 34), True),
}


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "other_ids", "trips"), WRONG.values(), ids=WRONG)
def test_the_stored_band_tells_what_goes_wrong_on_the_embedded_city(
    tmp_path: Path, monkeypatch, capsys, changes, other_ids, trips
):
    """Two epochs of the default recipe, at its own size."""
    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    stop_after(2, monkeypatch)
    if other_ids:
        change, classes = other_ids
        root = resolve_data_root("demo_city")
        folder = write_with_other_ids(("train", "val"), root, tmp_path / "other", change, range(classes))
        changes = changes | {"data_root": str(folder)}
    with pytest.raises(StoppedError):
        train(TrainParameters(run="a", **changes))
    assert bool(warnings(capsys)) == trips
