"""The colors that a data set gives its classes stay with a network, in every file that it is written to."""

import json

import nbformat
import numpy as np
import pytest
from PIL import Image
from support.channel_folder import COLORS, SWITCHES, write_folder
from support.tiny import tiny

from cityscapes.errors import IntegrityError
from cityscapes.labels import CLASS_NAMES, TRAIN_ID_TO_COLOR
from cityscapes.workspace import NOTEBOOKS
from dlv3p.compression.pruning import prune_model
from dlv3p.data.classes import own_colors, read_own_colors
from dlv3p.export.graphs import metadata_of
from dlv3p.parameters.notebooks import PredictParameters, RenderGifParameters
from dlv3p.prediction import networks
from dlv3p.prediction.jobs import drive_of
from dlv3p.prediction.predict import predict_images
from dlv3p.prediction.predictor import load_predictor
from dlv3p.prediction.results import Outputs
from dlv3p.prediction.sources import find_images
from dlv3p.runs.imported import save_run
from dlv3p.runs.trained import install_trained_run, store_run
from dlv3p.train import train
from dlv3p.weights.loading import build_recognized
from dlv3p.weights.reading import read_weights
from dlv3p.weights.recognition import recognize


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on four channels, whose table gives the classes colors of its own; the folder of its data."""
    root = write_folder(tmp_path_factory.mktemp("own") / "data", channels=4)
    with (root / "data.yaml").open("a") as file:
        file.write("value_range: [0, 4095]\nmean: [500, 500, 500, 2000]\ndeviation: [300, 300, 300, 1500]\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(tmp_path_factory.mktemp("workspace")))
        train(tiny(root, run="own", epochs=1, **SWITCHES))
        yield root


def test_every_file_of_a_network_keeps_the_colors_of_its_classes(run, tmp_path, monkeypatch):
    predictor = load_predictor("own", device="cpu", threads=1)
    assert predictor.colors.tolist() == COLORS

    weights = predictor.network.checkpoint.parents[1] / "model.safetensors"
    found = recognize(read_weights(weights))
    imported = save_run(found, build_recognized(found), run="imported")
    store_run("own", tmp_path / "stored")
    stored = install_trained_run(tmp_path / "stored")
    for file in (weights, imported, stored):
        opened = load_predictor(file, device="cpu", threads=1)
        assert (opened.colors.tolist(), opened.rule) == (COLORS, predictor.rule), file
    network = predictor.network
    assert json.loads(metadata_of(network)["colors"]) == COLORS
    assert prune_model(network.model, network.parameters, round_to=2).model.colors.tolist() == COLORS

    monkeypatch.setattr(networks, "_exported", lambda predictor: tmp_path)  # which is tested elsewhere, and slow
    monkeypatch.setattr(networks, "open_onnx", lambda path, *, threads: network.logits)
    for runtime in ("onnxruntime", "folded"):
        assert load_predictor("own", runtime=runtime, device="cpu", threads=1).colors.tolist() == COLORS


def test_pictures_of_predictions_are_in_the_colors_of_the_data(run, tmp_path):
    predictor, image = load_predictor("own", device="cpu", threads=1), run / "images" / "val" / "0.tif"
    predict_images(predictor, find_images(image), tmp_path, Outputs(), progress="none")
    shown = Image.open(tmp_path / "colors" / "0.png").convert("RGB")
    labels = predictor(image)
    assert np.array_equal(np.asarray(shown), np.array(COLORS, np.uint8)[labels])
    overlay = np.asarray(Image.open(tmp_path / "overlays" / "0.jpg")).reshape(-1, 3).mean(0)
    plain = np.asarray(predictor.rule.image(np.zeros((1, 1, 4)), "").convert("RGB")).mean()
    assert np.ptp(overlay) > 50 > plain  # of gray images

    given = {"images": str(image), "width": 320, "progress": "none"}
    (frame,) = drive_of(predictor, RenderGifParameters(**given)).frames
    colors = {tuple(color) for color in frame.reshape(-1, 3).tolist()}
    assert {tuple(COLORS[index]) for index in np.unique(labels)} <= colors


def test_the_notebook_shows_images_of_other_channels(run, tmp_path):
    images, output = str(run / "images" / "val"), str(tmp_path / "out")
    config = PredictParameters(run="own", images=images, output=output, threads=1, device="cpu", progress="none")
    names = {"config": config}
    cells = [
        cell for cell in nbformat.read(NOTEBOOKS / "predict.ipynb", as_version=4).cells if cell.cell_type == "code"
    ]
    for cell in cells[2:]:  # after the parameters and their check
        exec(cell.source, names)
    assert names["pixels"].shape == (*names["labels"].shape, 3)
    assert len(names["predictions"].done) == 4


def test_only_colors_that_the_names_do_not_say_are_stated():
    assert own_colors(CLASS_NAMES, TRAIN_ID_TO_COLOR) is None
    assert own_colors(CLASS_NAMES, TRAIN_ID_TO_COLOR[::-1]).shape == (19, 3)


@pytest.mark.parametrize("stated", [[], [[1, 2, 3]], [[1, 2, 300], [0, 0, 0]], [[0.5, 0, 0], [0, 0, 0]], "red", 5, {}])
def test_colors_that_are_none_are_refused(stated):
    with pytest.raises(IntegrityError, match="x: its colors are not red, green, and blue of each class"):
        read_own_colors(stated, ("a", "b"), "x")
