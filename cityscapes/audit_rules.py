"""Judge the splits of any data set for an audit: absent and rare classes, duplicate images, masks that teach nothing.

The audits (`cityscapes.audit` by file headers, `dlv3p.data.audit` by reading everything) count; these rules judge.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cityscapes.findings import Finding, format_findings

IDS = 256
"""How many ids an 8-bit mask can hold; the last one marks pixels to ignore."""

SMALL_SHARE = 0.0005
"""Below this share of the labeled pixels a class is called rare."""

IN_TWO_SPLITS = "remove it from one of them: a score on training images means nothing"


@dataclass
class SplitCounts:
    """What a split holds: images by size, (width, height), and pixels and images by id, 256 numbers each.

    `labeled` counts the images whose mask can be used; pixels and `images_with` are those of their masks. `groups` has
    further counts under a title, such as the cities; `most_of` has by id the most pixels in one mask, and whose it is.
    """

    split: str
    class_names: Sequence[str]
    images: int = 0
    labeled: int = 0
    sizes: Counter = field(default_factory=Counter)
    modes: Counter = field(default_factory=Counter)
    groups: dict[str, Counter] = field(default_factory=dict)
    pixels: list[int] = field(default_factory=lambda: [0] * IDS)
    images_with: list[int] = field(default_factory=lambda: [0] * IDS)
    most_of: dict[int, tuple[int, str]] = field(default_factory=dict)

    def add_image(self, size: tuple[int, int], mode: str) -> None:
        """Count a readable image by its size and by the mode that it is stored in."""
        self.sizes[size] += 1
        self.modes[mode] += 1

    def add_mask(self, pixels: Sequence[int], name: str = "") -> None:
        """Count a usable mask, that of the image called `name`, given its pixels by id."""
        self.labeled += 1
        self.pixels = [total + n for total, n in zip(self.pixels, pixels, strict=True)]
        self.images_with = [total + (n > 0) for total, n in zip(self.images_with, pixels, strict=True)]
        self.most_of |= {i: (n, name) for i, n in enumerate(pixels) if n > self.most_of.get(i, (0, ""))[0]}

    def shows(self, index: int) -> tuple[tuple[str, str], ...]:
        """Name the image with the most pixels of an id, by split and name; none where no mask has it."""
        return ((self.split, self.most_of[index][1]),) if index in self.most_of else ()

    @property
    def class_pixels(self) -> list[int]:
        """The pixels of each class."""
        return self.pixels[: len(self.class_names)]

    @property
    def ignored_share(self) -> float:
        """The share of pixels to ignore, 0 to 1."""
        return self.pixels[-1] / max(1, sum(self.pixels))


@dataclass(frozen=True)
class AuditReport:
    """All that was found below `root`, errors first, and what each split holds."""

    root: Path | str
    splits: tuple[SplitCounts, ...]
    findings: tuple[Finding, ...]
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The name of the data set: the last part of its root, a folder or a URL."""
        return Path(self.root).name

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that would stop or spoil training."""
        return tuple(finding for finding in self.findings if finding.is_error)

    def class_rows(self) -> list[dict[str, object]]:
        """Return a row a class, in the order of ids: its name, and its pixels and images in each split."""
        return [
            {"class": name}
            | {f"{counts.split} pixels": counts.pixels[index] for counts in self.splits}
            | {f"{counts.split} images": counts.images_with[index] for counts in self.splits}
            for index, name in enumerate(self.splits[0].class_names)
        ]

    def lines(self, *, limit: int = 10) -> list[str]:
        """Format the findings in plain words: a heading a kind, up to `limit` places below it, then the remedy."""
        return format_findings(self.findings, limit=limit)


def errors_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings for a report."""
    return tuple(sorted(findings, key=lambda finding: not finding.is_error))


def find_mode(split: str, where: str, mode: str) -> list[Finding]:
    """Find an image that is not stored as RGB."""
    if mode == "RGB":
        return []
    remedy = "check that it is a photo and not a mask; it is converted to 8-bit RGB when read"
    if "16" in mode:
        remedy = "it is cut to 8 bits when read; a data.yaml with its channels and value_range keeps its contrast"
    return [Finding("image that is not RGB", split, where, f"its mode is {mode}", remedy, is_error=False)]


def find_turned(split: str, where: str, *, turned: bool) -> list[Finding]:
    """Find an image that its EXIF orientation turns when it is read."""
    if not turned:
        return []
    remedy = "check that its mask is upright, too; the orientation is applied to images, never to masks"
    return [Finding("image turned by EXIF", split, where, "its EXIF orientation turns it", remedy, is_error=False)]


def find_sizes(split: str, where: str, mask: tuple[int, int], image: tuple[int, int] | None) -> list[Finding]:
    """Find a mask whose (width, height) is not that of its image; None is an image that cannot be read."""
    if image is None or mask == image:
        return []
    problem = f"the mask has {mask[0]} x {mask[1]} pixels, its image {image[0]} x {image[1]}"
    remedy = "take or export both at one size; never crop or resize only one of them"
    from cityscapes.files.images import TURNED, differ_by_turn  # loads Pillow, which --help does not need

    if differ_by_turn(mask, image):
        problem = f"{problem}; {TURNED}"
    ratio = mask[0] * mask[1] / max(1, image[0] * image[1])
    severity = max(ratio, 1 / max(ratio, 1e-9))
    return [Finding("image and mask of different sizes", split, where, problem, remedy, severity=severity)]


def find_unlabeled(split: str, where: str, pixels: Sequence[int]) -> list[Finding]:
    """Find a mask, given its pixels by id, in which every pixel is ignored."""
    if any(pixels[:-1]):
        return []
    remedy = "leave it out of training if it was not annotated; nothing can be learned from it"
    problem = "all pixels are ignored"
    return [Finding("mask without a labeled pixel", split, where, problem, remedy, is_error=False)]


def explain_one_class(class_names: Sequence[str], pixels: Sequence[int]) -> str | None:
    """Explain masks that hold one class and ignored pixels only, as masks of 0 and 255 do, given the pixels by id."""
    found = [index for index in range(len(class_names)) if pixels[index]]
    if len(found) != 1 or not pixels[IDS - 1]:
        return None
    others = [index for index in range(len(class_names)) if index != found[0]]
    meant = f"{others[0]} ({class_names[others[0]]})" if len(others) == 1 else "the ids of the other classes"
    return (
        f"only {found[0]} ({class_names[found[0]]}) and {IDS - 1}, which marks ignored pixels, so nothing can be "
        f"learned; store {meant} where {IDS - 1} stands for a class, or, in a plain folder, list the values of each "
        "class in the column 'stored' of classes.csv"
    )


def find_in_classes(counts: SplitCounts, *, trained: bool) -> list[Finding]:
    """Find classes that are absent from a split or rare in it; nothing in a split without a labeled pixel.

    A class that is absent from the split that is trained on is an error, and so are masks of one class and 255.
    """
    split, pixels = counts.split, counts.class_pixels
    if not any(pixels):
        return []
    findings = []
    if problem := explain_one_class(counts.class_names, counts.pixels):
        problem, remedy = problem.split("; ")
        findings.append(Finding("masks of one class", split, split, f"the masks hold {problem}", remedy))
    if absent := [name for name, n in zip(counts.class_names, pixels, strict=True) if not n]:
        remedy = "their IoU is undefined here and left out of the mean; check the class table if they should occur"
        if trained:
            remedy = "they cannot be learned: check the masks and the class table, or drop these classes"
        problem = f"no pixel is {', '.join(absent)}"
        findings.append(Finding("classes that never occur", split, split, problem, remedy, is_error=trained))
    for index, (name, n) in enumerate(zip(counts.class_names, pixels, strict=True)):
        if 0 < n / sum(pixels) < SMALL_SHARE:
            problem = f"{n / sum(pixels):.4%} of the labeled pixels in {split}"
            remedy = "weight the classes (class_weights) or sample it more often (class_uniform)"
            shows, severity = counts.shows(index), sum(pixels) / n
            findings.append(Finding("rare class", split, name, problem, remedy, False, shows, severity))
    return findings


def find_nothing_to_learn(trained: SplitCounts) -> list[Finding]:
    """Find that the split to train on has no labeled pixel at all, for want of masks or because all of it is ignored.

    Nothing about classes can be judged then, so that without this such data would pass.
    """
    if any(trained.class_pixels):
        return []
    problem = "every pixel of its masks is ignored" if trained.labeled else "it has no mask that can be used"
    remedy = "add masks, or make them from polygons (python cityscapes/generate_gt.py); no class can be learned without"
    return [Finding("nothing to learn from", trained.split, trained.split, problem, remedy)]


def find_unlearnable(trained: SplitCounts, others: Iterable[SplitCounts]) -> list[Finding]:
    """Find classes that occur in another split but not in the one that is trained on."""
    if not any(trained.class_pixels):
        return []
    remedy = "no network can learn it: split the data differently, or drop the class"
    return [
        Finding(
            "class that cannot be learned",
            other.split,
            name,
            f"occurs in {other.split} and never in {trained.split}",
            remedy,
            shows=other.shows(index),
            severity=there,
        )
        for other in others
        for index, (name, here, there) in enumerate(zip(other.class_names, trained.pixels, other.pixels, strict=False))
        if there and not here
    ]


def find_unscored(trained: SplitCounts, others: Sequence[SplitCounts]) -> list[Finding]:
    """Find classes that occur only in the split that is trained on; without another labeled split there is no answer.

    Those are notes, since small test sets lack rare classes.
    """
    others = [other for other in others if any(other.class_pixels)]
    listed = " or ".join(other.split for other in others)
    remedy = "no score tells how well it is learned: split the data differently, or do not trust it"
    return [
        Finding(
            "class that is never scored",
            trained.split,
            name,
            f"occurs in {trained.split} and never in {listed}",
            remedy,
            is_error=False,
            shows=trained.shows(index),
            severity=trained.pixels[index],
        )
        for index, name in enumerate(trained.class_names)
        if others and trained.pixels[index] and not any(other.pixels[index] for other in others)
    ]


def find_duplicates(contents: Mapping[bytes, Sequence[tuple[str, str]]]) -> list[Finding]:
    """Find images of the same content, given (split, where) of each by a digest: in one split or, worse, in two."""
    findings = []
    for (split, where), *others in contents.values():
        for other_split, other in others:
            if split == other_split:
                problem, remedy = f"the same image as {where}", "remove one of them, or it counts twice"
                shows = ((split, where), (split, other))
                findings.append(Finding("duplicate image", split, other, problem, remedy, False, shows))
            else:
                problem = f"the same image as {where} in {split}"
                shows = ((split, where), (other_split, other))
                findings.append(Finding("image in two splits", other_split, other, problem, IN_TWO_SPLITS, shows=shows))
    return findings


def find_alike(split: str, where: str, other_split: str, other: str, likeness: float) -> Finding:
    """Find an image that looks nearly like one of an earlier split, such as the next frame of a video."""
    problem = f"looks nearly like {other} in {other_split} (likeness {likeness:.0%})"
    remedy = (
        "look at both: where they are neighboring frames, or one image saved twice, split by video, place or patient; "
        "a score on them says little about new images"
    )
    shows = ((other_split, other), (split, where))
    return Finding("nearly the same image in two splits", split, where, problem, remedy, True, shows, likeness)
