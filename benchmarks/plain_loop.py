"""The peer of `benchmarks.accuracy`: segmentation-models-pytorch's DeepLabV3+ in a plain training loop.

Adam, cross entropy that ignores 255, random crops and flips; what else users of the library add, a schedule, class
weights, jitter and random scales, are switches, which `PEER_RECIPES` combines.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ColorJitter

from cityscapes.dataset import Split
from cityscapes.errors import require
from cityscapes.labels import IGNORE
from dlv3p.data.augment import MEAN, STD
from dlv3p.training.optimizers import class_weights


@dataclass(frozen=True)
class PlainSettings:
    """The settings shared with our training, then the peer's own, which begin as its library and Adam have them.

    Sizes are in pixels after `image_scale`, `precision` is float32 or bfloat16, random `scales` are log-uniform.
    """

    backbone: str
    output_stride: int
    channels: int
    image_scale: float
    crop_height: int
    crop_width: int
    batch_size: int
    epochs: int
    precision: str
    workers: int
    seed: int = 0
    learning_rate: float = 0.001
    poly: bool = False
    class_weights: bool = False
    jitter: float = 0.0
    scales: tuple[float, float] = (1.0, 1.0)
    atrous_rates: tuple[int, ...] = (12, 24, 36)
    dropout: float = 0.5


PEER_RECIPES = {
    "plain": {},
    "poly": {"poly": True},
    "poly, class weights": {"poly": True, "class_weights": True},
    "poly, jitter": {"poly": True, "jitter": 0.1},
    "poly, class weights, jitter, scales": {"poly": True, "class_weights": True, "jitter": 0.1, "scales": (0.8, 1.25)},
    "the same, rates and dropout for small images": {
        **{"poly": True, "class_weights": True, "jitter": 0.1, "scales": (0.8, 1.25)},
        **{"atrous_rates": (6, 12, 18), "dropout": 0.1, "learning_rate": 0.003},
    },
}
"""What each of the peer's six recipes changes of the plain loop."""


class PlainCrops(Dataset):
    """Resized, cropped and randomly mirrored samples: image float32 (3,h,w) normalized, mask int64 (h,w)."""

    def __init__(self, split: Split, settings: PlainSettings) -> None:
        self.split, self.settings = split, settings
        strength = settings.jitter
        self.jitter = ColorJitter(strength, strength, strength) if strength else None

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.split.pair(index)
        height, width, (low, high) = self.settings.crop_height, self.settings.crop_width, self.settings.scales
        scale = self.settings.image_scale * low * (high / low) ** float(torch.rand(()))
        image = self.jitter(image) if self.jitter else image
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
        decoder_atrous_rates=settings.atrous_rates,
        decoder_aspp_dropout=settings.dropout,
        classes=num_classes,
    )


def peer_logits(model: nn.Module, output_stride: int) -> Callable[[Tensor, tuple[int, int]], Tensor]:
    """Return a function from an image (1,3,h,w) and a size to logits; the image is padded as the network requires."""

    def logits(image: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = image.shape[-2:]
        padded = functional.pad(image, (0, -width % output_stride, 0, -height % output_stride))
        return functional.interpolate(model(padded)[..., :height, :width], size, mode="bilinear")

    return logits


def train_plainly(settings: PlainSettings, training: Split) -> nn.Module:
    """Train, print the mean loss of each epoch, and return the network."""
    torch.manual_seed(settings.seed)
    model = build_peer(settings, training.num_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    weights = class_weights(training) if settings.class_weights else None
    criterion = nn.CrossEntropyLoss(weights, ignore_index=IGNORE)
    batch = min(settings.batch_size, len(training))
    crops = PlainCrops(training, settings)
    loader = DataLoader(crops, batch, shuffle=True, drop_last=True, num_workers=settings.workers)
    steps = settings.epochs * len(loader)
    schedule = PolynomialLR(optimizer, steps, power=0.9 if settings.poly else 0)
    for epoch in range(1, settings.epochs + 1):
        total = 0.0
        model.train()
        for image, mask in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bfloat16"):
                logits = model(image)
            loss = criterion(logits.float(), mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"smp, seed {settings.seed}, epoch {epoch}/{settings.epochs}: loss {total / len(loader):.4f}", flush=True)
    return model
