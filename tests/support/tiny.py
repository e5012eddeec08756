"""The parameters of the tiny run: a third of a second of training that has all that a run has.

Dropout, batch norm, augmentation and momentum are there, so that none of them can be forgotten unnoticed.
"""

from pathlib import Path

import pytest

from dlv3p.parameters.notebooks import TrainParameters

pytest.importorskip("timm", reason="the small backbone of these tests is one of timm's")

STEPS_PER_EPOCH, EPOCHS = 3, 2
TINY = {
    "backbone": "timm:test_resnet.r160_in1k",
    "channels": 8,
    "crop_height": 33,
    "crop_width": 33,
    "batch_size": 2,
    "class_uniform": 0.0,
    "color_jitter": 0.3,
    "warmup_steps": 0,
    "average_decay": 0.0,
    "epochs": EPOCHS,
    "optimizer": "sgd",
    "workers": 0,
    "threads": 1,
    "device": "cpu",
    "checkpoint_minutes": 0.0,
    "progress": "none",
}
"""Three steps an epoch on the embedded city of conftest.py; checkpoints are of 3 MB and written after each step."""


def tiny(city: Path | None = None, **changes: object) -> TrainParameters:
    """Parameters of a tiny run, on a city or another folder of data, with some of them changed."""
    data = {} if city is None else {"data_root": str(city)}
    return TrainParameters.from_mapping({**TINY, **data, **changes})
