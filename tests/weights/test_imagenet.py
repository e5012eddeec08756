"""ImageNet files of every family: which names are accepted, and how a file that does not fit is refused."""

import re

import pytest
import torch
from support.backbone_checks import make
from torchvision import models

from cityscapes.errors import IntegrityError, ParameterError
from dlv3p.parameters.network import BACKBONES
from dlv3p.weights.differences import list_differences
from dlv3p.weights.imagenet import TORCHVISION_WEIGHTS, load_imagenet_weights


def written(state, tmp_path) -> str:
    torch.save(state, tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


def test_every_backbone_of_torchvision_has_weights_of_a_fitting_name():
    assert TORCHVISION_WEIGHTS.keys() == BACKBONES.keys() & set(models.list_models())
    for name, weights in TORCHVISION_WEIGHTS.items():
        assert models.get_weight(weights).url.rsplit("/", 1)[-1].startswith(f"{name}-")


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v2", "mobilenet_v3_large"])
def test_a_torchvision_file_fills_the_backbone(name, tmp_path):
    state = models.get_model(name).state_dict()
    backbone = make(name)
    load_imagenet_weights(backbone, name, written(state, tmp_path))
    found = backbone.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in found.items())


def test_dotted_names_of_old_densenet_files_are_read(tmp_path):
    state = models.get_model("densenet121").state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value for key, value in state.items()}
    old = {key: value for key, value in old.items() if not key.endswith("num_batches_tracked")}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    backbone = make("densenet121")
    load_imagenet_weights(backbone, "densenet121", written(old, tmp_path))
    key = "features.denseblock4.denselayer16.conv2.weight"
    assert torch.equal(backbone.state_dict()[key], state[key])


def test_a_vovnet_file_is_read_with_prefix_and_wrapper_and_without_counts(tmp_path):
    state = make("vovnet39").state_dict()
    published = {f"module.{key}": value for key, value in state.items() if not key.endswith("num_batches_tracked")} | {
        "module.classifier.weight": torch.zeros(1000, 1024)
    }
    backbone = make("vovnet39")
    load_imagenet_weights(backbone, "vovnet39", written({"state_dict": published, "epoch": 9}, tmp_path))
    assert all(torch.equal(value, state[key]) for key, value in backbone.state_dict().items())


def test_what_a_file_lacks_and_has_beyond_is_listed_and_nothing_is_loaded(tmp_path):
    backbone = make("mobilenet_v2")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    state = models.get_model("mobilenet_v2").state_dict()
    state["strange.weight"] = state.pop("features.3.conv.2.weight")
    state["features.0.0.weight"] = torch.zeros(32, 4, 3, 3)
    with pytest.raises(IntegrityError) as refusal:
        load_imagenet_weights(backbone, "mobilenet_v2", written(state, tmp_path))
    message = str(refusal.value)
    assert "1 entry missing (features.3.conv.2.weight), 1 entry unknown (strange.weight)" in message
    assert "1 entry of another shape (features.0.0.weight (32, 4, 3, 3) for (32, 3, 3, 3))" in message
    assert "\n" not in message
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_long_lists_are_cut():
    expected = {f"layer{number}": torch.zeros(1) for number in range(9)}
    assert list_differences(expected, {}) == "9 entries missing (layer0, layer1, layer2, ...)"
    assert list_differences(expected, expected) == ""


def test_no_library_offers_vovnet():
    with torch.device("meta"):
        backbone = make("vovnet57")
    with pytest.raises(ParameterError, match="give the path of the public file, such as vovnet57_statedict_norm.pth"):
        load_imagenet_weights(backbone, "vovnet57", "imagenet")
