"""Which samples an epoch has, and in which order: functions of (seed, epoch, index), whatever crashes and restarts."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from dlv3p.data.class_regions import Regions


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random generator of one sample: a counter-based one, keyed by what the sample is."""
    return _generator(seed, (epoch << 40) | index)


def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """Return the order in which an epoch visits the samples: a permutation that depends on (seed, epoch) alone."""
    return _generator(seed, (1 << 63) | epoch).permutation(length)


def _generator(seed: int, counter: int) -> np.random.Generator:
    # A plain list would become floating point at 2^63, and the epoch would be rounded away.
    return np.random.Generator(np.random.Philox(key=np.array([seed, counter], np.uint64)))


class EpochSampler(Sampler):
    """Yields the (epoch, index) keys of the epoch that `epoch` is set to, cut to whole steps of all ranks.

    A step takes `batch_size` keys of each of `ranks`; of its keys, rank r has every `ranks`-th from the r-th on:
    together the ranks see what one alone would. The first `skipped` steps are left out, which a run that goes on within
    an epoch has behind it.
    """

    def __init__(self, length: int, batch_size: int, *, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.length, self.seed, self.rank, self.ranks = length, seed, rank, ranks
        self.epoch = self.skipped = 0
        self.together = batch_size * ranks
        self.used = length - length % self.together

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.skipped * self.together + self.rank
        for index in self.step_indices()[first : self.used : self.ranks]:
            yield self.epoch, int(index)

    def __len__(self) -> int:
        return self.used // self.ranks

    def step_indices(self, step: int | None = None) -> np.ndarray:
        """Return the epoch's order, or the part that all ranks together see in `step`, counted from 0."""
        order = epoch_order(self.seed, self.epoch, self.length)
        return order if step is None else order[step * self.together : (step + 1) * self.together]


class ClassUniform:
    """Lifts rare classes: of an epoch's samples, a `share` looks at a pixel of a class that is drawn uniformly.

    All classes that occur in the split are as likely, then all regions of the class (see `class_regions`); NVIDIA's
    semantic-segmentation introduced the idea for Cityscapes. The other samples are those of an epoch without it.
    """

    def __init__(self, regions: Regions, *, share: float, seed: int) -> None:
        self.regions, self.share, self.seed = regions, share, seed

    def choose(self, epoch: int, index: int) -> tuple[int, tuple[int, int] | None]:
        """Return the image that sample `index` of an epoch shows, and the row and column to center it on, or None."""
        rng = _generator(self.seed, (1 << 62) | (epoch << 40) | index)
        classes = self.regions.classes
        if rng.random() >= self.share or not len(classes):
            return index, None
        places = self.regions.of_class(int(rng.choice(classes)))
        image, row, column = places[rng.integers(len(places))].tolist()
        return image, (row, column)
