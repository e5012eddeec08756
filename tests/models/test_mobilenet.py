"""The MobileNets: VainF's padding, torchvision's dilation, and features that agree but for the means of squeezes.

What all backbones share is in test_backbones.py.
"""

import pytest
import torch
from support.backbone_checks import STRIDES_AND_SIZES, agree, make, shake
from torch import nn
from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large
from torchvision.ops.misc import SqueezeExcitation

from dlv3p.models.backbones.mobilenet import spatial_convolution


def dilations(name: str, **options) -> list[tuple[int, int, int]]:
    """Stride, dilation and padding of every spatial convolution."""
    with torch.device("meta"):
        convs = [spatial_convolution(layer) for layer in make(name, **options).features]
    return [(conv.stride[0], conv.dilation[0], conv.padding[0]) for conv in convs if conv is not None]


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


class MeanOfEvery(nn.Module):
    """The image's mean over the pixels that the strided network has."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every

    def forward(self, features):
        return features[..., :: self.every, :: self.every].mean(dim=(2, 3), keepdim=True)


@pytest.mark.parametrize(("output_stride", "height", "width"), STRIDES_AND_SIZES)
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
