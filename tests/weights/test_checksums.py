"""Weights files carry a hash of all that they say, which every reader compares; those without one are called so."""

import json
import struct
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from cityscapes.errors import IntegrityError
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.network import NetworkParameters
from dlv3p.weights.checksums import weights_sha256
from dlv3p.weights.describe import describe
from dlv3p.weights.loading import load_model, save_model
from dlv3p.weights.reading import read_weights
from dlv3p.weights.recognition import recognize

NAMES = ["road", "car", "sky"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    torch.manual_seed(0)
    parameters = NetworkParameters(channels=8)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_model(path, build_network(parameters, 3), parameters, NAMES)
    return path


@pytest.mark.parametrize("change", ["a weight", "a class", "a switch", "the hash"])
def test_a_change_that_still_parses_is_refused(written, tmp_path, change):
    content = written.read_bytes()
    old, new = {
        "a weight": (content[-3:], content[-3:-2] + bytes([content[-2] ^ 1]) + content[-1:]),
        "a class": (b"road", b"rOad"),
        "a switch": (b'output_stride\\": 16', b'output_stride\\": 32'),
        "the hash": (b'sha256\\": \\"', b'sha256\\": \\"'),
    }[change]
    place = content.rindex(old) if change == "a weight" else content.index(old)
    if change == "the hash":
        place += len(old)
        old, new = content[place : place + 1], b"0" if content[place : place + 1] != b"0" else b"1"
    (tmp_path / "a.safetensors").write_bytes(content[:place] + new + content[place + len(old) :])
    with pytest.raises(IntegrityError, match="sha256 differs") as refusal:
        load_model(tmp_path / "a.safetensors")
    assert "\n" not in str(refusal.value)


def test_a_file_of_an_earlier_version_loads_and_is_called_unchecked(written, tmp_path, capsys):
    description = dict(read_weights(written).description)
    assert len(description.pop("sha256")) == 64
    state = load_file(written)
    save_file(state, tmp_path / "old.safetensors", metadata={"dlv3p": json.dumps(description)})
    assert weights_sha256(load_model(tmp_path / "old.safetensors").model.state_dict()) == weights_sha256(state)
    load_model(written)
    path = tmp_path / "old.safetensors"
    said = f"note: {path}: has no checksum, as files of earlier versions, so its bits are unchecked\n"
    assert capsys.readouterr().err == said
    said = {
        path: describe(recognize(read_weights(path)))["checksum"] for path in (written, tmp_path / "old.safetensors")
    }
    assert list(said.values()) == ["compared", "none in the file, so its bits are unchecked"]


def test_the_same_network_gives_the_same_file(written, tmp_path):
    loaded = load_model(written)
    save_model(tmp_path / "again.safetensors", loaded.model, loaded.parameters, NAMES)
    assert (tmp_path / "again.safetensors").read_bytes() == written.read_bytes()


def test_a_header_of_a_million_entries_is_refused_at_once(tmp_path):
    header = json.dumps({f"entry.{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(10**6)})
    path = tmp_path / "many.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    started = time.process_time()
    with pytest.raises(IntegrityError, match="has a header of .* bytes, where no network needs more than"):
        read_weights(path)
    assert time.process_time() - started < 20  # it takes minutes to read; how fast it is does not matter here


def test_a_description_with_brackets_without_end_is_one_line(written, tmp_path):
    save_file(load_file(written), tmp_path / "deep.safetensors", metadata={"dlv3p": "[" * 200_000})
    with pytest.raises(IntegrityError, match="damaged") as refusal:
        read_weights(tmp_path / "deep.safetensors")
    assert "\n" not in str(refusal.value)
