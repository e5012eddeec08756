"""Networks of timm: dilated where timm can, and clear words where it cannot."""

import sys

import pytest
import torch
from support.backbone_checks import make, needs_timm

from cityscapes.errors import MachineError, ParameterError
from dlv3p.parameters.network import find
from dlv3p.parameters.notebooks import TrainParameters

NAMES = ["timm:resnet18d", "timm:regnetx_002", "timm:mobilenetv2_050"]
"""Small ones, of three of timm's ways to give features."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_features_are_at_stride_4_and_at_the_output_stride(name, output_stride):
    needs_timm()
    with torch.device("meta"):
        backbone = make(name, output_stride=output_stride)
        features = backbone(torch.zeros(1, 3, 64, 128))
    announced = (backbone.low_level_channels, backbone.middle_channels, backbone.high_level_channels)
    assert tuple(map_.shape[1] for map_ in features) == announced
    assert features.low_level.shape[-2:] == (16, 32)
    assert features.high_level.shape[-2:] == (64 // output_stride, 128 // output_stride)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:resnet5d", "did you mean timm:resnet50d"),
        ("timm:hf_hub:someone/resnet50", "has no such network"),
        ("timm:densenet121", "take densenet121 or densenet161"),
        ("timm:ese_vovnet39b", "take vovnet39 or vovnet57"),
        ("timm:vit_tiny_patch16_224", "cannot dilate"),
    ],
)
def test_unknown_names_and_networks_that_cannot_be_dilated_are_refused_in_one_line(name, said):
    needs_timm()
    with pytest.raises(ParameterError, match=said) as refusal, torch.device("meta"):
        make(name, output_stride=8)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "output_stride", "said"),
    [
        ("timm:mobileone_s0", 8, "at output_stride=8 timm dilates 0 of the 40 convolutions"),
        ("timm:gernet_s", 16, "at output_stride=16 timm dilates 1 of the 2 convolutions"),
        ("timm:botnet26t_256", 16, "does not take images of every size"),
        ("timm:hrnet_w18_small", 32, "does not take images of every size"),
        ("timm:dla34", 32, "does not take images of every size"),
    ],
)
def test_networks_that_timm_does_not_really_dilate_or_that_refuse_sizes_are_refused_in_one_line(
    name, output_stride, said
):
    needs_timm()
    with pytest.raises(ParameterError, match=said) as refusal, torch.device("meta"):
        make(name, output_stride=output_stride)
    assert str(refusal.value).endswith("; take timm:resnet50d")
    assert "\n" not in str(refusal.value)


def test_a_network_that_needs_no_dilation_is_taken_and_the_check_draws_no_random_number():
    needs_timm()
    with torch.device("meta"):
        assert make("timm:mobileone_s0", output_stride=16).high_level_channels == 1024
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    expected = timm.create_model("resnet18d", features_only=True, output_stride=16).state_dict()
    torch.manual_seed(0)
    found = make("timm:resnet18d").body.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_features_at_other_strides_than_asked_for_are_refused(monkeypatch):
    timm = pytest.importorskip("timm", reason="timm, an optional extra, is not installed")
    deaf = timm.create_model("resnet18", features_only=True)
    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: deaf)
    with pytest.raises(ParameterError, match="at the strides 2, 4, 8, 16, 32; needed are 4 and, at the end, 8"):
        make("timm:resnet18", output_stride=8)


def test_without_timm_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MachineError, match=r"pip install 'dlv3p\[timm\]'"):
        make("timm:resnet18")


def test_names_of_timm_pass_the_configuration_and_the_catalog():
    parameters = TrainParameters(backbone="timm:resnet18d")
    assert parameters.backbone == "timm:resnet18d"
    assert parameters.run_name.startswith("deeplabv3plus-timm-resnet18d-os16-")
    assert find("timm:resnet18d") == "dlv3p.models.backbones.timm_backbone"
    with pytest.raises(ParameterError, match="timm:<name>; did you mean resnet101"):
        TrainParameters(backbone="resnet10l")
    with pytest.raises(ParameterError, match="allowed are .*timm:<name>; did you mean vovnet39"):
        find("vovnet38")
