"""VoVNet: parameters, dilation and sums as published; what all backbones share is in test_backbones.py."""

import pytest
import torch
from support.backbone_checks import make, shapes
from torch import nn


@pytest.mark.parametrize(("name", "published"), [("vovnet39", 21_575_296), ("vovnet57", 35_615_296)])
def test_parameters_are_as_many_as_published(name, published):
    with torch.device("meta"):
        backbone = make(name)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == published


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


def test_every_convolution_has_a_norm_and_no_bias():
    with torch.device("meta"):
        backbone = make("vovnet39")
    assert len(shapes(backbone)) == 5 * len(list(backbone.parameters())) // 3
