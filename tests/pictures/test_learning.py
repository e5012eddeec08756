"""What a network learns, epoch by epoch: pictures of the validation's own predictions, and a film of them."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support.after_steps import Stop, stop_after
from support.tiny import EPOCHS, STEPS_PER_EPOCH, tiny

from cityscapes.errors import MissingInputError
from cityscapes.workspace import run_folder
from dlv3p.data.roots import open_split
from dlv3p.evaluation.inference import load_saved
from dlv3p.pictures import learning
from dlv3p.pictures.learning import SamplePredictions, film_of, write_film
from dlv3p.pictures.visualize import colorize
from dlv3p.runs.folders import film_folder
from dlv3p.runtime.processes import Place
from dlv3p.train import train
from dlv3p.weights.checkpoint import load_checkpoint
from dlv3p.weights.checksums import weights_sha256


def weights(folder):
    """The hash of the last checkpoint's weights."""
    return weights_sha256(load_checkpoint(folder / "checkpoints" / "last.pt")["model"])


def test_a_film_has_no_pictures_of_an_earlier_training_under_the_same_name(city, workspace):
    train(tiny(city, run="film", film=True))
    shutil.rmtree(run_folder("film"))
    (film_folder("film") / "epoch_notes.png").touch()
    train(tiny(city, run="film", film=True, epochs=1))
    assert sorted(path.name for path in film_folder("film").iterdir()) == ["epoch_00001.png", "epoch_notes.png"]
    shutil.rmtree(run_folder("film"))
    train(tiny(city, run="film"))
    assert [path.name for path in film_folder("film").iterdir()] == ["epoch_notes.png"]


def test_a_training_keeps_a_picture_of_each_validation_and_the_same_weights(city, workspace, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, STEPS_PER_EPOCH + 1)
        with pytest.raises(Stop):
            train(tiny(city, run="film", film=True))
    filmed, plain = train(tiny(city, run="film", film=True)), train(tiny(city, run="plain"))
    assert weights(filmed.folder) == weights(plain.folder)
    assert [path.name for path in sorted(film_folder("film").iterdir())] == [
        f"epoch_{epoch:05d}.png" for epoch in range(1, EPOCHS + 1)
    ]
    assert not film_folder("plain").exists()
    with Image.open(write_film("film")) as film:
        assert film.n_frames == EPOCHS
    assert film_of("film").data == write_film("film").read_bytes()
    assert repr(film_of("plain")) == "plain keeps no film; a training with film=True does"  # without quotation marks
    with pytest.raises(MissingInputError, match="film: no picture; train the run with film=True"):
        write_film("plain")


def test_a_picture_shows_the_prediction_of_the_image_that_it_names(trained, city):
    split, predictor = open_split(city, "val"), load_saved("done", device="cpu", threads=1)
    samples = SamplePredictions(split, lambda: 7, shown=False, count=2, width=2000)
    shown = {}

    def keep(panels, **_):
        shown.update(panels)
        return np.zeros((1, 1, 3), np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "side_by_side", keep)
        for index in range(len(split)):
            samples._found[index] = predictor(split.image(index))
        samples.picture()
    first, last = split.name(0), split.name(len(split) - 1)
    assert list(shown) == [f"1. {first}", "1. epoch 7", "1. truth", f"2. {last}", "2. epoch 7", "2. truth"]
    assert np.array_equal(shown["2. epoch 7"], colorize(predictor(split.image(len(split) - 1)), split.colors))
    assert np.array_equal(shown["2. truth"], colorize(split.mask(len(split) - 1), split.colors))


def test_the_titles_of_sample_predictions_are_drawn_whole(city, monkeypatch):
    """The name, which may be long, stands once a row; a title that is cut off would be drawn with an ellipsis."""
    drawn, arrange = [], learning.side_by_side
    monkeypatch.setattr(SamplePredictions, "_display", lambda *_: None)
    monkeypatch.setattr(
        learning, "side_by_side", lambda panels, **how: drawn.append(list(panels)) or arrange(panels, **how)
    )
    split = open_split(city, "val")
    samples = SamplePredictions(split, lambda: 12, count=2)
    for index in samples.indices:
        samples.look(index, torch.zeros(1, 64, 128, dtype=torch.int64))
    assert samples.picture().shape[1] == 720
    first, last = split.name(0), split.name(2)
    assert drawn == [[f"1. {first}", "1. epoch 12", "1. truth", f"2. {last}", "2. epoch 12", "2. truth"]] * 2


def test_of_several_processes_the_first_shows_images_of_its_own_share(city, monkeypatch):
    monkeypatch.setattr(learning, "place", lambda: Place(0, 2, 0))
    split = open_split(city, "train")
    indices = SamplePredictions(split, lambda: 1).indices
    assert len(indices) == 3
    assert all(index % 2 == 0 and index < len(split) for index in indices)
