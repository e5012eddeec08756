"""Losses that measure whole classes instead of pixels: soft Dice and Lovász-softmax, over the classes of a batch.

Ignored pixels are taken out of the prediction and of the truth alike. A class that no pixel of the batch belongs to is
left out, for it has no region to be measured by.
"""

import torch
from torch import Tensor

from cityscapes.labels import IGNORE


def dice(logits: Tensor, mask: Tensor) -> Tensor:
    """1 - 2 |P and T| / (|P| + |T|) of probabilities (arXiv:1606.04797, section 3), its mean over the classes present.

    Logits (N,C,H,W) of float32 or float64, mask (N,H,W) int64; 0 to 1, and 0 where a batch has no valid pixel.
    """
    classes = torch.arange(logits.shape[1], device=mask.device).view(-1, 1, 1)
    truth = mask.unsqueeze(1) == classes  # bool, a quarter of the logits' size
    probability = logits.softmax(dim=1) * (mask != IGNORE).unsqueeze(1)
    predicted, true = probability.sum(dim=(0, 2, 3)), truth.sum(dim=(0, 2, 3))
    common = (probability * truth).sum(dim=(0, 2, 3))
    present = true > 0
    losses = (1 - 2 * common / (predicted + true).clamp(min=1)) * present
    return losses.sum() / present.sum().clamp(min=1)


def lovasz(logits: Tensor, mask: Tensor) -> Tensor:
    """Lovász-softmax (arXiv:1705.08790, section 2.2), its mean over the classes present in the batch.

    Logits (N,C,H,W) of float32 or float64, mask (N,H,W) int64; 0 to 1, and 0 where a batch has no valid pixel.
    """
    probability, valid = logits.softmax(dim=1), mask != IGNORE
    total, present = 0 * probability.sum(), 0
    for label in range(logits.shape[1]):
        truth = mask == label
        if truth.any():
            errors = torch.where(truth, 1 - probability[:, label], probability[:, label])
            total = total + (errors * _slopes(errors.detach(), truth, valid)).sum()
            present += 1
    return total / max(1, present)


def _slopes(errors: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """How much each pixel's error counts in the Lovász extension of the Jaccard loss; 0 for ignored pixels.

    Pixel by pixel from the worst error down, the Jaccard loss 1 - I / U grows by 1 / U where a true pixel is lost and
    by I / (U (U - 1)) where a false one is added. Public code subtracts neighbours of a running 1 - I / U instead,
    of which float32 keeps no digit when a batch has millions of pixels. Ignored pixels come last, where I is 0.
    """
    order = errors.masked_fill(~valid, -1).flatten().sort(descending=True, stable=True).indices
    lost = truth.flatten()[order]
    intersection = truth.sum() - lost.cumsum(0, dtype=torch.int32)
    union = truth.sum() + (~lost).cumsum(0, dtype=torch.int32)
    below = (union - 1).clamp(min=1).to(errors.dtype)  # where it is 0, the only true pixel was lost: 1 / U is taken
    slopes = torch.where(lost, 1, intersection / below) / union
    return torch.empty_like(slopes).scatter_(0, order, slopes).view_as(errors)
