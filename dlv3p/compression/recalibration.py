"""New statistics for batch norms whose inputs have changed: forward passes over training images, and no step."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dlv3p.compression.channels import all_logits
from dlv3p.models.deeplab import DeepLab


@torch.no_grad()
def recalibrate(model: DeepLab, images: Iterable[Tensor]) -> int:
    """Replace running means and variances by their averages over batches of `images`, in place; return their number.

    Every batch (N,3,H,W) counts the same, frozen norms are recalibrated too, and nothing else changes. A norm that got
    no statistics, as the one behind image pooling does from batches of one image, keeps what it had; so do all without
    a batch. The model is left in evaluation mode.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [({name: value.clone() for name, value in norm.named_buffers()}, norm.momentum) for norm in norms]
    device, number = next(model.parameters()).device, 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the average of all batches, each with the same weight
            norm.training = True  # not train(), which frozen norms do not listen to
        for image in images:
            all_logits(model, image.to(device))
            number += 1
    finally:
        for norm, (buffers, momentum) in zip(norms, before, strict=True):
            norm.momentum, norm.training = momentum, False
            if not norm.num_batches_tracked:
                norm.load_state_dict(buffers, strict=False)
    return number
