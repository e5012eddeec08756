"""Audit any data set before anyone trains on it: what is missing, damaged, mixed up, duplicated or unbalanced.

Every image and mask is read as training reads it, so that what passes here cannot stop a run later. Findings are data,
with a remedy each; nothing is changed on the disk, except that `data.yaml` gets the numbers that it leaves open.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from cityscapes.audit_rules import (
    IDS,
    AuditReport,
    SplitCounts,
    errors_first,
    find_duplicates,
    find_in_classes,
    find_mode,
    find_nothing_to_learn,
    find_sizes,
    find_turned,
    find_unlabeled,
    find_unlearnable,
    find_unscored,
)
from cityscapes.dataset import Split
from cityscapes.errors import MissingInputError, UserError
from cityscapes.files.channels import ChannelImage, PixelRule
from cityscapes.files.images import FORMATS, NEARLY_BLACK, STRETCH, Header, explain_nearly_black, inspect_image
from cityscapes.findings import Finding, worst_of_each_kind
from dlv3p.data.class_pixels import describe_palettes
from dlv3p.data.folder import is_folder, measure_data_file
from dlv3p.data.likeness import Look, find_alike_in_splits, look_at
from dlv3p.data.parts import choose_listed
from dlv3p.data.roots import open_images
from dlv3p.parameters.data_roots import Root, is_url
from dlv3p.runtime.progress import track

UNREADABLE = "image that cannot be read"

HALF, NEARLY_ALL = 0.5, 0.99
"""Shares of a channel's pixels at the highest value, to which values beyond the range are clipped."""
LITTLE, NOTHING = 1 / 32, 1e-6
"""Parts of the range: a channel that deviates by less is shown flat, and one that float32 hardly holds is lost."""
FAR = 10
"""A mean so far from 0, or a deviation so many times 1 or that part of it, is not what a network can be trained on."""

AHEAD = 256
"""The most images of which what was read waits to be counted."""


@dataclass
class _Pair:
    """What was read of one image and its mask; the image's size is (width, height)."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    size: tuple[int, int] | None = None
    mode: str = ""
    look: Look | None = None
    pixels: list[int] | None = None
    sums: np.ndarray | None = None


def audit(root: Root, splits: Sequence[str], *, image_list: str = "", progress: str = "auto") -> AuditReport:
    """Read every image and mask of the splits below `root`, a data set of any kind, and report what is wrong.

    The first split is the one to train on. With `image_list`, only the images that it names are looked at. Raises
    MissingInputError where there is no such data set or split; everything else that is wrong with it is a finding.
    """
    start = time.monotonic()
    if not is_url(root) and is_folder(Path(root)):
        measure_data_file(Path(root), splits[0])
    counts, findings, contents, looks = [], [], defaultdict(list), defaultdict(list)
    opened = open_audited(root, splits, image_list)
    for split in opened:
        name = split.split
        counts.append(SplitCounts(name, split.class_names, images=len(split)))
        sums = None
        with ThreadPoolExecutor() as pool:
            for pair in track(_pairs(split, pool), total=len(split), title=f"audit {name}", mode=progress):
                findings += pair.findings
                if pair.look:
                    counts[-1].add_image(pair.size, pair.mode)
                    contents[pair.look.digest].append((name, pair.name))
                    looks[name].append(pair.look)
                if pair.pixels:
                    counts[-1].add_mask(pair.pixels, pair.name)
                if pair.sums is not None:
                    sums = pair.sums if sums is None else sums + pair.sums
        findings += [] if sums is None else find_lost_values(name, split.pixel_rule, sums)
        findings += _find_missing(split) + find_in_classes(counts[-1], trained=name == splits[0])
    if problem := describe_palettes(*opened):
        findings.append(Finding("palettes that disagree", opened[0].split, "masks", *problem.split("; ", 1)))
    findings += find_duplicates(contents) + find_alike_in_splits(looks) + find_nothing_to_learn(counts[0])
    findings += find_unlearnable(counts[0], counts[1:]) + find_unscored(counts[0], counts[1:])
    return AuditReport(root, tuple(counts), errors_first(findings), time.monotonic() - start)


def open_audited(root: Root, splits: Sequence[str], image_list: str = "") -> list[Split]:
    """Open the splits to look at, of each only the images that a list names; those without any are left out."""
    opened = [open_images(root, name) for name in splits]
    if not image_list:
        return opened
    return [part for part in choose_listed(image_list, opened, parameter="image_list") if len(part)]


def usable_pairs(report: AuditReport, *, count: int, image_list: str = "") -> list[tuple[Split, int]]:
    """Return the first `count` images of each split that have a mask and no error, by split and index.

    Raises MissingInputError when there is none.
    """
    pairs = []
    for split in open_audited(report.root, [counts.split for counts in report.splits], image_list):
        wrong = {finding.where for finding in report.errors if finding.split == split.split}
        usable = [i for i in range(len(split)) if split.has_mask(i) and split.name(i) not in wrong]
        pairs += [(split, index) for index in usable[:count]]
    if not pairs:
        raise MissingInputError(f"{report.root}: no image has a mask that can be used; see the errors")
    return pairs


def worst_pictures(report: AuditReport) -> list[tuple[Finding, list[tuple[Split, int]]]]:
    """Return the worst finding of each kind that a picture can show, errors first, with its images, split and index.

    Images that cannot be read, and findings about a whole split or folder, show nothing.
    """
    splits = {counts.split: open_images(report.root, counts.split) for counts in report.splits}
    places = {
        (name, split.name(index)): (split, index) for name, split in splits.items() for index in range(len(split))
    }
    unreadable = {(finding.split, finding.where) for finding in report.findings if finding.kind == UNREADABLE}
    shown = []
    for finding in worst_of_each_kind(report.findings):
        keys = finding.shows or ((finding.split, finding.where),)
        if all(key in places and key not in unreadable for key in keys):
            shown.append((finding, [places[key] for key in keys]))
    return shown


def _pairs(split: Split, pool: Executor) -> Iterator[_Pair]:
    """Yield what was read of each image in their order; what is read ahead does not grow with the split."""
    for start in range(0, len(split), AHEAD):
        yield from pool.map(lambda index: _read_pair(split, index), range(start, min(start + AHEAD, len(split))))


def _read_pair(split: Split, index: int) -> _Pair:
    pair = _Pair(split.name(index))
    try:
        image = split.image(index)
        stored = Header(image.size, image.mode, False)
        if isinstance(image, ChannelImage):
            pair.sums = np.stack([_sums(channel) for channel in np.moveaxis(image.pixels, 2, 0)], axis=1)
        else:
            stored = inspect_image(Image.open(BytesIO(split.image_bytes(index)), formats=FORMATS))
            pair.findings += find_mode(split.split, pair.name, stored.mode)
            if problem := explain_nearly_black(stored, image):
                kind = f"image that is {NEARLY_BLACK}"
                pair.findings.append(Finding(kind, split.split, pair.name, problem, STRETCH, is_error=False))
        pair.size, pair.mode = image.size, stored.mode
        pair.look = look_at(pair.name, hashlib.sha256(image.tobytes()).digest(), image)
        pair.findings += find_turned(split.split, pair.name, turned=stored.turned)
    except UserError as error:
        remedy = "copy it again from the original"
        pair.findings.append(Finding(UNREADABLE, split.split, pair.name, str(error), remedy))
    if not split.has_mask(index):
        return pair
    try:
        mask = split.mask(index)
    except UserError as error:
        remedy = "fix the file, or the class table if that is what is wrong"
        pair.findings.append(Finding("mask that cannot be used", split.split, pair.name, str(error), remedy))
        return pair
    pair.pixels = np.bincount(mask.ravel(), minlength=IDS).tolist()
    pair.findings += find_sizes(split.split, pair.name, mask.shape[::-1], pair.size)
    pair.findings += find_unlabeled(split.split, pair.name, pair.pixels)
    return pair


def find_lost_values(split: str, rule: PixelRule, sums: np.ndarray) -> list[Finding]:
    """Find channels of which a network would see hardly anything, or far from what it can be trained on.

    `sums` has, for each channel, what `_sums` returns of all images added up, (4,n).
    """
    count, total, squares, clipped = sums
    factors, offsets = rule.normalization
    means, deviations = total / count, np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))
    nothing_left = bool(((deviations < NOTHING) | (clipped > NEARLY_ALL * count)).all())
    found = []
    seen = zip(means * factors + offsets, deviations * factors, strict=True)
    for index, (mean, deviation) in enumerate(seen):
        where = f"channel {index}"
        if deviations[index] < LITTLE or clipped[index] > HALF * count[index]:
            highest = clipped[index] / count[index]
            problem = f"deviates by {deviations[index]:.2%} of value_range; {highest:.0%} are at the highest"
            remedy = "set value_range in data.yaml to the values that matter, or color jitter and pictures hide them"
            found.append(
                Finding("channel in a part of its range", split, where, problem, remedy, is_error=nothing_left)
            )
        elif abs(mean) > FAR or not 1 / FAR < deviation < FAR:
            problem = f"a network sees a mean of {mean:.3g} and a deviation of {deviation:.3g}, not about 0 and 1"
            remedy = "give mean and deviation in data.yaml in stored values, or remove both lines to have them measured"
            found.append(Finding("channel that is not normalized", split, where, problem, remedy))
    return found


def _sums(channel: np.ndarray) -> list[float]:
    """Return the number of values, their sum, that of their squares, and how many are at the highest."""
    values = channel.ravel().astype(np.float64)
    return [len(values), values.sum(), values @ values, np.count_nonzero(values == 1)]


def _find_missing(split: Split) -> list[Finding]:
    """Find masks that are missing, unless all are, masks that belong to no image, and files that are not read."""
    name, findings = split.split, []
    without = [split.name(index) for index in range(len(split)) if not split.has_mask(index)]
    if without and len(without) < len(split):
        problem = f"{len(without)} images have none" if len(without) > 1 else "one image has none"
        remedy = "add the masks, or move these images to another split"
        shows = ((name, without[0]),)
        findings.append(Finding("image without a mask", name, ", ".join(without[:5]), problem, remedy, shows=shows))
    if split.orphans:
        problem = f"{len(split.orphans)} masks have none" if len(split.orphans) > 1 else "one mask has none"
        remedy = "give an image and its mask the same name up to the suffix"
        findings.append(Finding("mask without an image", name, ", ".join(split.orphans[:5]), problem, remedy))
    for line in split.unread:
        problem, remedy = line.split("; ", 1)
        findings.append(Finding("files that are not read", name, name, problem, remedy))
    return findings
