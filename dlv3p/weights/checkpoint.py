"""Self-describing checkpoints that survive a crash while they are written, and are verified before they are used.

A checkpoint is one file with plain tensors, numbers and text (it loads with `weights_only=True`), beside a small JSON
file with its sha256: a flipped bit in a tensor would otherwise load silently.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes

from cityscapes.errors import IntegrityError, MissingInputError
from cityscapes.files.atomic import open_atomically
from cityscapes.files.channels import PixelRule, pixel_rule
from cityscapes.files.checksums import call_unchecked, check_recorded, record_path, write_recorded
from dlv3p.data.classes import read_own_colors, stated_colors
from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.parameters.training import TrainParameters
from dlv3p.weights.checksums import HASH_KEY, described_sha256
from dlv3p.weights.pickles import load_pickled
from dlv3p.weights.reading import FORMAT, OURS, check_format


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, lists and dicts of them) to `path`, and its sha256 to `<path>.json`."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    write_recorded(path, buffer.getvalue(), epoch=state["epoch"], step=state.get("step", 0))


def load_checkpoint(path: Path, *, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint, and under `sha256` the hash of the bytes that were read.

    Raises IntegrityError, NewerFormatError, or MissingInputError if absent.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such checkpoint")
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    check_recorded(path, sha256)
    if not record_path(path).is_file():
        call_unchecked(path)
    state = load_pickled(io.BytesIO(content), path, device=device)
    if not isinstance(state, dict) or "format" not in state:
        raise IntegrityError(f"{path}: not a checkpoint of this suite")
    check_format(path, state)
    return state | {"sha256": sha256}


def model_from_checkpoint(state: dict[str, Any]) -> tuple[DeepLab, TrainParameters]:
    """Build the network that a checkpoint describes, with its weights, in evaluation mode on the CPU.

    A pruned network's checkpoint also has `widths`, those of `DeepLab.widths`.
    """
    parameters = TrainParameters.from_mapping(TrainParameters.recorded(state["parameters"]))
    names = state["class_names"]
    model = build_network(parameters, len(names), widths=state.get("widths"), rule=rule_of(state))
    model.colors = read_own_colors(state.get("colors"), names, "checkpoint")
    model.load_state_dict(state["model"])
    return model.eval(), parameters


def rule_of(description: Mapping[str, Any]) -> PixelRule | None:
    """Return the rule of the images that a described network takes; None for RGB."""
    return pixel_rule(description["pixels"], "pixels") if description.get("pixels") else None


def stated_of(model: DeepLab) -> dict[str, Any]:
    """Return what files state of a network beside parameters and classes: its `widths`, `pixels`, and `colors`."""
    widths = {"widths": model.widths} if model.widths else {}
    pixels = {"pixels": model.rule.as_dict()} if model.rule else {}
    return widths | pixels | stated_colors(model.colors)


def save_weights(path: Path, model: DeepLab, metadata: dict[str, Any]) -> None:
    """Write the weights as safetensors, which runs no code when read; `metadata` goes into its header as JSON.

    The header also holds `stated_of` the network. A hash in it covers the weights and all of the header.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    description = json.loads(json.dumps({"format": FORMAT} | metadata | stated_of(model)))  # as it will be read
    description[HASH_KEY] = described_sha256(description, state)
    header = {OURS: json.dumps(description, sort_keys=True)}
    with open_atomically(path) as file:
        file.write(safetensors_bytes(state, metadata=header))
