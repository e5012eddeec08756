"""Atrous spatial pyramid pooling (DeepLabV3, arXiv:1706.05587, section 3.3)."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

ATROUS_RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
"""The rates that follow from the output stride: at twice the resolution they are doubled (section 3.3)."""


def conv_bn_relu(in_channels: int, out_channels: int, kernel_size: int, *, dilation: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm, ReLU: the building block of every head. Keeps height and width."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), relu=nn.ReLU(inplace=True)))


class ImagePooling(nn.Module):
    """The branch that sees the whole image: global mean, 1x1 convolution, spread over the height and width again.

    A batch of one has a single value a channel here, from which batch norm cannot estimate a variance; in training it
    then uses its running statistics, so that a batch of one works.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.conv(features.mean(dim=(2, 3), keepdim=True))
        if self.training and pooled.shape[0] == 1:
            norm = self.bn
            pooled = functional.batch_norm(pooled, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        else:
            pooled = self.bn(pooled)
        return self.relu(pooled).expand(-1, -1, *features.shape[-2:])


class ASPP(nn.Module):
    """Features (N,C,h,w) to (N,channels,h,w): a 1x1, three atrous 3x3 and an image pooling branch, joined by a 1x1."""

    def __init__(self, in_channels: int, channels: int, *, atrous_rates: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.branch0 = conv_bn_relu(in_channels, channels, 1)
        self.branch1, self.branch2, self.branch3 = (
            conv_bn_relu(in_channels, channels, 3, dilation=rate) for rate in atrous_rates
        )
        self.pool = ImagePooling(in_channels, channels)
        self.project = conv_bn_relu(5 * channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        branches = (self.branch0, self.branch1, self.branch2, self.branch3, self.pool)
        return self.dropout(self.project(torch.cat([branch(features) for branch in branches], dim=1)))
