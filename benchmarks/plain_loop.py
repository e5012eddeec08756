"""The peer of `benchmarks.accuracy`: segmentation-models-pytorch's DeepLabV3+ in the plainest training loop.

Adam at its default learning rate, cross entropy that ignores 255, random crops, flips, and nothing else: no random
scale, no schedule, no class weights, no jitter. Its atrous rates are the library's, 12 24 36 at any stride.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from cityscapes.dataset import Split
from cityscapes.errors import require
from cityscapes.labels import IGNORE
from dlv3p.data.augment import MEAN, STD


@dataclass(frozen=True)
class PlainSettings:
    """The settings shared with our training; sizes in pixels after `image_scale`, float32 or bfloat16 `precision`."""

    backbone: str
    output_stride: int
    channels: int
    image_scale: float
    crop_height: int
    crop_width: int
    batch_size: int
    epochs: int
    precision: str
    seed: int
    workers: int
    learning_rate: float = 0.001  # Adam's default


class PlainCrops(Dataset):
    """Resized, cropped and randomly mirrored samples: image float32 (3,h,w) normalized, mask int64 (h,w)."""

    def __init__(self, split: Split, settings: PlainSettings) -> None:
        self.split, self.settings = split, settings

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.split.pair(index)
        scale, height, width = self.settings.image_scale, self.settings.crop_height, self.settings.crop_width
        size = (round(image.width * scale), round(image.height * scale))
        mask = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
        image = (np.asarray(image.resize(size, Image.Resampling.BILINEAR), np.float32) / 255 - MEAN) / STD
        image, mask = torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(np.array(mask, np.int64))
        missing = (0, max(0, width - size[0]), 0, max(0, height - size[1]))
        image, mask = functional.pad(image, missing), functional.pad(mask, missing, value=IGNORE)
        top = int(torch.randint(mask.shape[0] - height + 1, ()))
        left = int(torch.randint(mask.shape[1] - width + 1, ()))
        image, mask = image[:, top : top + height, left : left + width], mask[top : top + height, left : left + width]
        return (image.flip(2), mask.flip(1)) if torch.rand(()) < 0.5 else (image, mask)


def build_peer(settings: PlainSettings, num_classes: int) -> nn.Module:
    """Build the peer's network with random weights; raises MachineError where its library is not installed."""
    require("benchmarks.accuracy", ("segmentation_models_pytorch",), "bench")
    from segmentation_models_pytorch import DeepLabV3Plus

    return DeepLabV3Plus(
        settings.backbone,
        encoder_weights=None,
        encoder_output_stride=settings.output_stride,
        decoder_channels=settings.channels,
        classes=num_classes,
    )


def peer_logits(model: nn.Module, output_stride: int) -> Callable[[Tensor, tuple[int, int]], Tensor]:
    """Return a function from an image (1,3,h,w) and a size to logits; the image is padded as the network requires."""

    def logits(image: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = image.shape[-2:]
        padded = functional.pad(image, (0, -width % output_stride, 0, -height % output_stride))
        return functional.interpolate(model(padded)[..., :height, :width], size, mode="bilinear")

    return logits


def train_plainly(settings: PlainSettings, training: Split) -> Iterator[tuple[nn.Module, float, float]]:
    """Train, and yield the network, the mean loss and the seconds of each epoch, scoring excluded."""
    torch.manual_seed(settings.seed)
    model = build_peer(settings, training.num_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    criterion = nn.CrossEntropyLoss(ignore_index=IGNORE)
    batch = min(settings.batch_size, len(training))
    crops = PlainCrops(training, settings)
    loader = DataLoader(crops, batch, shuffle=True, drop_last=True, num_workers=settings.workers)
    for _ in range(settings.epochs):
        began, total = time.monotonic(), 0.0
        model.train()
        for image, mask in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
                logits = model(image)
            loss = criterion(logits.float(), mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        yield model, total / len(loader), time.monotonic() - began
