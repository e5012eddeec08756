"""Compare the two cores of one command with two commands, each of which does half of the work on one core.

    python -m benchmarks.parallel [--frames 1500] [--drawn 100] [--turns 3] [--folder DIR]

Two commands that know nothing of each other gain what a machine allows; what one command with two workers gains less
is its own fault. Masks are made by `cityscapes/generate_gt.py`, and scored against themselves by
`cityscapes/evaluate.py`, from start to end. The three ways take turns; a gain is the median over the turns.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scale import SPLIT, draw, link
from cityscapes.errors import run_command
from cityscapes.layout import LABEL_IDS_SUFFIX

ROOT = Path(__file__).resolve().parents[1]
WAYS = ("one worker", "two workers", "two commands")


def masks_command(part: Path, workers: int) -> list[str]:
    """Return the command that makes the masks of a part of the data."""
    shutil.rmtree(part / "masks", ignore_errors=True)
    words = ("generate_gt.py", "--root", part / "data", "--output", part / "masks", "--splits", SPLIT, "--instances")
    return [*map(str, words), "--workers", str(workers)]


def scores_command(part: Path, workers: int) -> list[str]:
    """Return the command that scores the masks of a part of the data against themselves."""
    words = ("evaluate.py", "--truth", part / "masks", "--predictions", part / "predictions", "--split", SPLIT)
    return [*map(str, words), "--ids", "label", "--workers", str(workers)]


def link_predictions(part: Path) -> None:
    """Link the label ids of a part as predictions."""
    (part / "predictions").mkdir()
    for path in (part / "masks").rglob(f"*{LABEL_IDS_SUFFIX}"):
        os.link(path, part / "predictions" / path.name)


def seconds(commands: Sequence[Sequence[str]]) -> float:
    """Run commands beside each other, and return the seconds until the last has ended."""
    began = time.perf_counter()
    started = [
        subprocess.Popen([sys.executable, str(ROOT / "cityscapes" / script), *words], stdout=subprocess.DEVNULL)
        for script, *words in commands
    ]
    if any([process.wait() for process in started]):
        raise SystemExit("a command has failed")
    return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the seconds of each way, both gains, and their ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parallel", description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1500, help="default: 1500")
    parser.add_argument("--drawn", type=int, default=100, help="different frames among them (default: 100)")
    parser.add_argument("--turns", type=int, default=3, help="default: 3")
    parser.add_argument("--folder", type=Path, help="where drawn frames stay for another time (default: none)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        whole, *halves = parts = [Path(temporary) / name for name in ("whole", "first", "second")]
        drawn = draw(options.folder or Path(temporary), options.drawn)
        for part in parts:
            link(drawn, part / "data", options.frames if part == whole else options.frames // 2)
        print(f"{options.frames} frames of 1024 x 2048, {options.turns} turns")
        for name, command in (("masks", masks_command), ("scores", scores_command)):
            if command is scores_command:
                for part in parts:
                    link_predictions(part)
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(options.turns):
                for way, commands in zip(WAYS, ([whole], [whole], halves), strict=True):
                    workers = 2 if way == "two workers" else 1
                    times[way].append(seconds([command(part, workers) for part in commands]))
            report(name, times)
    return 0


def report(name: str, times: dict[str, list[float]]) -> None:
    """Print the medians, and the gain of two workers as a share of that of two commands."""
    gains = {
        way: statistics.median(one / two for one, two in zip(times[WAYS[0]], times[way], strict=True))
        for way in WAYS[1:]
    }
    shown = ", ".join(f"{way} {statistics.median(times[way]):.2f} s" for way in WAYS)
    gained = ", ".join(f"{way} {gain:.2f}" for way, gain in gains.items())
    share = gains["two workers"] / gains["two commands"]
    print(f"  {name:<7} {shown}; gains: {gained}; {share:.2f} of what two commands gain", flush=True)


if __name__ == "__main__":
    run_command(main)
