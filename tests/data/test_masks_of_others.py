"""Masks that were generated from another data set, with frames of the same names, are never taken for its own."""

import shutil

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import MissingInputError
from cityscapes.layout import POLYGONS_SUFFIX, TRAIN_IDS_SUFFIX
from cityscapes.scores.truth_files import truth_of_frames
from dlv3p.data.roots import open_for_viewing, open_images, open_split


@pytest.fixture
def copy(city, workspace):
    """A copy of the city without polygons; those of the city itself have become masks."""
    open_split(city, "val")
    copy = shutil.copytree(city, workspace / "copy")
    for path in copy.rglob(f"*{POLYGONS_SUFFIX}"):
        path.unlink()
    return copy


def test_without_masks_of_its_own_a_data_set_has_none(copy):
    with pytest.raises(MissingInputError, match="no mask for this val image"):
        open_split(copy, "val").mask(0)
    for opened in (open_images, open_for_viewing):
        split = opened(copy, "val")
        assert not split.has_mask(0)
    assert truth_of_frames(split.frames, split.root, split.generated, split.foreign) is None


def test_its_own_masks_are_read(copy, city):
    for frame in open_images(city, "val").frames:
        path = frame.annotation(copy, TRAIN_IDS_SUFFIX)
        Image.fromarray(np.full((64, 128), 5, np.uint8)).save(path)
    assert np.unique(open_split(copy, "val").mask(0)).tolist() == [5]
    assert len(np.unique(open_split(city, "val").mask(0))) > 2


def test_a_whole_copy_takes_what_its_own_polygons_would_give(city, workspace):
    expected = open_split(city, "val").mask(0)
    copy = shutil.copytree(city, workspace / "copy")
    assert (open_images(copy, "val").mask(0) == expected).all()
    assert (open_split(copy, "val").mask(0) == expected).all()
    path = open_images(copy, "val").frames[0].annotation(copy, POLYGONS_SUFFIX)
    path.write_text(path.read_text() + " ")
    assert not open_images(copy, "val").has_mask(0)
