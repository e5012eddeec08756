"""The à-trous property of every backbone that strides in convolutions, and the dilations that it rests on."""

from functools import lru_cache

import pytest
import torch
from backbone_checks import make, shake
from torch import Tensor, nn

from cityscapes.errors import ParameterError
from dlv3p.backbones.catalog import BACKBONES
from dlv3p.backbones.mobilenet import MOBILENETS
from dlv3p.deeplab import DeepLab, build_model
from dlv3p.network import ARCHITECTURES

SQUEEZES = ("mobilenet_v3_large",)
"""Backbones that weigh channels by a mean over the image: more pixels, another mean (see test_mobilenet.py)."""

SIZES = {"deeplabv3": (64, 32), "deeplabv3plus": (49, 71)}
"""An even and an odd image: the architectures share their backbones, so one each will do."""


def build(architecture: str, backbone: str, output_stride: int, **switches: object) -> DeepLab:
    """A network whose ASPP is made of atrous convolutions only, on the meta device."""
    if backbone.startswith(("vovnet", "densenet")):
        switches["pooling"] = "dilated"
    with torch.device("meta"):
        return build_model(
            architecture,
            backbone,
            output_stride=output_stride,
            num_classes=3,
            channels=8,
            image_pooling=False,
            **switches,
        )


def through(model: DeepLab, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Low-level features, high-level features and what ASPP makes of those, of a random image in float64."""
    image = torch.randn(1, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    features = model.backbone(image)
    return features.low_level, features.high_level, model.aspp(features.high_level)


@lru_cache(maxsize=1)
def strided(backbone: str) -> tuple[DeepLab, dict[str, tuple[Tensor, Tensor, Tensor]]]:
    """The stride-32 network with random weights and statistics, and what it makes of images of every size."""
    torch.manual_seed(0)
    model = build("deeplabv3", backbone, 32).to_empty(device="cpu")
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    shake(model)
    with torch.inference_mode():
        return model, {architecture: through(model, *size) for architecture, size in SIZES.items()}


@pytest.mark.parametrize(("output_stride", "every"), [(8, 4), (16, 2)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name not in SQUEEZES])
def test_dense_features_taken_at_the_stride_are_those_of_the_strided_network(
    backbone, architecture, output_stride, every
):
    reference, expected = strided(backbone)
    model = build(architecture, backbone, output_stride).eval()
    model.backbone.load_state_dict(reference.backbone.state_dict(), assign=True)
    model.aspp.load_state_dict(reference.aspp.state_dict(), assign=True)
    with torch.inference_mode():
        found = through(model, *SIZES[architecture])
    assert torch.equal(found[0], expected[architecture][0])
    for map_, dense in zip(expected[architecture][1:], found[1:], strict=True):
        taken = dense[..., ::every, ::every]
        assert taken.shape == map_.shape
        assert (taken - map_).abs().max() <= 1e-9 * map_.abs().max()


@pytest.mark.parametrize("multi_grid", [(1, 2, 4), (2, 1, 3)])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_multi_grid_keeps_the_property(multi_grid, output_stride):
    torch.manual_seed(0)
    reference = shake(make("resnet34", output_stride=32, multi_grid=multi_grid))
    model, other = (make("resnet34", output_stride=output_stride, multi_grid=grid) for grid in (multi_grid, (1, 1, 1)))
    image, every = torch.randn(1, 3, 65, 97, dtype=torch.float64), 32 // output_stride
    with torch.inference_mode():
        expected = reference(image).high_level
        for backbone, same in ((model, True), (other, False)):
            backbone.double().eval().load_state_dict(reference.state_dict())
            found = backbone(image).high_level[..., ::every, ::every]
            assert torch.allclose(found, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item()) == same


def dilations(name: str, **options) -> tuple[list[int], list[int]]:
    """The dilations of the 3x3 convolutions in the last two stages of a ResNet."""
    with torch.device("meta"):
        backbone = make(name, **options)
    stages = ([m for m in stage.modules() if isinstance(m, nn.Conv2d)] for stage in (backbone.layer3, backbone.layer4))
    third, fourth = ([c for c in convs if c.kernel_size == (3, 3)] for convs in stages)
    assert all(conv.padding == conv.dilation for conv in third + fourth)
    return [conv.dilation[0] for conv in third], [conv.dilation[0] for conv in fourth]


@pytest.mark.parametrize(
    ("options", "third", "fourth"),
    [
        ({"output_stride": 32}, [1] * 6, [1, 1, 1]),
        ({"output_stride": 16}, [1] * 6, [1, 2, 2]),
        ({"output_stride": 8}, [1, 2, 2, 2, 2, 2], [2, 4, 4]),
        ({"output_stride": 16, "first_dilation": "new"}, [1] * 6, [2, 2, 2]),
        ({"output_stride": 16, "first_dilation": "new", "multi_grid": (1, 2, 4)}, [1] * 6, [2, 4, 8]),  # MindSpore
        ({"output_stride": 8, "first_dilation": "new", "multi_grid": (1, 2, 4)}, [2] * 6, [4, 8, 16]),  # MindSpore
        ({"output_stride": 16, "multi_grid": (1, 2, 4)}, [1] * 6, [1, 4, 8]),
        ({"output_stride": 32, "multi_grid": (1, 2, 4)}, [1] * 6, [1, 2, 4]),
    ],
)
def test_dilations_of_resnets_are_the_published_ones(options, third, fourth):
    assert dilations("resnet50", **options) == (third, fourth)


def test_both_convolutions_of_a_basic_block_take_its_grid():
    assert dilations("resnet18", output_stride=8) == ([1, 2, 2, 2], [2, 4, 4, 4])
    assert dilations("resnet18", output_stride=16, multi_grid=(1, 3))[1] == [1, 2, 6, 6]
    assert dilations("resnet18", output_stride=16, multi_grid=(2, 1))[1] == [2, 4, 2, 2]


@pytest.mark.parametrize(("name", "multi_grid"), [("resnet18", (1, 2, 4)), ("resnet50", (1, 2))])
def test_a_multi_grid_of_other_than_the_blocks_is_refused(name, multi_grid):
    with pytest.raises(ParameterError, match=f"multi_grid=.*{name} has . blocks"):
        make(name, multi_grid=multi_grid)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "vovnet39", "densenet121", *MOBILENETS])
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_output_stride_sets_the_size_of_the_features(backbone, output_stride):
    with torch.device("meta"):
        model = make(backbone, output_stride=output_stride)
        features = model(torch.empty(1, 3, 64, 128))
    assert features.high_level.shape == (1, model.high_level_channels, 64 // output_stride, 128 // output_stride)
    assert features.low_level.shape == (1, model.low_level_channels, 16, 32)
    assert features.middle.shape[1] == model.middle_channels
