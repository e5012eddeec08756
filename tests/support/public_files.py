"""Small networks under the names of the public files, and what refuses a file: shared by the importer's tests."""

import numpy as np
import pytest
import torch

from cityscapes.errors import IntegrityError
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.network import NetworkParameters
from dlv3p.weights.loading import load_model
from dlv3p.weights.names import MINDSPORE_LEAVES, to_theirs
from dlv3p.weights.sources import SOURCES

SMALL = {"resnet": "resnet18", "mobilenet_v2": "mobilenet_v2", "mobilenet_v3": "mobilenet_v3_large"}
SMALL |= {"vovnet": "vovnet39", "densenet": "densenet121"}
LEAVES = {ours: theirs for theirs, ours in MINDSPORE_LEAVES.items()}


def network_of(key: str, family: str, **others: object) -> NetworkParameters:
    """The switches of a small network as the source called `key` publishes it."""
    source = SOURCES[key]
    switches = {"channels": 32, "backbone": SMALL[family], "output_stride": source.output_stride} | source.switches
    if key == "yor":
        switches |= {"convolution_bias": True, "low_level_channels": 64}
    if key == "mindspore":
        switches |= {"backbone": "resnet50"}
    return NetworkParameters(architecture=source.architecture, **{**switches, **others})


def published(key: str, network: NetworkParameters, num_classes: int) -> dict[str, torch.Tensor]:
    """A random network of ours under the names of a source."""
    torch.manual_seed(7)
    state = build_network(network, num_classes).state_dict()
    for name, value in state.items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return {to_theirs(name, SOURCES[key].names): value for name, value in state.items()}


def vainf_state() -> dict[str, torch.Tensor]:
    """A DeepLabV3+ as VainF publishes it, of 21 classes."""
    return published("vainf_plus", network_of("vainf_plus", "resnet"), 21)


def mindspore_file(path, num_classes=21, others=None):
    """A DeepLabV3 in the words of MindSpore, and the network that it was made of."""
    network = network_of("mindspore", "resnet")
    state = published("mindspore", network, num_classes)
    arrays = {}
    for name, value in state.items():
        stem, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        is_norm = f"{stem}.running_mean" in state
        arrays[f"network.{stem}.{LEAVES[leaf] if is_norm else leaf}"] = value.numpy()
    np.savez(path, **arrays, **{"moments.network.resnet.conv1.weight": np.zeros(3)}, global_step=np.array([7]),
             **(others or {}))  # fmt: skip
    return network, state


def refusal(state, path, **options) -> str:
    torch.save(state, path)
    with pytest.raises(IntegrityError) as refused:
        load_model(path, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def run_command_line(monkeypatch, *words) -> int:
    from dlv3p.weights.__main__ import main

    monkeypatch.setattr("sys.argv", ["weights", *map(str, words)])
    return main()
