"""Pooling at stride 1, dilated so that every window covers the pixels of the strided pooling's.

Taken every second pixel (or every fourth, where the features are dilated by 2 already), the result is that of the
strided layer, borders and odd sizes included. A window that extends past the bottom or the right is truncated, so the
features keep their height and width where these are a multiple of twice the dilation. Where they are not, the strided
layer may drop a last, incomplete window; so do these, with the rows or columns that would follow it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class DilatedMaxPool(nn.MaxPool2d):
    """`MaxPool2d(3, 2, ceil_mode=True)` at stride 1: (N,C,h,w) to (N,C,kept(h),kept(w)).

    What lies outside counts as minus infinity, as it does for the strided layer in ceil mode.
    """

    def __init__(self, dilation: int) -> None:
        super().__init__(3, stride=1, dilation=dilation)

    def forward(self, features: Tensor) -> Tensor:
        below, right = (kept(length, self.dilation) - length + 2 * self.dilation for length in features.shape[2:])
        return super().forward(functional.pad(features, (0, right, 0, below), value=-torch.inf))


class DilatedAvgPool(nn.Module):
    """`AvgPool2d(2, 2)` at stride 1: (N,C,h,w) to (N,C,kept(h),kept(w)); the mean is over what is inside the map."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation

    def forward(self, features: Tensor) -> Tensor:
        below, right = (kept(length, self.dilation) - length + self.dilation for length in features.shape[2:])
        inside = torch.ones_like(features[:1, :1])
        total, count = (self._sum(functional.pad(part, (0, right, 0, below))) for part in (features, inside))
        return total / count

    def _sum(self, features: Tensor) -> Tensor:
        apart = self.dilation
        rows = features[..., :-apart, :] + features[..., apart:, :]
        return rows[..., :-apart] + rows[..., apart:]

    def extra_repr(self) -> str:
        return f"dilation={self.dilation}"


def kept(length: int, dilation: int) -> int:
    """Return how many of `length` rows or columns remain: those where the strided layer's windows begin.

    Of every `2 * dilation` rows the strided layer takes one, but of an incomplete group only one that has a partner
    `dilation` rows further on. Integer arithmetic only, so that an exporter can trace it for any size.
    """
    incomplete = length % (2 * dilation)
    has_partner = incomplete // (dilation + 1)
    return length - incomplete * (1 - has_partner)
