"""Atrous spatial pyramid pooling (DeepLabV3, arXiv:1706.05587, section 3.3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlv3p.models.convolution import batch_norm, conv_bn_relu
from dlv3p.models.norms import batch_norm_of_one
from dlv3p.parameters.network import NetworkParameters
from dlv3p.runtime.devices import LAYOUT


class ImagePooling(nn.Module):
    """The branch that sees the whole image: global mean, 1x1 convolution, spread over the height and width again."""

    def __init__(self, in_channels: int, parameters: NetworkParameters) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, parameters.channels, 1, bias=parameters.convolution_bias)
        self.bn = batch_norm(parameters.channels, parameters)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        pooled = batch_norm_of_one(self.bn, self.conv(features.mean(dim=(2, 3), keepdim=True)))
        spread = functional.interpolate(self.relu(pooled), size=features.shape[-2:], mode="nearest")
        # A single pixel has no layout that could spread; in another one than the rest, this map would turn over all.
        return spread.contiguous(memory_format=LAYOUT)


class ASPP(nn.Module):
    """Features (N,C,h,w) to (N,channels,h,w): a 1x1, atrous 3x3 and an image pooling branch, joined by a 1x1.

    The branches are called `branch0` (1x1), `branch1` and so on (3x3, one for each of the atrous rates) and `pool`.
    """

    def __init__(self, in_channels: int, parameters: NetworkParameters) -> None:
        super().__init__()
        channels = parameters.channels
        self.branch0 = conv_bn_relu(in_channels, channels, 1, parameters)
        for index, rate in enumerate(parameters.rates, 1):
            self.add_module(f"branch{index}", conv_bn_relu(in_channels, channels, 3, parameters, dilation=rate))
        if parameters.image_pooling:
            self.pool = ImagePooling(in_channels, parameters)
        self.branches = tuple(name for name, _ in self.named_children())
        self.project = conv_bn_relu(len(self.branches) * channels, channels, 1, parameters)
        self.dropout = nn.Dropout(parameters.aspp_dropout)

    def forward(self, features: Tensor) -> Tensor:
        joined = torch.cat([self.get_submodule(name)(features) for name in self.branches], dim=1)
        return self.dropout(self.project(joined))
