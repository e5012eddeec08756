"""Time masks from polygons: this project against cityscapesScripts, from the JSON file to three PNG files.

    python -m benchmarks.masks [--root /data/cityscapes] [--frames 8] [--repeats 5]

Both run on one thread, interleaved, on the same frames, and write label ids, train ids and colors to new files; the
figure is the median over these pairs of the ratio of process times. Frames are those of `--root`, else of the embedded
city at 1024 x 2048. The time of each step is measured separately, since reading the clock at every step costs time.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import gc
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from cityscapes.demo.city import write_demo_city
from cityscapes.errors import require, run_command
from cityscapes.files import png_write as mask_files
from cityscapes.layout import POLYGONS_SUFFIX, SPLITS, Frame, find_frames
from cityscapes.masks import draw as masks
from cityscapes.masks import frame as frame_masks
from cityscapes.masks import polygons
from cityscapes.masks.frame import Job, make_masks

MODES = ("rgba", "palette")


def official_way(polygon_file: Path, folder: Path) -> None:
    """Make the three masks as the official preparation does: one call, and one reading of the polygons, for each."""
    from cityscapesscripts.preparation.json2labelImg import json2labelImg

    for encoding in ("ids", "trainIds", "color"):
        json2labelImg(str(polygon_file), str(folder / f"{encoding}.png"), encoding)


def seconds(way: Callable[[], object]) -> float:
    """Return the process seconds of one call."""
    start = time.process_time()
    way()
    return time.process_time() - start


def measure(frames: list[Frame], root: Path, folder: Path, repeats: int) -> list[dict[str, float]]:
    """Return the process seconds of each way for each frame and round, after a warm-up round."""
    rounds = []
    for number in range(repeats + 1):
        for frame in frames:
            new = Path(tempfile.mkdtemp(dir=folder))
            ways = {"theirs": lambda frame=frame, new=new: official_way(frame.annotation(root, POLYGONS_SUFFIX), new)}
            for mode in MODES:
                job = Job(frame, root, new / mode, mode)
                next(iter(job.targets.values())).parent.mkdir(parents=True)
                ways[mode] = lambda job=job: make_masks(job)
            gc.collect()
            order = list(ways) if number % 2 else list(ways)[::-1]
            times = {name: seconds(ways[name]) for name in order}
            shutil.rmtree(new)
            if number:
                rounds.append(times)
    return rounds


def time_steps(frames: list[Frame], root: Path, folder: Path, mode: str) -> dict[str, float]:
    """Return the mean milliseconds per frame of each step, and of the whole with the clocks running."""
    spent: dict[str, float] = defaultdict(float)

    def clocked(module, name: str, step: Callable[..., str]):
        function = getattr(module, name)

        def run(*arguments, **options):
            start = time.process_time()
            value = function(*arguments, **options)
            spent[step(**options)] += time.process_time() - start
            return value

        return patch.object(module, name, run)

    def packed(table=None, **_) -> str:
        return "encode label ids" if table is None else "encode train ids" if table.ndim == 1 else "encode colors"

    with ExitStack() as stack:
        for module, name, step in (
            (polygons, "parse_polygons", "parse"),
            (masks, "draw_label_ids", "draw"),
            (mask_files, "_seal", "hash"),
            (frame_masks, "_origins", "hash"),
            (frame_masks, "write_bytes", "write"),
        ):
            stack.enter_context(clocked(module, name, lambda step=step, **_: step))
        stack.enter_context(clocked(mask_files, "pack_pixels", packed))
        for frame in frames:
            spent["whole"] += seconds(lambda frame=frame: make_masks(Job(frame, root, folder / "clocked", mode)))
    shutil.rmtree(folder / "clocked")
    return {step: 1000 * value / len(frames) for step, value in spent.items()}


def copy_polygons(source: Path, root: Path, limit: int) -> list[Frame]:
    """Copy only the polygon files of a data set: without provided masks, neither way compares with any."""
    found = [
        frame
        for split in SPLITS
        if (source / "gtFine" / split).is_dir()
        for frame in find_frames(source, split, suffix=POLYGONS_SUFFIX)
    ]
    for frame in found[:limit]:
        copy = frame.annotation(root, POLYGONS_SUFFIX)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(frame.annotation(source, POLYGONS_SUFFIX), copy)
    return found[:limit]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print milliseconds per frame, the ratios, and the time of each step."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masks", description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="a Cityscapes data set (default: the embedded city)")
    parser.add_argument("--frames", type=int, default=8, help="at most so many (default: 8)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count (default: 5)")
    options = parser.parse_args(arguments)
    require("benchmarks.masks", ("cityscapesscripts",), "bench")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        root = options.root
        if root is None:
            counts = {"train": options.frames, "val": 1, "test": 1}
            root = write_demo_city(folder / "city", height=1024, width=2048, frames=counts)
        frames = copy_polygons(root, folder / "polygons", options.frames)
        rounds = measure(frames, folder / "polygons", folder, options.repeats)
        print(
            f"polygons to three PNG files, {len(frames)} frames of {options.root or 'the embedded city'}, one thread,"
        )
        print(f"{len(rounds)} interleaved pairs, medians")
        print(f"  cityscapesScripts   {1000 * statistics.median(times['theirs'] for times in rounds):8.1f} ms")
        for mode in MODES:
            ratio = statistics.median(times["theirs"] / times[mode] for times in rounds)
            print(f"  {mode:<10}colors   {1000 * statistics.median(t[mode] for t in rounds):8.1f} ms {ratio:7.1f} x")
        for mode in MODES:
            steps = time_steps(frames, folder / "polygons", folder, mode)
            rest = steps["whole"] - sum(value for step, value in steps.items() if step != "whole")
            listed = ", ".join(f"{step} {value:.2f}" for step, value in {**steps, "rest": rest}.items())
            print(f"time per step, {mode} (ms): {listed}")
    return 0


if __name__ == "__main__":
    run_command(main)
