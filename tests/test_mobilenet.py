"""The MobileNets: torchvision's names, VainF's padding, torchvision's dilation, and dense features that agree."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from backbone_checks import agree, calls_of_activations, make, shake, shapes, strided_and_dense
from torch import nn
from torchvision import models
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large
from torchvision.ops.misc import SqueezeExcitation

from cityscapes.errors import ParameterError
from dlv3p.backbones.mobilenet import spatial_convolution
from dlv3p.deeplab import build_model
from dlv3p.macs import count_macs, count_parameters

REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "checkpoints"
NAMES = ["mobilenet_v2", "mobilenet_v3_large"]


def dilations(name: str, **options) -> list[tuple[int, int, int]]:
    """Stride, dilation and padding of every spatial convolution."""
    with torch.device("meta"):
        convs = [spatial_convolution(layer) for layer in make(name, **options).features]
    return [(conv.stride[0], conv.dilation[0], conv.padding[0]) for conv in convs if conv is not None]


@pytest.mark.parametrize("name", NAMES)
def test_names_and_sizes_are_torchvisions(name):
    with torch.device("meta"):
        ours, theirs = shapes(make(name)), shapes(models.get_model(name))
    left_out = ("classifier.", "features.18.") if name == "mobilenet_v2" else ("classifier.",)
    assert ours == {key: value for key, value in theirs.items() if not key.startswith(left_out)}


@pytest.mark.parametrize("padding", ["torchvision", "fixed"])
def test_names_are_vainfs_but_for_the_split_in_two(padding):
    path = REFERENCE / "vainf_deeplabv3plus_mobilenet_os16_21.json"
    if not path.is_file():
        pytest.skip("the keys of the public files are not here")
    entries = json.loads(path.read_text())["entries"]
    theirs = {key.split(".", 2)[2]: tuple(shape) for key, shape, _ in entries if key.startswith("backbone.")}
    with torch.device("meta"):
        backbone = make("mobilenet_v2", mobilenet_padding=padding)
    ours = {key.removeprefix("features."): tuple(value.shape) for key, value in backbone.state_dict().items()}
    assert ours == theirs


def test_strides_and_dilations_of_mobilenet_v2_are_vainfs():
    stem_to_stride_8 = [(2, 1, 1), (1, 1, 1), (2, 1, 1), (1, 1, 1), (2, 1, 1), (1, 1, 1), (1, 1, 1)]
    at_16 = [(2, 1, 1)] + [(1, 1, 1)] * 7 + [(1, 2, 2)] * 3
    assert dilations("mobilenet_v2", output_stride=16)[:7] == stem_to_stride_8
    assert dilations("mobilenet_v2", output_stride=16)[7:14] == [(2, 1, 1)] + [(1, 1, 1)] * 6
    assert dilations("mobilenet_v2", output_stride=16)[7:] == at_16
    assert dilations("mobilenet_v2", output_stride=8)[7:] == [(1, 1, 1)] + [(1, 2, 2)] * 7 + [(1, 4, 4)] * 3
    assert (
        dilations("mobilenet_v2", output_stride=32)[7:] == [(2, 1, 1)] + [(1, 1, 1)] * 6 + [(2, 1, 1)] + [(1, 1, 1)] * 3
    )


def test_mobilenet_v3_dilates_like_torchvisions_segmentation_when_told_to():
    with torch.device("meta"):
        theirs = deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None).backbone
        ours = make("mobilenet_v3_large", output_stride=16, first_dilation="new").features
    for our, their in zip(ours, theirs.values(), strict=True):
        assert repr(our) == repr(their)
    assert dilations("mobilenet_v3_large", output_stride=16)[13:] == [(1, 1, 2), (1, 2, 4), (1, 2, 4)]
    assert dilations("mobilenet_v3_large", output_stride=8)[13:] == [(1, 2, 4), (1, 4, 8), (1, 4, 8)]
    norms = {module.eps for module in ours.modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms == {1e-3}


SIZES = [(64, 96), (65, 97), (66, 71), (87, 110)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("padding", ["torchvision", "fixed"])
def test_dense_features_of_mobilenet_v2_are_those_of_the_strided_network(padding, output_stride, height, width):
    assert agree(*strided_and_dense("mobilenet_v2", height, width, output_stride, mobilenet_padding=padding))


class MeanOfEvery(nn.Module):
    """The image's mean over the pixels that the strided network has."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every

    def forward(self, features):
        return features[..., :: self.every, :: self.every].mean(dim=(2, 3), keepdim=True)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dense_features_of_mobilenet_v3_are_the_strided_ones_but_for_the_means_of_squeeze_excitation(
    output_stride, height, width
):
    strided = shake(make("mobilenet_v3_large", output_stride=32))
    dense = make("mobilenet_v3_large", output_stride=output_stride).double().eval()
    dense.load_state_dict(strided.state_dict())
    for index, layer in enumerate(dense.features):
        every = max(1, (8 if index < 7 else 16 if index < 13 else 32) // output_stride)
        for module in layer.modules():
            if isinstance(module, SqueezeExcitation):
                module.avgpool = MeanOfEvery(every)
    image = torch.randn(1, 3, height, width, dtype=torch.float64)
    with torch.inference_mode():
        expected, found = strided(image), dense(image)
    every = 32 // output_stride
    assert agree(expected, found._replace(high_level=found.high_level[..., ::every, ::every]))


@pytest.mark.parametrize(("padding", "low_level"), [("torchvision", (25, 33)), ("fixed", (24, 32))])
def test_vainfs_stem_has_no_padding(padding, low_level):
    with torch.device("meta"):
        features = make("mobilenet_v2", mobilenet_padding=padding)(torch.zeros(1, 3, 97, 129))
    assert features.low_level.shape[-2:] == low_level


def test_padding_before_the_expansion_changes_the_border_only():
    torch.manual_seed(0)
    inside = shake(make("mobilenet_v2")).features[4]
    before = make("mobilenet_v2", mobilenet_padding="fixed").double().eval().features[4]
    before.load_state_dict(inside.state_dict())
    features = torch.randn(1, 24, 12, 16, dtype=torch.float64)
    with torch.inference_mode():
        one, other = inside(features), before(features)
    torch.testing.assert_close(one[..., 1:, 1:], other[..., 1:, 1:])
    assert not torch.allclose(one[..., 0, :], other[..., 0, :], atol=1e-3)
    assert not torch.allclose(one[..., 0], other[..., 0], atol=1e-3)


def test_dilated_from_the_first_block_on_the_features_are_others():
    strided, dense = strided_and_dense("mobilenet_v2", 64, 96, 16, first_dilation="new")
    assert not agree(strided, dense)


@pytest.mark.parametrize("name", NAMES)
def test_every_activation_is_called_once(name):
    with torch.device("meta"):
        assert set(calls_of_activations(make(name, output_stride=8))) == {1}


@pytest.mark.parametrize(("name", "channels"), [("mobilenet_v2", (24, 96, 320)), ("mobilenet_v3_large", (24, 40, 960))])
def test_channels_are_as_announced_and_training_reaches_every_weight(name, channels):
    backbone = make(name, output_stride=8)
    features = backbone(torch.randn(2, 3, 65, 97))
    announced = (backbone.low_level_channels, backbone.middle_channels, backbone.high_level_channels)
    assert tuple(map_.shape[1] for map_ in features) == announced == channels
    assert features.low_level.shape[-2:] == (17, 25)
    assert features.high_level.shape[-2:] == (9, 13)
    features.high_level.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("name", "switch"),
    [
        ("mobilenet_v2", {"multi_grid": (1, 2, 4)}),
        ("mobilenet_v2", {"pooling": "dilated"}),
        ("mobilenet_v3_large", {"mobilenet_padding": "fixed"}),
    ],
)
def test_switches_that_it_lacks_are_refused_in_one_line(name, switch):
    with pytest.raises(ParameterError, match=f"{next(iter(switch))}=.*{name} allows") as refusal:
        make(name, **switch)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("architecture", "parameters", "giga_macs"), [("deeplabv3", 5_113_877, 5.84), ("deeplabv3plus", 5_225_717, 16.82)]
)
def test_the_published_mobilenet_v2_deeplabs_have_these_parameters_and_multiply_adds(
    architecture, parameters, giga_macs
):
    build = partial(build_model, architecture, "mobilenet_v2", num_classes=21, mobilenet_padding="fixed")
    with torch.device("meta"):
        assert count_parameters(build())["total"] == parameters
    assert count_macs(build, 513, 513)["total"] == pytest.approx(giga_macs * 1e9, rel=0.001)


def test_torchvisions_mobilenet_v3_deeplab_has_as_many_parameters():
    with torch.device("meta"):
        model = build_model("deeplabv3", "mobilenet_v3_large", num_classes=21, auxiliary_head=True)
    assert count_parameters(model)["total"] == 11_029_328
