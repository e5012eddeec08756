"""Predict the memory that a prediction takes, before it is spent: that of a network by tracing it without numbers.

What a processor's own kernels take beside the tensors that are alive at the same time comes as a margin.
"""

import copy
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import nn

from cityscapes.errors import InputError
from cityscapes.files.channels import PixelRule
from dlv3p.models.inputs import input_channels
from dlv3p.parameters.protocols import Protocol
from dlv3p.profiling.live_bytes import LiveBytes

TRACED_SIDE = 512
"""Pixels of the side of the square that is traced; what is alive at the same time grows with the area."""
MARGIN = 1.4
"""What a network takes in all, times what its tensors take: workspaces of kernels, and what an allocator holds back."""
PROCESS_BYTES = 2**30
"""What the process itself takes: Python, torch, compiled code and the weights."""
IMAGE_BYTES = 12
"""What each pixel of an image takes outside of the network: decoded, converted, labels, and what is written of it."""
CHANNEL_BYTES, COUNTED_BYTES = 12, 24
"""What it takes in addition for each channel of a rule, as stored, as a share and normalized, and for one of them in
float64."""
IN_FLIGHT_BYTES = 2**28
"""What the images take that are read ahead and written behind."""
UNKNOWN_PIXEL_BYTES = 600.0
"""What a pixel takes in a network that cannot be traced, one in an exported file: more than most."""


def bytes_of_held_pixel(rule: PixelRule | None) -> int:
    """Return how many bytes each pixel of an image takes outside of the network."""
    return IMAGE_BYTES + (COUNTED_BYTES + CHANNEL_BYTES * rule.channels if rule else 0)


def bytes_of_image_pixel(model: nn.Module) -> float:
    """Return how many bytes a network needs for each pixel of its input, weights left out."""
    return _traced(model) * MARGIN


@lru_cache(maxsize=8)
def _traced(model: nn.Module) -> float:
    hollow = copy.deepcopy(model).to("meta")
    weights = sum(value.numel() * value.element_size() for value in hollow.state_dict().values())
    with torch.inference_mode(), LiveBytes() as live:
        hollow.logits_at_stride(torch.empty(1, input_channels(model), TRACED_SIDE, TRACED_SIDE, device="meta"))
    return max(live.most - weights, 0) / TRACED_SIDE**2


@dataclass(frozen=True)
class MemoryLimit:
    """The memory that a process may take in all, and the tiles that larger images are cut into.

    `pixel_bytes` is what the network needs for a pixel of its input, which is an image times `image_scale`, and
    `held_bytes` what a pixel of the image takes beside it. The decision depends on nothing else than these and the
    image, so that it is the same on every machine.
    """

    gib: float
    tile: int
    overlap: int
    pixel_bytes: float = UNKNOWN_PIXEL_BYTES
    image_scale: float = 1.0
    held_bytes: int = IMAGE_BYTES

    def of_network(self, pixel_bytes: float, image_scale: float) -> "MemoryLimit":
        """Return the same limit for a network."""
        return replace(self, pixel_bytes=pixel_bytes, image_scale=image_scale)

    def needs_tiles(self, size: tuple[int, int], classes: int, protocol: Protocol, *, confidence: bool = False) -> bool:
        """Return whether an image of `size` must be cut into tiles to keep within the limit.

        Raises InputError for one that does not fit even so.
        """
        if self.predicted(size, classes, protocol, confidence=confidence) <= self.gib * 2**30:
            return False
        needed = self.predicted(size, classes, protocol, confidence=confidence, tiled=True) / 2**30
        if needed > self.gib:
            raise InputError(
                f"image: {size[1]} x {size[0]} pixels take {needed:.2f} GiB in tiles of {self.tile}, more than "
                f"memory_gib={self.gib:g}; allow more, or take a smaller tile"
            )
        return True

    def predicted(
        self, size: tuple[int, int], classes: int, protocol: Protocol, *, confidence: bool = False, tiled: bool = False
    ) -> float:
        """Return the bytes that the process is predicted to take for an image, whole or in tiles."""
        pixels = size[0] * size[1]
        # The image decoded and once more while it is converted, its labels, and what is written of it.
        held = PROCESS_BYTES + IN_FLIGHT_BYTES + pixels * (self.held_bytes + confidence)
        if not tiled:
            return held + self._looked_at(pixels, classes, protocol)
        seen = min(size[0], self.tile + 31) * min(size[1], self.tile + 31)
        kept = classes * 4 * (2 * self.overlap + 31) * size[1]
        return held + self._looked_at(seen, classes, protocol) + 3 * classes * 4 * seen + kept

    def _looked_at(self, pixels: int, classes: int, protocol: Protocol) -> float:
        """Return the bytes for the network, and for the sums of its views, on one piece of an image."""
        area = self.image_scale**2
        largest = max(protocol.scales) ** 2
        if protocol.window_height:
            largest = min(largest, protocol.window_height * protocol.window_width / max(1, pixels * area))
        views = len(protocol.scales) > 1 or protocol.flip or protocol.window_height > 0
        summed = 3 * classes * 4 * pixels * area if views else 0
        return pixels * area * largest * self.pixel_bytes + summed + 12 * pixels
