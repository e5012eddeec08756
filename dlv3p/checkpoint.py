"""Checkpoints that describe themselves, survive a crash while they are written, and are checked before they are used.

A checkpoint is one file with plain tensors, numbers and text (it loads with `weights_only=True`), beside a small JSON
file with its sha256: a flipped bit in a tensor would otherwise load silently.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from cityscapes.atomic import open_atomically, write_bytes, write_text
from cityscapes.errors import IntegrityError, MissingInputError, NewerFormatError
from dlv3p.deeplab import build_network
from dlv3p.training_parameters import TrainParameters
from dlv3p.weights.pickles import load_pickled

FORMAT = 2
"""Version of what a checkpoint holds; a newer one is refused rather than half understood."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, lists and dicts of them) to `path`, and its sha256 to `<path>.json`."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    content = buffer.getvalue()
    summary = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "previous_sha256": file_sha256(path) if path.is_file() else None,
        "bytes": len(content),
        "epoch": state["epoch"],
        "step": state.get("step", 0),
    }
    # The record comes first and knows both files, so that a crash between the two leaves either one in order.
    write_text(_sidecar(path), json.dumps(summary, indent=1) + "\n")
    write_bytes(path, content)


def load_checkpoint(path: Path, *, device: str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; raises IntegrityError when it is damaged, NewerFormatError, or MissingInputError if absent.

    What must agree is the file's sha256 with one of those on record: that of the file, and that of the one before it,
    which a crash between the two writes leaves in its place.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: no such checkpoint")
    content = path.read_bytes()
    if not is_as_recorded(path, hashlib.sha256(content).hexdigest()):
        raise IntegrityError(
            f"{path}: its bytes are not those that were written (sha256 differs); restore or delete it"
        )
    state = load_pickled(io.BytesIO(content), path, device=device)
    if not isinstance(state, dict) or "format" not in state:
        raise IntegrityError(f"{path}: not a checkpoint of this suite")
    if state["format"] > FORMAT:
        raise NewerFormatError(
            f"{path}: has format {state['format']}, this version reads up to {FORMAT}; update the suite"
        )
    return state


def model_from_checkpoint(state: dict[str, Any]) -> tuple[nn.Module, TrainParameters]:
    """Build the network that a checkpoint describes, with its weights, in evaluation mode on the CPU.

    A pruned network's checkpoint also has `widths`, those of `DeepLab.widths`.
    """
    parameters = TrainParameters.from_mapping(state["parameters"])
    model = build_network(parameters, len(state["class_names"]), widths=state.get("widths"))
    model.load_state_dict(state["model"])
    return model.eval(), parameters


def save_weights(path: Path, model: nn.Module, metadata: dict[str, Any]) -> None:
    """Write the weights as safetensors, which runs no code when read; `metadata` goes into its header as JSON.

    Of a pruned network the header also holds the `widths`.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    widths = {"widths": model.widths} if getattr(model, "widths", None) else {}
    header = {"dlv3p": json.dumps(metadata | widths, sort_keys=True)}
    with open_atomically(path) as file:
        file.write(safetensors_bytes(state, metadata=header))


def weights_sha256(state: dict[str, Tensor]) -> str:
    """Return one hash of names, types, shapes and bytes of all tensors: equal if and only if the weights are."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def is_as_recorded(path: Path, sha256: str) -> bool:
    """Whether a checkpoint with this hash is what was written to `path`; True where nothing is on record."""
    if not _sidecar(path).is_file():
        return True
    try:
        recorded = json.loads(_sidecar(path).read_text())
        return sha256 in (recorded["sha256"], recorded.get("previous_sha256"))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise IntegrityError(f"{_sidecar(path)}: cannot be read; delete it to take {path.name} as it is") from None


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")
