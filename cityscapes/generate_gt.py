"""Make label-id, train-id, color and instance-id masks from the polygons of a Cityscapes data set, or of another one.

    python cityscapes/generate_gt.py --root /data/cityscapes --output data/generated_gt --splits train val

Each frame becomes `<output>/<split>/<city>/<name>_gtFine_{labelIds,labelTrainIds,color}.png`. Masks that are up
to date are left alone, so a killed run continues where it stopped. Needs no torch; call `generate_masks` from Python.
"""

import argparse
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cityscapes.errors import InputError, ParameterError, run_command
from cityscapes.files.leftovers import remove_leftovers
from cityscapes.files.locks import lock_folder
from cityscapes.files.untrusted import regular
from cityscapes.layout import POLYGONS_SUFFIX, SPLITS, Frame, check_splits, default_root, find_frames
from cityscapes.masks.frame import Job, Result, State, inspect_masks, make_masks
from cityscapes.masks.report import MaskReport, Tally, print_report, record_source, refuse_another_source
from cityscapes.parallel import map_bounded, number_of_workers, worker_processes
from cityscapes.workspace import demo_city_folder, generated_masks_folder

if TYPE_CHECKING:
    from cityscapes.labels import LabelTable

COLOR_MODES = ("rgba", "palette")
MANY_FRAMES = 64
"""The number of frames from which starting processes pays off."""
MOST_IN_A_TASK = 16
"""Frames of a task of an executor: a task costs about half a millisecond, a frame of 1024 x 2048 some six."""


def generate_masks(
    root: str | Path,
    output: str | Path,
    *,
    splits: Sequence[str] = ("train", "val"),
    workers: int = 0,
    force: bool = False,
    color_mode: str = "rgba",
    progress: bool | None = None,
    instances: bool = False,
    table: "LabelTable | None" = None,
    executor: Executor | None = None,
    processes: bool = False,
) -> MaskReport:
    """Make the masks of every frame below `root` that has polygons, and report what was done.

    Masks are label ids, train ids, color and, with `instances`, instance ids. `workers` is the number of threads, 0 for
    one per core; with `processes` and many frames, of processes, which gain more and take a second to
    start. `force` makes every mask again; without it, a mask that was made from other polygons or changed since is
    left alone and reported as failed. `color_mode` is rgba, as the official files, or palette, smaller and faster.
    `progress` shows a bar; by default only on a terminal. `table` has the labels of another data set, whose polygon
    files may be named `gtFine/<split>/<folder>/<any name>_gtFine_polygons.json`. Bad polygon files are reported, not
    raised.

    `executor` is any `concurrent.futures.Executor` that does the work instead of threads, in other processes or on
    other machines that see the same folders; `dask.distributed.Client(...).get_executor()` is one. `workers` is then
    the number it has, if known.

    Raises ParameterError, MissingInputError, MachineError, BusyError when another run writes there, and InputError when
    masks of another data set are in the place of this one's.
    """
    start = time.monotonic()
    root, output = Path(root), Path(output)
    if color_mode not in COLOR_MODES:
        raise ParameterError(f"color_mode is {color_mode!r}; choose one of {', '.join(COLOR_MODES)}")
    splits, count = check_splits(splits), number_of_workers(workers)
    if executor:
        root, output = root.absolute(), output.absolute()  # its workers may run in another folder
    frames = [
        frame
        for split in splits
        for frame in find_frames(root, split, suffix=POLYGONS_SUFFIX, any_name=table is not None)
    ]
    job = partial(Job, root=root, output=output, color_mode=color_mode, force=force, instances=instances, table=table)
    if executor and not workers:
        count = 256
    # Enough tasks that no worker waits for the next one, and that all end at about the same time.
    tasks = {"in_flight": 4 * count, "batch": min(MOST_IN_A_TASK, 1 + len(frames) // (16 * count))}
    with _pool(executor, count, processes=processes and len(frames) >= MANY_FRAMES) as pool:
        tally, states = Tally(), dict.fromkeys(frames, State.DONE)
        for inspection in map_bounded(pool, inspect_masks, map(job, frames), **tasks):
            states[inspection.frame] = inspection.state
            if inspection.refused:
                tally.add(inspection.refused)
        pending = [frame for frame in frames if states[frame] is State.TO_MAKE]
        up_to_date = sum(state is State.DONE for state in states.values())
        if up_to_date < len(frames):  # without work to do, another run's lock does not matter
            with lock_folder(output):
                refuse_another_source(output, [frame for frame in frames if states[frame] is State.STALE], root)
                record_source(output, pending, root)
                _remove_leftovers(frames, output)
                results = map_bounded(pool, make_masks, map(job, pending), **tasks)
                with closing(results):  # whatever happens, all writing ends before the lock is released
                    for result in _with_progress(results, len(pending), progress):
                        tally.add(result)
    return tally.report(up_to_date=up_to_date, seconds=time.monotonic() - start)


def _pool(executor: Executor | None, count: int, *, processes: bool) -> AbstractContextManager[Executor]:
    if executor:
        return nullcontext(executor)
    # Threads also work in a script without a main guard; but parsing holds the interpreter's lock, so that two of
    # them gain little.
    return worker_processes(count) if processes and count > 1 else ThreadPoolExecutor(count)


def _with_progress(results: Iterable[Result], total: int, progress: bool | None) -> Iterable[Result]:
    from tqdm import tqdm

    hidden = None if progress is None else not progress
    return tqdm(results, "masks", total, unit="frame", leave=False, disable=hidden)


def _remove_leftovers(frames: Sequence[Frame], output: Path) -> None:
    """Remove unfinished files of a killed run; the lock on `output` guarantees that no other run is writing."""
    for folder in {output, *(frame.generated(output, "").parent for frame in frames)}:
        remove_leftovers(folder, below=False, locked=True)


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
        instances=arguments.instances,
        table=_label_table(arguments.labels),
        processes=True,
    )
    print_report(report, root, output)
    return InputError.exit_status if report.failed else 0


def _label_table(path: Path | None) -> "LabelTable | None":
    if path is None:
        return None
    from cityscapes.label_files import read_label_table

    return read_label_table(path)


def _finish_demo_city(root: Path) -> None:
    """Write the embedded city where it is missing or incomplete; a complete one of any size is left alone."""
    import json

    from cityscapes.demo.city import DESCRIPTION, write_demo_city

    try:
        whole = json.loads(regular(root / DESCRIPTION).read_text(encoding="utf-8"))["complete"] is True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        print(f"no data set found: writing the embedded city to {root}", flush=True)
        write_demo_city(root)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Make label-id, train-id and color masks from the polygons of a Cityscapes data set.",
        epilog="Existing masks that are up to date are left alone. Exit status: 0 done, 2 wrong usage, 3 bad input "
        "(all other frames are written), 4 disk full or not writable, 7 another run writes to the same folder. "
        "On a cluster: in Python, generate_masks(..., executor=dask.distributed.Client(ADDRESS).get_executor()).",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="the data set, with gtFine/ inside (default: $CITYSCAPES_DATASET, else data/, else the embedded city)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where masks go (default: data/generated_gt/)")
    parser.add_argument("--splits", nargs="+", default=["train", "val"], choices=SPLITS, help="default: train val")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: 0, one per core)")
    parser.add_argument("--force", action="store_true", help="make every mask again, even where one was changed")
    parser.add_argument(
        "--color-mode", choices=COLOR_MODES, default="rgba", help="rgba (default) is the official format"
    )
    parser.add_argument(
        "--instances", action="store_true", help="also make instance-id masks, 16-bit as the official ones"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="the label table of another data set, CSV or JSON; `python cityscapes/label_files.py > labels.csv` writes "
        "the Cityscapes table to start from",
    )
    return parser


if __name__ == "__main__":
    run_command(main)
