"""What ids mean is part of a training: a table of classes that changed since is refused, never scored or trained on."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import tiny

from cityscapes.errors import IntegrityError, ParameterError, StoppedError
from dlv3p.compression.pruned_run import prune_run
from dlv3p.data.roots import open_split
from dlv3p.evaluation.candidates import from_folder
from dlv3p.evaluation.details import score_details
from dlv3p.evaluation.evaluate import evaluate
from dlv3p.evaluation.inference import load_run_predictor
from dlv3p.parameters.notebooks import (
    ExplorePredictionsParameters,
    PredictParameters,
    PruneParameters,
    RenderGifParameters,
    RunParameters,
)
from dlv3p.prediction.exploration import explore
from dlv3p.prediction.jobs import drive_of, predict, predictor_of
from dlv3p.train import train
from dlv3p.training.checkpoints import Checkpoints
from dlv3p.training.distillation import load_teacher

STORED = "id,name,stored\n0,ground,0\n1,car,1\n2,sky,2 3\n"
COLORS = "id,name,red,green,blue\n0,ground,9,0,0\n1,car,0,9,0\n2,sky,0,0,9\n"
PLAIN = "id,name\n0,ground\n1,car\n2,sky\n"
TABLES = {
    "stored values": (
        STORED,
        STORED.replace("car,1", "car,2 3").replace("sky,2 3", "sky,1"),
        "masks' values or colors",
    ),
    "colors": (COLORS, COLORS.replace("car,0,9,0", "car,0,0,9").replace("sky,0,0,9", "sky,0,9,0"), "values or colors"),
    "order": (PLAIN, "id,name\n0,ground\n1,sky\n2,car\n", "another way: id 1 is 'sky' and in the run 'car'"),
}


@pytest.fixture(scope="module", params=TABLES.values(), ids=TABLES)
def changed(request, tmp_path_factory):
    """The folder of a data set, its table as it was changed after a run `done` and in the middle of a run `half`."""
    before, after, said = request.param
    root, ids = tmp_path_factory.mktemp("data"), np.resize(np.arange(3, dtype=np.uint8), (40, 60))
    (root / "classes.csv").write_text(before)
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for name in range(2):
            picture = np.random.default_rng(len(split) + name).integers(0, 256, (40, 60, 3)).astype(np.uint8)
            Image.fromarray(picture).save(root / "images" / split / f"{name}.png")
            mask = 9 * np.eye(3, dtype=np.uint8)[ids] if "green" in before else ids
            Image.fromarray(mask).save(root / "masks" / split / f"{name}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(tmp_path_factory.mktemp("workspace")))
        train(tiny(root, run="done", epochs=1))
        predict(PredictParameters(images=str(root / "images" / "val"), run="done", output=str(root / "predicted")))
        with patch.context() as stopping:
            stopping.setattr(Checkpoints, "stop_between_epochs", stop)
            with pytest.raises(StoppedError):
                train(tiny(root, run="half"))
        evaluate(predictor(), open_split(root, "val"), progress="none")
        (root / "classes.csv").write_text(after)
        yield root, said


def stop(checkpoints):
    raise StoppedError("here")


def predictor():
    return load_run_predictor(RunParameters(run="done", threads=1, device="cpu"))


def test_a_run_is_neither_resumed_nor_scored_nor_pruned(changed):
    root, said = changed
    with pytest.raises(IntegrityError, match="values or colors|differ in their order"):
        train(tiny(root, run="half"))
    val = open_split(root, "val")
    for score in (evaluate, score_details):
        with pytest.raises(ParameterError, match=said):
            score(predictor(), val, progress="none")
    with pytest.raises(ParameterError, match=said):
        prune_run(PruneParameters(run="done", threads=1, device="cpu"))


def test_another_order_neither_teaches_nor_begins_a_run_nor_is_explored(changed):
    root, said = changed
    if "another way" not in said:
        pytest.skip("the names are in their order")
    names = ("ground", "sky", "car")
    told = "numbers the classes in another way: id 1 is 'car' and in the data 'sky'"
    with pytest.raises(ParameterError, match=f"teacher='done': {told}"):
        load_teacher("done", 3, torch.device("cpu"), None, names)
    weights = str(predictor().checkpoint.parents[1] / "model.safetensors")
    with pytest.raises(ParameterError, match=f"initial_weights=.*{told}; give new_classifier=True"):
        train(tiny(root, run="next", initial_weights=weights, epochs=1))
    train(tiny(root, run="next", initial_weights=weights, new_classifier=True, epochs=1))
    config = ExplorePredictionsParameters(data_root=str(root), progress="none")
    with pytest.raises(ParameterError, match=r"other classes \(ground, car, sky, ...\) than .* \(ground, sky, car"):
        explore(config, [str(root / "predicted")])


def test_what_was_predicted_before_is_not_scored_by_masks_that_mean_something_else(changed):
    root, said = changed
    if "another way" in said:
        pytest.skip("the names tell it")
    config = ExplorePredictionsParameters(data_root=str(root), progress="none")
    for score in (
        lambda folder: explore(config, [str(folder)]),
        lambda folder: from_folder(folder, open_split(root, "val")),
    ):
        with pytest.raises(ParameterError, match="predicted: was predicted by a network for which the values or col"):
            score(root / "predicted")


def test_an_animation_of_other_classes_shows_the_runs_own_without_the_truth(changed, monkeypatch, capsys):
    root, said = changed
    shown = {}
    monkeypatch.setattr("dlv3p.prediction.jobs.compose_frame", lambda *_, **options: shown.update(options))
    config = RenderGifParameters(run="done", threads=1, device="cpu", progress="none")
    if "another way" not in said:
        with pytest.raises(ParameterError, match=said):
            drive_of(predictor_of(config), config)
        return
    list(drive_of(predictor_of(config), config).frames)
    assert shown["class_names"] == ("ground", "car", "sky")
    assert shown["truth"] is None
    assert "has other classes than 'done', whose names and colors are shown" in capsys.readouterr().out
