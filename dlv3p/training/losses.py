"""Losses over logits (N,C,H,W) and masks (N,H,W) of train ids; ignored pixels count neither in sum nor in mean.

Pixel losses are a sum over valid pixels divided by their number, or weight, and 0 where a batch has none. Region
losses, soft Dice and Lovász-softmax, skip classes that are absent from the batch. The chunked loss upsamples logits one
band of rows at a time, and computes the gradient of a band together with its loss, so that full-size logits never
exist: for 19 classes at full size, a plain loss keeps two tensors of 80 bytes per pixel until the backward pass.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

from cityscapes.labels import IGNORE
from dlv3p.models.deeplab import upsample
from dlv3p.models.upsampling import source_positions
from dlv3p.parameters.choices import check_chunked_loss


def dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Return soft Dice, 1 - 2 |P and T| / (|P| + |T|) (arXiv:1606.04797, section 3), averaged over the classes present.

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
    """Return Lovász-softmax (arXiv:1705.08790, section 2.2), averaged over the classes present in the batch.

    Logits (N,C,H,W) of float32 or float64, mask (N,H,W) int64; 0 to 1, and 0 where a batch has no valid pixel.
    """
    probability, valid = logits.softmax(dim=1), mask != IGNORE
    total, present = 0 * probability.sum(), mask.new_zeros(())
    for label in range(logits.shape[1]):
        truth = mask == label
        if _costs_no_wait(mask) and not truth.any():
            continue  # elsewhere it is computed as well: its slopes are 0
        errors = torch.where(truth, 1 - probability[:, label], probability[:, label])
        total = total + (errors * _slopes(errors.detach(), truth, valid)).sum()
        present += truth.any()
    return total / present.clamp(min=1)


def _costs_no_wait(value: Tensor) -> bool:
    """Return whether the host can read a value at once, which may save work; a GPU would have to finish first."""
    return value.device.type == "cpu"


def _slopes(errors: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Return the gradient of the Lovász extension of the Jaccard loss for each pixel's error; 0 for ignored pixels.

    In order of decreasing error, the Jaccard loss 1 - I / U grows by 1 / U for each true pixel lost and by
    I / (U (U - 1)) for each false one added. Public code subtracts consecutive values of 1 - I / U instead, which
    cancels to nothing in float32 when a batch has millions of pixels. Ignored pixels come last, where I is 0.
    """
    order = errors.masked_fill(~valid, -1).flatten().sort(descending=True, stable=True).indices
    lost = truth.flatten()[order]
    intersection = truth.sum() - lost.cumsum(0, dtype=torch.int32)
    union = truth.sum() + (~lost).cumsum(0, dtype=torch.int32)
    below = (union - 1).clamp(min=1).to(errors.dtype)  # where it is 0, the only true pixel was lost, and 1 / U applies
    slopes = torch.where(lost, 1, intersection / below) / union
    return torch.empty_like(slopes).scatter_(0, order, slopes).view_as(errors)


Loss = Callable[[Tensor, Tensor], Tensor]

AUXILIARY_WEIGHT = 0.4
"""The weight of the auxiliary head's loss (PSPNet, arXiv:1612.01105, section 4.1)."""

FOCAL_GAMMA = 2.0
HARD_SHARE = 0.25


def cross_entropy(logits: Tensor, mask: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean cross entropy of the valid pixels, weighted by class if weights (C,) are given."""
    return _pixels(logits, mask, class_weights).sum() / valid_weight(mask, class_weights)


def focal(logits: Tensor, mask: Tensor, class_weights: Tensor | None = None, gamma: float = FOCAL_GAMMA) -> Tensor:
    """Return the mean focal loss (arXiv:1708.02002) of the valid pixels: cross entropy times (1 - p)^gamma.

    p is the probability of the true class. Alpha, the same for all pixels, would only scale the learning rate.
    """
    pixels = _pixels(logits, mask)
    # The gradient at 0 is infinite for a gamma below 1.
    doubt = (-torch.expm1(-pixels)).clamp(min=torch.finfo(pixels.dtype).tiny)
    pixels = pixels * doubt**gamma
    if class_weights is not None:
        pixels = pixels * _weight_of_pixels(mask, class_weights)
    return pixels.sum() / valid_weight(mask, class_weights)


def hard_pixels(logits: Tensor, mask: Tensor, class_weights: Tensor | None = None, share: float = HARD_SHARE) -> Tensor:
    """Return the mean cross entropy of the hardest pixels, a `share` of the valid ones (arXiv:1604.04339, section 2.3).

    Pixels that tie at the threshold count in equal parts, so that the order of pixels does not matter.
    """
    pixels = _pixels(logits, mask, class_weights)
    ranked = pixels.detach().masked_fill(mask == IGNORE, -1)
    count = (share * (mask != IGNORE).sum().double()).round().long().clamp(min=1)
    limit = _largest(ranked.flatten(), count)
    above, level = ranked > limit, ranked == limit
    chosen = above + level * ((count - above.sum()) / level.sum())
    weights = chosen if class_weights is None else chosen * _weight_of_pixels(mask, class_weights)
    return (pixels * chosen).sum() / weights.sum().clamp(min=1e-6)


def _largest(values: Tensor, place: Tensor) -> Tensor:
    """Return the largest value, the second largest, and so on, by its place, from 1."""
    if _costs_no_wait(values):
        return values.topk(int(place), sorted=False).values.min()
    return values.sort(descending=True).values.gather(0, place.view(1) - 1).squeeze()


def make_loss(
    name: str,
    class_weights: Tensor | None = None,
    *,
    focal_gamma: float = FOCAL_GAMMA,
    hard_share: float = HARD_SHARE,
) -> Loss:
    """Return the loss called `name`, one of `dlv3p.parameters.choices.LOSSES`; "a+b" is the sum of both.

    It is computed in float32 at least, within autocast as well. Class weights (C,) apply to pixel losses.
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
    """Return class weights 1 / ln(1.02 + share) (ENet, arXiv:1606.02147, section 5.2), scaled to a mean of 1 per pixel.

    `pixels_per_class` is int64 (C,). A weight is at most 50 times another; a class without a pixel gets the largest.
    """
    share = pixels_per_class.double() / max(1, int(pixels_per_class.sum()))
    weights = 1 / torch.log(1.02 + share)
    scale = (weights * share).sum() if share.sum() > 0 else weights.mean()
    return (weights / scale).float()


def valid_weight(mask: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the divisor of a loss: the number of valid pixels, or the sum of their class weights; above 0."""
    if class_weights is None:
        return (mask != IGNORE).sum().clamp(min=1)
    return _weight_of_pixels(mask, class_weights).sum().clamp(min=1e-6)


def _pixels(logits: Tensor, mask: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the cross entropy (N,H,W), not reduced, since torch's reduction is not deterministic on GPUs."""
    return functional.cross_entropy(logits, mask, weight=class_weights, ignore_index=IGNORE, reduction="none")


def _weight_of_pixels(mask: Tensor, class_weights: Tensor) -> Tensor:
    """Return the weight (N,H,W) of each pixel's class, 0 where ignored, without synchronizing with the GPU."""
    return class_weights[mask.clamp(max=len(class_weights) - 1)] * (mask != IGNORE)


BAND_PIXELS = 2**16
"""Pixels per band, over all images of a batch: some 5 MB for each tensor of 19 classes."""


def make_chunked_loss(
    name: str, class_weights: Tensor | None = None, *, align_corners: bool = False, **options: float
) -> Loss:
    """Return the loss called `name` for logits (N,C,h,w) before their last upsampling and masks (N,H,W).

    Up to rounding, value and gradient equal those of `make_loss`, which takes the same `options`, after bilinear
    upsampling. Raises ParameterError for a loss that is not one of PIXEL_MEANS: it needs all pixels at once.
    """
    check_chunked_loss(name)
    loss = make_loss(name, class_weights, **options)

    def chunked(logits: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            return _BandByBand.apply(logits, mask, loss, class_weights, align_corners)

    return chunked


class _BandByBand(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        logits: Tensor,
        mask: Tensor,
        loss: Loss,
        class_weights: Tensor | None,
        align_corners: bool,
    ) -> Tensor:
        learning = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(logits) if learning else None
        whole, total = valid_weight(mask, class_weights), logits.new_zeros(())
        for lines, rows, before, after, above, below in _bands(logits, mask, align_corners):
            band = mask[:, lines]
            part = logits[:, :, rows].detach().requires_grad_(learning)
            with torch.set_grad_enabled(learning):
                blended = above * part[:, :, before - rows.start] + below * part[:, :, after - rows.start]
                upsampled = upsample(blended, band.shape[-2:], align_corners=align_corners)
                value = loss(upsampled, band) * (valid_weight(band, class_weights) / whole)
            if learning:
                gradient[:, :, rows] += torch.autograd.grad(value, part)[0]
            total += value.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, scale: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return scale * gradient, None, None, None, None


def _bands(
    logits: Tensor, mask: Tensor, align_corners: bool
) -> Iterator[tuple[slice, slice, Tensor, Tensor, Tensor, Tensor]]:
    """Yield each band's rows, those of the logits, and those, with weights, between which each of the band's lies.

    The rows of the logits are found on the host, since reading them from a GPU would make it wait.
    """
    images, height, width = mask.shape
    positions = source_positions(logits.shape[2], height, align_corners, fused=False)
    before, after, above, below = _positions_on(logits.device, logits.shape[2], height, align_corners)
    above, below = above[:, None].to(logits.dtype), below[:, None].to(logits.dtype)
    band = max(1, BAND_PIXELS // (images * width))
    for first in range(0, height, band):
        lines = slice(first, min(first + band, height))
        rows = slice(int(positions[0][first]), int(positions[1][lines.stop - 1]) + 1)
        yield lines, rows, before[lines], after[lines], above[lines], below[lines]


@lru_cache(maxsize=8)
def _positions_on(device: torch.device, length: int, wanted: int, align_corners: bool) -> tuple[Tensor, ...]:
    """Return `source_positions` on a device, to which they go once for all steps of one crop size."""
    positions = source_positions(length, wanted, align_corners, fused=False)
    with torch.inference_mode(False):  # the next caller may want a gradient
        return tuple(torch.from_numpy(array).to(device) for array in positions)
