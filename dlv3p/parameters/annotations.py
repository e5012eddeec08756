"""The parameters with which annotations of other tools become a folder to train on, without torch."""

import re
from dataclasses import dataclass

from cityscapes.errors import ParameterError
from cityscapes.layout import check_split_name
from dlv3p.parameters.base import Parameters, choice, number, text
from dlv3p.parameters.shared_fields import figures_field, progress_field

DEMO_ANNOTATIONS = ("demo_coco", "demo_labelme", "demo_cvat", "demo_yolo", "demo_masks")
"""The `annotations` of the embedded city, written in each format on first use."""
FORMATS = ("auto", "coco", "labelme", "cvat", "yolo", "masks")
UNLABELED = ("background", "ignore")
BOXES = ("refuse", "draw", "skip")
DRAW_ORDERS = ("file", "area")
IMAGE_FILES = ("copy", "hardlink")
CORRECTIONS = ("cvat", "coco", "none")
FOLDER, NONE = "folder", "none"
DEFAULT_SHARES = "train 0.8 val 0.2"


def read_shares(text: str) -> dict[str, float]:
    """Return the share of each split, from text such as "train 0.8 val 0.2"; raises ParameterError."""
    words = text.split()
    try:
        shares = {name: float(share) for name, share in zip(words[::2], words[1::2], strict=True)}
    except ValueError as error:
        raise ParameterError(f"splits={text!r}: expected names and shares, such as {DEFAULT_SHARES!r}") from error
    for name in shares:
        check_split_name(name)
    if len(shares) * 2 < len(words) or not all(0 < share <= 1 for share in shares.values()):
        raise ParameterError(f"splits={text!r}: each split has one share, above 0, such as {DEFAULT_SHARES!r}")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ParameterError(f"splits={text!r}: the shares add up to {sum(shares.values()):g}; expected 1")
    return shares


def read_pattern(groups: str) -> re.Pattern[str]:
    """Return the pattern with one pair of parentheses, around what images of a group share; raises ParameterError."""
    try:
        pattern = re.compile(groups)
    except re.error as error:
        raise ParameterError(f"image_groups={groups!r}: no regular expression ({error})") from error
    if pattern.groups != 1:
        raise ParameterError(
            f"image_groups={groups!r}: allowed are {FOLDER}, {NONE}, a table.csv, or a regular expression with one "
            "pair of parentheses, such as '(.+)_[0-9]+'"
        )
    return pattern


@dataclass(frozen=True)
class PrepareAnnotationsParameters(Parameters):
    """Make a folder to train on from annotations of COCO, LabelMe, CVAT, YOLO, or from masks of colors."""

    annotations: str = text("demo_coco", "file or folder; or demo_coco, _labelme, _cvat, _yolo, _masks")
    images: str = text("", 'folder of the images; "" is where the annotations are')
    format: str = choice("auto", FORMATS, "auto (by the files), coco, labelme, cvat, yolo or masks")
    output: str = text("", 'folder to write; "" is data/<name of the annotations>')
    class_table: str = text("", 'CSV table label,class(,red,green,blue); "" makes each label a class')
    unlabeled: str = choice("background", UNLABELED, "what no shape covers: background or ignore (255)")
    boxes: str = choice("refuse", BOXES, "rectangles: refuse (the image), draw (filled) or skip")
    draw_order: str = choice("file", DRAW_ORDERS, "what is on top: file (later shapes) or area (smaller ones)")
    splits: str = text("", 'as in train 0.8 val 0.2; "": as annotated, or else this')
    split_list: str = text("", "CSV table image,split, or a folder with train.txt, val.txt")
    image_groups: str = text(FOLDER, "kept together: folder, none, a table image,group, or '(.+)_[0-9]+'")
    seed: int = number(0, 0, 2**31 - 1, "of the random split by shares")
    image_files: str = choice("copy", IMAGE_FILES, "copy or hardlink (no space, the same disk)")
    workers: int = number(0, 0, 256, "threads; 0: one per core")
    corrections: str = choice("cvat", CORRECTIONS, "masks as polygons to correct: cvat, coco or none")
    examples: int = number(2, 1, 50, "images of each split shown with their masks")
    figures: str = figures_field()
    progress: str = progress_field()

    def check(self) -> None:
        """Check that splits and groups can be understood, and are given in one way."""
        if self.splits:
            read_shares(self.splits)
        if self.image_groups not in (FOLDER, NONE) and not self.image_groups.lower().endswith(".csv"):
            read_pattern(self.image_groups)
        if self.splits and self.split_list:
            raise ParameterError(f"splits={self.splits!r}, split_list={self.split_list!r}: give one of them")
