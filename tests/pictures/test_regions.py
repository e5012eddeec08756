"""Classes whose colors are alike are told apart by outlines and names, where they have room."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cityscapes.labels import IGNORE
from dlv3p.pictures import regions
from dlv3p.pictures.regions import name_regions
from dlv3p.pictures.visualize import colorize

NAMES = ("car", "truck", "bus")
COLORS = np.array([(0, 0, 142), (0, 0, 70), (0, 60, 100)], np.uint8)


@pytest.fixture
def written(monkeypatch):
    """The names that are written, each with its place and the room there."""
    found = []

    def write(draw, name, place, room, taken):
        found.append((name, place, round(room)))

    monkeypatch.setattr(regions, "_write", write)
    return found


def test_a_line_runs_along_every_border_of_two_classes(written):
    ids = np.zeros((60, 80), np.uint8)
    ids[:, 40:] = 1
    drawn = name_regions(colorize(ids, COLORS), ids, NAMES, width=80)
    white = (drawn == 255).all(axis=2)
    assert white[:, 39].all()
    assert white.sum() == 60, "and nowhere else"


def test_each_part_of_a_class_is_named_where_it_is_deepest(written):
    ids = np.full((60, 120), IGNORE, np.uint8)
    ids[10:51, 10:51] = 0
    ids[20:41, 70:91] = 0
    name_regions(colorize(ids, COLORS), ids, NAMES, width=120)
    assert written == [("car", (30, 30), 21), ("car", (80, 30), 11)]


def test_places_are_those_of_the_scaled_picture(written):
    ids = np.zeros((40, 80), np.uint8)
    assert name_regions(colorize(ids, COLORS), ids, NAMES, width=160).shape == (80, 160, 3)
    ((name, _, room),) = written
    assert (name, room) == ("car", 40)


def test_a_name_is_written_only_where_it_has_room():
    ids = np.zeros((40, 120), np.uint8)
    ids[:, 112:] = 1
    picture = colorize(ids, COLORS)
    drawn = name_regions(picture, ids, NAMES, width=120)
    lettered = (drawn[:, :105] == 255).all(axis=2)
    assert 20 < lettered.sum() < 1000, "the name of the large part"
    assert (drawn[:, 112:] == COLORS[1]).all(), "none in one of 8 pixels"


def test_names_stay_in_the_picture_and_do_not_overlap():
    ids = np.zeros((40, 300), np.uint8)
    ids[:, 280:] = 1
    drawn = name_regions(colorize(ids, COLORS), ids, ("car", "a very long truck"), width=300)
    assert (drawn[:, 299] != 255).all(axis=1).all(), "the whole name of the right part is left of the edge"
    boxes = []
    pen = ImageDraw.Draw(Image.new("RGB", (100, 100)))
    for room, place in ((20, (50, 50)), (12, (55, 52)), (12, (50, 80))):
        regions._write(pen, "car", place, room, boxes)
    assert [round(box[1]) for box in boxes] == [41, 73], "the second would lie on the first"
