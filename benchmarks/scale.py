"""Measure how time, memory and open files grow with the number of frames: masks, audit, predictions, and scores.

    python -m benchmarks.scale [--frames 10 100 1000 5000] [--drawn 200] [--folder DIR]

Frames of 1024 x 2048 are drawn once and linked under distinct names, as many as are asked for. Each stage handles each
number of frames in a process of its own, so that its peak memory is its own: `generate_masks` and `score_folder` as
their commands call them, `audit`, and `predict_images` with a stand-in for the network, since a real one would hide
everything else. Time is fitted by a line, whose slope is the cost of a frame.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from cityscapes.demo.city import write_demo_city
from cityscapes.errors import run_command
from cityscapes.layout import IMAGE_SUFFIX, POLYGONS_SUFFIX, find_frames

SPLIT = "val"
CITY = 500
"""Frames of a city: as many as Cityscapes' larger cities have, so that folders do not grow without bound."""


def draw(folder: Path, count: int) -> list[tuple[Path, Path]]:
    """Draw so many frames at full size, and return the image and the polygons of each."""
    root = write_demo_city(folder / "drawn", height=1024, width=2048, frames={"train": 1, SPLIT: count, "test": 1})
    frames = find_frames(root, SPLIT, suffix=POLYGONS_SUFFIX)
    return [(frame.image(root), frame.annotation(root, POLYGONS_SUFFIX)) for frame in frames]


def link(drawn: Sequence[tuple[Path, Path]], root: Path, count: int) -> None:
    """Link drawn frames as a data set of `count` frames with names of their own."""
    for number in range(count):
        city = "city" + "abcdefghij"[number // CITY % 10] * (1 + number // CITY // 10)
        name = f"{city}_{number % CITY:06d}_000019"
        places = zip(("leftImg8bit", "gtFine"), (IMAGE_SUFFIX, POLYGONS_SUFFIX), strict=True)
        for source, (kind, suffix) in zip(drawn[number % len(drawn)], places, strict=True):
            target = root / kind / SPLIT / city / f"{name}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)


def make_masks(folder: Path) -> int:
    """Make the masks, by one process a core."""
    from cityscapes.generate_gt import generate_masks

    report = generate_masks(
        folder / "data", folder / "masks", splits=[SPLIT], instances=True, color_mode="palette", processes=True
    )
    return report.written


def audit_frames(folder: Path) -> int:
    """Audit images and masks."""
    from cityscapes.audit import audit

    return audit(folder / "data", [SPLIT], folder / "masks").splits[0].images


def predict_frames(folder: Path) -> int:
    """Predict all images by a stand-in, whose logits are the colors of 16 x 16 pixels times fixed weights."""
    import torch
    from torch import nn

    from cityscapes.labels import CLASS_NAMES
    from dlv3p.evaluation.inference import Predictor
    from dlv3p.parameters.protocols import WHOLE_IMAGE
    from dlv3p.parameters.training import TrainParameters
    from dlv3p.prediction.memory import MemoryLimit
    from dlv3p.prediction.predict import predict_images
    from dlv3p.prediction.predictor import ImagePredictor
    from dlv3p.prediction.results import Outputs
    from dlv3p.prediction.sources import find_images

    class Patches(nn.Conv2d):
        align_corners, widths, rule, colors = False, None, None, None
        logits_at_stride = nn.Conv2d.forward

    torch.manual_seed(0)
    torch.set_num_threads(2)
    network = Predictor(
        "stand_in", Path("stand_in"), 0, Patches(3, len(CLASS_NAMES), 16, 16).eval(), TrainParameters(), CLASS_NAMES,
        torch.device("cpu"),
    )  # fmt: skip
    predictor = ImagePredictor(network, "exact", WHOLE_IMAGE, MemoryLimit(4.0, 1024, 128))
    source, outputs = find_images(folder / "data" / "leftImg8bit" / SPLIT), Outputs(colors=False, overlays=False)
    return len(predict_images(predictor, source, folder / "predictions", outputs, progress="none").done)


def score_predictions(folder: Path) -> int:
    """Score the predictions against the masks."""
    from cityscapes.scores.score_files import score_folder
    from cityscapes.scores.truth_files import find_truth

    truth = find_truth(folder / "masks", SPLIT)
    score_folder(folder / "predictions" / "ids", truth)
    return len(truth)


STAGES: dict[str, Callable[[Path], int]] = {
    "masks": make_masks,
    "audit": audit_frames,
    "predictions": predict_frames,
    "scores": score_predictions,
}


class Watch(threading.Thread):
    """Watch this process and those that it starts: processor seconds, peak memory of one, and open files of all."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.ended, self.files, self.peak = threading.Event(), 0, 0.0
        self.processor: dict[int, float] = {}

    def run(self) -> None:
        while not self.ended.wait(0.05):
            self.look()

    def look(self) -> None:
        """Note what each process has used so far; one that has just ended keeps what was seen of it."""
        files, this = 0, psutil.Process()
        for process in (this, *this.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                used = process.cpu_times()
                self.processor[process.pid] = used.user + used.system
                self.peak = max(self.peak, process.memory_info().rss / 2**20)
                files += process.num_fds()
        self.files = max(self.files, files)


def run_stage(stage: str, folder: Path) -> dict[str, float]:
    """Run a stage in this process; return frames, seconds, processor seconds, peak MiB, and most open files."""
    watch = Watch()
    watch.start()
    began = time.perf_counter()
    try:
        frames = STAGES[stage](folder)
    finally:
        watch.ended.set()
        watch.join()
    seconds = time.perf_counter() - began
    watch.look()
    processor = sum(watch.processor.values())
    return {"frames": frames, "seconds": seconds, "processor": processor, "memory": watch.peak, "files": watch.files}


def measure(stage: str, folder: Path) -> dict[str, float]:
    """Run a stage in a new process."""
    words = [sys.executable, "-m", "benchmarks.scale", "--stage", stage, "--folder", str(folder)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def fit(frames: Sequence[float], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Fit seconds = start + slope * frames, with relative errors that are equal; return start, slope, its error."""
    counts, weights = np.asarray(frames, float), 1 / np.asarray(seconds, float)
    design = np.stack([np.ones_like(counts), counts], axis=1) * weights[:, None]
    solution, *_ = np.linalg.lstsq(design, np.ones_like(counts), rcond=None)
    rest = design @ solution - 1
    variance = rest @ rest / max(1, len(counts) - 2)
    error = np.sqrt(variance * np.linalg.inv(design.T @ design)[1, 1])
    return float(solution[0]), float(solution[1]), float(error)


def report(stage: str, rows: Sequence[dict[str, float]]) -> None:
    """Print what a stage took, and how that grows."""
    for row in rows:
        spent = f"{row['seconds']:8.1f} s, processor {row['processor']:8.1f} s"
        most = f"peak {row['memory']:6.0f} MiB, {row['files']:3.0f} open files"
        print(f"  {stage:<12} {row['frames']:6.0f} frames {spent}, {most}")
    if len(rows) > 2:
        start, slope, error = fit([row["frames"] for row in rows], [row["processor"] for row in rows])
        added = rows[-1]["memory"] - rows[0]["memory"]
        print(f"  {stage:<12} {1000 * slope:.2f} ms of processor time a frame (error {1000 * error:.2f}) after "
              f"{start:.1f} s; {added:+.0f} MiB from {rows[0]['frames']:.0f} to {rows[-1]['frames']:.0f} frames, "
              f"{1024 * added / (rows[-1]['frames'] - rows[0]['frames']):.1f} kB a frame", flush=True)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Print time, memory and open files of every stage, and how they grow."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    counts = [10, 100, 1000, 5000]
    parser.add_argument("--frames", type=int, nargs="+", default=counts, help="default: 10 100 1000 5000")
    parser.add_argument("--drawn", type=int, default=200, help="different frames among them (default: 200)")
    parser.add_argument("--folder", type=Path, help="where drawn frames stay for another time (default: none)")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stage:
        print(json.dumps(run_stage(options.stage, options.folder)))
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        drawn = draw(options.folder or Path(temporary), options.drawn)
        rows: dict[str, list] = {stage: [] for stage in STAGES}
        for count in sorted(options.frames):
            folder = Path(temporary) / str(count)
            link(drawn, folder / "data", count)
            for stage in STAGES:
                rows[stage].append(measure(stage, folder))
                if rows[stage][-1]["frames"] != count:
                    raise SystemExit(f"{stage}: {rows[stage][-1]['frames']} of {count} frames were handled")
            shutil.rmtree(folder)
    print(f"frames of 1024 x 2048, {len(drawn)} drawn, {os.cpu_count()} cores")
    for stage in STAGES:
        report(stage, rows[stage])
    return 0


if __name__ == "__main__":
    run_command(main)
