"""Make label-id, train-id and colour masks from the polygons of a Cityscapes data set.

    python cityscapes/generate_gt.py --root /data/cityscapes --output data/generated_gt --splits train val

Each frame becomes `<output>/<split>/<city>/<name>_gtFine_{labelIds,labelTrainIds,color}.png`. What is there and up to
date is left alone, so a run that was killed goes on where it stopped. Needs no torch; `generate_masks` is the function.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from cityscapes.atomic import lock_folder, write_bytes
from cityscapes.errors import InputError, MachineError, ParameterError, UserError, run_command
from cityscapes.layout import (
    COLOR_SUFFIX,
    LABEL_IDS_SUFFIX,
    POLYGONS_SUFFIX,
    SPLITS,
    TRAIN_IDS_SUFFIX,
    Frame,
    default_root,
    find_frames,
)
from cityscapes.workspace import demo_city_folder, generated_masks_folder

COLOR_MODES = ("rgba", "palette")
SUFFIXES = (LABEL_IDS_SUFFIX, TRAIN_IDS_SUFFIX, COLOR_SUFFIX)
_RULE = b"fill rule 1"  # raise the number when masks come out differently, so that old ones are seen as stale


@dataclass(frozen=True)
class Report:
    """What a run did: counts of frames, and what was wrong where.

    `failed` and `warnings` hold (polygon file, one line). `compared` frames were drawn now and have official masks
    beside their polygons; `differing_pixels` of `total_pixels` differ there, label ids and train ids together, in the
    frames of `differing`, (polygon file, pixels), worst first.
    """

    written: int = 0
    up_to_date: int = 0
    failed: tuple[tuple[Path, str], ...] = ()
    warnings: tuple[tuple[Path, str], ...] = ()
    compared: int = 0
    differing_pixels: int = 0
    total_pixels: int = 0
    differing: tuple[tuple[Path, int], ...] = ()
    seconds: float = 0.0

    @property
    def percent_equal(self) -> float:
        """The share of compared pixels that equal the official masks, 0 to 100; nan where nothing was compared."""
        return 100 * (1 - self.differing_pixels / self.total_pixels) if self.total_pixels else float("nan")


def generate_masks(
    root: str | Path,
    output: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    workers: int = 0,
    force: bool = False,
    color_mode: str = "rgba",
    progress: bool | None = None,
) -> Report:
    """Make the three masks of every frame below `root` that has polygons, and report what was done.

    `workers` is the number of threads, 0 for one a core. `force` makes every mask again; without it, one that was made
    from other polygons or changed since is left and reported as failed. `color_mode` is rgba, as the official files, or
    palette, smaller and faster. `progress` shows a bar; by default only on a terminal. Bad polygon files are reported,
    not raised; raises ParameterError, MissingInputError, MachineError, and BusyError when another run writes there.
    """
    start = time.monotonic()
    root, output = Path(root), Path(output)
    if color_mode not in COLOR_MODES:
        raise ParameterError(f"color_mode is {color_mode!r}; choose one of {', '.join(COLOR_MODES)}")
    if type(workers) is not int or not 0 <= workers <= 1024:
        raise ParameterError(f"workers is {workers!r}; choose 1 to 1024 threads, or 0 for one a core")
    if isinstance(splits, str) or not splits:
        raise ParameterError(f"splits is {splits!r}; give a list of splits, such as ['train', 'val']")
    frames = [frame for split in dict.fromkeys(splits) for frame in find_frames(root, split, suffix=POLYGONS_SUFFIX)]
    with lock_folder(output):
        _remove_leftovers(frames, output)
        results = list(_make_all(frames, root, output, workers, force=force, color_mode=color_mode, progress=progress))
    return _summarize(results, time.monotonic() - start)


@dataclass
class _Result:
    """What became of one frame."""

    path: Path
    written: bool = False
    up_to_date: bool = False
    problems: list[str] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    compared: bool = False
    differing_pixels: int = 0
    total_pixels: int = 0


def _make_all(frames, root, output, workers, *, force, color_mode, progress) -> Iterator[_Result]:
    """Yield one result a frame, in no particular order.

    Threads, not processes: drawing, packing and hashing release the interpreter's lock, and threads work the same in a
    notebook, a test and a script that has no main guard.
    """
    import os

    from tqdm import tqdm

    hidden = None if progress is None else not progress
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        jobs = [pool.submit(_make_one, frame, root, output, force=force, color_mode=color_mode) for frame in frames]
        try:
            for job in tqdm(as_completed(jobs), "masks", len(jobs), unit="frame", disable=hidden, leave=False):
                yield job.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _make_one(frame: Frame, root: Path, output: Path, *, force: bool, color_mode: str) -> _Result:
    result = _Result(frame.annotation(root, POLYGONS_SUFFIX))
    try:
        _make_masks(result, frame, root, output, force=force, color_mode=color_mode)
    except MachineError:
        raise
    except UserError as error:
        result.problems.append(str(error))
    return result


def _make_masks(result: _Result, frame: Frame, root: Path, output: Path, *, force: bool, color_mode: str) -> None:
    from cityscapes.mask_files import encode_png, is_made_from
    from cityscapes.masks import draw_label_ids, to_train_ids
    from cityscapes.polygons import parse_polygons, read_polygon_bytes

    content = read_polygon_bytes(result.path)
    kinds = {LABEL_IDS_SUFFIX: "ids", TRAIN_IDS_SUFFIX: "train ids", COLOR_SUFFIX: color_mode}
    origins = {suffix: b"%s %s %s" % (kind.encode(), _RULE, content) for suffix, kind in kinds.items()}
    targets = {suffix: frame.generated(output, suffix) for suffix in SUFFIXES}
    wanted = [suffix for suffix in SUFFIXES if force or not is_made_from(targets[suffix], origins[suffix])]
    if not wanted:
        result.up_to_date = True
        return
    stale = [targets[suffix] for suffix in wanted if targets[suffix].exists()]
    if stale and not force:
        raise InputError(
            f"{stale[0]}: not what {result.path.name} gives as {color_mode}, or changed since; force rewrites it"
        )
    annotation = parse_polygons(content, result.path)
    result.warnings = annotation.warnings
    label_ids = draw_label_ids(annotation)
    for suffix in wanted:
        pixels, palette = label_ids, None
        if suffix == TRAIN_IDS_SUFFIX:
            pixels = to_train_ids(label_ids)
        elif suffix == COLOR_SUFFIX:
            pixels, palette = _color(label_ids, color_mode)
        write_bytes(targets[suffix], encode_png(pixels, made_from=origins[suffix], palette=palette), durable=False)
    result.written = True
    _compare(result, frame, root, label_ids)


def _color(label_ids, color_mode: str):
    from cityscapes.labels import LABEL_ID_TO_COLOR
    from cityscapes.masks import to_rgba

    return (to_rgba(label_ids), None) if color_mode == "rgba" else (label_ids, LABEL_ID_TO_COLOR)


def _compare(result: _Result, frame: Frame, root: Path, label_ids) -> None:
    """Compare with the masks that the data set provides, where it does; a damaged one is a problem of the frame."""
    import numpy as np

    from cityscapes.mask_files import read_label_png
    from cityscapes.masks import to_train_ids

    for suffix, ours in ((LABEL_IDS_SUFFIX, label_ids), (TRAIN_IDS_SUFFIX, to_train_ids(label_ids))):
        path = frame.annotation(root, suffix)
        if path.is_file():
            theirs = read_label_png(path, size=label_ids.shape)
            result.compared = True
            result.differing_pixels += int(np.count_nonzero(ours != theirs))
            result.total_pixels += ours.size


def _remove_leftovers(frames: Sequence[Frame], output: Path) -> None:
    """Remove unfinished files of a killed run; the lock on `output` says that nobody is writing them now."""
    for folder in {frame.generated(output, "").parent for frame in frames}:
        for path in folder.glob(".*_gtFine_*.png.*.tmp"):
            path.unlink(missing_ok=True)


def _summarize(results: Sequence[_Result], seconds: float) -> Report:
    results = sorted(results, key=lambda result: result.path)
    differing = [(result.path, result.differing_pixels) for result in results if result.differing_pixels]
    return Report(
        written=sum(result.written for result in results),
        up_to_date=sum(result.up_to_date for result in results),
        failed=tuple((result.path, problem) for result in results for problem in result.problems),
        warnings=tuple((result.path, warning) for result in results for warning in result.warnings),
        compared=sum(result.compared for result in results),
        differing_pixels=sum(result.differing_pixels for result in results),
        total_pixels=sum(result.total_pixels for result in results),
        differing=tuple(sorted(differing, key=lambda item: -item[1])),
        seconds=seconds,
    )


def main() -> int:
    """Run the command line and return its exit status: 0, or 3 when a frame failed."""
    arguments = _parser().parse_args()
    root = arguments.root or default_root()
    if arguments.root is None and root == demo_city_folder():
        _finish_demo_city(root)
    output = arguments.output or generated_masks_folder()
    report = generate_masks(
        root,
        output,
        splits=arguments.splits,
        workers=arguments.workers,
        force=arguments.force,
        color_mode=arguments.color_mode,
    )
    _print_report(report, root, output)
    return InputError.exit_status if report.failed else 0


def _finish_demo_city(root: Path) -> None:
    """Write the embedded city where there is none, or the rest of one that was interrupted; any whole one will do."""
    import json

    from cityscapes.demo_city import DESCRIPTION, write_demo_city

    try:
        whole = json.loads((root / DESCRIPTION).read_text(encoding="utf-8"))["complete"] is True
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        print(f"no data set found: writing the embedded city to {root}", flush=True)
        write_demo_city(root)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Make label-id, train-id and colour masks from the polygons of a Cityscapes data set.",
        epilog="Masks that are there and up to date are left alone. Exit status: 0 done, 2 wrong usage, 3 bad input "
        "(the good frames are written all the same), 4 disk full or not writable, 7 another run writes there.",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="the data set, with gtFine/ inside (default: $CITYSCAPES_DATASET, else data/, else the embedded city)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where masks go (default: data/generated_gt/)")
    parser.add_argument("--splits", nargs="+", default=["train", "val"], choices=SPLITS, help="default: train val")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="threads (default: 0, one a core)")
    parser.add_argument("--force", action="store_true", help="make every mask again, also those that look changed")
    parser.add_argument("--color-mode", choices=COLOR_MODES, default="rgba", help="rgba (default) is the official form")
    return parser


def _print_report(report: Report, root: Path, output: Path, *, most: int = 50) -> None:
    import sys

    for kind, items in (("warning", report.warnings), ("error", report.failed)):
        for _, line in items[:most]:
            print(f"{kind}: {line}", file=sys.stderr)
        if len(items) > most:
            print(f"{kind}: and {len(items) - most} more", file=sys.stderr)
    sys.stderr.flush()
    rows = [
        ("polygons from", root),
        ("masks in", output),
        ("frames written", report.written),
        ("frames up to date", report.up_to_date),
        ("frames failed", len({path for path, _ in report.failed})),
        ("compared with provided masks", f"{report.compared} frames written now"),
    ]
    if report.compared:
        rows.append(("pixels differing", f"{report.differing_pixels:,} of {report.total_pixels:,}"))
        rows.append(("pixels equal", f"{report.percent_equal:.6f} %"))
    rows += [("  differs most", f"{path.name}: {pixels:,}") for path, pixels in report.differing[:10]]
    rows.append(("seconds", f"{report.seconds:.1f}"))
    for name, value in rows:
        print(f"{name:30}{value}")


if __name__ == "__main__":
    run_command(main)
