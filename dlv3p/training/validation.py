"""Score a network on whole images at the end of an epoch."""

from collections.abc import Callable

import torch

from dlv3p.data.batches import Batches
from dlv3p.evaluation.metrics import confusion_matrix, scores
from dlv3p.models.deeplab import DeepLab
from dlv3p.runtime.devices import LAYOUT
from dlv3p.runtime.processes import place, sum_over_processes
from dlv3p.training.losses import cross_entropy


@torch.inference_mode()
def validate(
    model: DeepLab,
    loader: Batches,
    num_classes: int,
    device: torch.device,
    *,
    images: int,
    after_each: Callable[[], None],
) -> dict[str, float]:
    """Return loss, mIoU, mDice, mPA and pixel accuracy over `images` whole images, at the size of their masks.

    Call `after_each` after each image, as often in every process; it may raise to end the validation.
    """
    model.eval()
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    common = (
        images // place().ranks
    )  # a rank may have one image more, after which the others no longer exchange requests to stop
    for number, (image, mask) in enumerate(loader, start=1):
        image, mask = image.to(device, memory_format=LAYOUT), mask.to(device)
        logits = model.upsample(model.logits_at_stride(image), mask.shape[-2:])
        total += cross_entropy(logits, mask)
        confusion += confusion_matrix(mask, logits.argmax(dim=1), num_classes)
        if number <= common:
            after_each()
    confusion, total = sum_over_processes(confusion), sum_over_processes(total)
    return {"loss": total.item() / images, **scores(confusion.cpu()).means()}
