"""Audit a Cityscapes data set before anyone trains on it: what is missing, damaged, mixed up or unbalanced.

    python cityscapes/audit.py --root /data/cityscapes --splits train val

Reads file names, image headers and masks, and decodes no image: about 10 s per 1,000 frames of 1024 x 2048 on one core.
Findings are data; nothing is changed on the disk. Needs no torch; call `audit` from Python.
"""

import argparse
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from cityscapes.audit_frames import FrameAudit, audit_frame, list_files, shown
from cityscapes.audit_rules import (
    IN_TWO_SPLITS,
    AuditReport,
    SplitCounts,
    errors_first,
    find_duplicates,
    find_in_classes,
    find_unlearnable,
)
from cityscapes.errors import InputError, MissingInputError, run_command
from cityscapes.files.untrusted import regular
from cityscapes.findings import Finding
from cityscapes.layout import IMAGE_SUFFIX, SPLITS, check_splits, default_root
from cityscapes.parallel import number_of_workers
from cityscapes.workspace import generated_masks_folder


def audit(
    root: str | Path,
    splits: Sequence[str] = ("train", "val"),
    generated: str | Path | None = None,
    *,
    workers: int = 0,
    progress: bool | None = None,
) -> AuditReport:
    """Check every frame of the splits below a Cityscapes root and report what is wrong; change nothing.

    `generated` holds the masks made from polygons, by default `data/generated_gt/` of the workspace. `workers` is the
    number of threads, 0 for one per core. `progress` shows a bar; by default only on a terminal. Problems of the data
    are findings; raises MissingInputError only where there is no data set, and ParameterError.
    """
    from tqdm import tqdm

    start = time.monotonic()
    root, generated = Path(root), Path(generated or generated_masks_folder())
    splits, count = check_splits(splits), number_of_workers(workers)
    if not any((root / folder).is_dir() for folder in ("leftImg8bit", "gtFine")):
        raise MissingInputError(f"{shown(root)}: holds neither leftImg8bit/ nor gtFine/; give a Cityscapes root")
    counts, findings, images = [], [], []
    hidden = None if progress is None else not progress
    with ThreadPoolExecutor(count) as pool:
        for split in splits:
            frames, found = list_files(root, split, generated)
            audits = pool.map(lambda files: audit_frame(files, root), frames.values())
            bar = tqdm(audits, f"audit {split}", len(frames), unit="frame", leave=False, disable=hidden)
            counts.append(_count(split, bar, found))
            images += [(split, files.frame.name, files.image) for files in frames.values() if files.image]
            findings += found + _check_split(counts[-1], root)
    findings += _find_copies(images, root)
    if trained := [one for one in counts if one.split == "train"]:
        findings += find_unlearnable(trained[0], counts)
    return AuditReport(root, tuple(counts), errors_first(findings), time.monotonic() - start)


def _count(split: str, audits: Iterable[FrameAudit], findings: list[Finding]) -> SplitCounts:
    from cityscapes.labels import CLASS_NAMES

    cities, masks = Counter(), Counter()
    counts = SplitCounts(split, CLASS_NAMES, groups={"cities": cities, "masks": masks})
    for frame in audits:
        findings += frame.findings
        if frame.files.image is not None:
            counts.images += 1
            cities[frame.files.frame.city] += 1
        if frame.size:
            counts.add_image(frame.size, frame.mode)
        if frame.files.masks:
            masks["generated" if frame.files.generated else "provided"] += 1
        if frame.pixels:
            counts.add_mask(frame.pixels)
    return counts


def _check_split(counts: SplitCounts, root: Path) -> list[Finding]:
    """Find what only a whole split shows: no images, several sizes, absent and rare classes."""
    split, findings = counts.split, []
    if not counts.images:
        folder = shown(root / "leftImg8bit" / split)
        remedy = f"put images at <city>/<city>_<seq>_<frame>{IMAGE_SUFFIX} there, or leave the split out"
        findings.append(Finding("empty split", split, split, f"{folder} holds no image", remedy))
    if len(counts.sizes) > 1:
        listed = ", ".join(f"{width} x {height} ({n} frames)" for (width, height), n in counts.sizes.most_common(5))
        remedy = "check that they come from one camera; training crops to one size, validation takes them as they are"
        findings.append(Finding("images of several sizes", split, split, listed, remedy, is_error=False))
    return findings + find_in_classes(counts, trained=split == "train")


def _find_copies(images: Sequence[tuple[str, str, Path]], root: Path) -> list[Finding]:
    """Find frames of one name in two splits, and images of the same bytes; only those of equal size are read."""
    splits_of, sizes, contents = defaultdict(list), defaultdict(list), defaultdict(dict)
    for split, name, path in images:
        splits_of[name].append(split)
        with suppress(OSError):  # a broken link is a finding of its frame
            sizes[path.stat().st_size].append((split, name, path))
    for same in sizes.values():
        for split, name, path in same if len(same) > 1 else ():
            with suppress(OSError, InputError), open(regular(path), "rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                # One place a name: a frame in two splits is found by its name already.
                contents[digest].setdefault(name, (split, shown(path, root)))
    return [
        Finding("frame in two splits", " ".join(among), name, f"it is in {' and in '.join(among)}", IN_TWO_SPLITS)
        for name, among in splits_of.items()
        if len(among) > 1
    ] + find_duplicates({digest: list(places.values()) for digest, places in contents.items()})


def main() -> int:
    """Run the command line and return its exit status: 0, or 3 when there are errors."""
    arguments = _parser().parse_args()
    report = audit(arguments.root or default_root(), arguments.splits, arguments.generated, workers=arguments.workers)
    _print_report(report)
    return InputError.exit_status if report.errors else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Audit a Cityscapes data set before anyone trains on it.",
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
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="threads (default: 0, one per core)")
    return parser


def _print_report(report: AuditReport) -> None:
    print(f"data set {shown(report.root)}")
    for counts in report.splits:
        cities = ", ".join(f"{city} {n}" for city, n in sorted(counts.groups["cities"].items()))
        print(f"{counts.split}: {counts.images} frames, {counts.ignored_share:.1%} void; {cities}")
    print(*report.lines(), sep="\n", end="\n" if report.findings else "")
    notes = len(report.findings) - len(report.errors)
    counts = (f"{n} {kind}{'' if n == 1 else 's'}" for n, kind in ((len(report.errors), "error"), (notes, "note")))
    print(f"{', '.join(counts)}, {report.seconds:.1f} s")


if __name__ == "__main__":
    run_command(main)
