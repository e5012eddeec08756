"""Describe a weights file in readable lines: source, network, switches, other content, and its hash."""

from dataclasses import fields
from typing import Any

from torch import Tensor

from cityscapes.files.checksums import file_sha256
from cityscapes.files.untrusted import sanitize
from dlv3p.parameters.network import NetworkParameters
from dlv3p.weights.differences import entries
from dlv3p.weights.reading import has_checksum
from dlv3p.weights.recognition import Recognized

SHOWN_APART = ("architecture", "backbone", "output_stride", "norm", "weight_standardization")


def describe(found: Recognized) -> dict[str, str]:
    """Return the lines of a description by name, in display order; the file is read once more for its hash.

    Switches are those that differ from the defaults of NetworkParameters.
    """
    file, network = found.file, found.parameters
    lines = {
        "file": file.path.name,
        "size": f"{file.path.stat().st_size:,} bytes",
        "sha256": file_sha256(file.path),
        "container": f"{file.container}, weights below {file.wrapper!r}" if file.wrapper else file.container,
        "source": found.title,
        "architecture": network.architecture if network else "a backbone alone",
        "backbone": found.backbone,
        "norm": found.norm,
    }
    if network:
        lines |= {
            "classes": f"{found.num_classes}{_class_names(found.class_names)}",
            "output stride": f"{network.output_stride}, {found.stride_from}",
            "switches": ", ".join(switches_set(network)) or "all at their defaults",
        }
        if network.standardizes_weights or found.hides_standardization:
            lines |= {"weights": _standardization(found, network)}
    elif found.hides_standardization:
        lines["weights"] = "standardized or not, which the file does not show: the training's weight_standardization"
    lines["checksum"] = "compared" if has_checksum(file) else "none in the file, so its bits are unchecked"
    if found.widths:
        lines["pruned"] = f"{len(found.widths)} layers are narrower than the switches imply"
    learned = sum(value.numel() for name, value in found.state.items() if _is_learned(name))
    lines |= {"parameters": f"{learned:,} in {len(found.state)} entries"}
    if file.others:
        lines["also holds"] = ", ".join(_entry(name, value) for name, value in file.others.items())
    return lines


def switches_set(network: NetworkParameters) -> list[str]:
    """List the switches that differ from the default, as name=value."""
    return [
        f"{item.name}={getattr(network, item.name)!r}"
        for item in fields(NetworkParameters)
        if item.name not in SHOWN_APART and getattr(network, item.name) != item.default
    ]


def _standardization(found: Recognized, network: NetworkParameters) -> str:
    """Say whether weights are standardized, and how to correct what names and shapes do not show."""
    text, other = ("standardized", "never") if network.standardizes_weights else ("not standardized", "always")
    if not found.hides_standardization:
        return text
    can = found.source.may_standardize
    if network.weight_standardization != ("with_group" if can else "never"):
        return f"{text}, as asked for; the weights fit both"
    norm = "group norm" if network.norm == "group" else "batch norm"
    why = f"as its source publishes networks with {norm}" if can else "since the code of its source never does that"
    return f"{text}, {why}; the weights fit both: for a network trained otherwise, --weight-standardization {other}"


def _is_learned(name: str) -> bool:
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def _class_names(names: tuple[str, ...] | None) -> str:
    return " ({}, {}, ... {})".format(*(sanitize(names[index]) for index in (0, 1, -1))) if len(names or ()) > 2 else ""


def _entry(name: str, value: Any) -> str:
    """Show a number or a short text, and only the kind of everything else, since a file may hold anything."""
    called = sanitize(name, 40)
    if isinstance(value, int | float | bool):
        return f"{called}={value:.6g}" if isinstance(value, float) else f"{called}={sanitize(value, 40)}"
    if isinstance(value, str):
        return f"{called}={value[:40]!r}"
    if isinstance(value, Tensor):
        return f"{called} (tensor)"
    return f"{called} ({entries(value)})" if isinstance(value, dict | list | tuple) else called
