"""DenseNet: the published dilation, and torchvision's features; what all backbones share is in test_backbones.py."""

import pytest
import torch
from support.backbone_checks import make
from torch import nn
from torchvision import models


@pytest.mark.parametrize(("output_stride", "published"), [(8, (1, 1, 2, 4)), (16, (1, 1, 1, 2)), (32, (1, 1, 1, 1))])
def test_a_block_without_pooling_is_dilated_from_its_first_layer(output_stride, published):
    with torch.device("meta"):
        layers = make("densenet121", output_stride=output_stride).features
    for block, dilation in enumerate(published, start=1):
        convs = [layer.conv2 for layer in layers.get_submodule(f"denseblock{block}").values()]
        assert {conv.dilation for conv in convs} == {conv.padding for conv in convs} == {(dilation, dilation)}
    pooled = [isinstance(layers.get_submodule(f"transition{number}").pool, nn.AvgPool2d) for number in (1, 2, 3)]
    assert pooled == [True, output_stride > 8, output_stride > 16]


def test_stride_32_features_are_those_that_torchvision_classifies():
    torch.manual_seed(0)
    theirs = models.densenet121(weights=None).eval()
    ours = make("densenet121", output_stride=32).eval()
    ours.load_state_dict({key: value for key, value in theirs.state_dict().items() if key.startswith("features.")})
    image = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        logits = theirs.classifier(ours(image).high_level.mean(dim=(2, 3)))
        torch.testing.assert_close(logits, theirs(image))
