"""Order the images of a labeled split by what was predicted of them: worst mIoU or class, least sure, most disputed."""

import hashlib
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from cityscapes.dataset import Split
from cityscapes.errors import IntegrityError, MissingInputError, ParameterError
from cityscapes.files.atomic import write_text
from cityscapes.files.checksums import read_recorded, write_recorded
from cityscapes.files.images import read_ids
from cityscapes.files.untrusted import given_path
from cityscapes.workspace import output_folder
from dlv3p.data.fingerprints import file_state, image_fingerprint, labels_fingerprint
from dlv3p.data.parts import image_list
from dlv3p.data.roots import open_split, resolve_data_root
from dlv3p.evaluation.candidates import IDS, find_masks, from_folder, masks_of, read_stored
from dlv3p.evaluation.evaluate import data_name
from dlv3p.evaluation.results import RECORD
from dlv3p.parameters.notebooks import ExplorePredictionsParameters
from dlv3p.runs.folders import write_json
from dlv3p.runtime.progress import track

TABLE = "explored.csv"
CONFIDENCE, DISAGREEMENT = "confidence", "disagreement"
MOST_FOLDERS = 2


class Masks(NamedTuple):
    """A folder of predictions: its masks and their confidence in the order of the split, and what their ids are."""

    folder: Path
    paths: Sequence[Path]
    confidence: Sequence[Path]
    ids: str

    def read(self, index: int) -> np.ndarray:
        """Read the predicted train ids of an image."""
        return np.take(IDS[self.ids], read_ids(self.paths[index]))


class View(NamedTuple):
    """What is shown of an image: its pixels, its truth, and of each folder the classes and, if stored, confidence.

    `stored` are the ids as they stand in the files: several label ids are no class, and ignored in `predictions`.
    """

    image: Image.Image
    truth: np.ndarray
    stored: list[np.ndarray]
    predictions: list[np.ndarray]
    confidence: list[np.ndarray | None]


@dataclass(frozen=True)
class Exploration:
    """One or two folders of predictions of a split; only the scores of all images are held in memory."""

    split: Split
    masks: Sequence[Masks]
    progress: str = "auto"

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per image: scores of the first folder, then confidence and disagreement (shares) where known.

        It is made once, in a pass over all files, and stored; then it is read back until a file changes.
        """
        path, stamp = self.folder / TABLE, self._stamp
        stored = read_stored(path.with_suffix(".json")) or {}
        if path.is_file() and stored.get("made_from") == stamp:
            with suppress(OSError, ValueError, IntegrityError):
                table = _read_table(read_recorded(path))
                _warn(stored.get("changed", ""))
                return table
        table, changed = self._score()
        write_recorded(path, table.to_csv(index=False).encode())
        write_json(path.with_suffix(".json"), {"made_from": stamp, "changed": changed})
        _warn(changed)
        return table

    @property
    def footer(self) -> str:
        """What a picture of these predictions is of: their folders, and the images."""
        return " · ".join(["/".join(one.folder.parts[-2:]) for one in self.masks] + [data_name(self.split)])

    @property
    def keys(self) -> list[str]:
        """The columns by which images can be ordered."""
        return [name for name in self.table.columns if name not in ("image", "group")]

    def order(self, key: str) -> list[int]:
        """Return the images' indices, those to look at first in front: low scores, or high disagreement.

        Images in which a class does not occur come last. Raises ParameterError for a key that is none.
        """
        if key not in self.keys:
            raise ParameterError(f"sort={key!r}: allowed are {', '.join(self.keys)}")
        values = self.table[key].to_numpy()
        return np.argsort(-values if key == DISAGREEMENT else values, kind="stable").tolist()

    def view(self, index: int) -> View:
        """Read the files of one image."""
        image, truth = self.split.pair(index)
        stored = [read_ids(one.paths[index]) for one in self.masks]
        predictions = [np.take(IDS[one.ids], ids) for one, ids in zip(self.masks, stored, strict=True)]
        sure = [read_ids(one.confidence[index]) if one.confidence else None for one in self.masks]
        return View(image, truth, stored, predictions, sure)

    def export(self, indices: Sequence[int], path: Path) -> Path:
        """Write the paths of images as a list, one per line; raises ParameterError where there is none to write."""
        if not indices:
            raise ParameterError("no image is chosen; mark some with Choose")
        write_text(path, image_list(self.split, indices))
        return path

    @property
    def folder(self) -> Path:
        """Where the table and the list belong: a folder in `outputs/`, named after what is explored."""
        names = "_and_".join(one.folder.resolve().name[:60] for one in self.masks)
        where = [self.split.root, self.split.split, *(path for one in self.masks for path in one.paths[:1])]
        digest = hashlib.sha256("\0".join(map(str, where)).encode(errors="surrogateescape")).hexdigest()[:8]
        return output_folder(f"explored_{names}-{digest}")

    @property
    def _stamp(self) -> str:
        """A digest of what ids mean and of the names, sizes and times of all files, none of which is opened for it."""
        version = " ".join([TABLE, *(one.ids for one in self.masks)])
        digest = hashlib.sha256(labels_fingerprint(self.split, version=version).encode())
        for index in range(len(self.split)):
            digest.update(image_fingerprint(self.split, index).encode())
        for path in (path for one in self.masks for path in (*one.paths, *one.confidence)):
            digest.update(f"{file_state(path)}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _score(self) -> tuple[pd.DataFrame, str]:
        first = self.masks[0]
        scored = from_folder(first.folder, self.split, ids=first.ids, progress=self.progress)
        table = scored.counts.table()
        if first.confidence:
            table[CONFIDENCE] = self._measure(CONFIDENCE, self._mean_confidence)
        if len(self.masks) > 1:
            table[DISAGREEMENT] = self._measure(DISAGREEMENT, self._disagreement)
        return table, scored.changed

    def _measure(self, title: str, of_image: Callable[[int], float]) -> list[float]:
        indices = range(len(self.split))
        return [of_image(index) for index in track(indices, total=len(self.split), title=title, mode=self.progress)]

    def _mean_confidence(self, index: int) -> float:
        return float(read_ids(self.masks[0].confidence[index]).mean() / 255)

    def _disagreement(self, index: int) -> float:
        first, second = (one.read(index) for one in self.masks)
        return float((first != second)[self.split.mask(index) < self.split.num_classes].mean())


def _warn(changed: str) -> None:
    if changed:
        print(f"warning: {changed}", flush=True)


def _read_table(content: bytes) -> pd.DataFrame:
    """Read a stored table; an image or its folder may be called `NA` or `nan`, which pandas takes for missing."""
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    return table.apply(lambda column: column if column.name in ("image", "group") else pd.to_numeric(column))


def explore(config: ExplorePredictionsParameters, names: Sequence[str]) -> Exploration:
    """Open one or two folders of predictions of a labeled split."""
    if not 1 <= len(names) <= MOST_FOLDERS:
        raise ParameterError(f"predictions={' '.join(names)!r}: give one folder, or two to compare")
    split = open_split(resolve_data_root(config.data_root), config.split)
    return Exploration(split, [open_masks(Path(name), split, config.ids) for name in names], config.progress)


def open_masks(folder: Path, split: Split, ids: str = "train") -> Masks:
    """Find the masks of a split in a folder of any program, or in what `predict` wrote, whose record says which ids."""
    folder = given_path(folder)
    if not folder.is_dir():
        raise MissingInputError(f"predictions={str(folder)!r}: no such folder; predict.ipynb writes one")
    masks, ids = masks_of(folder, split, ids)
    paths = find_masks(masks, split)
    sure = [masks.parent / "confidence" / path.relative_to(masks) for path in paths]
    known = (masks.parent / RECORD).is_file() and all(path.is_file() for path in sure)
    return Masks(masks, paths, sure if known else (), ids)
