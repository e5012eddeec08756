"""Make label-id, train-id and colour masks from the polygons of a Cityscapes data set.

    python cityscapes/generate_gt.py --root /data/cityscapes --output data/generated_gt --splits train val

Each frame becomes `<output>/<split>/<city>/<name>_gtFine_{labelIds,labelTrainIds,color}.png`. What is there and up to
date is left alone, so a run that was killed goes on where it stopped. Needs no torch; `generate_masks` is the function.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from cityscapes.atomic import lock_folder
from cityscapes.errors import InputError, ParameterError, run_command
from cityscapes.frame_masks import Job, Result, is_up_to_date, make_masks
from cityscapes.layout import POLYGONS_SUFFIX, SPLITS, Frame, default_root, find_frames
from cityscapes.workspace import demo_city_folder, generated_masks_folder

COLOR_MODES = ("rgba", "palette")


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
    jobs = [Job(frame, root, output, color_mode, force) for frame in frames]
    results: list[Result] = []
    # Threads, not processes: drawing, packing and hashing release the interpreter's lock, and threads work the same in
    # a notebook, in a test and in a script that has no main guard.
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        pending = [job for job, done in zip(jobs, pool.map(is_up_to_date, jobs), strict=True) if not done]
        if pending:  # where there is nothing to do, nobody else's lock is in the way
            with lock_folder(output):
                _remove_leftovers(frames, output)
                results = _make_all(pending, pool, progress)
    return _summarize(results, up_to_date=len(jobs) - len(pending), seconds=time.monotonic() - start)


def _make_all(jobs: Sequence[Job], pool: ThreadPoolExecutor, progress: bool | None) -> list[Result]:
    from tqdm import tqdm

    futures = [pool.submit(make_masks, job) for job in jobs]
    hidden = None if progress is None else not progress
    try:
        finished = tqdm(as_completed(futures), "masks", len(futures), unit="frame", leave=False, disable=hidden)
        return [future.result() for future in finished]
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)  # before the lock on the folder is given back
        raise


def _remove_leftovers(frames: Sequence[Frame], output: Path) -> None:
    """Remove unfinished files of a killed run; the lock on `output` says that nobody is writing them now."""
    for folder in {frame.generated(output, "").parent for frame in frames}:
        for path in folder.glob(".*_gtFine_*.png.*.tmp"):
            path.unlink(missing_ok=True)


def _summarize(results: Sequence[Result], *, up_to_date: int, seconds: float) -> Report:
    results = sorted(results, key=lambda result: result.path)
    differing = [(result.path, result.differing_pixels) for result in results if result.differing_pixels]
    return Report(
        written=sum(result.written for result in results),
        up_to_date=up_to_date,
        failed=tuple((result.path, result.problem) for result in results if result.problem),
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

    from cityscapes.demo.city import DESCRIPTION, write_demo_city

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
