"""Dilated pooling alone: on any size, taken every second pixel, it is the strided layer; again behind itself."""

import pytest
import torch
from torch import nn

from dlv3p.backbones.pooling import DilatedAvgPool, DilatedMaxPool

LAYERS = [(nn.MaxPool2d(3, 2, ceil_mode=True), DilatedMaxPool), (nn.AvgPool2d(2, 2), DilatedAvgPool)]


@pytest.mark.parametrize(("strided", "dilated"), LAYERS, ids=["max", "avg"])
@pytest.mark.parametrize("height", range(4, 14))
def test_dilated_pooling_taken_at_the_stride_is_the_strided_layer(strided, dilated, height):
    features = torch.randn(2, 3, height, 17, dtype=torch.float64) - 9  # negative, so that a border of zeros would show
    once, twice = strided(features), strided(strided(features))
    found = dilated(1)(features)
    torch.testing.assert_close(found[..., ::2, ::2], once)
    torch.testing.assert_close(dilated(2)(found)[..., ::4, ::4], twice)
