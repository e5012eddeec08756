"""The layout of a Cityscapes data set: where its files are, and how they are named.

`<root>/leftImg8bit/<split>/<city>/<city>_<seq>_<frame>_leftImg8bit.png` and
`<root>/gtFine/<split>/<city>/<city>_<seq>_<frame>_gtFine_<kind>`, with six digits for sequence and frame.
"""

import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from cityscapes.errors import MissingInputError, ParameterError
from cityscapes.workspace import data_folder, demo_city_folder

ROOT_VARIABLE = "CITYSCAPES_DATASET"
"""The environment variable that names the data set's root, the same as for the official tools."""

SPLITS = ("train", "val", "test")

LONGEST_SPLIT = 180
"""Bytes of the longest name of a split: names of results, of at most 255 bytes, hold it among other words."""

IMAGE_SUFFIX = "_leftImg8bit.png"
POLYGONS_SUFFIX = "_gtFine_polygons.json"
LABEL_IDS_SUFFIX = "_gtFine_labelIds.png"
TRAIN_IDS_SUFFIX = "_gtFine_labelTrainIds.png"
COLOR_SUFFIX = "_gtFine_color.png"
INSTANCE_IDS_SUFFIX = "_gtFine_instanceIds.png"

_NAME = re.compile(r"(?P<city>[A-Za-z][A-Za-z-]*)_(?P<sequence>\d{6})_(?P<frame>\d{6})")
_PREDICTION_NAME = re.compile(r"([A-Za-z][A-Za-z-]*_[0-9]{6}_[0-9]{6})(?![0-9])[A-Za-z0-9._-]*\.png")
File = TypeVar("File")
MatchedFile = tuple[str, tuple[str, File]]
"""An image, and the (name, file) found for it."""


class Frame(NamedTuple):
    """One image of the data set; tuples sort by split, city, sequence and frame, which is the order of a drive.

    Frames of other data sets, whose names mean nothing here, have their whole name as `frame` and no `sequence`.
    """

    split: str
    city: str
    sequence: str
    frame: str

    @property
    def name(self) -> str:
        """The stem that all files of the frame share, such as `aachen_000000_000019`."""
        return f"{self.city}_{self.sequence}_{self.frame}" if self.sequence else self.frame

    def image(self, root: Path) -> Path:
        """Return the path of the camera image below the data set's root."""
        return root / "leftImg8bit" / self.split / self.city / (self.name + IMAGE_SUFFIX)

    def annotation(self, root: Path, suffix: str) -> Path:
        """Return the path of a provided annotation, for example `annotation(root, POLYGONS_SUFFIX)`."""
        return root / "gtFine" / self.split / self.city / (self.name + suffix)

    def generated(self, output: Path, suffix: str) -> Path:
        """Return the path of a generated mask below `output`: `<output>/<split>/<city>/<name><suffix>`."""
        return output / self.split / self.city / (self.name + suffix)


def check_splits(splits: Sequence[str]) -> list[str]:
    """Return the splits, each once; raises ParameterError for an empty list, and for a name in place of a list."""
    if isinstance(splits, str) or not splits:
        raise ParameterError(f"splits is {splits!r}; give a list of splits, such as ['train', 'val']")
    return list(dict.fromkeys(splits))


def check_split_name(split: str) -> None:
    """Refuse a name that leads elsewhere: what is made from a split lies in folders named after it.

    Raises ParameterError for an empty or absolute name, a backslash, a control character, or a part with a leading dot,
    and for a name that is too long.
    """
    if "\\" in split or not split.isprintable() or any(not part or part[0] == "." for part in split.split("/")):
        raise ParameterError(
            f"split={split!r}: expected the name of a folder of the data set, such as 'val', with no part "
            "that is empty or begins with '.'"
        )
    if len(split.encode()) > LONGEST_SPLIT:
        raise ParameterError(f"split={split[:40]!r}...: too long for the name of a folder")


def find_frames(root: Path, split: str, *, suffix: str = IMAGE_SUFFIX, any_name: bool = False) -> list[Frame]:
    """List the frames of one split, sorted, from the files that end in `suffix` (images, or polygons).

    `any_name` takes other data sets' `<folder>/<any name><suffix>` as well. Raises MissingInputError when the split's
    folder is absent or holds no such file.
    """
    check_split_name(split)
    folder = root / ("leftImg8bit" if suffix == IMAGE_SUFFIX else "gtFine") / split
    if not folder.is_dir():
        found = sorted(entry.name for entry in folder.parent.iterdir()) if folder.parent.is_dir() else []
        here = f"which holds {', '.join(found)}" if found else "which is missing or empty"
        raise MissingInputError(
            f"{folder}: no such split in {folder.parent}, {here}. A Cityscapes root holds leftImg8bit/ and "
            f"gtFine/ with the splits {', '.join(SPLITS)}"
        )
    paths = [path for path in folder.glob(f"*/*{suffix}") if not _is_hidden(path)]
    found = [frame_of(path, split, suffix) for path in paths]
    if any_name:
        other = [Frame(split, path.parent.name, "", path.name.removesuffix(suffix)) for path in paths]
        found = [frame or name for frame, name in zip(found, other, strict=True)]
    frames = [frame for frame in found if frame is not None]
    if not frames:
        name = "<folder>/<name>" if any_name else "<city>/<city>_<seq>_<frame>"
        raise MissingInputError(f"{folder}: holds no file named {name}{suffix}")
    return sorted(frames)


def choose_drive(frames: Sequence[Frame], city: str, sequence: str) -> list[int]:
    """Return the indices of the frames of a city, a sequence, or both; "" takes all.

    Raises MissingInputError that names the drives there are.
    """
    chosen = [
        index for index, frame in enumerate(frames) if city in ("", frame.city) and sequence in ("", frame.sequence)
    ]
    if not chosen:
        drives = sorted({f"{frame.city} {frame.sequence}" for frame in frames})
        raise MissingInputError(
            f"city={city!r}, sequence={sequence!r}: not in {frames[0].split}; choose from {', '.join(drives[:20])}"
        )
    return chosen


PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""The suffixes of images, most of which are not read."""


def list_misnamed_images(root: Path, split: str) -> list[Path]:
    """Return the images of a split that `find_frames` leaves out for their type, their name or their folder, sorted."""
    folder = root / "leftImg8bit" / split
    paths = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if not _is_hidden(path)]
    pictures = [path for path in paths if path.suffix.lower() in PICTURES and path.is_file()]
    return sorted(path for path in pictures if frame_of(path, split, IMAGE_SUFFIX) is None)


def list_frames_without_image(root: Path, split: str, frames: Collection[Frame]) -> list[Frame]:
    """Return the frames of a split that have polygons or label ids and are not among `frames`, sorted."""
    annotated: set[Frame] = set()
    for suffix in (POLYGONS_SUFFIX, LABEL_IDS_SUFFIX):
        with suppress(MissingInputError):
            annotated |= set(find_frames(root, split, suffix=suffix))
    return sorted(annotated - set(frames))


def _is_hidden(path: Path) -> bool:
    """Return whether a file or its folder is hidden, as .ipynb_checkpoints is."""
    return path.name.startswith(".") or path.parent.name.startswith(".")


def frame_of(path: Path, split: str, suffix: str) -> Frame | None:
    """Return the frame that a file belongs to, None where its name or its city's folder does not fit."""
    match = _NAME.fullmatch(path.name.removesuffix(suffix))
    if match is None or not path.name.endswith(suffix) or match["city"] != path.parent.name:
        return None
    return Frame(split, match["city"], match["sequence"], match["frame"])


def default_root() -> Path:
    """Return the data set's root where none is given.

    `$CITYSCAPES_DATASET` when it is set; else the first of `data/` and `data/cityscapes/` that holds `gtFine/`; else
    `data/demo_city/`, the embedded city, which may not be written yet.
    """
    if os.environ.get(ROOT_VARIABLE):
        return Path(os.path.expanduser(os.environ[ROOT_VARIABLE]))
    for folder in (data_folder(), data_folder() / "cityscapes"):
        if (folder / "gtFine").is_dir():
            return folder
    return demo_city_folder()


def match_names(files: Sequence[tuple[str, File]], expected: Collection[str]) -> tuple[list[MatchedFile], list[str]]:
    """Pair (name, file) with the images called `expected`, such as `aachen_000000_000019`.

    Return (image, (name, file)) where there is exactly one, sorted by name, and problems: missing, extra, duplicate.
    """
    problems = []
    wanted: dict[str, list[tuple[str, File]]] = {image: [] for image in expected}
    for name, file in files:
        match = _PREDICTION_NAME.fullmatch(name)
        if match and match[1] in wanted:
            wanted[match[1]].append((name, file))
        else:
            problems.append(f"{name!r}: extra; no image of the split has this name")
    for image, matches in wanted.items():
        if not matches:
            problems.append(f"{image}*.png: missing")
        elif len(matches) > 1:
            names = ", ".join(name for name, _ in matches[:4])
            problems.append(f"{image}*.png: {len(matches)} files, one is allowed: {names}")
    matched = [(image, matches[0]) for image, matches in wanted.items() if len(matches) == 1]
    return sorted(matched, key=lambda item: item[1][0]), problems
