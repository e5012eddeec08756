"""Compute one hash of a network's weights and of their description, which weights files carry."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cityscapes.errors import IntegrityError

HASH_KEY = "sha256"
"""The key of the hash in a description, that of all its other keys and of the weights."""


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Return one hash of names, types, shapes and bytes of all tensors: equal if and only if the weights are."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def described_sha256(description: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """Return one hash of a description without its own hash, and of the weights that it describes."""
    rest = {name: value for name, value in description.items() if name != HASH_KEY}
    return hashlib.sha256(f"{json.dumps(rest, sort_keys=True)} {weights_sha256(state)}".encode()).hexdigest()


def check_described(path: Path, description: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Raise IntegrityError where weights or description are not those that were written; old files have no hash."""
    if HASH_KEY in description and description[HASH_KEY] != described_sha256(description, state):
        raise IntegrityError(
            f"{path}: its weights or their description are not those that were written (sha256 differs); restore it, "
            "or where the run's checkpoint is, delete it and run again"
        )
