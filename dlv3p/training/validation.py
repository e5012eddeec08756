"""The score after an epoch: whole images at a single scale, shared among the processes that train."""

from collections.abc import Callable

import torch
from torch import nn

from dlv3p.data.batches import Batches
from dlv3p.evaluation.metrics import confusion_matrix, scores
from dlv3p.runtime.devices import LAYOUT
from dlv3p.runtime.processes import sum_over_processes
from dlv3p.training.losses import cross_entropy


@torch.inference_mode()
def validate(
    model: nn.Module,
    loader: Batches,
    num_classes: int,
    device: torch.device,
    *,
    images: int,
    after_each: Callable[[], None],
) -> dict[str, float]:
    """Return loss, mIoU, mDice, mPA and pixel accuracy over `images` whole images, at the size of their masks.

    `after_each` is called after each image, and may raise to end the validation.
    """
    model.eval()
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for image, mask in loader:
        image, mask = image.to(device, memory_format=LAYOUT), mask.to(device)
        logits = model.upsample(model.logits_at_stride(image), mask.shape[-2:])
        total += cross_entropy(logits, mask)
        confusion += confusion_matrix(mask, logits.argmax(dim=1), num_classes)
        after_each()
    confusion, total = sum_over_processes(confusion), sum_over_processes(total)
    return {"loss": total.item() / images, **scores(confusion.cpu()).means()}
