"""A stored run stands in where there is none, is the network that was stored, and is never taken for a training."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cityscapes.errors import IntegrityError, MissingInputError, ParameterError
from dlv3p.jupyter import demo
from dlv3p.parameters.notebooks import RunParameters
from dlv3p.parameters.training import TRAINED_RUN, TrainParameters
from dlv3p.runs import trained
from dlv3p.runs.__main__ import main
from dlv3p.runs.check import check_run
from dlv3p.runs.folders import checkpoint_path, find_run, list_runs
from dlv3p.runs.record import read_record
from dlv3p.weights.checkpoint import load_checkpoint
from dlv3p.weights.checksums import weights_sha256


@pytest.fixture(scope="module")
def stored(trained_once, tmp_path_factory):
    """The finished tiny run "done", stored in a folder."""
    workspace, _ = trained_once
    folder = tmp_path_factory.mktemp("stored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(workspace))
        assert main(["store", "done", "--output", str(folder)]) == 0
        return folder, load_checkpoint(checkpoint_path("done", "best"))["model"]


def test_a_stored_run_is_the_halved_network_and_names_no_local_path(stored, trained_once):
    folder, state = stored
    weights = load_file(folder / "model.safetensors")
    assert {name: value.dtype for name, value in weights.items() if value.ndim > 1}.keys()
    for name, value in state.items():
        halved = value.half() if value.ndim > 1 else value
        assert torch.equal(weights[name], halved), name
    text = (folder / "run.json").read_text()
    assert str(trained_once[0]) not in text
    assert read_record(folder / "run.json")["stored"]["file"] == "model.safetensors"


def test_an_installed_run_predicts_with_the_stored_weights_and_is_complete(stored, workspace):
    folder, state = stored
    assert trained.install_trained_run(folder) == TRAINED_RUN
    installed = load_checkpoint(checkpoint_path(TRAINED_RUN, "best"))["model"]
    expected = {name: value.half().float() if value.ndim > 1 else value for name, value in state.items()}
    assert weights_sha256(installed) == weights_sha256(expected)
    findings, _ = check_run(workspace / "saved" / TRAINED_RUN)
    assert [finding for finding in findings if finding.is_error] == []
    before = checkpoint_path(TRAINED_RUN, "best").stat().st_mtime_ns
    trained.install_trained_run(folder)
    assert checkpoint_path(TRAINED_RUN, "best").stat().st_mtime_ns == before


def test_it_stands_in_where_there_is_no_run_and_for_no_other(stored, workspace, monkeypatch, capsys):
    monkeypatch.setattr(trained, "TRAINED", stored[0])
    monkeypatch.setattr(trained.install_trained_run, "__defaults__", (stored[0],))
    predictor = demo.load_run(RunParameters(device="cpu", threads=1))
    assert predictor.run == TRAINED_RUN
    assert "the trained run that comes with the suite" in capsys.readouterr().out
    shutil.copytree(workspace / "saved" / TRAINED_RUN, workspace / "saved" / "mine")
    assert list_runs() == ["mine"]
    assert find_run("") == "mine"
    assert find_run(TRAINED_RUN) == TRAINED_RUN
    assert demo.runs_or_demo("") == ["mine"]


def test_no_training_takes_its_name():
    with pytest.raises(ParameterError, match="run='trained_demo': is the name of the run that comes with the suite"):
        TrainParameters(run=TRAINED_RUN)
    assert TrainParameters().run_name != TRAINED_RUN


def test_a_damaged_or_missing_file_is_refused(stored, workspace, tmp_path):
    folder = shutil.copytree(stored[0], tmp_path / "copy")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(IntegrityError, match="its sha256 differs"):
        trained.install_trained_run(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingInputError, match="run train.ipynb first"):
        trained.install_trained_run(folder)
    assert list_runs() == []


def test_the_run_of_the_repository_is_small_and_of_the_default_recipe():
    path = trained.TRAINED / "model.safetensors"
    assert path.stat().st_size <= 8e6
    recorded = TrainParameters.recorded(read_record(trained.TRAINED / "run.json")["parameters"])
    default = TrainParameters().as_dict()
    identity = [name for name in default if name not in TrainParameters.NOT_IDENTITY]
    assert {name: recorded[name] for name in identity} == {name: default[name] for name in identity}
    assert recorded["threads"] == default["threads"], "other threads change the last bits"


@pytest.mark.slow
def test_training_the_recipe_again_gives_the_stored_network(workspace):
    """Equal to the bit on the processor that the record names, and within a point of mIoU on others."""
    from dlv3p.runs.provenance import hardware
    from dlv3p.train import train

    record = read_record(trained.TRAINED / "run.json")
    result = train(TrainParameters(progress="none"))
    state = load_checkpoint(checkpoint_path(result.run, "best"))["model"]
    weights = load_file(trained.TRAINED / "model.safetensors")
    if record["hardware"]["processor"] == hardware()["processor"]:
        assert weights_sha256(trained.halved(state)) == weights_sha256(weights)
    rows = np.genfromtxt(trained.TRAINED / "metrics.csv", delimiter=",", names=True)
    assert abs(result.best_mean_iou - np.nanmax(rows["val_mIoU"])) < 0.01
