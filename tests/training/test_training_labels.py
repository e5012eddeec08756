"""A training on labels that mean nothing stops before it begins, and a score over one class is never a plain number."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.tiny import tiny

from cityscapes.errors import InputError
from dlv3p.data.roots import open_split
from dlv3p.evaluation.evaluate import evaluate
from dlv3p.evaluation.inference import load_run_predictor
from dlv3p.parameters.notebooks import RunParameters
from dlv3p.train import main, train
from dlv3p.training import recovery


def write(folder, *, train_ids, val_ids, table="id,name\n0,ground\n1,object\n"):
    """Write a plain folder whose masks are columns of these ids."""
    (folder / "classes.csv").write_text(table)
    for number, (split, ids) in enumerate({"train": train_ids, "val": val_ids}.items()):
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for name in range(2):
            picture = np.random.default_rng(10 * number + name).integers(0, 256, (40, 60, 3)).astype(np.uint8)
            Image.fromarray(picture).save(folder / "images" / split / f"{name}.png")
            mask = np.resize(np.array(ids, np.uint8), (40, 60))
            Image.fromarray(mask).save(folder / "masks" / split / f"{name}.png")
    return folder


@pytest.fixture
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("folder")


@pytest.mark.parametrize("changes", [{}, {"class_weights": "none"}])
@pytest.mark.parametrize(("train_ids", "val_ids", "split"), [([0, 255], [0, 1], "train"), ([0, 1], [0, 255], "val")])
def test_masks_of_0_and_255_stop_before_training(folder, workspace, monkeypatch, train_ids, val_ids, split, changes):
    write(folder, train_ids=train_ids, val_ids=val_ids)
    monkeypatch.setattr("dlv3p.training.recovery.build_for_training", None)
    assert recovery.build_for_training is None
    with pytest.raises(InputError, match=rf"masks of '{split}' hold only 0 \(ground\) and 255, .*; store 1 \(object\)"):
        train(tiny(folder, run="none", **changes))
    assert not list((workspace / "saved").rglob("run.json"))


def test_a_class_that_never_occurs_is_a_line_before_training(folder, workspace, capsys):
    write(folder, train_ids=[0, 1], val_ids=[0, 1], table="id,name\n0,ground\n1,object\n2,sky\n")
    train(tiny(folder, run="warned", epochs=1))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: ")
    assert "no pixel of 'train' is labeled sky, 1 of 3 classes, which cannot be learned" in line
    train(tiny(folder, run="warned", epochs=1))
    assert capsys.readouterr().out == ""


def test_validation_images_that_are_copies_of_training_images_are_a_line_before_training(folder, workspace, capsys):
    write(folder, train_ids=[0, 1], val_ids=[0, 1])
    shutil.copy(folder / "images" / "train" / "1.png", folder / "images" / "val" / "0.png")
    train(tiny(folder, run="warned", epochs=1))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"warning: {folder}: an image of 'val' is a copy of an image of 'train', 0; ")


def test_a_score_over_one_class_says_so_in_training_and_in_evaluation(folder, workspace, capsys):
    write(folder, train_ids=[0, 1], val_ids=[0])
    said = "(over one class: only ground occurs in val)"
    parameters = tiny(folder, run="one", epochs=1, progress="lines")
    result = train(parameters)
    assert result.caution == f" {said}"
    assert f"best val mIoU {result.best_mean_iou:.4f} {said} at epoch 1" in capsys.readouterr().out
    main(["--config", str(result.folder / "run.json")])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "best val mIoU" in line]
    assert line.endswith(f"{said} at epoch 1")
    predictor = load_run_predictor(RunParameters(run="one", device="cpu", threads=1))
    evaluation = evaluate(predictor, open_split(folder, "val"), progress="none")
    assert evaluation.caution == f" {said}"
    assert json.loads(evaluation.save().read_text())["classes_that_occur"] == 1
    assert evaluate(predictor, open_split(folder, "train"), progress="none").caution == ""
