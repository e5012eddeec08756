"""What the tests of several backbones share: making one, shaking its norms, comparing dense and strided features."""

from importlib import import_module

import pytest
import torch
from torch import nn

from dlv3p.models.backbones.features import Backbone, BackboneOptions, Features
from dlv3p.parameters.network import BACKBONES, TIMM, find

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.Sigmoid)

SLOW = pytest.mark.slow
LARGER = ("resnet34", "resnet101", "resnet152", "vovnet57", "densenet161", "densenet169", "densenet201")
EVERY_BACKBONE = [pytest.param(name, marks=SLOW) if name in LARGER else name for name in BACKBONES]
"""All names as parameters of a test; one or two of a family speak for it in the quick tests."""
STRIDES_AND_SIZES = [
    (8, 66, 71),
    *(pytest.param(16, *size, marks=SLOW) for size in [(64, 96), (65, 97), (66, 71), (70, 101), (87, 110), (87, 111)]),
    *(pytest.param(8, *size, marks=SLOW) for size in [(64, 96), (65, 97), (70, 101), (87, 110), (87, 111)]),
]
"""Output strides, heights and widths of the images on which dense features are compared: every way to be odd."""


def needs_timm(name: str = TIMM) -> None:
    """Skip the test where `name` is that of a network of timm, an optional extra, which is not installed."""
    if name.startswith(TIMM):
        pytest.importorskip("timm", reason="timm, an optional extra, is not installed")


def make(name: str, **options) -> Backbone:
    """Build a backbone by name."""
    return import_module(find(name)).build(name, BackboneOptions(**options))


def shake(backbone: Backbone) -> Backbone:
    """Give the norms statistics, weights and biases that no border or padding can hide behind; float64, evaluation."""
    generator = torch.Generator().manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 1.5),
            ):
                tensor.data.uniform_(low, high, generator=generator)
    return backbone.double().eval()


@torch.inference_mode()
def strided_and_dense(name: str, height: int, width: int, output_stride: int, **options) -> tuple[Features, Features]:
    """Features of the stride-32 network and of the dense one on the same weights, the latter taken at the strides."""
    torch.manual_seed(0)
    strided, dense = (make(name, output_stride=stride, **options) for stride in (32, output_stride))
    shake(strided)
    dense.double().eval().load_state_dict(strided.state_dict())
    image = torch.randn(1, 3, height, width, dtype=torch.float64)
    found, every = dense(image), 32 // output_stride
    at_16 = max(1, every // 2)
    high_level, middle = found.high_level[..., ::every, ::every], found.middle[..., ::at_16, ::at_16]
    return strided(image), Features(found.low_level, middle, high_level)


def agree(strided: Features, dense: Features) -> bool:
    """Say whether all three maps have the same shape and, relative to their largest value, the same values."""
    return all(
        one.shape == other.shape and (one - other).abs().max() <= 1e-10 * one.abs().max()
        for one, other in zip(strided, dense, strict=True)
    )


def calls_of_activations(backbone: Backbone, height: int = 65, width: int = 97) -> list[int]:
    """How often each activation module is called while one image passes."""
    calls = {}

    def count(module, *_):
        calls[module] += 1

    for module in backbone.modules():
        if isinstance(module, ACTIVATIONS):
            calls[module] = 0
            module.register_forward_hook(count)
    device = next(backbone.parameters()).device
    backbone.eval()(torch.zeros(1, 3, height, width, device=device))
    return list(calls.values())


def shapes(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state dict, without the counts of batches."""
    state = backbone.state_dict()
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}
