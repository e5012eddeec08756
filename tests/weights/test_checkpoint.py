"""Checkpoints describe themselves, and a damaged one is never taken for a good one."""

import json
import os
import tracemalloc

import pytest
import torch
from safetensors import safe_open

from cityscapes.errors import IntegrityError, MissingInputError
from dlv3p.models.deeplab import build_model
from dlv3p.parameters.notebooks import TrainParameters
from dlv3p.weights.checkpoint import load_checkpoint, model_from_checkpoint, save_checkpoint, save_weights
from dlv3p.weights.checksums import weights_sha256

PARAMETERS = TrainParameters(architecture="deeplabv3", backbone="resnet18", channels=8, output_stride=8)


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    model = build_model("deeplabv3", "resnet18", output_stride=8, num_classes=3, channels=8)
    names = ["road", "car", "sky"]
    return {"epoch": 4, "parameters": PARAMETERS.as_dict(), "class_names": names, "model": model.state_dict()}


def test_a_checkpoint_rebuilds_its_network_without_being_told_anything(state, tmp_path):
    save_checkpoint(tmp_path / "best.pt", state)
    model, parameters = model_from_checkpoint(load_checkpoint(tmp_path / "best.pt"))
    assert parameters == PARAMETERS
    assert not model.training
    assert weights_sha256(model.state_dict()) == weights_sha256(state["model"])
    assert model.aspp.branch1.conv.dilation == (12, 12)


def test_reading_a_checkpoint_holds_its_bytes_once(state, tmp_path):
    """Python's memory only: the tensors are torch's."""
    path = tmp_path / "best.pt"
    save_checkpoint(path, state)
    tracemalloc.start()
    load_checkpoint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * path.stat().st_size


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused_in_one_line(state, tmp_path, share):
    path = tmp_path / "last.pt"
    save_checkpoint(path, state)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(IntegrityError, match=r"last\.pt") as refusal:
        load_checkpoint(path)
    assert "\n" not in str(refusal.value)


def test_every_flipped_bit_is_found(state, tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, state)
    content = bytearray(path.read_bytes())
    for position in range(1000, len(content), len(content) // 20):
        damaged = content.copy()
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError):
            load_checkpoint(path)


def test_a_crash_between_the_record_and_its_checkpoint_leaves_a_good_checkpoint(state, tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {**state, "epoch": 3})
    previous = path.read_bytes()
    save_checkpoint(path, state)
    path.write_bytes(previous)
    assert load_checkpoint(path)["epoch"] == 3
    save_checkpoint(path, {**state, "epoch": 5})
    save_checkpoint(path, {**state, "epoch": 6})
    path.write_bytes(previous)
    with pytest.raises(IntegrityError):
        load_checkpoint(path)


def test_a_newer_format_is_refused(state, tmp_path):
    save_checkpoint(tmp_path / "last.pt", {**state, "format": 99})
    with pytest.raises(IntegrityError, match="format 99"):
        load_checkpoint(tmp_path / "last.pt")


class Payload:
    def __reduce__(self):
        return os.system, ("touch /tmp/dlv3p-payload-ran",)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    torch.save({"format": 1, "epoch": 1, "model": Payload()}, tmp_path / "last.pt")
    with pytest.raises(IntegrityError):
        load_checkpoint(tmp_path / "last.pt")
    assert not os.path.exists("/tmp/dlv3p-payload-ran")


def test_no_checkpoint_is_a_missing_file(tmp_path):
    with pytest.raises(MissingInputError):
        load_checkpoint(tmp_path / "last.pt")


def test_shared_weights_hold_the_network_and_its_description(state, tmp_path):
    model, _ = model_from_checkpoint({**state, "format": 1})
    save_weights(tmp_path / "model.safetensors", model, {"class_names": ["road", "car", "sky"]})
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert json.loads(file.metadata()["dlv3p"])["class_names"][1] == "car"
    assert weights_sha256(tensors) == weights_sha256(state["model"])


def test_the_hash_of_weights_sees_names_shapes_and_a_single_bit(state):
    one = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.nextafter(torch.ones(1), torch.tensor(2.0))},
    ]
    assert weights_sha256(one) == weights_sha256(dict(reversed(one.items())))
    assert all(weights_sha256(other) != weights_sha256(one) for other in others)
