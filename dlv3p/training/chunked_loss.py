"""Losses over logits at the output stride, upsampled a band of rows at a time, so that full-size logits never exist.

The gradient of a band is worked out together with its loss, and only their sum is kept, at the size of the logits: for
19 classes at full size, the plain way keeps two tensors of 80 bytes a pixel until the backward pass.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from cityscapes.errors import ParameterError
from dlv3p.models.decoder import upsample
from dlv3p.models.upsampling import source_positions
from dlv3p.parameters.training import PIXEL_MEANS
from dlv3p.training.losses import Loss, make_loss, valid_weight

BAND_PIXELS = 2**16
"""Pixels at a time, over all images of a batch: some 5 MB for each tensor of 19 classes."""


def make_chunked_loss(
    name: str, class_weights: Tensor | None = None, *, align_corners: bool = False, **options: float
) -> Loss:
    """Return the loss called `name` for logits (N,C,h,w) before their last upsampling and masks (N,H,W).

    Value and gradient equal those of `make_loss`, which takes the same `options`, after bilinear upsampling, but for
    rounding. Raises ParameterError for a loss that is not one of PIXEL_MEANS: it needs all pixels at once.
    """
    if name not in PIXEL_MEANS:
        allowed = " and ".join(PIXEL_MEANS)
        raise ParameterError(
            f"chunked_loss=True: not with loss={name!r}, which needs all pixels at once; with {allowed}"
        )
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
        for first, last, before, after, above, below in _bands(logits, mask, align_corners):
            band, rows = mask[:, first:last], slice(int(before[0]), int(after[-1]) + 1)
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
) -> Iterator[tuple[int, int, Tensor, Tensor, Tensor, Tensor]]:
    """Yield each band's first row, the row behind its last, and where its rows lie among the logits' rows."""
    images, height, width = mask.shape
    positions = source_positions(logits.shape[2], height, align_corners, fused=False)
    before, after, above, below = (torch.from_numpy(array).to(logits.device) for array in positions)
    above, below = above[:, None].to(logits.dtype), below[:, None].to(logits.dtype)
    band = max(1, BAND_PIXELS // (images * width))
    for first in range(0, height, band):
        rows = slice(first, min(first + band, height))
        yield rows.start, rows.stop, before[rows], after[rows], above[rows], below[rows]
