"""Audit a Cityscapes data set before anyone trains on it: what is missing, damaged, mixed up or unbalanced.

    python cityscapes/audit.py --root /data/cityscapes --splits train val

Reads file names, image headers and masks, and decodes no image: about 10 s per 1,000 frames of 1024 x 2048 on one core.
Findings are data; nothing is changed on the disk. Needs no torch; `audit` is the function.
"""

import argparse
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cityscapes.audit_frames import FrameAudit, audit_frame, list_files, shown
from cityscapes.errors import InputError, MissingInputError, ParameterError, run_command
from cityscapes.findings import Finding, format_findings
from cityscapes.layout import IMAGE_SUFFIX, SPLITS, default_root
from cityscapes.parallel import number_of_workers
from cityscapes.workspace import generated_masks_folder


@dataclass
class SplitCounts:
    """What a split holds: frames by city, image sizes (width, height), where masks come from, and pixels by train id.

    `pixels` and `frames_with` are 256 numbers each, over the frames whose mask can be used; entry 255 is void.
    """

    split: str
    cities: Counter = field(default_factory=Counter)
    sizes: Counter = field(default_factory=Counter)
    masks: Counter = field(default_factory=Counter)
    pixels: list[int] = field(default_factory=lambda: [0] * 256)
    frames_with: list[int] = field(default_factory=lambda: [0] * 256)

    @property
    def frames(self) -> int:
        """How many frames have an image."""
        return self.cities.total()


@dataclass(frozen=True)
class AuditReport:
    """All that was found below `root`, errors first, and what each split holds."""

    root: Path
    splits: tuple[SplitCounts, ...]
    findings: tuple[Finding, ...]
    seconds: float = 0.0

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that would stop or spoil training."""
        return tuple(finding for finding in self.findings if finding.is_error)

    def class_rows(self) -> list[dict[str, object]]:
        """A row a class, in the order of train ids: its name, and its pixels and frames in each split."""
        from cityscapes.labels import CLASS_NAMES

        return [
            {"class": name}
            | {f"{counts.split} pixels": counts.pixels[train_id] for counts in self.splits}
            | {f"{counts.split} frames": counts.frames_with[train_id] for counts in self.splits}
            for train_id, name in enumerate(CLASS_NAMES)
        ]

    def lines(self, *, most: int = 10) -> list[str]:
        """Tell the findings in plain words: a heading a kind, up to `most` places below it, then the remedy."""
        return format_findings(self.findings, most=most)


def audit(
    root: str | Path,
    splits: Sequence[str] = ("train", "val"),
    generated: str | Path | None = None,
    *,
    workers: int = 0,
    progress: bool | None = None,
) -> AuditReport:
    """Look at every frame of the splits below a Cityscapes root and report what is wrong; reads only.

    `generated` is where masks made from polygons lie, by default `data/generated_gt/` of the workspace. `workers` is
    the number of threads, 0 for one a core. `progress` shows a bar; by default only on a terminal. Problems of the data
    are findings; raises MissingInputError only where there is no data set, and ParameterError.
    """
    from tqdm import tqdm

    start = time.monotonic()
    root, generated = Path(root), Path(generated or generated_masks_folder())
    if isinstance(splits, str) or not splits:
        raise ParameterError(f"splits is {splits!r}; give a list of splits, such as ['train', 'val']")
    count = number_of_workers(workers)
    if not any((root / folder).is_dir() for folder in ("leftImg8bit", "gtFine")):
        raise MissingInputError(f"{shown(root)}: holds neither leftImg8bit/ nor gtFine/; give a Cityscapes root")
    counts, findings, images = [], [], []
    hidden = None if progress is None else not progress
    with ThreadPoolExecutor(count) as pool:
        for split in dict.fromkeys(splits):
            frames, found = list_files(root, split, generated)
            audits = pool.map(lambda files: audit_frame(files, root), frames.values())
            bar = tqdm(audits, f"audit {split}", len(frames), unit="frame", leave=False, disable=hidden)
            counts.append(_count(split, bar, found))
            images += [(split, files.frame.name, files.image) for files in frames.values() if files.image]
            findings += found + _look_at_split(counts[-1], root)
    findings += _twice(images, root)
    findings.sort(key=lambda finding: not finding.is_error)
    return AuditReport(root, tuple(counts), tuple(findings), time.monotonic() - start)


def _count(split: str, audits: Iterable[FrameAudit], findings: list[Finding]) -> SplitCounts:
    counts = SplitCounts(split)
    for frame in audits:
        findings += frame.findings
        counts.cities[frame.files.frame.city] += frame.files.image is not None
        if frame.size:
            counts.sizes[frame.size] += 1
        if frame.files.masks:
            counts.masks["generated" if frame.files.generated else "provided"] += 1
        if frame.pixels:
            counts.pixels = [sum(pair) for pair in zip(counts.pixels, frame.pixels, strict=True)]
            counts.frames_with = [n + bool(pixels) for n, pixels in zip(counts.frames_with, frame.pixels, strict=True)]
    return counts


def _look_at_split(counts: SplitCounts, root: Path) -> list[Finding]:
    """Find what only a whole split shows: no images, several sizes, classes that never occur."""
    from cityscapes.labels import CLASS_NAMES

    split, findings = counts.split, []
    if not counts.frames:
        folder = shown(root / "leftImg8bit" / split)
        remedy = f"put images at <city>/<city>_<seq>_<frame>{IMAGE_SUFFIX} there, or leave the split out"
        findings.append(Finding("empty split", split, split, f"{folder} holds no image", remedy))
    if len(counts.sizes) > 1:
        listed = ", ".join(f"{width} x {height} ({n} frames)" for (width, height), n in counts.sizes.most_common(5))
        remedy = "check that they are of one camera; crops make sizes equal in training, validation takes them as is"
        findings.append(Finding("images of several sizes", split, split, listed, remedy, is_error=False))
    never = [name for name, pixels in zip(CLASS_NAMES, counts.pixels, strict=False) if not pixels]
    if never and len(never) < len(CLASS_NAMES):
        remedy = "their IoU is undefined here and left out of the mean: compare such scores with care"
        problem = f"no pixel is {', '.join(never)}"
        findings.append(Finding("classes that never occur", split, split, problem, remedy, is_error=False))
    return findings


def _twice(images: Sequence[tuple[str, str, Path]], root: Path) -> list[Finding]:
    """Find frames of one name in two splits, and images of the same bytes; only those of equal size are read."""
    splits_of, sizes, contents = defaultdict(list), defaultdict(list), defaultdict(list)
    for split, name, path in images:
        splits_of[name].append(split)
        with suppress(OSError):  # a link that leads nowhere is a finding of its frame
            sizes[path.stat().st_size].append((split, name, path))
    for same in sizes.values():
        for item in same if len(same) > 1 else ():
            with suppress(OSError), open(item[-1], "rb") as file:
                contents[hashlib.file_digest(file, "sha256").digest()].append(item)
    remedy = "remove it from one of them: a score on what was trained with means nothing"
    findings = [
        Finding("frame in two splits", " ".join(among), name, f"it is in {' and in '.join(among)}", remedy)
        for name, among in splits_of.items()
        if len(among) > 1
    ]
    for (split, name, path), *others in contents.values():
        for other_split, other_name, other in others:
            where, problem = shown(other, root), f"the same bytes as {shown(path, root)}"
            if split == other_split:
                once = "remove one of them, or it counts twice"
                findings.append(Finding("image that is there twice", split, where, problem, once, is_error=False))
            elif name != other_name:  # else its name has told it already
                findings.append(Finding("image in two splits", f"{split} {other_split}", where, problem, remedy))
    return findings


def main() -> int:
    """Run the command line and return its exit status: 0, or 3 when there are errors."""
    arguments = _parser().parse_args()
    report = audit(arguments.root or default_root(), arguments.splits, arguments.generated, workers=arguments.workers)
    _print_report(report)
    return InputError.exit_status if report.errors else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Look through a Cityscapes data set before anyone trains on it.",
        epilog="Nothing is changed on the disk. Exit status: 0 no errors, 2 wrong usage, 3 errors found.",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="the data set (default: $CITYSCAPES_DATASET, else data/, else the embedded city)",
    )
    parser.add_argument("--generated", type=Path, metavar="DIR", help="masks made from polygons (data/generated_gt/)")
    parser.add_argument("--splits", nargs="+", default=["train", "val"], choices=SPLITS, help="default: train val")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="threads (default: 0, one a core)")
    return parser


def _print_report(report: AuditReport) -> None:
    from cityscapes.labels import IGNORE

    print(f"data set {shown(report.root)}")
    for counts in report.splits:
        cities = ", ".join(f"{city} {n}" for city, n in sorted(counts.cities.items()) if n)
        void = counts.pixels[IGNORE] / max(1, sum(counts.pixels))
        print(f"{counts.split}: {counts.frames} frames, {void:.1%} void; {cities}")
    print(*report.lines(), sep="\n", end="\n" if report.findings else "")
    notes = len(report.findings) - len(report.errors)
    print(f"{len(report.errors)} errors, {notes} notes, {report.seconds:.1f} s")


if __name__ == "__main__":
    run_command(main)
