"""Losses over logits (N,C,H,W) and masks (N,H,W) in train ids; ignored pixels neither add to them nor dilute them.

Every loss is a sum over the valid pixels divided by their number (or weight), and 0 where a batch has none.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from cityscapes.labels import IGNORE

Loss = Callable[[Tensor, Tensor], Tensor]

FOCAL_GAMMA = 2.0


def cross_entropy(logits: Tensor, mask: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean cross entropy of the valid pixels, each weighted by its class where weights (C,) are given."""
    total = functional.cross_entropy(logits, mask, weight=class_weights, ignore_index=IGNORE, reduction="sum")
    return total / valid_weight(mask, class_weights)


def focal(logits: Tensor, mask: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean focal loss (arXiv:1708.02002) of the valid pixels: cross entropy times (1 - p)^2, p of the true class."""
    pixels = functional.cross_entropy(logits, mask, ignore_index=IGNORE, reduction="none")
    pixels = pixels * (1 - torch.exp(-pixels)) ** FOCAL_GAMMA
    if class_weights is not None:
        pixels = pixels * class_weights[mask.clamp(max=len(class_weights) - 1)]
    return pixels.sum() / valid_weight(mask, class_weights)


LOSSES = {"cross_entropy": cross_entropy, "focal": focal}


def make_loss(name: str, class_weights: Tensor | None = None) -> Loss:
    """Return the loss called `name` with its class weights set."""
    return lambda logits, mask: LOSSES[name](logits, mask, class_weights)


def inverse_log_weights(pixels_per_class: Tensor) -> Tensor:
    """Class weights 1 / ln(1.02 + share) (ENet, arXiv:1606.02147, section 5.2), scaled to a mean of 1 over a pixel.

    `pixels_per_class` is int64 (C,). A weight is at most 50 times another; a class without a pixel gets the largest.
    """
    share = pixels_per_class.double() / max(1, int(pixels_per_class.sum()))
    weights = 1 / torch.log(1.02 + share)
    scale = (weights * share).sum() if share.sum() > 0 else weights.mean()
    return (weights / scale).float()


def valid_weight(mask: Tensor, class_weights: Tensor | None) -> Tensor:
    """What a loss is divided by: the number of valid pixels, or the sum of their class weights; above 0."""
    valid = mask != IGNORE
    if class_weights is None:
        return valid.sum().clamp(min=1)
    return class_weights[mask[valid]].sum().clamp(min=1e-6)
