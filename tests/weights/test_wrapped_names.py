"""Weights whose names wrappers made longer, or with a script's arguments beside them, are read as what they are."""

import argparse

import pytest
import torch

from cityscapes.errors import IntegrityError
from dlv3p.weights.loading import load_model

PREFIXES = ("module.module.", "_orig_mod.module.", "module._orig_mod.", "_orig_mod._orig_mod.module.", "model.")
PREFIXES += ("model.module._orig_mod.", "_orig_mod.model.", "module.model.", "net._orig_mod.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_wrappers_around_the_network_are_seen_through(prefix, vainf, tmp_path):
    torch.save({"state_dict": {prefix + name: value for name, value in vainf.items()}}, tmp_path / "a.pth")
    model = load_model(tmp_path / "a.pth").model
    assert torch.equal(model.classifier.bias, vainf["classifier.classifier.3.bias"])


@pytest.mark.parametrize("wrapper", ["_orig_mod", "module"])
def test_wrappers_around_a_part_of_it_are_seen_through(wrapper, vainf, tmp_path):
    state = {name.replace("backbone.", f"backbone.{wrapper}.", 1): value for name, value in vainf.items()}
    torch.save(state, tmp_path / "a.pth")
    assert torch.equal(load_model(tmp_path / "a.pth").model.backbone.conv1.weight, vainf["backbone.conv1.weight"])


def test_what_does_not_fit_is_called_as_in_the_file(vainf, tmp_path):
    state = {f"model._orig_mod.{name}": value for name, value in vainf.items()}
    state["model._orig_mod.backbone.conv1.weight"] = torch.zeros(64, 3, 5, 5)
    torch.save({"state_dict": state | {"criterion.weight": torch.zeros(21)}}, tmp_path / "a.pth")
    with pytest.raises(IntegrityError) as refusal:
        load_model(tmp_path / "a.pth")
    assert "1 entry unknown (criterion.weight)" in str(refusal.value)
    assert "model._orig_mod.backbone.conv1.weight (64, 3, 5, 5) for (64, 3, 7, 7)" in str(refusal.value)


def test_two_entries_that_are_one_without_their_wrappers_are_refused(vainf, tmp_path):
    torch.save(vainf | {"model.module.backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "a.pth")
    with pytest.raises(IntegrityError, match=r"duplicate entry backbone\.conv1\.weight"):
        load_model(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_the_arguments_of_a_script_beside_the_weights_do_no_harm(legacy, vainf, tmp_path):
    arguments = argparse.Namespace(lr=0.01, crop=[513, 513], name="x", nested=argparse.Namespace(gpu=None))
    content = {"model_state": vainf, "args": arguments, "cur_itrs": 30}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert torch.equal(load_model(tmp_path / "a.pth").model.classifier.bias, vainf["classifier.classifier.3.bias"])


def test_a_call_within_the_arguments_is_refused_with_the_way_to_save_the_tensors_alone(vainf, tmp_path):
    content = {"model_state": vainf, "args": argparse.Namespace(folder=tmp_path)}
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(IntegrityError, match=r"pathlib\..*nothing was run.*torch\.save\(torch\.load\(FILE") as refusal:
        load_model(tmp_path / "a.pth")
    assert "\n" not in str(refusal.value)


def test_a_whole_network_is_refused_with_the_command_that_saves_its_tensors(vainf, tmp_path):
    network = torch.nn.Module()
    for number, (name, value) in enumerate(vainf.items()):
        network.register_buffer(f"b{number}", value)
        network._buffers[name] = network._buffers.pop(f"b{number}")  # names with dots, as submodules give
    torch.save(network, tmp_path / "whole.pth")
    with pytest.raises(
        IntegrityError, match=r"save the tensors alone: .* with \.state_dict\(\) where the file holds a"
    ):
        load_model(tmp_path / "whole.pth")
    torch.save(torch.load(tmp_path / "whole.pth", weights_only=False).state_dict(), tmp_path / "new.pth")
    assert load_model(tmp_path / "new.pth").parameters.backbone == "resnet18"
