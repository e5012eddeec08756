"""From a `data_root` parameter to the splits of a data set."""

import os
from pathlib import Path

from cityscapes.dataset import CityscapesSplit
from cityscapes.demo.city import write_demo_city
from cityscapes.errors import InputError, MissingInputError
from cityscapes.generate_gt import generate_masks
from cityscapes.layout import POLYGONS_SUFFIX, find_frames
from cityscapes.workspace import demo_city_folder, generated_masks_folder, workspace
from dlv3p.config import DEMO_CITY


def resolve_data_root(data_root: str) -> Path:
    """Return the folder that a `data_root` parameter means; "demo_city" writes the embedded city on first use.

    A relative path counts from the current folder, else from the workspace; `~` and `$VARIABLES` are expanded.
    """
    if data_root == DEMO_CITY:
        return write_demo_city(demo_city_folder())
    expanded = Path(os.path.expandvars(data_root)).expanduser()
    candidates = [expanded.absolute(), workspace() / expanded]
    for folder in candidates:
        if folder.is_dir():
            return folder.resolve()
    raise MissingInputError(
        f"data_root={data_root!r}: no such folder; give {DEMO_CITY!r} for the embedded city, or a folder that holds "
        "leftImg8bit/ and gtFine/"
    )


def open_images(root: Path, split: str) -> CityscapesSplit:
    """Open one split for its images alone; masks that lie there already can be read, and none is made."""
    return CityscapesSplit(root, split, generated=generated_masks_folder())


def open_split(root: Path, split: str) -> CityscapesSplit:
    """Open one split; masks that its polygons ask for are made first, and those that are up to date are kept."""
    generated = generated_masks_folder()
    try:
        find_frames(root, split, suffix=POLYGONS_SUFFIX)
    except MissingInputError:
        return open_images(root, split)
    report = generate_masks(root, generated, splits=(split,), progress=False)
    if report.failed:
        path, message = report.failed[0]
        raise InputError(
            f"{len(report.failed)} masks of the {split} split could not be made, the first: {message or path}; all are "
            f"listed by: python cityscapes/generate_gt.py --root {root} --splits {split}"
        )
    return open_images(root, split)
