"""Choose the order of an epoch's samples, and crops around rare classes, as functions of (seed, epoch, index).

For class-uniform crops one pass over the masks finds where each class lies, and the result is kept on disk. A mask is
divided into square regions, eight along its shorter side; a class in a region is represented by its pixel nearest to
the center of all its pixels there.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from cityscapes.compiled import compiled
from cityscapes.dataset import Split
from cityscapes.errors import InputError
from cityscapes.workspace import data_folder
from dlv3p.data.array_files import read_array, write_array
from dlv3p.data.fingerprints import labels_fingerprint
from dlv3p.runtime.progress import track

REGIONS_PER_SIDE = 8

Key = tuple[int, int]
"""The epoch and the index of a training sample."""


class Regions:
    """A table of representatives, int32 (N,4), by class: class, image, row and column."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table
        self.classes = np.unique(table[:, 0])
        """The classes that occur, in ascending order."""

    def of_class(self, number: int) -> np.ndarray:
        """Return image, row and column of each region of a class, int32 (n,3)."""
        start, end = np.searchsorted(self.table[:, 0], [number, number + 1])
        return self.table[start:end, 1:]


def class_regions(split: Split, *, progress: str = "auto", skip_bad: bool = False) -> Regions:
    """Find the regions of a split's classes, or read them from the cache for the same masks.

    With `skip_bad`, an unreadable mask has none.
    """
    fingerprint = labels_fingerprint(split, version=f"2 {REGIONS_PER_SIDE}")
    path = data_folder() / "class_regions" / f"{fingerprint[:32]}.npy"
    table = read_array(path)
    if table is None or table.dtype != np.int32 or table.ndim != 2 or table.shape[1] != 4:
        table = find_regions(split, progress=progress, skip_bad=skip_bad)
        write_array(path, table)
    return Regions(np.array(table))


def find_regions(split: Split, *, progress: str = "none", skip_bad: bool = False) -> np.ndarray:
    """Find the regions in all masks of a split; return the table of `Regions`."""
    tables = [np.empty((0, 4), np.int32)]
    for index in track(range(len(split)), title="find class regions", mode=progress):
        try:
            mask = np.ascontiguousarray(split.mask(index))
        except InputError:
            if not skip_bad:
                raise
            continue
        side = max(1, -(-min(mask.shape) // REGIONS_PER_SIDE))
        found = find_representatives(mask, split.num_classes, side)
        tables.append(np.insert(found, 1, index, axis=1))
    table = np.concatenate(tables)
    return table[np.argsort(table[:, 0], kind="stable")]


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random generator of one sample: counter-based, keyed by seed, epoch and index."""
    return _generator(seed, (epoch << 40) | index)


def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """Return the order in which an epoch visits the samples: a permutation that depends on (seed, epoch) alone."""
    return _generator(seed, (1 << 63) | epoch).permutation(length)


def _generator(seed: int, counter: int) -> np.random.Generator:
    # numpy would convert a list with 2^63 to floating point, and round the epoch away.
    return np.random.Generator(np.random.Philox(key=np.array([seed, counter], np.uint64)))


class EpochSampler(Sampler):
    """Yield the (epoch, index) keys of the current `epoch`, cut to whole steps of all ranks.

    A step takes `batch_size` keys of each of `ranks`; of its keys, rank r has every `ranks`-th from the r-th on:
    together the ranks see what one alone would. The first `skipped` steps are left out, for a run that resumes within
    an epoch.
    """

    def __init__(self, length: int, batch_size: int, *, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.length, self.seed, self.rank, self.ranks = length, seed, rank, ranks
        self.epoch = self.skipped = 0
        self.together = batch_size * ranks
        self.used = length - length % self.together

    def __iter__(self) -> Iterator[Key]:
        first = self.skipped * self.together + self.rank
        for index in epoch_order(self.seed, self.epoch, self.length)[first : self.used : self.ranks]:
            yield self.epoch, int(index)

    def __len__(self) -> int:
        return self.used // self.ranks

    def step_keys(self, step: int) -> list[Key]:
        """Return the keys that all ranks together see in `step` of the run, counted from 0, in the current epoch."""
        order, step = epoch_order(self.seed, self.epoch, self.length), step % (self.used // self.together)
        return [(self.epoch, index) for index in order[step * self.together : (step + 1) * self.together].tolist()]


class ClassUniform:
    """Favor rare classes: a `share` of an epoch's samples is centered on a pixel of a uniformly drawn class.

    All classes that occur in the split are equally likely, then all regions of the class (see `class_regions`).
    NVIDIA's semantic-segmentation introduced the idea for Cityscapes. The other samples stay as they are.
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


def find_representatives(ids: np.ndarray, classes: int, side: int) -> np.ndarray:
    """Return class, row and column of a pixel for each class in each square of `side` pixels, int32 (n,3).

    `ids` is uint8 (H,W); ids from `classes` on are skipped. The pixel is the one nearest to their center.
    """
    squares = [-(-length // side) for length in ids.shape]
    sums = np.zeros((classes, *squares, 3), np.int64)
    best = np.full_like(sums, np.iinfo(np.int64).max)
    _find_nearest(ids, side, sums, best)
    found = sums[..., 0] > 0
    return np.column_stack([np.nonzero(found)[0], best[found][:, 1:]]).astype(np.int32)


@compiled("void(Array(uint8, 2, 'C', readonly=True), int64, int64[:, :, :, ::1], int64[:, :, :, ::1])")
def _find_nearest(ids, side, sums, best):
    """Fill `sums` with pixels, rows and columns added up, `best` with distance, row and column of the nearest pixel."""
    height, width = ids.shape
    for y in range(height):
        for j in range(sums.shape[2]):
            for x in range(j * side, min((j + 1) * side, width)):
                if ids[y, x] < len(sums):
                    of = sums[ids[y, x], y // side, j]
                    of[0] += 1
                    of[1] += y
                    of[2] += x
    for y in range(height):
        for j in range(sums.shape[2]):
            for x in range(j * side, min((j + 1) * side, width)):
                if ids[y, x] < len(sums):
                    of, nearest = sums[ids[y, x], y // side, j], best[ids[y, x], y // side, j]
                    down, across = y * of[0] - of[1], x * of[0] - of[2]
                    distance = down * down + across * across
                    if distance < nearest[0]:
                        nearest[0], nearest[1], nearest[2] = distance, y, x
