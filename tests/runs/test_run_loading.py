"""Files that were swapped between two runs have sound checksums, and are refused by what run.json says of theirs."""

import json
import shutil

import pytest
from support.tiny import tiny

from cityscapes.errors import BusyError, IntegrityError, MissingInputError, StoppedError
from cityscapes.files.checksums import record_path
from cityscapes.files.locks import lock_folder
from dlv3p.evaluation.inference import load_saved
from dlv3p.runs.folders import checkpoint_path
from dlv3p.runs.loading import load_run_checkpoint
from dlv3p.runs.trained import store_run
from dlv3p.train import train
from dlv3p.training.checkpoints import Checkpoints
from dlv3p.weights.checksums import weights_sha256
from dlv3p.weights.loading import load_model


@pytest.fixture
def two_runs(trained_once, city, workspace):
    """A finished run, and one of another seed."""
    shutil.copytree(trained_once[1].folder, workspace / "saved" / "done")
    train(tiny(city, run="other", image_scale=0.5, seed=1, epochs=1))


def swap(first, second):
    for one, other in ((first, second), (record_path(first), record_path(second))):
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)


def test_the_best_network_of_another_run_is_refused_wherever_a_run_is_taken(two_runs, tmp_path):
    swap(checkpoint_path("done", "best"), checkpoint_path("other", "best"))
    said = r"done/checkpoints/best\.pt: its parameters are not those of run\.json: epochs, seed; one of the two"
    with pytest.raises(IntegrityError, match=said):
        load_saved("done", device="cpu", threads=1)
    with pytest.raises(IntegrityError, match=said):
        store_run("done", tmp_path / "stored")
    assert not (tmp_path / "stored").exists()
    swap(checkpoint_path("done", "best"), checkpoint_path("other", "best"))
    assert load_run_checkpoint("done")["parameters"]["seed"] == 0


def test_a_run_with_the_record_of_another_is_not_resumed(two_runs, city):
    done, other = (checkpoint_path(run, "best").parents[1] for run in ("done", "other"))
    shutil.copy(other / "run.json", done / "run.json")
    with pytest.raises(IntegrityError, match=r"last\.pt: its parameters are not those of run\.json: epochs, seed"):
        train(tiny(city, run="done", image_scale=0.5))


def test_a_run_in_progress_is_not_stored_and_its_network_is_said_to_be_so_far(two_runs, tmp_path, capsys):
    with lock_folder(checkpoint_path("done", "best").parents[1]):
        with pytest.raises(BusyError, match="saved/done: process .* is training it; wait until training has ended"):
            store_run("done", tmp_path / "stored")
        epoch = load_saved("done", device="cpu", threads=1).epoch
    assert not (tmp_path / "stored").exists()
    assert f"is training it; this is its best network so far, of epoch {epoch}\n" in capsys.readouterr().out
    store_run("done", tmp_path / "stored")
    (checkpoint_path("done", "best").parents[1] / "metrics.csv").unlink()
    with pytest.raises(MissingInputError, match=r"done/metrics\.csv: no such file; only a run that was trained here"):
        store_run("done", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_other_classes_in_the_record_are_refused_and_a_damaged_record_says_nothing(two_runs):
    path = checkpoint_path("done", "best").parents[1] / "run.json"
    text = path.read_text()
    path.write_text(json.dumps(json.loads(text) | {"class_names": ["road"]}))
    with pytest.raises(IntegrityError, match="its class_names are not those of run.json"):
        load_run_checkpoint("done")
    path.write_text(text[:100])
    assert load_run_checkpoint("done")["epoch"] > 0
    path.unlink()
    assert load_run_checkpoint("done")["epoch"] > 0


def test_weights_to_share_are_those_of_a_training_that_went_on(two_runs, city, workspace, monkeypatch):
    """A finished run whose last checkpoint was damaged goes on from its best one, and writes its weights again."""

    def stop(checkpoints):
        raise StoppedError("here")

    parameters = tiny(city, run="again", image_scale=0.5)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "stop_between_epochs", stop)
        with pytest.raises(StoppedError):
            train(parameters)
    folder = workspace / "saved" / "again"
    shutil.copytree(folder / "checkpoints", workspace / "first epoch")
    train(parameters)
    shutil.copytree(workspace / "first epoch", folder / "checkpoints", dirs_exist_ok=True)
    ours, other = folder / "model.safetensors", workspace / "saved" / "other" / "model.safetensors"
    shutil.copy(other, ours)  # as another machine may have made them
    (folder / "checkpoints" / "last.pt").write_bytes(b"damaged")
    train(parameters)
    best = load_run_checkpoint("again")["model"]
    assert weights_sha256(load_model(ours).model.state_dict()) == weights_sha256(best)
    shutil.copy(other, ours)
    train(parameters)  # nothing is left to train
    assert ours.read_bytes() == other.read_bytes()
