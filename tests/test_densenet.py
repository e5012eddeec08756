"""DenseNet: torchvision's names, the published dilation, and pooling that leaves the features where they were."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from backbone_checks import agree, calls_of_activations, make, shapes, strided_and_dense
from torch import nn
from torchvision import models

from cityscapes.errors import ParameterError
from dlv3p.deeplab import build_model
from dlv3p.macs import count_macs, count_parameters

REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "checkpoints"
NAMES = ["densenet121", "densenet161", "densenet169", "densenet201"]


@pytest.mark.parametrize("name", NAMES)
def test_names_and_sizes_are_torchvisions(name):
    with torch.device("meta"):
        ours, theirs = make(name), models.get_model(name)
    expected = {key: value for key, value in shapes(theirs).items() if not key.startswith("classifier.")}
    assert shapes(ours) == expected


@pytest.mark.parametrize("name", ["densenet161", "densenet201"])
def test_names_are_those_of_the_published_network(name):
    path = REFERENCE / f"stigma_{name}.json"
    if not path.is_file():
        pytest.skip("the keys of the public files are not here")
    entries = json.loads(path.read_text())["entries"]
    with torch.device("meta"):
        backbone = make(name)
    expected = {key: tuple(shape) for key, shape, _ in entries if not key.startswith("aspp.")}
    assert {key: tuple(value.shape) for key, value in backbone.state_dict().items()} == expected


@pytest.mark.parametrize(("output_stride", "published"), [(8, (1, 1, 2, 4)), (16, (1, 1, 1, 2)), (32, (1, 1, 1, 1))])
def test_a_block_without_pooling_is_dilated_from_its_first_layer(output_stride, published):
    with torch.device("meta"):
        layers = make("densenet121", output_stride=output_stride).features
    for block, dilation in enumerate(published, start=1):
        convs = [layer.conv2 for layer in layers.get_submodule(f"denseblock{block}").values()]
        assert {conv.dilation for conv in convs} == {conv.padding for conv in convs} == {(dilation, dilation)}
    pooled = [isinstance(layers.get_submodule(f"transition{number}").pool, nn.AvgPool2d) for number in (1, 2, 3)]
    assert pooled == [True, output_stride > 8, output_stride > 16]


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (70, 101), (87, 111)])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_pooling_gives_the_features_of_the_strided_network(height, width, output_stride):
    assert agree(*strided_and_dense("densenet121", height, width, output_stride, pooling="dilated"))


@pytest.mark.parametrize("output_stride", [8, 16])
def test_dropped_pooling_gives_others(output_stride):
    strided, dense = strided_and_dense("densenet121", 64, 96, output_stride)
    assert strided.high_level.shape == dense.high_level.shape
    assert not agree(strided, dense)


def test_stride_32_features_are_those_that_torchvision_classifies():
    torch.manual_seed(0)
    theirs = models.densenet121(weights=None).eval()
    ours = make("densenet121", output_stride=32).eval()
    ours.load_state_dict({key: value for key, value in theirs.state_dict().items() if key.startswith("features.")})
    image = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        logits = theirs.classifier(ours(image).high_level.mean(dim=(2, 3)))
        torch.testing.assert_close(logits, theirs(image))


def test_every_activation_is_called_once():
    with torch.device("meta"):
        assert set(calls_of_activations(make("densenet121", output_stride=8, pooling="dilated"))) == {1}


def test_channels_are_as_announced_and_training_reaches_every_weight():
    backbone = make("densenet121", pooling="dilated")
    features = backbone(torch.randn(2, 3, 65, 97))
    announced = (backbone.low_level_channels, backbone.middle_channels, backbone.high_level_channels)
    assert tuple(map_.shape[1] for map_ in features) == announced == (256, 1024, 1024)
    assert features.low_level.shape[-2:] == (17, 25)
    features.high_level.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


@pytest.mark.parametrize(
    "switch", [{"multi_grid": (1, 2, 4)}, {"first_dilation": "new"}, {"mobilenet_padding": "fixed"}]
)
def test_switches_that_it_lacks_are_refused_in_one_line(switch):
    with pytest.raises(ParameterError, match=f"{next(iter(switch))}=.*densenet121 allows") as refusal:
        make("densenet121", **switch)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "parameters", "giga_macs"), [("densenet161", 43_200_341, 64.35), ("densenet201", 32_683_157, 42.23)]
)
def test_the_published_deeplab_has_these_parameters_and_multiply_adds(name, parameters, giga_macs):
    build = partial(build_model, "deeplabv3", name, num_classes=21, head_convolution=False)
    with torch.device("meta"):
        assert count_parameters(build())["total"] == parameters
    assert count_macs(build, 513, 513)["total"] == pytest.approx(giga_macs * 1e9, rel=0.001)
