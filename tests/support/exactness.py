"""What has to be equal between two runs, whatever happened to one of them."""

import csv
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from support.tiny import STEPS_PER_EPOCH

from dlv3p.weights.checkpoint import load_checkpoint
from dlv3p.weights.checksums import weights_sha256

TIMES = ("seconds", "data_wait", "joules")
"""Columns of metrics.csv that differ from run to run."""


def steps_of(checkpoint: Path) -> int:
    """How many steps a checkpoint has behind it."""
    state = load_checkpoint(checkpoint)
    return state["epoch"] * STEPS_PER_EPOCH + state["step"]


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run ends with and that has to be the same whatever happened to it: hashes, and scores as text."""
    last, best = (load_checkpoint(folder / "checkpoints" / f"{name}.pt") for name in ("last", "best"))
    moments = {
        f"{index} {name}": value
        for index, entries in last["optimizer"]["state"].items()
        for name, value in entries.items()
    }
    with open(folder / "metrics.csv") as file:
        rows = [{name: text for name, text in row.items() if name not in TIMES} for row in csv.DictReader(file)]
    return {
        "weights": weights_sha256(last["model"]),
        "training weights": weights_sha256(last.get("training_model", {})),  # beside their average
        "average updates": last["average_updates"],
        "scaler": last["scaler"],
        "best weights": weights_sha256(best["model"]),
        "optimizer": weights_sha256(moments),
        "shared weights": weights_sha256(load_file(folder / "model.safetensors")),
        "rates": [group["lr"] for group in last["optimizer"]["param_groups"]],
        "metrics": rows,
    }


def leftovers(folder: Path) -> list[str]:
    """Names of half-written files."""
    return [path.name for path in folder.rglob("*.tmp")]
