"""Loaders whose every byte is a function of (seed, epoch, index), whatever the workers, crashes and restarts."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dlv3p.split import Split
from dlv3p.transforms import Augmentation, normalize

LOADER_TIMEOUT = 300
"""Seconds after which a worker that does not answer is an error rather than a wait for ever."""


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random generator of one sample: a counter-based one, keyed by what the sample is."""
    return _generator(seed, (epoch << 40) | index)


def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """Return the order in which an epoch visits the samples: a permutation that depends on (seed, epoch) alone."""
    return _generator(seed, (1 << 63) | epoch).permutation(length)


def _generator(seed: int, counter: int) -> np.random.Generator:
    # A plain list would become floating point at 2^63, and the epoch would be rounded away.
    return np.random.Generator(np.random.Philox(key=np.array([seed, counter], np.uint64)))


class TrainingSamples(Dataset):
    """Augmented crops, asked for by (epoch, index): image float (3,h,w) and mask int64 (h,w)."""

    def __init__(self, split: Split, augmentation: Augmentation, *, seed: int) -> None:
        self.split, self.augmentation, self.seed = split, augmentation, seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image, mask = self.split.pair(index)
        return self.augmentation(image, mask, sample_generator(self.seed, epoch, index))


class EpochSampler(Sampler):
    """Yields the (epoch, index) keys of the epoch that `epoch` is set to, cut to whole batches."""

    def __init__(self, length: int, batch_size: int, *, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0
        self.used = length - length % batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for index in epoch_order(self.seed, self.epoch, self.length)[: self.used]:
            yield self.epoch, int(index)

    def __len__(self) -> int:
        return self.used


class WholeImages(Dataset):
    """Whole images for validation: image float (3,h,w) at the network's scale, mask int64 (H,W) at its own."""

    def __init__(self, split: Split, *, image_scale: float) -> None:
        self.split, self.image_scale = split, image_scale

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.split.pair(index)
        return normalize(image, image_scale=self.image_scale), torch.from_numpy(mask.astype(np.int64))


def training_loader(samples: TrainingSamples, *, batch_size: int, workers: int) -> DataLoader:
    """Return a loader of whole batches; set `loader.sampler.epoch` before each pass.

    A split smaller than one batch gives one batch of what there is.
    """
    batch_size = min(batch_size, len(samples))
    sampler = EpochSampler(len(samples), batch_size, seed=samples.seed)
    return DataLoader(samples, batch_size=batch_size, sampler=sampler, **_workers(workers))


def validation_loader(images: WholeImages, *, workers: int) -> DataLoader:
    """Return a loader of single images in the split's order, so that sizes may differ."""
    return DataLoader(images, batch_size=1, shuffle=False, **_workers(workers))


def _workers(workers: int) -> dict:
    """Return the loader's process options; its own generator keeps it from drawing on torch's global random state."""
    options = {"num_workers": workers, "generator": torch.Generator(), "pin_memory": torch.cuda.is_available()}
    if workers:
        options |= {"persistent_workers": True, "timeout": LOADER_TIMEOUT}
    return options
