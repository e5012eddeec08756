"""Time the official scores: this project against cityscapesScripts 2.3.0 from PyPI, on the same PNG files.

    python -m benchmarks.official_scores [--frames 6 --repeats 7 --root DIR]

All ways run on one thread, interleaved; a figure is the median over frames and rounds of the ratio of process times, so
that a slow minute of the machine affects all alike. `from files` reads three PNG files per frame: label ids, instance
ids and the prediction. `from memory` is the evaluation of a network: the truth was decoded once, the prediction is an
array and is never written. Every round compares the scores. Needs cityscapesScripts, from the extra `test`.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import official_tool
from cityscapes.demo.city import write_demo_city
from cityscapes.errors import require, run_command
from cityscapes.labels import LABEL_ID_TO_TRAIN_ID, TRAINED_LABELS
from cityscapes.layout import INSTANCE_IDS_SUFFIX, LABEL_IDS_SUFFIX
from cityscapes.scores.official_scores import OfficialScores, ScoreAccumulator
from cityscapes.scores.score_files import score_folder
from cityscapes.scores.truth_files import TruthFiles, find_truth

WAYS = ("official from files", "ours from files", "ours from memory")


def noisy(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return label ids like those of a good network: edges a few pixels off, forty blobs of a wrong class."""
    prediction = np.roll(truth, (1, 3), (0, 1))
    prediction[LABEL_ID_TO_TRAIN_ID[prediction] == 255] = 7
    height, width = truth.shape
    for _ in range(40):
        y, x, radius = rng.integers(height), rng.integers(width), rng.integers(3, 40)
        rows, columns = np.ogrid[:height, :width]
        prediction[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = TRAINED_LABELS[rng.integers(19)].label_id
    return prediction


def prepare(folder: Path, root: Path, split: str, frames: int) -> list[tuple[TruthFiles, Path]]:
    """Write truth and prediction of each frame as PNG files by Pillow, and return their paths."""
    rng, written = np.random.default_rng(0), []
    for files in find_truth(root, split)[:frames]:
        label_ids, instance_ids = files.read()
        paths = [folder / "truth" / (files.name + suffix) for suffix in (LABEL_IDS_SUFFIX, INSTANCE_IDS_SUFFIX)]
        prediction = folder / files.name / f"{files.name}_prediction.png"
        own = (files.label_ids, files.instance_ids)
        for path, pixels, there in zip(paths, (label_ids, instance_ids), own, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(there.read_bytes()) if there else Image.fromarray(pixels).save(path)
        prediction.parent.mkdir(parents=True)
        Image.fromarray(noisy(label_ids, rng)).save(prediction)
        written.append((TruthFiles(files.name, *paths, None), prediction))
    return written


def ways(files: TruthFiles, prediction: Path) -> dict[str, Callable[[], Any]]:
    """Return the three ways to score one frame."""
    label_ids, instance_ids = files.read()
    pixels = np.array(Image.open(prediction))

    def from_memory() -> OfficialScores:
        accumulator = ScoreAccumulator()
        accumulator.add(str(prediction), label_ids, pixels, instance_ids)
        return accumulator.result()

    pair = [(str(prediction), str(files.label_ids))]
    calls = (
        lambda: official_tool.score(pair, images=False),
        lambda: score_folder(prediction.parent, [files], ids="label", workers=1, progress=False).scores,
        from_memory,
    )
    return dict(zip(WAYS, calls, strict=True))


def measure(frames: list[tuple[TruthFiles, Path]], repeats: int) -> dict[str, list[float]]:
    """Return process seconds of each way, one for each frame and round, after a warm-up round."""
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(repeats + 1):
        for files, prediction in frames:
            results = {}
            for name, way in ways(files, prediction).items():
                began = time.process_time()
                results[name] = way()
                if number:
                    times[name].append(time.process_time() - began)
            compare(results)
    return times


def compare(results: dict[str, Any]) -> None:
    """Raise SystemExit where a score differs from the official one by more than 1e-12."""
    for name in WAYS[1:]:
        for key, value in results[name].averages.items():
            official = results[WAYS[0]][key]
            if not (math.isnan(official) and math.isnan(value)) and abs(value - official) > 1e-12:
                raise SystemExit(f"{name}: {key} is {value!r}, the official tool gives {official!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print milliseconds per frame and the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.official_scores", description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=6, help="at most so many (default: 6)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count (default: 7)")
    parser.add_argument("--root", type=Path, help="a data set; default: the embedded city at 1024 x 2048")
    parser.add_argument("--split", default="val")
    options = parser.parse_args(arguments)
    require("benchmarks.official_scores", ("cityscapesscripts",), "bench")
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or write_demo_city(
            Path(folder) / "city", height=1024, width=2048, frames={"train": 0, "val": options.frames, "test": 0}
        )
        frames = prepare(Path(folder), root, options.split, options.frames)
        times = measure(frames, options.repeats)
    print(f"official scores of one frame, {len(frames)} frames, one thread; all numbers equal to 1e-12")
    for name, values in times.items():
        ratios = [theirs / ours for theirs, ours in zip(times[WAYS[0]], values, strict=True)]
        print(f"  {name:<22}{1000 * statistics.median(values):8.1f} ms   {statistics.median(ratios):5.2f} x")
    return 0


if __name__ == "__main__":
    run_command(main)
