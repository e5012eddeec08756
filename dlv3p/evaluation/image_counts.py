"""Keep the confusion counts of every image of an evaluation, so that runs can be compared image by image later.

`evaluation_images.npz` holds plain arrays: `names` and `groups` (N,) and `class_names` (C,) as text, and for each cell
of an image's confusion matrix that is not zero one entry in `image`, `truth`, `prediction` (indices) and `pixels`.
`evaluation_images.csv` has a row per image: name, group, mIoU, pixel accuracy and the IoU of each class.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd

from cityscapes.dataset import Split
from cityscapes.errors import InputError, MissingInputError, UserError, reason
from cityscapes.files.atomic import write_bytes
from cityscapes.files.untrusted import check_row, regular, why_no_heading
from dlv3p.evaluation.metrics import scores

NO_GROUP = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>"})
"""What a table holds where a value is missing."""


@dataclass(frozen=True)
class ImageCounts:
    """Confusion counts by image; `cells` are (image, truth, prediction, pixels), int64 (M,4), without zeros."""

    names: tuple[str, ...]
    groups: tuple[str, ...]
    class_names: tuple[str, ...]
    cells: np.ndarray

    @classmethod
    def of(cls, split: Split, confusions: Sequence[np.ndarray], class_names: Sequence[str]) -> "ImageCounts":
        """Take the confusion matrices, int (C,C) each, of a split's images in their order."""
        cells = [np.argwhere(confusion) for confusion in confusions]
        entries = [
            np.column_stack([np.full(len(places), image), places, confusion[tuple(places.T)]])
            for image, (places, confusion) in enumerate(zip(cells, confusions, strict=True))
        ]
        indices = range(len(split))
        names, groups = tuple(map(split.name, indices)), tuple(map(split.group, indices))
        return cls(names, groups, tuple(class_names), np.concatenate([np.empty((0, 4), np.int64), *entries]))

    def confusions(self) -> np.ndarray:
        """Return the confusion matrices of all images: int64 (N,C,C)."""
        classes = len(self.class_names)
        dense = np.zeros((len(self.names), classes, classes), np.int64)
        dense[tuple(self.cells[:, :3].T)] = self.cells[:, 3]
        return dense

    def table(self) -> pd.DataFrame:
        """Return a row per image: image, group, mIoU, pixel_accuracy, and the IoU of each class, nan where absent."""
        rows = []
        for name, group, confusion in zip(self.names, self.groups, self.confusions(), strict=True):
            one = scores(confusion)
            iou = dict(zip((f"IoU {name}" for name in self.class_names), one.iou, strict=True))
            rows.append(
                {"image": name, "group": group, "mIoU": one.mean_iou, "pixel_accuracy": one.pixel_accuracy, **iou}
            )
        return pd.DataFrame(rows)

    def save(self, path: Path) -> None:
        """Write the counts as compressed NumPy arrays."""
        texts = {name: np.array(getattr(self, name), dtype=str) for name in ("names", "groups", "class_names")}
        image, truth, prediction, pixels = self.cells.T
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **texts, image=image, truth=truth, prediction=prediction, pixels=pixels)
        write_bytes(path, buffer.getvalue())


def read_image_counts(path: Path) -> ImageCounts:
    """Read what `ImageCounts.save` wrote; raises InputError for another or a damaged file."""
    try:
        with np.load(regular(path), allow_pickle=False) as arrays:
            texts = [tuple(arrays[name].tolist()) for name in ("names", "groups", "class_names")]
            cells = np.column_stack([arrays[name] for name in ("image", "truth", "prediction", "pixels")])
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such file; evaluate the run again to write it") from error
    except (UserError, MemoryError):
        raise
    except Exception as error:  # zlib.error, BadZipFile, ValueError, EOFError, ... all mean damage
        raise InputError(f"{path}: not the counts of an evaluation ({reason(error)}); evaluate again") from error
    counts = ImageCounts(*texts, cells.astype(np.int64))
    most = np.array([len(counts.names), len(counts.class_names), len(counts.class_names)])
    if len(counts.groups) != most[0] or (cells[:, :3] >= most).any() or (cells < 0).any():
        raise InputError(f"{path}: counts of images or classes that it does not name; evaluate again")
    return counts


def read_groups(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Read the group of each image from a CSV table with the columns image and group; raises InputError."""
    group: dict[str, str] = {}
    try:
        with open(regular(path), newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {"image", "group"} <= set(rows.fieldnames or ()):
                why = why_no_heading(rows.fieldnames)
                raise InputError(f"{path}: not a table with the columns image,group in its first line{why}")
            for row in rows:
                check_row(row, f"{path}, line {rows.line_num}")
                image, group_name = (normalize("NFC", row[name] or "") for name in ("image", "group"))
                if image in group:
                    raise InputError(f"{path}: duplicate image {image!r}")
                group[image] = group_name.strip()
                if group[image].casefold() in NO_GROUP:
                    raise InputError(
                        f"{path}, line {rows.line_num}: {group_name!r} is no group of the image {image!r}, and images "
                        "without one would count as one block; name what it belongs to, or a group of its own"
                    )
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: no such table of groups; its columns are image,group") from error
    except InputError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path}: not a table with the columns image,group ({reason(error)}); save it as CSV in UTF-8"
        ) from error
    if absent := [name for name in names if normalize("NFC", name) not in group]:
        raise InputError(f"{path}: names no group of {len(absent)} images, the first {absent[0]!r}")
    return tuple(group[normalize("NFC", name)] for name in names)
