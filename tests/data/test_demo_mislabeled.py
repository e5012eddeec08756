"""The embedded city with wrong polygons: as many as are asked for, of a size that can be seen, and nothing else."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from cityscapes.errors import InputError, ParameterError
from cityscapes.labels import IGNORE
from dlv3p.data import demo_mislabeled
from dlv3p.data.demo_mislabeled import LARGEST, SMALLEST, read_planted, read_planted_pixels, write_mislabeled_city
from dlv3p.data.roots import open_split


@pytest.fixture
def small_city(city: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny city in place of the whole one."""
    monkeypatch.setattr(demo_mislabeled, "write_demo_city", lambda root: city)
    return city


@pytest.mark.usefixtures("workspace")
def test_as_many_polygons_are_wrong_as_are_asked_for(small_city, tmp_path) -> None:
    root = write_mislabeled_city(tmp_path / "wrong", count=4, seed=1)
    planted = {one.image: one for one in read_planted(root)}
    assert sorted(one.kind for one in planted.values()) == ["missing", "missing", "relabeled", "relabeled"]
    for split in ("train", "val"):
        right, wrong = open_split(small_city, split), open_split(root, split)
        for index in range(len(right)):
            before, after = right.mask(index), wrong.mask(index)
            changed = (before != after) & (before != IGNORE) & (after != IGNORE)
            one = planted.get(wrong.name(index))
            assert changed.sum() == (one.pixels if one else 0)
            assert wrong.image_bytes(index) == right.image_bytes(index)
            if one:
                np.testing.assert_array_equal(read_planted_pixels(root, one.image), changed)
                assert SMALLEST * before.size <= changed.sum() <= LARGEST * before.size
                assert one.given == wrong.class_names[np.bincount(after[changed]).argmax()]
                assert one.true == wrong.class_names[np.bincount(before[changed]).argmax()]


@pytest.mark.usefixtures("workspace", "small_city")
def test_the_same_seed_gives_the_same_polygons_and_a_finished_folder_is_kept(tmp_path) -> None:
    first, again, other = (
        read_planted(write_mislabeled_city(tmp_path / name, count=3, seed=seed))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert first != other
    shutil.rmtree(tmp_path / "a" / "masks")
    write_mislabeled_city(tmp_path / "a", count=3, seed=1)
    assert not (tmp_path / "a" / "masks").exists()
    write_mislabeled_city(tmp_path / "a", count=3, seed=2)  # another one is written in its place
    assert read_planted(tmp_path / "a") == other


@pytest.mark.usefixtures("workspace", "small_city")
def test_too_many_polygons_and_folders_of_others_are_refused(tmp_path) -> None:
    with pytest.raises(ParameterError, match="count=50: only . images of the city"):
        write_mislabeled_city(tmp_path / "many")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_bytes(b"")
    with pytest.raises(InputError, match="mine: holds other data"):
        write_mislabeled_city(tmp_path / "mine", count=1)
    assert read_planted(tmp_path) == []
