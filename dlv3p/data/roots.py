"""Open a `data_root` parameter as the splits of a data set, whatever its kind."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from cityscapes.dataset import Split, open_cityscapes
from cityscapes.errors import InputError, MissingInputError
from cityscapes.generate_gt import generate_masks
from cityscapes.layout import POLYGONS_SUFFIX, check_split_name, find_frames
from cityscapes.masks.frame import Job, is_of_its_polygons
from cityscapes.masks.report import cities_of_others
from cityscapes.workspace import generated_masks_folder
from dlv3p.data.folder import is_folder, open_folder
from dlv3p.data.parts import choose_listed, read_fold
from dlv3p.data.shards import is_sharded, open_shards
from dlv3p.data.voc import is_voc, open_voc
from dlv3p.parameters.data_roots import (
    DEMO_CITY,
    DEMO_VOC,
    EMBEDDED,
    MISLABELED_CITY,
    Root,
    embedded_folder,
    find_data_root,
    is_url,
)
from dlv3p.parameters.training import TrainingDataParameters


class Kind(NamedTuple):
    """A kind of data set: its layout in words, a test for it, and a function that opens one of its splits.

    `open_split` takes root, split and `labeled`: whether every image needs a mask; missing ones may be generated.
    """

    layout: str
    matches: Callable[[Root], bool]
    open_split: Callable[..., Split]


def resolve_data_root(data_root: str) -> Root:
    """Return what `find_data_root` finds, with the data of an embedded data root written on first use."""
    return _write_embedded(data_root) if data_root in EMBEDDED else find_data_root(data_root)


def _write_embedded(data_root: str) -> Path:
    # Imported here: no data set of one's own needs what draws these.
    folder = embedded_folder(data_root)
    if data_root == DEMO_CITY:
        from cityscapes.demo.city import write_demo_city

        return write_demo_city(folder)
    if data_root == DEMO_VOC:
        from dlv3p.data.demo import write_demo_voc

        return write_demo_voc(folder)
    if data_root == MISLABELED_CITY:
        from dlv3p.data.demo_mislabeled import write_mislabeled_city

        return write_mislabeled_city(folder)
    from dlv3p.data.demo import write_flawed_folder

    return write_flawed_folder(folder)


def is_root_of(data_root: str, root: Root) -> bool:
    """Return whether `root` is where a `data_root` parameter leads; nothing is written to find out."""
    with suppress(MissingInputError):
        found, asked = (one if is_url(one) else Path(one).resolve() for one in (find_data_root(data_root), root))
        return str(found) == str(asked)
    return data_root == str(root)


def open_images(root: Root, split: str) -> Split:
    """Open one split for its images; existing masks can be read, missing ones are neither generated nor an error."""
    return _open(root, split, labeled=False)


def open_split(root: Root, split: str) -> Split:
    """Open one split with a mask for each image; for Cityscapes, masks are first generated from polygons."""
    return _open(root, split, labeled=True)


def open_for_viewing(root: Root, split: str) -> Split:
    """Open one split as `open_split` does, or where masks are missing, as `open_images`."""
    try:
        return open_split(root, split)
    except InputError:
        return open_images(root, split)


def open_training(p: TrainingDataParameters) -> tuple[Split, Split]:
    """Open the two splits of a training run, or their parts.

    `train_list` may name images of a fold that is left out as well, so that one list serves all folds. Raises
    InputError when the splits share an image, or differ in their classes.
    """
    root = resolve_data_root(p.data_root)
    training, validation = open_split(root, p.training_split), open_split(root, p.validation_split)
    for what in ("class_names", "pixel_rule"):  # of shards, each split has its own
        if getattr(training, what) != getattr(validation, what):
            raise InputError(
                f"{root}: {p.train_split!r} and {p.val_split!r} differ in their {what.replace('_', ' ')}; write both "
                "as shards again, from the same data set"
            )
    # In a split nested in another one, or linked to it, the same image has another name.
    seen = {_identity(training.image_path(index)) for index in range(len(training))}
    shared = [
        validation.name(index) for index in range(len(validation)) if _identity(validation.image_path(index)) in seen
    ]
    if shared:
        raise InputError(
            f"{root}: {p.train_split!r} and {p.val_split!r} share {len(shared)} images, the first {shared[0]}; "
            "a score on training images means nothing: remove them from one of the two"
        )
    if p.train_list:
        listed = choose_listed(p.train_list, [training, validation][: 1 + bool(p.folds)], parameter="train_list")
        training = listed[0]
        if not len(training):
            raise InputError(f"train_list={p.train_list!r}: names no image of {training.split!r} of {root}")
    return training, validation


def _identity(path: Path) -> tuple[int, int] | str:
    """Return what is the same for all links to a file; of an image in a shard, its path."""
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def _open(root: Root, split: str, *, labeled: bool) -> Split:
    check_split_name(split)
    root = root if is_url(root) else Path(root)
    fold = read_fold(split)
    opened = _kind(root).open_split(root, fold.split if fold else split, labeled=labeled)
    for line in opened.unread:
        _warn_once(f"warning: {line}")
    return fold.of(opened, split) if fold else opened


@lru_cache(maxsize=1024)
def _warn_once(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _kind(root: Root) -> Kind:
    for kind in KINDS:
        if kind.matches(root):
            return kind
    root = Path(root)
    near = [folder for folder in _folders_near(root) if any(kind.matches(folder) for kind in KINDS)]
    told = f"; did you mean {' or '.join(map(str, near[:3]))}? A data set" if near else "; one"
    found = sorted(entry.name for entry in root.iterdir())[:8]
    raise MissingInputError(
        f"{root}: not a supported data set{told} {_layouts()}; this folder holds {', '.join(found)}"
    )


def _folders_near(root: Path) -> list[Path]:
    """Return where the data is if a folder was given that is one too high or too low: those within it, and its own."""
    within = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return [*within, *([root.parent] if root.name in ("images", "masks", "leftImg8bit", "gtFine") else [])]


def _layouts() -> str:
    return ", or ".join(f"holds {kind.layout}" for kind in KINDS)


def _is_cityscapes(root: Path) -> bool:
    return (root / "leftImg8bit").is_dir() or (root / "gtFine").is_dir()


def _open_cityscapes_with_masks(root: Path, split: str, *, labeled: bool) -> Split:
    generated = generated_masks_folder()
    foreign = _foreign_cities(root, split, generated)
    if labeled and _has_polygons(root, split):
        report = generate_masks(root, generated, splits=(split,), progress=False)
        if report.failed:
            path, message = report.failed[0]
            raise InputError(
                f"{len(report.failed)} masks of the {split} split could not be made, the first: {message or path}; all "
                f"are listed by: python cityscapes/generate_gt.py --root {root} --splits {split}"
            )
        foreign = frozenset()  # each mask was compared with its polygons
    return open_cityscapes(root, split, generated=generated, foreign=foreign)


def _foreign_cities(root: Path, split: str, generated: Path) -> frozenset[str]:
    """Return the cities whose generated masks another data set left there, unless they are the same as one's own."""
    found = cities_of_others(generated, split, root)
    frames = find_frames(root, split) if found else []
    stale = (frame.city for frame in frames if not is_of_its_polygons(Job(frame, root, generated, "rgba")))
    return found.intersection(stale)


def _has_polygons(root: Path, split: str) -> bool:
    try:
        return bool(find_frames(root, split, suffix=POLYGONS_SUFFIX))
    except MissingInputError:
        return False


KINDS = (
    Kind("<split>/index.json (shards, also behind a URL)", is_sharded, open_shards),
    Kind("leftImg8bit/ and gtFine/ (Cityscapes)", _is_cityscapes, _open_cityscapes_with_masks),
    Kind("VOCdevkit/VOC2012/ (PASCAL VOC)", is_voc, open_voc),
    Kind("images/, masks/ and classes.csv (a plain folder)", is_folder, open_folder),
)
"""Add a kind of data set with a module in this folder and a line here."""
