"""What a training starts from: a whole network, its backbone, and a classifier only where it is the run's."""

import re

import pytest
import torch

from cityscapes.errors import IntegrityError, MissingInputError, ParameterError
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.network import NetworkParameters
from dlv3p.weights.checksums import weights_sha256
from dlv3p.weights.initial import build_with_weights
from dlv3p.weights.loading import save_model
from dlv3p.weights.names import to_theirs
from dlv3p.weights.sources import SOURCES


def start(tmp_path, capsys, num_classes=21, new_classifier=False, **switches):
    """Start a network from the file; return it and the line that says what was taken."""
    network = NetworkParameters(**({"backbone": "resnet18", "channels": 32} | switches))
    path = str(tmp_path / "a.pth")
    model = build_with_weights(network, num_classes, initial_weights=path, new_classifier=new_classifier)
    return model, capsys.readouterr().out.strip()


def test_training_starts_from_a_whole_network_of_the_same_shapes(vainf, tmp_path, capsys):
    torch.save({"model_state": vainf}, tmp_path / "a.pth")
    model, line = start(tmp_path, capsys, output_stride=8)
    assert all(torch.equal(value, vainf[to_theirs(name, SOURCES["vainf_plus"].names)])
               for name, value in model.state_dict().items())  # fmt: skip
    assert line == "initial weights: all of deeplabv3plus over resnet18, from a.pth (VainF/DeepLabV3Plus-Pytorch)"
    assert model.training


def test_weights_that_are_not_finite_are_named_before_the_first_step(vainf, tmp_path, capsys):
    broken = {**vainf, "backbone.bn1.running_mean": torch.full((64,), torch.nan)}
    torch.save({"model_state": broken}, tmp_path / "a.pth")
    message = "a.pth: 1 of its tensors hold nan or infinity, the first backbone.bn1.running_mean; take another file"
    with pytest.raises(IntegrityError, match=re.escape(message)):
        start(tmp_path, capsys, output_stride=8)


@pytest.mark.parametrize("num_classes", [19, 21])
def test_a_new_classifier_is_one_that_was_asked_for(num_classes, vainf, tmp_path, capsys):
    torch.save({"model_state": vainf}, tmp_path / "a.pth")
    model, line = start(tmp_path, capsys, num_classes=num_classes, new_classifier=True, align_corners=True)
    assert torch.equal(model.decoder.fuse.conv.weight, vainf["classifier.classifier.0.weight"])
    assert model.classifier.out_channels == num_classes
    assert not torch.equal(model.classifier.weight[:19], vainf["classifier.classifier.3.weight"][:19])
    assert "except the classifier, which is new; it was trained with align_corners=False" in line
    with pytest.raises(ParameterError, match="a.pth' has 21 classes, the data 20; give new_classifier=True"):
        start(tmp_path, capsys, num_classes=20)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("classifier.project.0.weight"), "1 entry missing (classifier.project.0.weight)"),
        (
            lambda state: state.pop("classifier.classifier.3.weight"),
            "classifier.classifier.3.weight is not a convolution",
        ),
        (lambda state: state.pop("classifier.aspp.convs.1.0.weight"), "1 entry missing (classifier.aspp.convs.1.0"),
        (lambda state: state.pop("classifier.classifier.3.bias"), "1 entry missing (classifier.classifier.3.bias)"),
        (lambda state: state.update({"classifier.extra.weight": torch.zeros(1)}), "1 entry unknown (classifier.ext"),
        (lambda state: state.update({"backbone.extra.weight": torch.zeros(1)}), "1 entry unknown (backbone.extra"),
    ],
    ids=["no decoder", "no classifier", "no branch", "no bias", "extra head", "extra backbone"],
)
@pytest.mark.parametrize("channels", [32, 16])
def test_a_file_that_does_not_fit_its_own_network_is_no_start(channels, change, told, vainf, tmp_path, capsys):
    state = dict(vainf)
    change(state)
    torch.save({"model_state": state}, tmp_path / "a.pth")
    with pytest.raises(IntegrityError) as refused:
        start(tmp_path, capsys, channels=channels)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_training_starts_from_the_backbone_where_heads_differ(vainf, tmp_path, capsys):
    torch.save({"model_state": vainf}, tmp_path / "a.pth")
    model, line = start(tmp_path, capsys, channels=16)
    assert torch.equal(model.backbone.layer4[1].bn2.bias, vainf["backbone.layer4.1.bn2.bias"])
    assert "the backbone resnet18 only" in line
    with pytest.raises(IntegrityError, match="holds resnet18, which does not fit the run's resnet34"):
        start(tmp_path, capsys, backbone="resnet34")
    with pytest.raises(MissingInputError):
        build_with_weights(NetworkParameters(), 3, initial_weights=str(tmp_path / "absent.pth"))


def test_training_starts_from_our_own_safetensors(tmp_path, capsys):
    network = NetworkParameters(backbone="resnet18", channels=32)
    model = build_network(network, 2)
    save_model(tmp_path / "a.pth", model, network, ["a", "b"])  # known by what it holds, not by its suffix
    started, line = start(tmp_path, capsys, num_classes=2)
    assert weights_sha256(started.state_dict()) == weights_sha256(model.state_dict())
    assert "this project" in line
