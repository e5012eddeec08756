"""Arrays that can be made again carry a checksum, and are made again where it does not match."""

import json

import numpy as np
import pytest

from cityscapes.workspace import data_folder
from dlv3p.data import fingerprints, sampling
from dlv3p.data.array_files import read_array, write_array
from dlv3p.data.decoded_cache import DecodedCache
from dlv3p.data.fingerprints import content_fingerprint
from dlv3p.data.roots import open_split
from dlv3p.data.sampling import class_regions


@pytest.mark.parametrize(
    "array", [np.arange(24, dtype=np.int32).reshape(6, 4), np.ones((5, 7, 3), np.uint8).T], ids=str
)
def test_an_array_comes_back_and_every_flipped_bit_is_noticed(array, tmp_path):
    path = tmp_path / "a.npy"
    write_array(path, array)
    assert np.array_equal(read_array(path), array)
    assert np.array_equal(np.load(path), array)  # still a file that NumPy reads
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert read_array(path) is None


def test_files_that_changed_places_are_damaged(tmp_path):
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for number, path in enumerate(paths):
        write_array(path, np.full((2, 3), number))
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents[::-1], strict=True):
        path.write_bytes(content)
        assert read_array(path) is None
        assert read_array(path, checked=False) is not None


@pytest.mark.parametrize("cut", [1, 4, 60, 10**6])
def test_a_truncated_file_and_one_without_checksum_are_missing(cut, tmp_path):
    write_array(tmp_path / "a.npy", np.zeros((5, 4, 3), np.uint8))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-cut])
    assert read_array(tmp_path / "a.npy") is None
    assert read_array(tmp_path / "a.npy", checked=False) is None


def test_a_damaged_image_of_the_cache_is_decoded_again(city, workspace):
    split = open_split(city, "train")
    cache = DecodedCache(split)
    cache.prepare(progress="none")
    path = cache.path(2)
    content = path.read_bytes()
    path.write_bytes(content[:-500] + b"?" + content[-499:])
    image = cache.open(2)
    assert np.array_equal(image.corner(image.height, image.width), np.asarray(split.image(2)))
    assert path.read_bytes() == content


def test_damaged_regions_are_found_again(city, workspace, monkeypatch):
    split = open_split(city, "train")
    table = class_regions(split, progress="none").table
    (path,) = (data_folder() / "class_regions").glob("*.npy")
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    assert np.array_equal(class_regions(split, progress="none").table, table)
    monkeypatch.setattr(sampling, "find_regions", None)
    assert np.array_equal(class_regions(split, progress="none").table, table)


@pytest.mark.parametrize(
    "content", ["", "[]", "[" * 200_000, '{"a": 1}', '{"/x": []}', "null", "{", '{"content_sha256": 1}']
)
def test_a_damaged_memory_of_hashes_is_forgotten(city, workspace, monkeypatch, content):
    monkeypatch.setattr(fingerprints, "WORTH_REMEMBERING", 0)
    split = open_split(city, "val")
    path = data_folder() / ".content_sha256.json"
    expected = content_fingerprint(split)
    memory = json.loads(path.read_text())
    path.write_text(content)
    assert content_fingerprint(split) == expected
    assert json.loads(path.read_text()) == memory
    first = next(name for name in memory if name != "content_sha256")
    memory[first][-1] = "0" * 64  # as a flipped bit would
    path.write_text(json.dumps(memory))
    assert content_fingerprint(split) == expected
