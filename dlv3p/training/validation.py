"""Score a network on whole images at the end of an epoch, and tell before the first one whether it can."""

from collections.abc import Callable
from io import BytesIO

import torch
from PIL import Image
from torch import Tensor

from cityscapes.dataset import Split
from cityscapes.errors import InputError
from cityscapes.files.images import FORMATS
from dlv3p.data.batches import Batches
from dlv3p.evaluation.metrics import confusion_matrix, scores
from dlv3p.models.deeplab import DeepLab
from dlv3p.models.inputs import input_channels
from dlv3p.runtime.devices import moved_ahead
from dlv3p.runtime.processes import place, sum_over_processes
from dlv3p.training.losses import cross_entropy

ALWAYS_ENOUGH = 33
"""Pixels of a side that every network takes; the poolings of DenseNets and VoVNets leave nothing of less."""


@torch.inference_mode()
def refuse_tiny_images(model: DeepLab, split: Split, device: torch.device, *, image_scale: float) -> None:
    """Raise InputError for a validation image that is too small for the network, before an epoch is lost to it."""
    if _takes(model, 1, device):  # most networks take any size, so that no image has to be looked at
        return
    for index in range(len(split)):
        width, height = _stored_size(split, index)
        side = max(1, round(min(width, height) * image_scale))
        if side < ALWAYS_ENOUGH and not _takes(model, side, device):
            scaled = "" if image_scale == 1 else f" at image_scale={image_scale}"
            raise InputError(
                f"{split.split}: {split.name(index)} has {width}x{height} pixels, too few for this network{scaled}; "
                f"give images of at least {ALWAYS_ENOUGH} pixels a side, or take a ResNet"
            )


def _stored_size(split: Split, index: int) -> tuple[int, int]:
    """Return width and height from the header of an image; of a damaged one, about which its reader complains, any."""
    try:
        if split.pixel_rule:
            return split.image(index).size
        path = split.image_path(index)
        with Image.open(path if path.is_file() else BytesIO(split.image_bytes(index)), formats=FORMATS) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ALWAYS_ENOUGH, ALWAYS_ENOUGH


def _takes(model: DeepLab, side: int, device: torch.device) -> bool:
    training = model.training
    try:
        model.eval().logits_at_stride(torch.zeros(1, input_channels(model), side, 2 * ALWAYS_ENOUGH, device=device))
    except (RuntimeError, ValueError):
        return False
    finally:
        model.train(training)
    return True


@torch.inference_mode()
def validate(
    model: DeepLab,
    loader: Batches,
    num_classes: int,
    device: torch.device,
    *,
    images: int,
    after_each: Callable[[], None],
    look: Callable[[int, Tensor], None] | None = None,
) -> dict[str, float]:
    """Return loss, mIoU, mDice, mPA and pixel accuracy over `images` whole images, at the size of their masks.

    Call `after_each` after each image, as often in every process; it may raise to end the validation. `look` gets the
    place of each image, from 0, and its predicted classes (1, H, W).
    """
    model.eval()
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    # A rank may have one image more, after which the others no longer exchange requests to stop.
    common = images // place().ranks
    for number, (image, mask) in enumerate(moved_ahead(loader, device), start=1):
        logits = model.upsample(model.logits_at_stride(image), mask.shape[-2:])
        total += cross_entropy(logits, mask)
        prediction = logits.argmax(dim=1)
        confusion += confusion_matrix(mask, prediction, num_classes)
        if look is not None:
            look(place().rank + place().ranks * (number - 1), prediction)
        if number <= common:
            after_each()
    confusion, total = sum_over_processes(confusion), sum_over_processes(total)
    return {"loss": total.item() / images, **scores(confusion.cpu()).means()}
