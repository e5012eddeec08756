"""Sweeps over the tiny run: what kills their jobs, and how their runs end."""

import json
import signal
from pathlib import Path

from support.exactness import outcome

SEEDS = (0, 1, 2, 3)
ITSELF, PARENT = 1, 2
"""Levels above a kernel: the process of the job, and that which started it."""


def saved(workspace: Path, seeds: tuple[int, ...] = SEEDS) -> list[dict]:
    return [outcome(workspace / "saved" / f"tiny-{seed}") for seed in seeds]


def resumed(workspace: Path, seed: int) -> list[int]:
    """After how many steps a run was resumed, each time."""
    record = json.loads((workspace / "saved" / f"tiny-{seed}" / "run.json").read_text())
    return [entry["after_steps"] for entry in record["continued"]]


def kill(workspace: Path, seed: int, levels: int, number: signal.Signals = signal.SIGKILL) -> None:
    (workspace / f"fault-{seed}").write_text(f"{number:d} {levels}")
