"""Load batches that depend only on (seed, epoch, index), whatever the workers, crashes and restarts."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from cityscapes.dataset import Split
from cityscapes.errors import InputError, ParameterError
from cityscapes.files.channels import PixelRule
from dlv3p.data.augment import Augmentation, normalize
from dlv3p.data.batches import Batches, CheckedSamples, collate, explain_worker_errors, ignore_stop_signals
from dlv3p.data.decoded_cache import DecodedCache, open_image
from dlv3p.data.sampling import ClassUniform, EpochSampler, class_regions, sample_generator
from dlv3p.parameters.choices import check_batch_size
from dlv3p.parameters.training import TrainParameters
from dlv3p.runtime.devices import choose_device
from dlv3p.runtime.processes import place

LOADER_TIMEOUT = 300
"""Seconds after which a worker that does not answer is an error."""


class TrainingSamples(Dataset):
    """Augmented crops by (epoch, index): image float (3,h,w) and mask int64 (h,w).

    `class_uniform` favors rare classes; `cache` saves decoding images again, and changes no byte.
    """

    def __init__(
        self,
        split: Split,
        augmentation: Augmentation,
        *,
        seed: int,
        class_uniform: ClassUniform | None = None,
        cache: DecodedCache | None = None,
    ) -> None:
        self.split, self.augmentation, self.seed = split, augmentation, seed
        self.class_uniform, self.cache = class_uniform, cache

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Read and augment a sample; raises InputError for a damaged file, and where image and mask differ in size."""
        epoch, index = key
        shown, center = self._shown(epoch, index)
        rng = sample_generator(self.seed, epoch, index)
        image = self.cache.open(shown) if self.cache else open_image(self.split, shown)
        mask = self.split.mask(shown)
        if mask.shape != (image.height, image.width):
            self.split.pair(shown)  # raises the data set's own error
            raise InputError(f"{self.split.name(shown)}: its image and its mask differ in size")
        window = self.augmentation.window(image.height, image.width, rng, center)
        return self.augmentation.crop(image.corner(*window.corner()), mask, window, rng)

    def name(self, key: tuple[int, int]) -> str:
        """Return the name of a sample's image."""
        return self.split.name(self._shown(*key)[0])

    def _shown(self, epoch: int, index: int) -> tuple[int, tuple[int, int] | None]:
        return self.class_uniform.choose(epoch, index) if self.class_uniform else (index, None)


class WholeImages(Dataset):
    """Whole images for validation: image float (3,h,w) at the network's scale, mask int64 (H,W) at its own."""

    def __init__(self, split: Split, *, image_scale: float) -> None:
        self.split, self.image_scale = split, image_scale

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.split.pair(index)
        return normalize(image, image_scale=self.image_scale), torch.from_numpy(mask.astype(np.int64))

    def name(self, index: int) -> str:
        """Return the name of an image."""
        return self.split.name(index)


def training_loader(
    samples: TrainingSamples,
    *,
    batch_size: int,
    workers: int,
    timeout: float = LOADER_TIMEOUT,
    skip_bad: bool = False,
    pinned: bool = False,
) -> Batches:
    """Return a loader of the batches of whole steps; set `loader.sampler.epoch` before each pass.

    Where processes train together, each gets its share of the `batch_size` samples of a step. A smaller split gives one
    step of all its images. With `skip_bad`, an unreadable sample is replaced by the next, with a warning; `pinned`
    batches lie in memory that a GPU copies from. Raises ParameterError when the samples of a step cannot be divided
    equally.
    """
    rank, ranks, _ = place()
    check_batch_size(batch_size, processes=ranks)
    batch_size = min(batch_size, len(samples)) // ranks
    if not batch_size:
        raise ParameterError(f"processes={ranks}: more than the {len(samples)} training images")
    sampler = EpochSampler(len(samples), batch_size, seed=samples.seed, rank=rank, ranks=ranks)
    checked = CheckedSamples(samples, skip=skip_bad)
    return _batches(checked, batch_size=batch_size, sampler=sampler, workers=workers, timeout=timeout, pinned=pinned)


def validation_loader(
    images: WholeImages, *, workers: int, timeout: float = LOADER_TIMEOUT, pinned: bool = False
) -> Batches:
    """Return a loader of single images in the split's order, so that sizes may differ; each process gets its share."""
    rank, ranks, _ = place()
    shared = Subset(images, range(rank, len(images), ranks))
    samples = CheckedSamples(shared)
    return _batches(samples, batch_size=1, sampler=None, workers=workers, timeout=timeout, pinned=pinned)


@contextmanager
def opened_batches(
    parameters: TrainParameters, training: Split, validation: Split
) -> Iterator[tuple[Batches, Batches]]:
    """Yield a run's batches: crops, in an order that is a function of the seed, and whole validation images.

    Their workers end with the block. What torch says of one that died before is translated, wherever it is raised.
    """
    p, pinned = parameters, choose_device(parameters.device).type == "cuda"
    loading = {"workers": p.workers, "timeout": p.loader_timeout, "pinned": pinned}
    skip_bad = p.on_bad_sample == "skip"
    crops = training_loader(make_samples(p, training), batch_size=p.batch_size, skip_bad=skip_bad, **loading)
    whole = validation_loader(WholeImages(validation, image_scale=p.image_scale), **loading)
    with closing(crops), closing(whole), explain_worker_errors(p.loader_timeout, crops.next_names):
        yield crops, whole


def _batches(samples: CheckedSamples, *, workers: int, timeout: float, pinned: bool, **options) -> Batches:
    if workers:
        options |= {"persistent_workers": True, "timeout": timeout, "worker_init_fn": ignore_stop_signals}
    return Batches(
        DataLoader(
            samples,
            num_workers=workers,
            collate_fn=collate,
            generator=torch.Generator(),  # one of keeps it from using torch's global random state
            pin_memory=pinned,
            **options,
        )
    )


def make_samples(parameters: TrainParameters, split: Split) -> TrainingSamples:
    """Return a run's training crops, after finding class regions and decoding images if the parameters ask for it."""
    uniform, cache, skip_bad = None, None, parameters.on_bad_sample == "skip"
    if parameters.class_uniform:
        regions = class_regions(split, progress=parameters.progress, skip_bad=skip_bad)
        uniform = ClassUniform(regions, share=parameters.class_uniform, seed=parameters.seed)
    if parameters.decoded_cache:
        cache = DecodedCache(split)
        cache.prepare(progress=parameters.progress, skip_bad=skip_bad)
    augmentation = make_augmentation(parameters, split.pixel_rule)
    return TrainingSamples(split, augmentation, seed=parameters.seed, class_uniform=uniform, cache=cache)


def make_augmentation(parameters: TrainParameters, rule: PixelRule | None) -> Augmentation:
    """Return the augmentation of a run's training crops."""
    return Augmentation(
        parameters.crop_height,
        parameters.crop_width,
        image_scale=parameters.image_scale,
        scale_low=parameters.scale_low,
        scale_high=parameters.scale_high,
        color_jitter=parameters.color_jitter,
        scale_distribution=parameters.scale_distribution,
        blur=parameters.blur,
        rule=rule,
    )
