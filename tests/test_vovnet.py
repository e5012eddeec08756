"""VoVNet: the public files' names, the published dilation, and pooling that leaves the features where they were."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from backbone_checks import agree, calls_of_activations, make, shapes, strided_and_dense
from torch import nn

from cityscapes.errors import ParameterError
from dlv3p.deeplab import build_model
from dlv3p.macs import count_macs, count_parameters

REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "checkpoints"


@pytest.mark.parametrize(("name", "published"), [("vovnet39", 21_575_296), ("vovnet57", 35_615_296)])
def test_parameters_are_as_many_as_published(name, published):
    with torch.device("meta"):
        backbone = make(name)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == published


@pytest.mark.parametrize("name", ["vovnet39", "vovnet57"])
def test_names_are_those_of_the_public_file(name):
    path = REFERENCE / f"imagenet_stigma_{name}.json"
    if not path.is_file():
        pytest.skip("the keys of the public files are not here")
    entries = json.loads(path.read_text())["entries"]
    with torch.device("meta"):
        backbone = make(name)
    assert {key: tuple(value.shape) for key, value in backbone.state_dict().items()} == {
        key: tuple(shape) for key, shape, _ in entries
    }


@pytest.mark.parametrize(("output_stride", "published"), [(8, (1, 1, 2, 4)), (16, (1, 1, 1, 2)), (32, (1, 1, 1, 1))])
def test_a_stage_without_pooling_is_dilated_from_its_first_convolution(output_stride, published):
    with torch.device("meta"):
        backbone = make("vovnet57", output_stride=output_stride)
    stages = (backbone.stage2, backbone.stage3, backbone.stage4, backbone.stage5)
    for stage, dilation in zip(stages, published, strict=True):
        convs = [module for module in stage.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]
        assert {conv.dilation for conv in convs} == {conv.padding for conv in convs} == {(dilation, dilation)}
    pooled = [isinstance(stage[0], nn.MaxPool2d) for stage in stages]
    assert pooled == [False, True, output_stride > 8, output_stride > 16]


@pytest.mark.parametrize("pooling", ["dropped", "dilated"])
def test_every_module_after_the_first_of_a_stage_adds_its_input(pooling):
    with torch.device("meta"):
        backbone = make("vovnet57", output_stride=8, pooling=pooling)
    identities = {name: module.identity for name, module in backbone.named_modules() if hasattr(module, "identity")}
    assert identities == {name: not name.endswith("_1") for name in identities}
    assert len(identities) == 9


SIZES = [(64, 96), (65, 97), (66, 71), (70, 101), (87, 111)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_pooling_gives_the_features_of_the_strided_network(height, width, output_stride):
    assert agree(*strided_and_dense("vovnet39", height, width, output_stride, pooling="dilated"))


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dropped_pooling_gives_others(output_stride):
    strided, dense = strided_and_dense("vovnet39", 64, 96, output_stride)
    assert strided.high_level.shape == dense.high_level.shape
    assert not agree(strided, dense)


def test_every_activation_is_called_once():
    with torch.device("meta"):
        assert set(calls_of_activations(make("vovnet57", output_stride=8, pooling="dilated"))) == {1}


def test_channels_are_as_announced_and_training_reaches_every_weight():
    backbone = make("vovnet39")
    features = backbone(torch.randn(2, 3, 33, 65))
    announced = (backbone.low_level_channels, backbone.middle_channels, backbone.high_level_channels)
    assert tuple(map_.shape[1] for map_ in features) == announced
    assert features.low_level.shape[-2:] == (9, 17)
    features.high_level.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())
    assert len(shapes(backbone)) == 5 * len(list(backbone.parameters())) // 3


@pytest.mark.parametrize(
    "switch", [{"multi_grid": (1, 2, 4)}, {"first_dilation": "new"}, {"mobilenet_padding": "fixed"}]
)
def test_switches_that_it_lacks_are_refused_in_one_line(switch):
    with pytest.raises(ParameterError, match=f"{next(iter(switch))}=.*vovnet39 allows") as refusal:
        make("vovnet39", **switch)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "parameters", "giga_macs"), [("vovnet39", 29_513_621, 53.80), ("vovnet57", 43_553_621, 68.17)]
)
def test_the_published_deeplab_has_these_parameters_and_multiply_adds(name, parameters, giga_macs):
    build = partial(build_model, "deeplabv3", name, num_classes=21, head_convolution=False)
    with torch.device("meta"):
        assert count_parameters(build())["total"] == parameters
    assert count_macs(build, 513, 513)["total"] == pytest.approx(giga_macs * 1e9, rel=0.001)
