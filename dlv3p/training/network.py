"""Build the network of a run: new, or from its last checkpoint."""

from collections.abc import Mapping
from typing import Any

import torch

from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.models.norms import share_statistics
from dlv3p.parameters.training import TrainParameters
from dlv3p.runtime.devices import LAYOUT
from dlv3p.runtime.processes import place
from dlv3p.training.activation_checkpointing import checkpoint_activations
from dlv3p.weights.initial import build_with_weights


def build_for_training(
    parameters: TrainParameters, num_classes: int, device: torch.device, saved: Mapping[str, Any] | None
) -> DeepLab:
    """Return the network on its device, with the weights of a checkpoint if there is one, else the initial weights."""
    if saved:
        model = build_network(parameters, num_classes, widths=saved.get("widths"))
        model = model.to(device, memory_format=LAYOUT)
        model.load_state_dict(saved.get("training_model") or saved["model"])
    else:
        weights, new = parameters.initial_weights, parameters.new_classifier
        model = build_with_weights(parameters, num_classes, initial_weights=weights, new_classifier=new)
        model = model.to(device, memory_format=LAYOUT)
    if place().ranks > 1:
        share_statistics(model, device)
    return checkpoint_activations(model) if parameters.activation_checkpointing else model
