"""Fused bilinear upsampling and argmax: logits at the output stride to full-size train ids, without full-size logits.

Bilinear upsampling and argmax over the classes run together, a tile of a row at a time, so only labels are stored. The
result equals `torch.nn.functional.interpolate` and `argmax` in every pixel, even where two classes differ only by
rounding: torch's CPU kernels (aten/src/ATen/native/cpu/UpSampleKernel.cpp) are a few sums of four products, which
differ by layout, channel, processor and number of threads in the order of the terms and in which are fused (multiplied
and added with one rounding). A probe, which lets torch upsample a few rows of random numbers, finds the order that is
in use; where it is unknown here, torch does the upsampling itself.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dlv3p.models.upsampling_kernel import ORDERS, blend, upsample_rows

PROBED_SUM = 129
"""Torch selects its kernel by whether height and width sum to more than 128, so a probe's size must do so as well."""
BAND = 16
"""Rows of logits that torch upsamples at a time, where it does the upsampling itself."""


def upsample_argmax(logits: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Upsample logits (N,C,h,w) bilinearly to `size` and take the best class: uint8 (N,*size), on the same device.

    Equal to `interpolate(logits, size, mode="bilinear").argmax(dim=1)`; of equal classes the first one wins. Logits
    must be finite and C at most 256. Those of half precision are upsampled in float32.

    On a CPU, float32 needs less than 1 MB a thread beside the result and uses `torch.get_num_threads()` threads.
    Elsewhere torch does it: band by band where that is exact, which is where the size is that of the logits times a
    power of two and corners are not aligned, otherwise class by class. Each class is then a plane, as if the logits
    were contiguous: with channels-last logits, two classes that differ by rounding may be swapped.
    """
    logits = logits.detach()
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        arithmetic = _arithmetic(logits, size, align_corners)
        if arithmetic is not None:
            return _fused(logits, size, align_corners, *arithmetic)
    factor = size[0] // logits.shape[2]
    whole = (factor * logits.shape[2], factor * logits.shape[3]) == tuple(size)
    if whole and factor & (factor - 1) == 0 and not align_corners:
        return _in_bands(logits, factor)
    if sum(size) < PROBED_SUM:  # too small to save memory, and a single class would get another kernel than many
        return functional.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners).argmax(1).byte()
    return _class_by_class(logits, size, align_corners)


def source_positions(length: int, wanted: int, align_corners: bool, fused: bool) -> tuple[np.ndarray, ...]:
    """Return where each of `wanted` output pixels lies among `length` input pixels, as torch computes it.

    The four arrays are the neighbors before and after, int64, and their weights, float32. `fused` says whether scale
    and offset are applied with one rounding.
    """
    pixel = np.arange(wanted, dtype=np.float32)
    one, half = np.float32(1), np.float32(0.5)
    if align_corners:
        scale = np.float32(length - 1) / np.float32(wanted - 1) if wanted > 1 else np.float32(0)
        position = pixel * scale
    else:
        scale = np.float32(length) / np.float32(wanted)
        if fused:  # exact in float64, so that the cast is the only rounding
            position = (np.float64(scale) * (pixel + 0.5) - 0.5).astype(np.float32)
        else:
            position = scale * (pixel + half) - half
        position = np.maximum(position, np.float32(0))
    before = np.minimum(position.astype(np.int64), length - 1)
    after = np.minimum(before + 1, length - 1)
    share = np.clip(position - before.astype(np.float32), np.float32(0), one)
    return before, after, one - share, share


def _fused(logits: Tensor, size: tuple[int, int], align_corners: bool, fused: bool, orders: np.ndarray) -> Tensor:
    height, width = size
    rows = source_positions(logits.shape[2], height, align_corners, fused)
    columns = source_positions(logits.shape[3], width, align_corners, fused)
    result = torch.empty((len(logits), height, width), dtype=torch.uint8)
    threads = min(torch.get_num_threads(), height)
    edges = np.linspace(0, height, threads + 1).astype(int)
    for image, labels in zip(logits.numpy(), result.numpy(), strict=True):

        def band(first: int, last: int, image: np.ndarray = image, labels: np.ndarray = labels) -> None:
            upsample_rows(image, tuple(array[first:last] for array in rows), columns, orders, labels[first:last])

        if threads == 1:
            band(0, height)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(band, edges[:-1], edges[1:]))
    return result


def _in_bands(logits: Tensor, factor: int) -> Tensor:
    """Upsample a few rows at a time with torch, with a margin of a row; exact for powers of two."""
    height, width = logits.shape[-2:]
    parts = []
    for first in range(0, height, BAND):
        last = min(first + BAND, height)
        above, below = min(first, 1), min(height - last, 1)
        rows = logits[:, :, first - above : last + below]
        upsampled = functional.interpolate(rows, size=(factor * rows.shape[2], factor * width), mode="bilinear")
        kept = upsampled[:, :, factor * above : upsampled.shape[2] - factor * below]
        parts.append(kept.argmax(dim=1).to(torch.uint8))
    return torch.cat(parts, dim=1)


def _class_by_class(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Upsample one class at a time with torch, and keep the best value and class of each pixel so far."""
    labels = torch.zeros((len(logits), *size), dtype=torch.uint8, device=logits.device)
    best = None
    for number, plane in enumerate(logits.split(1, dim=1)):
        plane = plane.contiguous(memory_format=torch.contiguous_format)
        values = functional.interpolate(plane, size=size, mode="bilinear", align_corners=align_corners)[:, 0]
        if best is None:
            best = values
        else:
            labels.masked_fill_(values > best, number)  # not where it is equal: the first of equal classes wins
            torch.maximum(best, values, out=best)
    return labels


def _arithmetic(logits: Tensor, size: tuple[int, int], align_corners: bool) -> tuple[bool, np.ndarray] | None:
    channels, height, width = logits.shape[1:]
    last = logits.is_contiguous(memory_format=torch.channels_last) and not logits.is_contiguous()
    if not last and not logits.is_contiguous():
        return None
    rows = min(size[0], max(8, PROBED_SUM - size[1]))
    return _probe((channels, min(height, 7), width), (rows, size[1]), last, align_corners, torch.get_num_threads())


@lru_cache(maxsize=64)
def _probe(
    shape: tuple[int, int, int], size: tuple[int, int], channels_last: bool, align_corners: bool, threads: int
) -> tuple[bool, np.ndarray] | None:
    """Find how torch upsamples (C,h,w) to `size` with this many threads: positions fused or not, an order per class.

    None when it matches no known order.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((1, *shape), generator=generator)
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    expected = functional.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)[0].numpy()
    for fused in (True, False):
        positions = [source_positions(*lengths, align_corners, fused) for lengths in zip(shape[1:], size, strict=True)]
        orders = np.full(shape[0], -1)
        for number in range(len(ORDERS)):
            values = np.empty_like(expected, order="C")
            blend(logits[0].numpy(), *positions, number, values)
            orders[(orders < 0) & (values == expected).all(axis=(1, 2))] = number
        if (orders >= 0).all():
            return fused, orders
    return None
