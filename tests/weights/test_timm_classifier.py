"""Initial weights of timm's networks: a file of the very classifier, to its last entry, or one of ours."""

import re

import pytest
import torch
from support.backbone_checks import make

from cityscapes.errors import IntegrityError, MachineError
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.network import NetworkParameters
from dlv3p.weights.checksums import weights_sha256
from dlv3p.weights.imagenet import load_imagenet_weights
from dlv3p.weights.initial import build_with_weights
from dlv3p.weights.loading import save_model

timm = pytest.importorskip("timm", reason="timm, an optional extra, is not installed")

NAME = "timm:resnet18d"
NETWORK = NetworkParameters(backbone=NAME, channels=8)


@pytest.fixture(scope="module")
def classifier():
    """The entries of timm's network, with numbers that no other has."""
    torch.manual_seed(3)
    return timm.create_model("resnet18d").state_dict()


def start(state, tmp_path, network=NETWORK):
    """Start a network from a file of `state`."""
    torch.save(state, tmp_path / "weights.pth")
    return build_with_weights(network, 3, initial_weights=str(tmp_path / "weights.pth"))


def refusal(state, tmp_path, network=NETWORK) -> str:
    """The line that refuses a file of `state`."""
    with pytest.raises(IntegrityError) as refused:
        start(state, tmp_path, network)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("prefix", "classes"),
    [
        ("", 1000),
        ("module._orig_mod.", 7),
        *(
            pytest.param(prefix, classes, marks=pytest.mark.slow)
            for prefix, classes in [("", 7), ("module.", 1000), ("module.", 7), ("_orig_mod.", 1000),
                                    ("_orig_mod.", 7), ("module._orig_mod.", 1000)]
        ),
    ],
)  # fmt: skip
def test_a_file_of_the_classifier_fills_the_backbone(prefix, classes, classifier, tmp_path, capsys):
    head = {"fc.weight": torch.zeros(classes, 512), "fc.bias": torch.zeros(classes)}
    state = {f"{prefix}{name}": value for name, value in (classifier | head).items()}
    model = start({"state_dict": state, "epoch": 9}, tmp_path)
    found = model.backbone.body.state_dict()
    assert len(found) == len(classifier) - 2
    assert all(torch.equal(value, classifier[name]) for name, value in found.items())
    assert capsys.readouterr().out == f"initial weights: the backbone {NAME}, from weights.pth\n"


def published_convnext(name: str) -> str:
    """What an entry of timm's ConvNeXt is called in the files of its authors."""
    name = name.replace("head.norm.", "norm.").replace("head.fc.", "head.").replace("stem.", "downsample_layers.0.")
    name = re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", name).replace("blocks.", "")
    return name.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")


def test_a_filter_of_timm_renames_what_other_hands_wrote(tmp_path):
    name = "convnext_atto"
    state = timm.create_model(name).state_dict()
    old = {published_convnext(key): value for key, value in state.items()}
    assert "stages.0.0.dwconv.weight" in old
    torch.save(old, tmp_path / "weights.pth")
    backbone = make(f"timm:{name}", output_stride=32)
    load_imagenet_weights(backbone, f"timm:{name}", str(tmp_path / "weights.pth"))
    assert torch.equal(backbone.state_dict()["body.stages_0.blocks.0.conv_dw.weight"],
                       state["stages.0.blocks.0.conv_dw.weight"])  # fmt: skip


def test_files_of_anything_else_are_refused_with_a_list(classifier, tmp_path):
    assert "entries missing (conv1.0.weight" in refusal({"nonsense": torch.zeros(3)}, tmp_path)
    assert "1 entry unknown (nonsense)" in refusal({"nonsense": torch.zeros(3)}, tmp_path)
    other = NetworkParameters(backbone="timm:resnet26d", channels=8)
    message = refusal(classifier, tmp_path, other)
    assert "is not a timm:resnet26d file: 45 entries missing (layer1.0.conv3.weight" in message
    assert "of another shape (layer1.0.conv1.weight (64, 64, 3, 3) for (64, 64, 1, 1)" in message
    assert "entries missing" in refusal(timm.create_model("mobilenetv2_050").state_dict(), tmp_path)


def test_a_file_that_lacks_or_adds_an_entry_is_refused(classifier, tmp_path):
    short = {name: value for name, value in classifier.items() if name != "layer4.1.conv2.weight"}
    assert "1 entry missing (layer4.1.conv2.weight)" in refusal(short, tmp_path)
    assert "1 entry unknown (extra.weight)" in refusal(classifier | {"extra.weight": torch.zeros(1)}, tmp_path)
    start({name: value for name, value in classifier.items() if "num_batches" not in name}, tmp_path)


def test_a_file_that_a_filter_stumbles_over_is_refused_in_one_line(tmp_path):
    atto = NetworkParameters(backbone="timm:convnext_atto", channels=8, output_stride=32)
    assert "is not a timm:convnext_atto file" in refusal(
        {"downsample_layers.0.0.weight": torch.zeros(1)}, tmp_path, atto
    )


def test_our_own_files_of_a_timm_network_are_taken_whole(classifier, tmp_path, capsys):
    torch.manual_seed(5)
    model = build_network(NETWORK, 3)
    save_model(tmp_path / "model.safetensors", model, NETWORK, ["a", "b", "c"])
    again = build_with_weights(NETWORK, 3, initial_weights=str(tmp_path / "model.safetensors"))
    assert weights_sha256(again.state_dict()) == weights_sha256(model.state_dict())
    assert f"all of deeplabv3plus over {NAME}" in capsys.readouterr().out
    other = NetworkParameters(backbone="timm:resnet26d", channels=8)
    with pytest.raises(IntegrityError, match="holds timm:resnet18d, which does not fit the run's timm:resnet26d"):
        build_with_weights(other, 3, initial_weights=str(tmp_path / "model.safetensors"))


def test_no_network_is_told_in_one_line(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("Name or service\nnot known")

    backbone = make(NAME)
    monkeypatch.setattr(timm, "create_model", refuse)
    message = "timm cannot provide weights for timm:resnet18d .Name or service not known"
    with pytest.raises(MachineError, match=message) as refused:
        load_imagenet_weights(backbone, NAME, "imagenet")
    assert "\n" not in str(refused.value)
