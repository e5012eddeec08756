"""Losses over logits (N,C,H,W) and masks (N,H,W) in train ids; ignored pixels neither add to them nor dilute them.

Those over pixels are here: a sum over valid pixels divided by their number, or weight, and 0 where a batch has none.
Those over whole classes are in `region_losses`.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from cityscapes.labels import IGNORE
from dlv3p.training.region_losses import dice, lovasz

Loss = Callable[[Tensor, Tensor], Tensor]

FOCAL_GAMMA = 2.0
HARD_SHARE = 0.25


def cross_entropy(logits: Tensor, mask: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean cross entropy of the valid pixels, each weighted by its class where weights (C,) are given."""
    return _pixels(logits, mask, class_weights).sum() / valid_weight(mask, class_weights)


def focal(logits: Tensor, mask: Tensor, class_weights: Tensor | None = None, gamma: float = FOCAL_GAMMA) -> Tensor:
    """Mean focal loss (arXiv:1708.02002) of the valid pixels: cross entropy times (1 - p)^gamma, p of the true class.

    Its alpha is not here: the same for all pixels, it is a factor of the learning rate.
    """
    pixels = _pixels(logits, mask)
    doubt = (-torch.expm1(-pixels)).clamp(min=torch.finfo(pixels.dtype).tiny)  # 0 has no slope for a gamma below 1
    pixels = pixels * doubt**gamma
    if class_weights is not None:
        pixels = pixels * _weight_of_pixels(mask, class_weights)
    return pixels.sum() / valid_weight(mask, class_weights)


def hard_pixels(logits: Tensor, mask: Tensor, class_weights: Tensor | None = None, share: float = HARD_SHARE) -> Tensor:
    """Mean cross entropy of the worst pixels, a `share` of the valid ones of the batch (arXiv:1604.04339, section 2.3).

    Where more pixels are equally bad than there is room for, each of them counts in part: no order of pixels matters.
    """
    pixels = _pixels(logits, mask, class_weights)
    ranked = pixels.detach().masked_fill(mask == IGNORE, -1)
    count = max(1, round(share * int((mask != IGNORE).sum())))
    limit = ranked.flatten().topk(count, sorted=False).values.min()
    above, level = ranked > limit, ranked == limit
    chosen = above + level * ((count - above.sum()) / level.sum())
    weights = chosen if class_weights is None else chosen * _weight_of_pixels(mask, class_weights)
    return (pixels * chosen).sum() / weights.sum().clamp(min=1e-6)


def make_loss(
    name: str,
    class_weights: Tensor | None = None,
    *,
    focal_gamma: float = FOCAL_GAMMA,
    hard_share: float = HARD_SHARE,
) -> Loss:
    """Return the loss called `name`, one of `dlv3p.parameters.training.LOSSES`; "a+b" is the sum of both.

    It is worked out in float32 at least, within autocast as well. Class weights (C,) go to the losses over pixels.
    """
    losses: dict[str, Loss] = {
        "cross_entropy": partial(cross_entropy, class_weights=class_weights),
        "focal": partial(focal, class_weights=class_weights, gamma=focal_gamma),
        "hard_pixels": partial(hard_pixels, class_weights=class_weights, share=hard_share),
        "dice": dice,
        "lovasz": lovasz,
    }
    parts = [losses[part] for part in name.split("+")]

    def loss(logits: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            return sum(part(logits, mask) for part in parts[1:]) + parts[0](logits, mask)

    return loss


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
    if class_weights is None:
        return (mask != IGNORE).sum().clamp(min=1)
    return _weight_of_pixels(mask, class_weights).sum().clamp(min=1e-6)


def _pixels(logits: Tensor, mask: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross entropy (N,H,W); summed by us, for torch's own sum differs from run to run on GPUs."""
    return functional.cross_entropy(logits, mask, weight=class_weights, ignore_index=IGNORE, reduction="none")


def _weight_of_pixels(mask: Tensor, class_weights: Tensor) -> Tensor:
    """The weight (N,H,W) of each pixel's class, 0 where it is ignored; without a wait for the GPU to count them."""
    return class_weights[mask.clamp(max=len(class_weights) - 1)] * (mask != IGNORE)
