"""Networks of other inputs than RGB: their first convolution, drawn anew or adapted from one of red, green and blue.

The adapted filters are, for each of n channels, the mean of the three times 3/n: equal channels then give the response
that the network of RGB gives to the same values in all three colors.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

COLORS = 3


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """Return the name of the convolution that takes the image, and itself."""
    return next((name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d))


def input_channels(network: nn.Module) -> int:
    """Return the number of channels of the images that a network takes; 3 where it has no convolution, as exported."""
    parts = (part.in_channels for part in network.modules() if isinstance(part, nn.Conv2d))
    return next(parts, COLORS)


def take_channels(backbone: nn.Module, channels: int) -> None:
    """Let a backbone take images of that many channels; its first convolution is drawn anew, as torchvision's are."""
    _, convolution = first_convolution(backbone)
    if channels == convolution.in_channels:
        return
    outputs, _, *kernel = convolution.weight.shape
    weight = convolution.weight.new_empty(outputs, channels, *kernel)
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    convolution.in_channels, convolution.weight = channels, nn.Parameter(weight)


def adapted_to(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights whose first convolution takes as many channels as that of `network`; others than RGB's stay."""
    name, convolution = first_convolution(network)
    key, state = f"{name}.weight", dict(state)
    weight = state.get(key)
    if weight is not None and weight.ndim == 4 and weight.shape[1] == COLORS != convolution.in_channels:
        state[key] = adapt_filters(weight, convolution.in_channels)
    return state


def adapt_filters(weight: Tensor, channels: int) -> Tensor:
    """Return filters (O,3,k,k) of red, green and blue as filters (O,n,k,k) of any channels."""
    mean = weight.to(torch.float64).mean(dim=1, keepdim=True) * (COLORS / channels)
    return mean.to(weight.dtype).expand(-1, channels, -1, -1).clone()
