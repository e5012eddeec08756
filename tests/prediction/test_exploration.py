"""The order of images by what was predicted of them: what is read, what is stored, and what is exported."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.stored_predictions import write_predictions

import dlv3p.prediction.exploration as module
from cityscapes.errors import MissingInputError, ParameterError
from cityscapes.files.images import read_ids
from dlv3p.data.roots import open_split
from dlv3p.evaluation.candidates import from_folder
from dlv3p.evaluation.metrics import scores
from dlv3p.evaluation.run_comparison import compare_candidates
from dlv3p.parameters.notebooks import ExplorePredictionsParameters
from dlv3p.prediction.exploration import explore
from dlv3p.prediction.explorer import Explorer
from dlv3p.prediction.sources import find_images

pytestmark = pytest.mark.usefixtures("workspace")


@pytest.fixture
def split(city: Path):
    """The labeled validation images of the embedded city."""
    return open_split(city, "val")


@pytest.fixture
def config(city: Path) -> ExplorePredictionsParameters:
    """The parameters that explore that split."""
    return ExplorePredictionsParameters(data_root=str(city), progress="none")


@pytest.fixture
def folders(split, tmp_path: Path) -> list[str]:
    """Two folders of predictions, the second in label ids: more and more wrong, and less and less wrong."""
    shares = np.linspace(0.1, 0.9, len(split)).tolist()
    first = write_predictions(tmp_path / "first", split, shares=shares)
    second = write_predictions(tmp_path / "second", split, shares=shares[::-1], label_ids=True)
    return [str(first), str(second)]


def test_the_worst_the_least_sure_and_the_most_disputed_come_first(config, folders, split) -> None:
    exploration = explore(config, folders)
    table = exploration.table
    assert exploration.order("confidence") == list(range(len(split)))[::-1]
    by_road = table["IoU road"].to_numpy()[exploration.order("IoU road")]
    known = by_road[~np.isnan(by_road)]
    assert (np.diff(known) >= 0).all()
    assert np.isnan(by_road[len(known) :]).all()
    disputed = table["disagreement"].to_numpy()[exploration.order("disagreement")]
    assert (np.diff(disputed) <= 0).all()
    assert 0 < disputed[0] <= 1


def test_scores_are_those_of_the_files(config, folders, split) -> None:
    truth, found = split.mask(0), read_ids(Path(folders[0]) / "ids" / f"{split.name(0)}.png")
    counted = truth != 255
    confusion = np.zeros((19, 19), np.int64)
    np.add.at(confusion, (truth[counted], found[counted]), 1)
    exploration = explore(config, folders)
    assert exploration.table["mIoU"][0] == pytest.approx(scores(confusion).mean_iou, abs=1e-12)
    assert pd.read_csv(exploration.folder / "explored.csv")["mIoU"][0] == pytest.approx(exploration.table["mIoU"][0])
    assert np.array_equal(exploration.view(0).predictions[0], found)


def test_with_a_stored_table_only_the_files_of_the_shown_image_are_opened(
    config, folders, split, monkeypatch: pytest.MonkeyPatch
) -> None:
    explore(config, folders).table  # noqa: B018  the first time, everything is read
    opened, read = [], module.read_ids
    monkeypatch.setattr(module, "read_ids", lambda path: opened.append(path.stem) or read(path))
    monkeypatch.setattr(module, "from_folder", lambda *_, **__: pytest.fail("scored again"))
    explorer = Explorer(explore(config, folders))
    explorer.step(1)
    order = explorer.exploration.order("mIoU")
    assert set(opened) == {split.name(order[0]), split.name(order[1])}
    assert len(opened) == 8  # ids and confidence of two folders, for two images


def test_a_table_is_made_again_when_a_prediction_changed(config, folders, split) -> None:
    before = explore(config, folders).table["mIoU"]
    write_predictions(Path(folders[0]), split, shares=[0.0] * len(split))
    after = explore(config, folders).table["mIoU"]
    assert (after > before).all()
    assert after.tolist() == [1.0] * len(split)


def test_a_table_is_made_again_when_a_prediction_of_the_same_size_and_time_changed(config, folders, split) -> None:
    path = Path(folders[0]) / "ids" / f"{split.name(0)}.png"
    flat = np.zeros(split.mask(0).shape, np.uint8)
    Image.fromarray(flat).save(path, compress_level=0)
    before, then = explore(config, folders).table["IoU road"][0], path.stat()
    Image.fromarray(flat + 1).save(path, compress_level=0)
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert path.stat().st_size == then.st_size
    assert explore(config, folders).table["IoU road"][0] < before


def test_a_table_is_made_again_for_ids_of_another_kind(config, split, tmp_path) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    for index in range(len(split)):
        Image.fromarray(np.full(split.mask(index).shape, 7, np.uint8)).save(folder / f"{split.name(index)}.png")
    as_train, as_label = (explore(replace(config, ids=ids), [str(folder)]).table for ids in ("train", "label"))
    assert as_train["IoU traffic sign"].max() > 0 == as_train["IoU road"].max()
    assert as_label["IoU road"].max() > 0, "label id 7"


def test_images_that_are_called_as_a_missing_value_keep_their_names(config, tmp_path) -> None:
    for kind in ("images", "masks", "found"):
        for name in ("NA", "nan", "null", "1"):
            (tmp_path / kind / "val" / name).mkdir(parents=True)
            picture = Image.new("RGB" if kind == "images" else "L", (8, 8))
            picture.save(tmp_path / kind / "val" / name / f"{name}.png")
    (tmp_path / "classes.csv").write_text("id,name\n0,road\n1,sky\n")
    config = replace(config, data_root=str(tmp_path))
    made, read = (explore(config, [str(tmp_path / "found")]).table for _ in range(2))
    assert made["image"].tolist() == read["image"].tolist() == ["1/1", "NA/NA", "nan/nan", "null/null"]
    assert made["group"].tolist() == read["group"].tolist() == ["1", "NA", "nan", "null"]


def test_predictions_of_other_images_are_said_whenever_they_are_scored(city, tmp_path, capsys) -> None:
    own = shutil.copytree(city, tmp_path / "own")
    split, config = open_split(own, "val"), ExplorePredictionsParameters(data_root=str(own), progress="none")
    folder = write_predictions(tmp_path / "predicted", split, shares=[0.5] * len(split))
    first = explore(config, [str(folder)]).table
    assert from_folder(folder, split, progress="none").changed == ""
    assert "Other images" not in capsys.readouterr().out

    path = split.image_path(1)
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    said = f"were predicted of other files than {own} holds now under their names, the first {split.name(1)}"
    for _ in range(2):  # the second time the table is read back
        assert first.equals(explore(config, [str(folder)]).table)
        assert f"warning: Other images: 1 masks of {folder}/ids {said}" in capsys.readouterr().out
    candidates = [from_folder(one, split, progress="none") for one in (folder, folder / "ids")]
    assert all(said in one.changed for one in candidates)
    assert said in compare_candidates(candidates).sentences()[1]


def test_the_list_of_chosen_images_is_one_that_predict_takes(config, folders, split) -> None:
    explorer = Explorer(explore(config, folders), sort="IoU car")
    explorer.export()
    assert explorer.told.value == "no image is chosen; mark some with Choose"
    explorer.choose.value = True
    chosen = explorer.index
    explorer.step(1)
    assert explorer.choose.value is False
    explorer.export()
    images = find_images(explorer.exploration.folder / "chosen.txt").images
    assert [image.path for image in images] == [split.image_path(chosen).absolute()]


def test_ids_under_the_pointer_are_those_of_the_file(config, folders, split) -> None:
    explorer = Explorer(explore(config, folders))
    stored = read_ids(Path(folders[1]) / "ids" / f"{split.name(explorer.index)}.png")
    layer = explorer.panels.view["layers"][2]
    assert layer["ids"] == stored.tobytes()
    assert (layer["names"][7], layer["names"][26], layer["names"][0]) == ("road", "car", "ignored")


def test_a_label_id_that_is_no_class_is_read_under_the_pointer_as_well(config, folders, split) -> None:
    path = Path(folders[1]) / "ids" / f"{split.name(0)}.png"
    ids = read_ids(path).copy()
    ids[split.mask(0) == 255] = 4  # static, where nothing is judged
    assert (ids == 4).any()
    Image.fromarray(ids).save(path)
    explorer = Explorer(explore(config, folders[1:]))
    while explorer.index:
        explorer.step(1)
    assert explorer.panels.view["layers"][1]["ids"] == ids.tobytes()


def test_the_opacity_changes_the_picture_of_the_truth(config, folders) -> None:
    explorer = Explorer(explore(config, folders[:1]))
    before = explorer.panels.view["panels"]
    explorer.opacity.value = 1.0
    after = explorer.panels.view["panels"]
    assert [panel["title"] for panel in after] == [
        "image", "truth", "prediction", "errors of the prediction", "confidence of the prediction"
    ]  # fmt: skip
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_what_cannot_be_explored_is_said_in_one_line(config, folders) -> None:
    with pytest.raises(ParameterError, match="give one folder, or two to compare"):
        explore(config, [*folders, folders[0]])
    with pytest.raises(MissingInputError, match="no such folder; predict.ipynb writes one"):
        explore(config, ["nowhere"])
    with pytest.raises(ParameterError, match="sort='IoU moon': allowed are mIoU"):
        Explorer(explore(config, folders), sort="IoU moon")
