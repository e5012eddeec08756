"""What the tests of faults in training share: runs of a second or two, and what has to be equal between two runs."""

import csv
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from dlv3p.checkpoint import load_checkpoint, weights_sha256
from dlv3p.config import TrainParameters

STEPS_PER_EPOCH, EPOCHS = 3, 2
TINY = {
    "backbone": "timm:test_resnet.r160_in1k",
    "channels": 8,
    "crop_height": 33,
    "crop_width": 33,
    "batch_size": 2,
    "epochs": EPOCHS,
    "optimizer": "sgd",
    "workers": 0,
    "threads": 1,
    "device": "cpu",
    "checkpoint_minutes": 0.0,
    "progress": "none",
}
"""Three steps an epoch on the embedded city of tests/conftest.py; checkpoints are of 3 MB and written after each step.

Dropout, batch norm, augmentation and momentum are all there, so that none of them can be forgotten unnoticed.
"""

TIMES = ("seconds", "data_wait")
"""Columns of metrics.csv that differ from run to run."""


def tiny(city: Path, **changes: Any) -> TrainParameters:
    """Parameters of a run on the embedded city."""
    return TrainParameters.from_mapping({**TINY, "data_root": str(city), **changes})


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
