"""How far masks made from polygons agree with those that the data set brings along, frame by frame."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cityscapes.errors import InputError
from cityscapes.files.png_write import read_instance_png, read_label_png
from cityscapes.layout import (
    INSTANCE_IDS_SUFFIX,
    LABEL_IDS_SUFFIX,
    POLYGONS_SUFFIX,
    TRAIN_IDS_SUFFIX,
    Frame,
    find_frames,
)
from cityscapes.workers import number_of_workers

READERS = {
    LABEL_IDS_SUFFIX: read_label_png,
    TRAIN_IDS_SUFFIX: read_label_png,
    INSTANCE_IDS_SUFFIX: read_instance_png,
}
"""The masks that are compared, where both sides have them."""


@dataclass(frozen=True)
class Agreement:
    """One mask that both sides have: how many of its pixels differ; `problem` says why they cannot be compared."""

    frame: Frame
    suffix: str
    official: Path
    ours: Path
    differing: int = 0
    total: int = 0
    problem: str = ""

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Read the official mask and ours, integer (H, W) each and of one size; raises InputError."""
        ours = READERS[self.suffix](self.ours)
        return READERS[self.suffix](self.official, size=ours.shape), ours


def compare_masks(
    root: str | Path, splits: Sequence[str], generated: str | Path, *, workers: int = 0
) -> Iterator[Agreement]:
    """Compare every mask below `generated` with the provided one of the same frame and kind, in order.

    `workers` is the number of threads, 0 for one a core. Raises MissingInputError for a split without polygons; a
    damaged mask is a `problem`.
    """
    root, generated = Path(root), Path(generated)
    pairs = [
        Agreement(frame, suffix, official, ours)
        for split in splits
        for frame in find_frames(root, split, suffix=POLYGONS_SUFFIX)
        for suffix in READERS
        if (official := frame.annotation(root, suffix)).is_file()
        and (ours := frame.generated(generated, suffix)).is_file()
    ]
    with ThreadPoolExecutor(number_of_workers(workers)) as pool:
        yield from pool.map(_compare, pairs)


def _compare(pair: Agreement) -> Agreement:
    try:
        official, ours = pair.read()
    except InputError as error:
        return Agreement(pair.frame, pair.suffix, pair.official, pair.ours, problem=str(error))
    differing = int(np.count_nonzero(official != ours))
    return Agreement(pair.frame, pair.suffix, pair.official, pair.ours, differing, ours.size)
