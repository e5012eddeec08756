"""Files of our own describe themselves; what their description cannot mean is told in one line."""

import pytest
import torch
from support.public_files import run_command_line

from cityscapes.errors import IntegrityError, NewerFormatError, ParameterError
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.network import NetworkParameters
from dlv3p.parameters.notebooks import TrainParameters
from dlv3p.weights.checkpoint import load_checkpoint, save_checkpoint, save_weights
from dlv3p.weights.checksums import weights_sha256
from dlv3p.weights.initial import build_with_weights
from dlv3p.weights.loading import load_model, save_model
from dlv3p.weights.reading import read_weights


def test_our_own_files_need_no_flags(tmp_path):
    parameters = TrainParameters(channels=16, output_stride=8, align_corners=True, norm="group")
    torch.manual_seed(0)
    model = build_network(parameters, 3)
    names = ["road", "car", "sky"]
    state = {"epoch": 4, "parameters": parameters.as_dict(), "class_names": names, "model": model.state_dict()}
    save_checkpoint(tmp_path / "best.pt", state)
    save_model(tmp_path / "model.safetensors", model, parameters, names)
    for path in (tmp_path / "best.pt", tmp_path / "model.safetensors"):
        loaded = load_model(path)
        assert weights_sha256(loaded.model.state_dict()) == weights_sha256(model.state_dict())
        assert loaded.class_names == tuple(names)
        assert loaded.parameters.align_corners
        assert loaded.parameters.norm == "group"
        assert not loaded.model.training


def test_every_reader_compares_our_checkpoints_with_their_recorded_hash(tmp_path, monkeypatch):
    parameters = TrainParameters(channels=16)
    model = build_network(parameters, 2)
    state = {"epoch": 4, "parameters": parameters.as_dict(), "class_names": ["a", "b"], "model": model.state_dict()}
    path = tmp_path / "best.pt"
    save_checkpoint(path, state)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # within the numbers of a tensor
    path.write_bytes(content)
    readers = {
        "load_model": lambda: load_model(path),
        "initial_weights": lambda: build_with_weights(parameters, 2, initial_weights=str(path)),
        "inspect": lambda: run_command_line(monkeypatch, "inspect", path),
        "convert": lambda: run_command_line(monkeypatch, "convert", path, tmp_path / "b.safetensors"),
    }
    for read in readers.values():
        with pytest.raises(IntegrityError, match="sha256 differs"):
            read()
    path.with_name("best.pt.json").unlink()
    for read in readers.values():
        read()


@pytest.mark.parametrize("version", ["x", None, [1], torch.zeros(1), 1.5, True, 0, -3], ids=str)
def test_a_format_that_is_no_version_is_refused_in_one_line(version, tmp_path):
    network = NetworkParameters(backbone="resnet18", channels=16)
    state = {"epoch": 1, "parameters": network.as_dict(), "class_names": ["a", "b"], "format": version}
    torch.save(state | {"model": build_network(network, 2).state_dict()}, tmp_path / "a.pt")
    for read in (load_model, load_checkpoint):
        with pytest.raises(IntegrityError, match="its format is not a whole number from 1 to 2"):
            read(tmp_path / "a.pt")


def test_a_newer_file_is_called_newer_whatever_else_is_unknown_in_it(tmp_path):
    network = NetworkParameters(backbone="resnet18", channels=16)
    model = build_network(network, 2)
    description = {"parameters": network.as_dict() | {"attention": True}, "class_names": ["a", "b"], "format": 99}
    torch.save({"epoch": 1, "model": model.state_dict(), **description}, tmp_path / "a.pt")
    save_weights(tmp_path / "a.safetensors", model, description)
    for name in ("a.pt", "a.safetensors"):
        with pytest.raises(NewerFormatError, match="has format 99, this version reads up to 2"):
            load_model(tmp_path / name)
    save_model(tmp_path / "a.safetensors", model, network, ["a", "b"])
    assert read_weights(tmp_path / "a.safetensors").description["format"] == 2


def test_a_format_in_a_public_file_is_no_sign_of_ours(vainf, tmp_path):
    torch.save({"state_dict": vainf, "format": "x"}, tmp_path / "a.pth")
    assert load_model(tmp_path / "a.pth").class_names[0] == "background"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["road"]}, "names 1 classes, but has weights for 3"),
        ({"parameters": {"backbone": "resnet99"}}, "resnet99"),
        ({"parameters": {"colour": 1}}, "colour"),
        ({"parameters": 3}, "lacks parameters"),
        ({"class_names": "abc"}, "lacks parameters or class_names"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(change, message, tmp_path):
    network = NetworkParameters(backbone="resnet18", channels=16)
    model = build_network(network, 3)
    state = {"epoch": 1, "parameters": network.as_dict(), "class_names": ["a", "b", "c"], "model": model.state_dict()}
    torch.save({"format": 1, **state, **change}, tmp_path / "a.pt")
    with pytest.raises(IntegrityError, match=message):
        load_model(tmp_path / "a.pt")


def test_names_that_do_not_fit_the_classes_are_not_written(tmp_path):
    network = NetworkParameters(backbone="resnet18", channels=16)
    with pytest.raises(ParameterError, match="2 names for a network of 3 classes"):
        save_model(tmp_path / "a.safetensors", build_network(network, 3), network, ["a", "b"])
    assert not (tmp_path / "a.safetensors").exists()
