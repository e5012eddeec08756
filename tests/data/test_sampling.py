"""Rare classes come up more often, and which sample shows what is a function of (seed, epoch, index)."""

from pathlib import Path

import numpy as np
import pytest

from dlv3p.data import sampling as regions_module
from dlv3p.data.augment import Augmentation
from dlv3p.data.loader import TrainingSamples, make_samples
from dlv3p.data.roots import open_split
from dlv3p.data.sampling import (
    ClassUniform,
    EpochSampler,
    Regions,
    class_regions,
    epoch_order,
    find_regions,
    sample_generator,
)
from dlv3p.parameters.notebooks import TrainParameters


class Masks:
    """Masks alone, as far as regions are concerned; each is a file for its fingerprint."""

    num_classes = 5
    class_names = ("a", "b", "c", "d", "e")
    colors = np.zeros((256, 3), np.uint8)
    fingerprint = label_rule = ""
    pixel_rule = None

    def __init__(self, masks, folder=Path()):
        self.masks, self.folder = masks, folder

    def __len__(self):
        return len(self.masks)

    def name(self, index):
        return str(index)

    def mask(self, index):
        return self.masks[index]

    def mask_path(self, index):
        path = self.folder / f"{index}.png"
        content = self.masks[index].tobytes()
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)
        return path


@pytest.fixture
def masks(tmp_path):
    """Ten masks of class 0; class 3 is a small block in one of them, class 4 is ignored everywhere."""
    made = [np.zeros((64, 96), np.uint8) for _ in range(10)]
    made[7][40:44, 60:66] = 3
    made[2][:, :10] = 255
    return Masks(made, tmp_path)


def test_regions_hold_a_pixel_of_each_class_near_its_middle(masks):
    table = find_regions(masks)
    assert table.dtype == np.int32
    for number, image, row, column in table:
        assert masks.mask(image)[row, column] == number
    rare = table[table[:, 0] == 3]
    assert rare[:, 1:].tolist() == [[7, 41, 61], [7, 41, 64]]
    assert len(table[table[:, 0] == 0]) >= 10 * 8 * 12 - 10
    assert set(table[:, 0].tolist()) == {0, 3}


def test_a_class_that_lies_around_its_middle_is_still_met_on_a_pixel_of_its_own():
    ring = np.zeros((80, 80), np.uint8)
    ring[2:9, 2:9] = 1
    ring[3:8, 3:8] = 0
    [[_, _, row, column]] = [place for place in find_regions(Masks([ring])).tolist() if place[0] == 1]
    assert ring[row, column] == 1


def shown(uniform, epoch=1, count=1000):
    return [uniform.choose(epoch, index) for index in range(count)]


def test_classes_that_occur_are_drawn_alike_and_absent_ones_never(masks):
    uniform = ClassUniform(Regions(find_regions(masks)), share=1.0, seed=0)
    classes = [masks.mask(image)[center] for image, center in shown(uniform)]
    assert set(classes) == {0, 3}
    assert 400 < sum(number == 3 for number in classes) < 600


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_share_of_such_crops_is_as_asked_and_others_stay_what_they_were(masks, share):
    choices = shown(ClassUniform(Regions(find_regions(masks)), share=share, seed=0))
    assert np.mean([center is not None for _, center in choices]) == pytest.approx(share, abs=0.05)
    assert all(image == index for index, (image, center) in enumerate(choices) if center is None)


def test_what_is_shown_depends_on_seed_epoch_and_index_alone(masks):
    regions = Regions(find_regions(masks))
    first = shown(ClassUniform(regions, share=0.5, seed=0))
    assert first == shown(ClassUniform(regions, share=0.5, seed=0))
    assert first != shown(ClassUniform(regions, share=0.5, seed=1))
    assert first != shown(ClassUniform(regions, share=0.5, seed=0), epoch=2)


def test_a_split_without_any_class_is_sampled_as_usual():
    empty = Masks([np.full((20, 20), 255, np.uint8)])
    assert shown(ClassUniform(Regions(find_regions(empty)), share=1.0, seed=0), count=3) == [
        (0, None), (1, None), (2, None),
    ]  # fmt: skip


def test_rare_classes_are_seen_more_often_in_crops(city, workspace):
    split = open_split(city, "train")
    counts = sum(np.bincount(split.mask(index).ravel(), minlength=256)[:19] for index in range(len(split)))
    rare = int(np.argmin(np.where(counts > 0, counts, counts.max())))
    augmentation = Augmentation(33, 33, scale_low=1.0, scale_high=1.0)
    seen = []
    for share in (0.0, 1.0):
        uniform = ClassUniform(class_regions(split, progress="none"), share=share, seed=0)
        samples = TrainingSamples(split, augmentation, seed=0, class_uniform=uniform)
        seen.append(sum((samples[epoch, i][1] == rare).any().item() for epoch in range(20) for i in range(len(split))))
    assert seen[1] > 1.5 * seen[0]


def test_masks_are_looked_through_once_and_again_when_one_changes(masks, workspace, monkeypatch):
    passes = []
    monkeypatch.setattr(regions_module, "find_regions", lambda *a, **k: passes.append(1) or find_regions(*a))
    first = class_regions(masks, progress="none")
    assert np.array_equal(class_regions(masks, progress="none").table, first.table)
    assert len(passes) == 1
    stored = list((workspace / "data" / "class_regions").iterdir())
    for path in stored:
        path.write_bytes(path.read_bytes()[:100])
    assert np.array_equal(class_regions(masks, progress="none").table, first.table)
    assert len(passes) == 2
    masks.masks[1] = np.full((70, 96), 2, np.uint8)
    assert 2 in class_regions(masks, progress="none").classes
    masks.class_names = masks.class_names[::-1]  # in a mask of colors, other ids
    class_regions(masks, progress="none")
    assert len(passes) == 4


def test_parameters_choose_it_and_without_it_nothing_is_looked_through(city, workspace):
    split = open_split(city, "train")
    assert make_samples(TrainParameters(class_uniform=0.0), split).class_uniform is None
    assert not (workspace / "data" / "class_regions").exists()
    lifted = make_samples(TrainParameters(class_uniform=0.5, progress="none"), split).class_uniform
    assert (lifted.share, lifted.seed) == (0.5, 0)


def test_ranks_share_what_one_process_would_see():
    alone = EpochSampler(23, 6, seed=4)
    parts = [EpochSampler(23, 2, seed=4, rank=rank, ranks=3) for rank in range(3)]
    for sampler in (alone, *parts):
        sampler.epoch = 5
    shares = [list(part) for part in parts]
    assert [len(part) for part in parts] == [6, 6, 6]
    assert [key for keys in zip(*shares, strict=True) for key in keys] == list(alone)


def test_streams_of_samples_orders_and_classes_are_independent():
    draws = {sample_generator(0, epoch, index).random() for epoch in range(5) for index in range(50)}
    assert len(draws) == 250
    assert not np.array_equal(epoch_order(0, 1, 100), epoch_order(0, 2, 100))
