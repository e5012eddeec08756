"""Dilated pooling alone: on any size, taken every second pixel, it is the strided layer; again behind itself."""

import pytest
import torch
from torch import nn

from dlv3p.models.backbones.pooling import DilatedAvgPool, DilatedMaxPool

LAYERS = [(nn.MaxPool2d(3, 2, ceil_mode=True), DilatedMaxPool), (nn.AvgPool2d(2, 2), DilatedAvgPool)]


@pytest.mark.parametrize(("strided", "dilated"), LAYERS, ids=["max", "avg"])
@pytest.mark.parametrize("height", range(4, 14))
def test_dilated_pooling_taken_at_the_stride_is_the_strided_layer(strided, dilated, height):
    features = torch.randn(2, 3, height, 17, dtype=torch.float64) - 9  # negative, so that a border of zeros would show
    once, twice = strided(features), strided(strided(features))
    found = dilated(1)(features)
    torch.testing.assert_close(found[..., ::2, ::2], once)
    torch.testing.assert_close(dilated(2)(found)[..., ::4, ::4], twice)


@pytest.mark.parametrize("dilated", [DilatedMaxPool, DilatedAvgPool])
@pytest.mark.parametrize(("dilation", "lengths"), [(1, (4, 8, 10)), (2, (4, 8, 11, 12))])
def test_a_map_keeps_its_size_unless_the_strided_layer_leaves_out_a_part(dilated, dilation, lengths):
    for length in lengths:
        assert dilated(dilation)(torch.zeros(1, 2, length, 16)).shape == (1, 2, length, 16)
    assert dilated(dilation)(torch.zeros(1, 2, 9, 17)).shape == (1, 2, 8, 16)


def test_a_window_that_reaches_over_the_border_sees_what_there_is():
    features = -torch.arange(1.0, 9.0).expand(1, 1, 8, 8)
    assert DilatedMaxPool(2)(features)[0, 0, 0].tolist() == [-1, -2, -3, -4, -5, -6, -7, -8]
    assert DilatedAvgPool(2)(features)[0, 0, 0].tolist() == [-2, -3, -4, -5, -6, -7, -7, -8]
