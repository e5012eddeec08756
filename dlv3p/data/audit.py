"""Audit any data set before anyone trains on it: what is missing, damaged, mixed up, duplicated or unbalanced.

Every image and mask is read as training reads it, so that what is found sound here cannot stop a run later. Findings
are data, told in plain words with a remedy each; nothing is changed on the disk.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
import pandas as pd
from PIL import Image

from cityscapes.dataset import Split
from cityscapes.errors import UserError
from cityscapes.findings import Finding, format_findings
from cityscapes.labels import IGNORE
from dlv3p.data.roots import Root, open_images
from dlv3p.runtime.progress import track

SMALL_SHARE = 0.0005
"""Below this share of the labelled pixels a class is called rare."""


@dataclass
class _Look:
    """What one image and its mask turned out to be."""

    name: str
    findings: list[Finding] = field(default_factory=list)
    size: tuple[int, int] | None = None
    mode: str = ""
    digest: bytes = b""
    pixels: np.ndarray | None = None


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds; `pixels` and `images_with` are int64 (256,) by id, entry 255 the ignored pixels."""

    split: Split
    labelled: int
    sizes: Mapping[tuple[int, int], int]
    modes: Mapping[str, int]
    pixels: np.ndarray
    images_with: np.ndarray


@dataclass(frozen=True)
class DataAudit:
    """All that was found in the splits of one data set, errors first."""

    splits: tuple[SplitSummary, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that would stop or spoil training."""
        return tuple(finding for finding in self.findings if finding.is_error)

    def lines(self, *, most: int = 5) -> list[str]:
        """Tell the findings in plain words: a heading a kind, up to `most` places below it, then the remedy."""
        return format_findings(self.findings, most=most)

    def summary(self) -> pd.DataFrame:
        """Return a row a split: images, masks, sizes, kinds of image, and the share of ignored pixels."""
        rows = [
            {
                "split": one.split.split,
                "images": len(one.split),
                "with a mask": one.labelled,
                "sizes": _listed({f"{width} x {height}": count for (width, height), count in one.sizes.items()}),
                "images are": _listed(one.modes),
                "ignored pixels": one.pixels[IGNORE] / max(1, one.pixels.sum()),
            }
            for one in self.splits
        ]
        return pd.DataFrame(rows).set_index("split")

    def classes(self) -> pd.DataFrame:
        """Return a row a class: its share of the labelled pixels, and of the labelled images, in each split."""
        first = self.splits[0].split
        columns = {}
        for one in self.splits:
            pixels = one.pixels[: first.num_classes]
            columns[f"{one.split.split}, share of pixels"] = pixels / max(1, pixels.sum())
            columns[f"{one.split.split}, share of images"] = one.images_with[: first.num_classes] / max(1, one.labelled)
        return pd.DataFrame(columns, index=pd.Index(first.class_names, name="class"))


def audit(root: Root, splits: Sequence[str], *, progress: str = "auto") -> DataAudit:
    """Read every image and mask of the splits below `root`, a data set of any kind, and report what is wrong.

    Raises MissingInputError where there is no such data set or split; all else that is wrong with it is a finding.
    """
    summaries, findings, digests = [], [], defaultdict(list)
    for name in splits:
        split = open_images(root, name)
        looks = []
        with ThreadPoolExecutor() as pool:
            each = pool.map(lambda index, split=split: _look(split, index), range(len(split)))
            for look in track(each, total=len(split), title=f"audit {name}", mode=progress):
                looks.append(look)
                findings += look.findings
                digests[look.digest].append((name, look.name))
        summaries.append(_summarize(split, looks))
        findings += _look_at_split(summaries[-1])
    findings += _doubles(digests) + _look_across(summaries)
    return DataAudit(tuple(summaries), tuple(sorted(findings, key=lambda finding: not finding.is_error)))


def _look(split: Split, index: int) -> _Look:
    look = _Look(split.name(index))
    try:
        look.mode, image = _mode_and_image(split, index)
        look.size, look.digest = image.size, hashlib.sha256(image.tobytes()).digest()
    except UserError as error:
        _find(look, split, "image that cannot be read", error, "copy it again from where it came")
    if not split.has_mask(index):
        return look
    try:
        mask = split.mask(index)
        look.pixels = np.bincount(mask.ravel(), minlength=256)
        if look.size and mask.shape != look.size[::-1]:
            sizes = f"the image has {look.size[0]} x {look.size[1]} pixels, the mask {mask.shape[1]} x {mask.shape[0]}"
            _find(
                look, split, "image and mask of different size", sizes, "export both at one size; never crop one alone"
            )
        if (mask == IGNORE).all():
            remedy = "label it or leave it out; it teaches nothing"
            _find(look, split, "mask without a labelled pixel", "all pixels are ignored", remedy, is_error=False)
    except UserError as error:
        _find(
            look, split, "mask that cannot be used", error, "mend the file, or the class table if that is what is wrong"
        )
    return look


def _mode_and_image(split: Split, index: int) -> tuple[str, Image.Image]:
    """Return the mode that an image is stored in, and the image as RGB."""
    image = split.image(index)
    return Image.open(BytesIO(split.image_bytes(index))).mode, image


def _find(look: _Look, split: Split, kind: str, problem: object, remedy: str, *, is_error: bool = True) -> None:
    look.findings.append(Finding(kind, split.split, look.name, str(problem), remedy, is_error))


def _summarize(split: Split, looks: Sequence[_Look]) -> SplitSummary:
    sizes, modes = defaultdict(int), defaultdict(int)
    pixels, images_with = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for look in looks:
        if look.size:
            sizes[look.size] += 1
            modes[look.mode] += 1
        if look.pixels is not None:
            pixels += look.pixels
            images_with += look.pixels > 0
    labelled = sum(look.pixels is not None for look in looks)
    return SplitSummary(split, labelled, dict(sizes), dict(modes), pixels, images_with)


def _look_at_split(one: SplitSummary) -> list[Finding]:
    """Find what only a whole split shows: some masks missing, classes that are absent or rare, grey images."""
    split, findings = one.split.split, []
    without = [one.split.name(index) for index in range(len(one.split)) if not one.split.has_mask(index)]
    if without and len(without) < len(one.split):
        problem, remedy = f"{len(without)} images have none", "add the masks, or move these images to another split"
        findings.append(Finding("image without a mask", split, ", ".join(without[:5]), problem, remedy))
    if orphans := one.split.orphans:
        problem, remedy = f"{len(orphans)} masks have none", "an image and its mask have one name up to the suffix"
        findings.append(Finding("mask without an image", split, ", ".join(orphans[:5]), problem, remedy))
    pixels = one.pixels[: one.split.num_classes]
    for name, share in zip(one.split.class_names, pixels / max(1, pixels.sum()), strict=True):
        if pixels.any() and share == 0:
            remedy = "a score leaves it out; check the class table if it ought to be there"
            findings.append(Finding("class that never occurs", split, name, "no pixel", remedy, is_error=False))
        elif 0 < share < SMALL_SHARE:
            problem = f"{share:.4%} of the labelled pixels"
            remedy = "weight the classes (class_weights) or sample it more often (class_uniform)"
            findings.append(Finding("rare class", split, name, problem, remedy, is_error=False))
    if len(one.modes) > 1 or set(one.modes) - {"RGB"}:
        remedy = "all are turned into RGB when read; check that no mask lies among the images"
        findings.append(Finding("images of another kind", split, split, _listed(one.modes), remedy, is_error=False))
    return findings


def _look_across(summaries: Sequence[SplitSummary]) -> list[Finding]:
    """Find classes that a later split asks for and the first, which is trained on, does not hold."""
    findings = []
    for other in summaries[1:]:
        for index, name in enumerate(other.split.class_names):
            if summaries[0].pixels.any() and other.pixels[index] and not summaries[0].pixels[index]:
                first = summaries[0].split.split
                problem = f"occurs in {other.split.split} and never in {first}"
                remedy = "no network can learn it: mix the splits anew, or drop the class"
                findings.append(Finding("class that cannot be learned", other.split.split, name, problem, remedy))
    return findings


def _doubles(digests: Mapping[bytes, Sequence[tuple[str, str]]]) -> list[Finding]:
    """Find pictures whose every pixel is the same, in one split or, worse, in two."""
    findings = []
    for digest, (first, *others) in digests.items():
        for other in others if digest else ():
            if first[0] == other[0]:
                problem, remedy = f"the same picture as {first[1]}", "remove one of them, or it counts twice"
                findings.append(
                    Finding("picture that is there twice", other[0], other[1], problem, remedy, is_error=False)
                )
            else:
                problem = f"the same picture as {first[1]} in {first[0]}"
                remedy = "remove it from one split: a score on what was trained with means nothing"
                findings.append(Finding("picture in two splits", other[0], other[1], problem, remedy))
    return findings


def _listed(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(f"{name} ({count})" for name, count in ordered[:3]) + more
