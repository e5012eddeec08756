"""Find and read the ground truth of predictions: label ids and instance ids of each frame of a labeled split."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import InputError, MissingInputError
from cityscapes.files.listing import walk
from cityscapes.layout import INSTANCE_IDS_SUFFIX, LABEL_IDS_SUFFIX, POLYGONS_SUFFIX, SPLITS, Frame

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (LABEL_IDS_SUFFIX, INSTANCE_IDS_SUFFIX, POLYGONS_SUFFIX)


@dataclass(frozen=True)
class TruthFiles:
    """The files of one frame: masks, and polygons to draw missing ones; None for a file that is missing."""

    name: str
    label_ids: Path | None
    instance_ids: Path | None
    polygons: Path | None

    @property
    def has_instances(self) -> bool:
        """Whether there are instances, and so an iIoU."""
        return self.instance_ids is not None or self.polygons is not None

    def read(self) -> tuple["np.ndarray", "np.ndarray | None"]:
        """Read or draw label ids, uint8 (H, W), and instance ids, uint16 (H, W) or None; raises InputError."""
        from cityscapes.files.png_read import read_instance_image, read_label_image
        from cityscapes.masks.draw import draw_with_instances
        from cityscapes.masks.polygons import read_polygons

        label_ids = None if self.label_ids is None else read_label_image(self.label_ids)
        if self.instance_ids is not None:
            instance_ids = read_instance_image(self.instance_ids)
        elif self.polygons is not None:
            drawn, instance_ids = draw_with_instances(read_polygons(self.polygons), self.polygons)
            label_ids = drawn if label_ids is None else label_ids
        else:
            instance_ids = None
        if label_ids is None:
            raise MissingInputError(f"{self.name}: has neither {LABEL_IDS_SUFFIX} nor {POLYGONS_SUFFIX}")
        return label_ids, instance_ids


def truth_of_frames(
    frames: Sequence[Frame], root: Path, generated: Path, foreign: Collection[str] = ()
) -> dict[str, TruthFiles] | None:
    """Find each frame's truth below a Cityscapes root and among generated masks, by the frame's name.

    None where any frame lacks it, and for the test split, whose published annotations are dummies. Generated masks of
    the cities in `foreign` are those of another data set.
    """
    found = {frame.name: _truth_of(frame, root, generated, foreign) for frame in frames if frame.split != "test"}
    labeled = all(files.label_ids or files.polygons for files in found.values())
    return found if labeled and len(found) == len(frames) else None


def _truth_of(frame: Frame, root: Path, generated: Path, foreign: Collection[str]) -> TruthFiles:
    def there(path: Path) -> Path | None:
        return path if path.is_file() else None

    own = TruthFiles(frame.name, *(there(frame.annotation(root, suffix)) for suffix in SUFFIXES))
    if own.label_ids or own.polygons or frame.city in foreign:
        return own  # drawn from polygons: generated masks may belong to another data set
    return TruthFiles(frame.name, *(there(frame.generated(generated, suffix)) for suffix in SUFFIXES))


def find_truth(folder: Path, split: str | None = None) -> list[TruthFiles]:
    """List the labeled frames of a Cityscapes root, of its gtFine/, of one split or city, or of generated masks.

    `split` chooses among the splits of a folder that has some; by default val. Raises MissingInputError where nothing
    is found, InputError for a duplicate frame.
    """
    base = _split_folder(Path(folder), split)
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in walk(base):
        for suffix in SUFFIXES:
            if path.name.endswith(suffix):
                found[path.name.removesuffix(suffix)][suffix].append(path)
    frames = []
    for name in sorted(found):
        for paths in found[name].values():
            if len(paths) > 1:
                raise InputError(f"{paths[0]}: is also at {paths[1]}; give the folder of only one of them")
        files = TruthFiles(name, *(next(iter(found[name][suffix]), None) for suffix in SUFFIXES))
        if files.label_ids or files.polygons:
            frames.append(files)
    if not frames:
        raise MissingInputError(
            f"{base}: holds no <city>_<seq>_<frame>{LABEL_IDS_SUFFIX} and no {POLYGONS_SUFFIX}; "
            "give a Cityscapes root, one split of its gtFine/, or a folder of generated masks"
        )
    return frames


def _split_folder(folder: Path, split: str | None) -> Path:
    if not folder.is_dir():
        raise MissingInputError(f"{folder}: no such folder of ground truth")
    for parent in (folder / "gtFine", folder):
        there = [name for name in SPLITS if (parent / name).is_dir()]
        if there and (split or "val") not in there:
            raise MissingInputError(
                f"{parent}: has no split {split or 'val'}, only {', '.join(there)}; choose one with --split"
            )
        if there:
            return parent / (split or "val")
    if split and folder.name != split:
        raise MissingInputError(f"{folder}: holds no folder {split}; give one that does, or omit --split")
    return folder
