"""Two trainings beside each other against one alone: do they share the cores, or slow one another down?

    python -m benchmarks.side_by_side [--threads 2] [--epochs 3] [--turns 3]

Each is a process of its own that trains the demo's network on a small city; what counts is the time of its epochs, as
in metrics.csv, without start and imports. Two jobs that share all cores fairly take 2.0 times as long as one alone. The
policies are those of OpenMP for threads that wait: to spin for long, its default; briefly, as the suite does; or to
sleep at once. The machine must have nothing else to do; processor seconds, which waiting in a loop adds to,
show a difference on a busy one as well.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cityscapes.demo.city import write_demo_city
from cityscapes.errors import run_command

POLICIES = {"spinning": "300000", "briefly": "10000", "sleeping": "0"}
"""How often threads look for work before they sleep; the first is libgomp's number where nothing is set."""
FRAMES = {"train": 32, "val": 4, "test": 2}


def start(workspace: Path, city: Path, policy: str, options: argparse.Namespace) -> subprocess.Popen:
    """Start a training in a workspace of its own."""
    environment = os.environ | {"DLV3P_WORKSPACE": str(workspace), "OMP_WAIT_POLICY": "passive"}
    environment["GOMP_SPINCOUNT"] = POLICIES[policy]
    values = {"data_root": city, "run": "run", "epochs": options.epochs, "threads": options.threads, "progress": "none"}
    words = [word for name, value in values.items() for word in ("-p", name, str(value))]
    return subprocess.Popen([sys.executable, "-m", "dlv3p.train", *words], env=environment, stdout=subprocess.DEVNULL)


def epoch_seconds(metrics: Path) -> float:
    """Return the seconds of all epochs in a metrics.csv."""
    return sum(float(row["seconds"]) for row in csv.DictReader(metrics.read_text(encoding="utf-8").splitlines()))


def train_together(count: int, city: Path, policy: str, options: argparse.Namespace) -> tuple[float, float]:
    """Train `count` runs at the same time; return the seconds of the slowest, and the processor seconds of one."""
    before = os.times()
    with tempfile.TemporaryDirectory() as folder:
        workspaces = [Path(folder) / str(number) for number in range(count)]
        processes = [start(workspace, city, policy, options) for workspace in workspaces]
        if any(process.wait() for process in processes):
            raise SystemExit("a training has failed; see its message above")
        slowest = max(epoch_seconds(workspace / "saved" / "run" / "metrics.csv") for workspace in workspaces)
    after = os.times()
    return slowest, (sum(after[2:4]) - sum(before[2:4])) / count


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the arguments, train by turns, and print the median of the ratios for each policy."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.side_by_side",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, default=2, help="of each training (default: 2)")
    parser.add_argument("--epochs", type=int, default=3, help="of 8 steps each (default: 3)")
    parser.add_argument("--turns", type=int, default=3, help="of one alone and two together (default: 3)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        city = write_demo_city(Path(folder) / "city", frames=FRAMES)
        for policy in POLICIES:
            turns = [[train_together(count, city, policy, options) for count in (1, 2)] for _ in range(options.turns)]
            ratio = statistics.median(two / one for (one, _), (two, _) in turns)
            alone, beside = (statistics.median(turn[number][1] for turn in turns) for number in (0, 1))
            processor = f"processor seconds of a run: {alone:.0f} alone, {beside:.0f} beside another"
            print(f"{policy:8} {ratio:5.2f} times as long; {processor}", flush=True)
    return 0


if __name__ == "__main__":
    run_command(main)
