"""Pooling at stride 1, dilated so that every window sees what the strided pooling's saw.

Taken every second pixel (or every fourth, where the features are dilated by 2 already), the result is that of the
strided layer, borders and odd sizes included: a window that would begin where the strided layer has none is left out,
so that the features shrink by `dilation` pixels at the bottom and the right.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class DilatedMaxPool(nn.Module):
    """`MaxPool2d(3, 2, ceil_mode=True)` at stride 1: (N,C,h,w) to (N,C,h-dilation,w-dilation).

    In ceil mode the last window may reach over the border by one pixel, which counts as minus infinity there and here.
    """

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, features: Tensor) -> Tensor:
        padded = functional.pad(features, (0, self.dilation, 0, self.dilation), value=-torch.inf)
        return functional.max_pool2d(padded, 3, stride=1, dilation=self.dilation)

    def extra_repr(self) -> str:
        return f"dilation={self.dilation}"


class DilatedAvgPool(nn.Module):
    """`AvgPool2d(2, 2)` at stride 1: (N,C,h,w) to (N,C,h-dilation,w-dilation)."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, features: Tensor) -> Tensor:
        apart = self.dilation
        rows = features[..., :-apart, :] + features[..., apart:, :]
        return 0.25 * (rows[..., :-apart] + rows[..., apart:])

    def extra_repr(self) -> str:
        return f"dilation={self.dilation}"
