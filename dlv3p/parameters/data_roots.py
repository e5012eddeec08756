"""Find the data that a `data_root` parameter means, without opening it, and the nearest folder where there is none.

Whether it has a split, its folders tell. All this needs nothing heavy, so that a misspelt folder or split is refused
together with the other parameters.
"""

import difflib
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from cityscapes.errors import MissingInputError, ParameterError
from cityscapes.files.untrusted import given_path
from cityscapes.layout import SPLITS, check_split_name, choose_drive, find_frames
from cityscapes.workspace import data_folder, demo_city_folder, workspace
from dlv3p.parameters.base import several, text

DEMO_CITY = "demo_city"
"""The embedded city."""
DEMO_VOC = "demo_voc"
"""The embedded PASCAL VOC."""
MISLABELED_CITY = "mislabeled_city"
"""The embedded city with wrong polygons, for a search for label errors to find."""
FLAWED_FOLDER = "flawed_folder"
"""An embedded plain folder with flaws for the audit to find."""
EMBEDDED = (DEMO_CITY, DEMO_VOC, FLAWED_FOLDER, MISLABELED_CITY)
"""The data roots that are no folders of one's own: their data is drawn on first use."""
EMBEDDED_SPLITS = {
    DEMO_CITY: SPLITS,
    DEMO_VOC: ("train", "val", "trainval"),
    FLAWED_FOLDER: ("train", "val"),
    MISLABELED_CITY: ("train", "val"),
}
"""The splits of each, whose folders do not tell before they are drawn, nor where drawing them was interrupted."""

AUGMENTED_TRAIN = "train_aug"
"""The list of PASCAL VOC's images to train on together with SBD's, which is yet to be made where it is missing."""
FOLD = re.compile(r"(?P<split>.+)\.(?P<kind>fold|without)(?P<fold>\d{1,3})of(?P<folds>\d{1,3})")
"""The name of a fold of a split, see `dlv3p/data/parts.py`."""
KITS = ("", "VOC2012/", "VOCdevkit/VOC2012/")
"""Where the development kit of PASCAL VOC may lie below its root."""

Root = Path | str
"""The root of a data set: a folder, or for shards a URL."""


def data_root_field(default: str, help: str) -> Any:
    """Return a field that takes a data root, which has to exist once a notebook or a command begins."""
    return text(default, help, find=find_data_root)


def data_of_run_field() -> Any:
    """Return the field that takes another data set than the run's."""
    return data_root_field("", "a data set other than the run's; \"\" is the run's own")


def split_field(default: str, help: str, *, unless: str = "") -> Any:
    """Return a field that takes a split, which `data_root` has to have, where the field `unless` is not set."""
    return text(default, help, find=find_split, within="data_root", unless=unless)


def splits_field(default: str, help: str) -> Any:
    """Return a field that takes one split or several of `data_root`."""
    return several(default, help, least=1, find=find_split, within="data_root")


def is_url(root: Root) -> bool:
    """Return whether a data root is a URL, such as s3://bucket/shards."""
    return "://" in str(root)


def embedded_folder(data_root: str) -> Path:
    """Return the folder of an embedded data root, which may not be drawn yet."""
    return demo_city_folder() if data_root == DEMO_CITY else data_folder() / data_root


def find_data_root(data_root: str) -> Root:
    """Return the folder of a data root, which of an embedded one may not be drawn yet; a URL as it is.

    A relative path starts at the current folder, else at the workspace; `~` and `$VARIABLES` are expanded. Raises
    MissingInputError, with the nearest name, where there is no such folder.
    """
    if data_root in EMBEDDED:
        return embedded_folder(data_root)
    if is_url(data_root):
        return data_root
    expanded = given_path(data_root, variables=True)
    candidates = [expanded.absolute(), workspace() / expanded]
    for folder in candidates:
        if folder.is_dir():
            return folder.resolve()
    if file := next((path for path in candidates if path.is_file()), None):
        raise MissingInputError(
            f"data_root={data_root!r}: a file, not a folder of data; of annotations, make one with: "
            f"dlv3p annotations prepare {shlex.quote(str(file))}"
        )
    near = [*difflib.get_close_matches(data_root, EMBEDDED, n=1), *filter(None, map(_nearest, candidates))]
    hint = f"; did you mean {str(near[0])!r}? Allowed are" if near else "; allowed are"
    raise MissingInputError(
        f"data_root={data_root!r}: no such folder{hint} {DEMO_CITY!r}, {DEMO_VOC!r}, and folders of data (Cityscapes, "
        "PASCAL VOC, a plain folder, shards: docs/data.md)"
    )


def find_split(split: str, data_root: str, parameter: str) -> None:
    """Raise MissingInputError, with the nearest name, for a split that the folders of a data root do not have.

    Where only opening the data could tell, as behind a URL, nothing is raised. Raises ParameterError for a name that is
    none of a split.
    """
    check_split_name(split)
    fold = FOLD.fullmatch(split)
    name, found = fold["split"] if fold else split, _splits_of(data_root)
    if not found or name in found or "/" in name or name == AUGMENTED_TRAIN:
        return
    near = difflib.get_close_matches(name, found, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise MissingInputError(
        f"{parameter}={split!r}: no such split; {hint}{find_data_root(data_root)} has {', '.join(sorted(found))}"
    )


def find_drive(city: str, sequence: str, data_root: str, split: str) -> None:
    """Raise a user's error for a city or a sequence that the files of a data root do not have in a split.

    Where only opening the data could tell, as of an embedded city that is not drawn yet, nothing is raised.
    """
    if not (city or sequence) or not data_root:
        return
    root = find_data_root(data_root)
    if data_root == DEMO_CITY:
        from cityscapes.demo.city import is_finished

        if not is_finished(Path(root)):
            return
    if data_root in {*EMBEDDED} - {DEMO_CITY} or is_url(root) or not (Path(root) / "leftImg8bit").is_dir():
        raise ParameterError(f"city={city!r}, sequence={sequence!r}: {root} has no drives; leave both empty")
    if not FOLD.fullmatch(split):
        choose_drive(find_frames(Path(root), split), city, sequence)


def _splits_of(data_root: str) -> set[str]:
    """Return the splits of a data root, by the folders and lists that each layout keeps them in; none if unknown."""
    with suppress(MissingInputError, OSError):
        if data_root in EMBEDDED_SPLITS:
            return {*EMBEDDED_SPLITS[data_root]}
        root = find_data_root(data_root) if data_root else ""
        if root and not is_url(root):
            return _splits_below(Path(root))
    return set()


def _splits_below(root: Path) -> set[str]:
    """Return the splits of a folder; the layouts are in the order of `KINDS` in `dlv3p/data/roots.py`."""
    folders = [root / kind for kind in ("leftImg8bit", "gtFine")]
    layouts = (
        {path.parent.name for path in root.glob("*/index.json")},
        {entry.name for folder in folders if folder.is_dir() for entry in folder.iterdir() if entry.is_dir()},
        {path.stem for kit in KITS for path in root.glob(f"{kit}ImageSets/Segmentation/*.txt")},
        {entry.name for entry in root.glob("images/*") if entry.is_dir()},
    )
    found = next(filter(None, layouts), set())
    return {name for name in found if not name.startswith(".")}


def _nearest(missing: Path) -> Path | None:
    """Return the folder that a path most likely means, by the closest name for each part that is missing, if any."""
    found = Path(missing.anchor)
    for part in missing.relative_to(found).parts:
        if not (found / part).is_dir():
            near = _close(part, found)
            if near is None:
                return None
            part = near
        found /= part
    return found


def _close(name: str, folder: Path) -> str | None:
    """Return the name of the folder within another that is closest to a name, whatever its case; None for none."""
    try:
        within = {entry.name.casefold(): entry.name for entry in folder.iterdir() if entry.is_dir()}
    except OSError:
        return None
    near = difflib.get_close_matches(name.casefold(), within, n=1)
    return within[near[0]] if near else None
