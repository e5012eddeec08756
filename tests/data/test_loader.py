"""A sample has the same bytes whatever process makes it, from a file, from the cache or from a slower decoder."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from cityscapes.errors import InputError, MachineError
from dlv3p.data import decoded_cache
from dlv3p.data import decoded_cache as lazy_image
from dlv3p.data.array_files import CHECKSUM_BYTES
from dlv3p.data.augment import Augmentation
from dlv3p.data.batches import Batches, CheckedSamples, collate
from dlv3p.data.decoded_cache import DecodedCache, open_image
from dlv3p.data.loader import TrainingSamples, make_samples, training_loader
from dlv3p.data.roots import open_split
from dlv3p.data.sampling import EpochSampler
from dlv3p.parameters.notebooks import TrainParameters

CROP = Augmentation(33, 48, color_jitter=0.3, blur=1.0)


@pytest.fixture
def split(city, workspace):
    return open_split(city, "train")


def epoch(samples, *, workers=0):
    loader = training_loader(samples, batch_size=2, workers=workers)
    loader.sampler.epoch = 3
    return [tensor for batch in loader for tensor in batch]


def same(one, other):
    return len(one) > 0 and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("changes", [{}, {"class_uniform": 0.5}, {"decoded_cache": True}])
def test_workers_change_no_byte(split, changes):
    parameters = TrainParameters(**{"class_uniform": 0.0, **changes}, crop_height=33, crop_width=48, progress="none")
    samples = make_samples(parameters, split)
    alone = epoch(samples)
    assert same(alone, epoch(samples, workers=2))
    assert same(alone, epoch(samples, workers=4))


def test_workers_that_start_from_nothing_change_no_byte(split):
    """As on systems that spawn: the samples travel to a fresh interpreter."""
    samples = TrainingSamples(split, CROP, seed=0)
    sampler = EpochSampler(len(samples), 2, seed=0)
    sampler.epoch = 3
    options = {"batch_size": 2, "num_workers": 1, "sampler": sampler, "collate_fn": collate}
    loader = torch.utils.data.DataLoader(CheckedSamples(samples), multiprocessing_context="spawn", **options)
    assert same(epoch(samples), [tensor for batch in Batches(loader) for tensor in batch])


def test_samples_survive_pickling(split):
    samples = pickle.loads(pickle.dumps(TrainingSamples(split, CROP, seed=0, cache=DecodedCache(split))))
    assert same(samples[1, 2], TrainingSamples(split, CROP, seed=0)[1, 2])


def test_a_corner_and_the_whole_image_give_the_same_sample(split, monkeypatch):
    samples = TrainingSamples(split, CROP, seed=0)
    expected = epoch(samples)
    monkeypatch.setattr(lazy_image, "png_size", lambda content: None)
    assert same(expected, epoch(samples))
    monkeypatch.undo()
    monkeypatch.setattr(lazy_image, "decode_corner", lambda *_: None)
    assert same(expected, epoch(samples))


def test_less_is_decoded_than_the_image_has(city, split):
    image = open_image(split, 0)
    assert (image.height, image.width) == (64, 128)
    assert np.array_equal(image.corner(10, 20), np.asarray(split.image(0))[:10, :20])


def test_the_cache_changes_no_byte_and_decodes_once(split, monkeypatch):
    plain = epoch(TrainingSamples(split, CROP, seed=0))
    cache = DecodedCache(split)
    cache.prepare(progress="none")
    monkeypatch.setattr(split, "image", lambda index: pytest.fail("decoded again"))
    assert same(plain, epoch(TrainingSamples(split, CROP, seed=0, cache=cache)))
    cache.prepare(progress="none")


def test_the_cache_holds_raw_pixels_in_a_memory_map(split):
    cache = DecodedCache(split)
    cache.prepare(progress="none")
    pixels = cache.open(4).corner(1, 1)
    assert isinstance(pixels, np.memmap)
    assert np.array_equal(pixels, np.asarray(split.image(4)))
    assert cache.path(4).stat().st_size == 128 + 64 * 128 * 3 + CHECKSUM_BYTES


def test_a_file_that_changed_is_decoded_anew(split, city, tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    monkeypatch.setattr(split, "image_path", lambda index: path)
    monkeypatch.setattr(split, "image", lambda index: Image.open(path).convert("RGB"))
    for level in (10, 200):
        Image.new("RGB", (20 + level, 10), (level, 0, 0)).save(path)
        assert DecodedCache(split).open(0).corner(1, 1)[0, 0, 0] == level


@pytest.mark.parametrize("kept", [0, 60, 128, 1000])
def test_a_decoded_image_that_is_cut_short_is_made_again(split, kept):
    cache = DecodedCache(split)
    cache.prepare(progress="none")
    path = cache.path(1)
    path.write_bytes(path.read_bytes()[:kept])
    assert np.array_equal(cache.open(1).corner(64, 128), np.asarray(split.image(1)))
    assert cache.path(1).stat().st_size == 128 + 64 * 128 * 3 + CHECKSUM_BYTES


def test_preparing_goes_on_where_it_was_stopped(split, monkeypatch):
    cache, decoded = DecodedCache(split), []
    keep = DecodedCache._keep

    def stops(self, index, path):
        decoded.append(index)
        if len(decoded) == 3:
            raise KeyboardInterrupt
        return keep(self, index, path)

    monkeypatch.setattr(DecodedCache, "_keep", stops)
    with pytest.raises(KeyboardInterrupt):
        cache.prepare(progress="none")
    cache.prepare(progress="none")
    assert sorted(decoded) == [0, 1, 2, 2, 3, 4, 5]


def test_too_little_space_is_reported_before_decoding(split, monkeypatch):
    monkeypatch.setattr(decoded_cache, "RESERVE", 10**18)
    with pytest.raises(MachineError, match=r"6 decoded images take 0.0 GB and 0.0 GB may be used"):
        DecodedCache(split).prepare(progress="none")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_disk_that_fills_up_is_an_error_of_the_machine_and_leaves_nothing(split, workspace, monkeypatch, workers):
    def full(file, header):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    with pytest.raises(MachineError, match="no space left to write it"):
        epoch(TrainingSamples(split, CROP, seed=0, cache=DecodedCache(split)), workers=workers)
    assert not [path for path in (workspace / "data" / "decoded").rglob("*") if path.is_file()]


def test_images_and_masks_of_different_sizes_are_refused(split, monkeypatch):
    monkeypatch.setattr(split, "mask", lambda index: np.zeros((63, 128), np.uint8))
    with pytest.raises(InputError, match="both must have the same size"):
        TrainingSamples(split, CROP, seed=0)[0, 0]


def test_the_wait_for_data_is_counted_for_each_pass(split):
    loader = training_loader(TrainingSamples(split, CROP, seed=0), batch_size=2, workers=0)
    assert loader.waited == 0
    list(loader)
    first = loader.waited
    assert first > 0
    next(iter(loader))
    assert 0 < loader.waited < first * 10
