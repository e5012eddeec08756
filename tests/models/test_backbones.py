"""What every backbone keeps: its published names, the à-trous property, and what it announces and refuses."""

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from support.backbone_checks import (
    EVERY_BACKBONE,
    SLOW,
    STRIDES_AND_SIZES,
    agree,
    calls_of_activations,
    make,
    needs_timm,
    shake,
    shapes,
    strided_and_dense,
)
from torch import Tensor, nn
from torchvision import models

from cityscapes.errors import ParameterError
from dlv3p.models.backbones.mobilenet import MOBILENETS
from dlv3p.models.deeplab import DeepLab, build_model
from dlv3p.parameters.network import ARCHITECTURES, BACKBONES

SQUEEZES = ("mobilenet_v3_large",)
"""Backbones that weigh channels by a mean over the image: more pixels, another mean (see test_mobilenet.py)."""

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "checkpoints"

SIZES = {"deeplabv3": (64, 32), "deeplabv3plus": (49, 71)}
"""An even and an odd image: the architectures share their backbones, so one each will do."""


LEFT_OUT = {"mobilenet_v2": ("classifier.", "features.18.")}
"""The entries of torchvision's networks that ours lack; of the others it is the classifier."""


@pytest.mark.parametrize("name", [name for name in BACKBONES if name.startswith(("densenet", "mobilenet"))])
def test_names_and_sizes_are_torchvisions(name):
    with torch.device("meta"):
        ours, theirs = shapes(make(name)), shapes(models.get_model(name))
    left_out = LEFT_OUT.get(name, ("classifier.",))
    assert ours == {key: value for key, value in theirs.items() if not key.startswith(left_out)}


@pytest.mark.parametrize(
    ("name", "options", "file"),
    [
        ("densenet161", {}, "stigma_densenet161"),
        ("densenet201", {}, "stigma_densenet201"),
        ("vovnet39", {}, "imagenet_stigma_vovnet39"),
        ("vovnet57", {}, "imagenet_stigma_vovnet57"),
        ("mobilenet_v2", {"mobilenet_padding": "torchvision"}, "vainf_deeplabv3plus_mobilenet_os16_21"),
        ("mobilenet_v2", {"mobilenet_padding": "fixed"}, "vainf_deeplabv3plus_mobilenet_os16_21"),
    ],
)
def test_names_are_those_of_the_published_network(name, options, file):
    """VainF's file holds the same modules in two lists, under a prefix of their own."""
    path = REFERENCE / f"{file}.json"
    if not path.is_file():
        pytest.skip("the keys of the public files are not here")
    entries = {key: tuple(shape) for key, shape, _ in json.loads(path.read_text())["entries"]}
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in make(name, **options).state_dict().items()}
    if file.startswith("vainf"):
        theirs = {key.split(".", 2)[2]: shape for key, shape in entries.items() if key.startswith("backbone.")}
        ours = {key.removeprefix("features."): shape for key, shape in ours.items()}
    else:
        theirs = {key: shape for key, shape in entries.items() if not key.startswith("aspp.")}
    assert ours == theirs


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
@pytest.mark.parametrize("backbone", [name for name in EVERY_BACKBONE if name not in SQUEEZES])
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


@pytest.mark.parametrize(("output_stride", "height", "width"), STRIDES_AND_SIZES)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vovnet39", {"pooling": "dilated"}),
        ("densenet121", {"pooling": "dilated"}),
        ("mobilenet_v2", {"mobilenet_padding": "torchvision"}),
        ("mobilenet_v2", {"mobilenet_padding": "fixed"}),
        ("timm:resnet18", {}),
        *(
            pytest.param(f"timm:{name}", {}, marks=SLOW)
            for name in ("regnetx_002", "mobilenetv2_050", "efficientnet_lite0", "repvgg_a0")
        ),
    ],
)
def test_dense_features_of_all_depths_are_those_of_the_strided_network(name, options, output_stride, height, width):
    needs_timm(name)
    assert agree(*strided_and_dense(name, height, width, output_stride, **options))


@pytest.mark.parametrize(
    ("name", "output_stride", "options"),
    [
        ("vovnet39", 8, {}),
        ("vovnet39", 16, {}),
        ("densenet121", 8, {}),
        ("densenet121", 16, {}),
        ("mobilenet_v2", 16, {"first_dilation": "new"}),
    ],
)
def test_dropped_pooling_and_dilation_from_the_first_block_on_give_others(name, output_stride, options):
    strided, dense = strided_and_dense(name, 64, 96, output_stride, **options)
    assert strided.high_level.shape == dense.high_level.shape
    assert not agree(strided, dense)


@pytest.mark.parametrize("multi_grid", [(1, 2, 4), pytest.param((2, 1, 3), marks=SLOW)])
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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vovnet57", {"output_stride": 8, "pooling": "dilated"}),
        ("densenet121", {"output_stride": 8, "pooling": "dilated"}),
        ("mobilenet_v2", {"output_stride": 8}),
        ("mobilenet_v3_large", {"output_stride": 8}),
        ("timm:resnet18d", {}),
    ],
)
def test_every_activation_is_called_once(name, options):
    needs_timm(name)
    with torch.device("meta"):
        assert set(calls_of_activations(make(name, **options))) == {1}


@pytest.mark.parametrize(
    ("name", "options", "channels"),
    [
        ("vovnet39", {}, (256, 768, 1024)),
        ("densenet121", {"pooling": "dilated"}, (256, 1024, 1024)),
        ("mobilenet_v2", {"output_stride": 8}, (24, 96, 320)),
        ("mobilenet_v3_large", {"output_stride": 8}, (24, 40, 960)),
    ],
)
def test_channels_are_as_announced_and_training_reaches_every_weight(name, options, channels):
    backbone = make(name, **options)
    features = backbone(torch.randn(2, 3, 33, 65))
    announced = (backbone.low_level_channels, backbone.middle_channels, backbone.high_level_channels)
    assert tuple(map_.shape[1] for map_ in features) == announced == channels
    assert features.low_level.shape[-2:] == (9, 17)
    if options.get("output_stride") == 8:
        assert features.high_level.shape[-2:] == (5, 9)
    features.high_level.square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("name", "switch"),
    [
        *((name, {"multi_grid": (1, 2, 4)}) for name in ("vovnet39", "densenet121", "mobilenet_v2", "timm:resnet18")),
        *((name, {"first_dilation": "new"}) for name in ("vovnet39", "densenet121")),
        *((name, {"mobilenet_padding": "fixed"}) for name in ("vovnet39", "densenet121", "mobilenet_v3_large")),
        *((name, {"pooling": "dilated"}) for name in ("mobilenet_v2", "timm:resnet18")),
    ],
)
def test_switches_that_it_lacks_are_refused_in_one_line(name, switch):
    with pytest.raises(ParameterError, match=f"{next(iter(switch))}=.*{name} allows") as refusal:
        make(name, **switch)
    assert "\n" not in str(refusal.value)
