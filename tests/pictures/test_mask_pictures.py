"""Pictures and tables of masks show the worst spot and every class, and say so where all is well."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError
from cityscapes.generate_gt import generate_masks
from cityscapes.labels import LABEL_ID_TO_COLOR, TRAIN_ID_TO_COLOR
from cityscapes.layout import (
    INSTANCE_IDS_SUFFIX,
    LABEL_IDS_SUFFIX,
    POLYGONS_SUFFIX,
    TRAIN_IDS_SUFFIX,
    Frame,
    find_frames,
)
from cityscapes.masks.report import Agreement, compare_masks
from dlv3p.pictures.masks import (
    DIFFERENCE_COLORS,
    agreement_in_words,
    agreement_table,
    difference_picture,
    differences_picture,
    palette_picture,
    worst_spot,
)

FRAME = Frame("val", "ulm", "000000", "000000")


def colors_in(picture: Image.Image) -> set[tuple[int, int, int]]:
    return {color for _, color in picture.convert("RGB").getcolors(2**24)}


def as_color(row: np.ndarray) -> tuple[int, int, int]:
    return tuple(int(value) for value in row)


@pytest.fixture
def drawn(city: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The embedded city's root, and masks made from its validation split."""
    generate_masks(city, tmp_path / "made", splits=["train", "val"], progress=False)
    return city, tmp_path / "made"


@pytest.fixture
def provided(drawn: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path, list[Frame]]:
    """A data set with label ids and train ids of its own, generated masks, and its frames."""
    city, made = drawn
    root, frames = tmp_path / "provided", find_frames(city, "val", suffix=POLYGONS_SUFFIX)
    for frame in frames:
        for suffix, source in ((POLYGONS_SUFFIX, city), (LABEL_IDS_SUFFIX, made), (TRAIN_IDS_SUFFIX, made)):
            path = frame.annotation(root, suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            origin = frame.annotation(city, suffix) if source == city else frame.generated(made, suffix)
            path.write_bytes(origin.read_bytes())
    return root, made, frames


def alter(path: Path, rows: slice, columns: slice, value: int) -> None:
    pixels = np.array(Image.open(path))
    pixels[rows, columns] = value
    Image.fromarray(pixels).save(path)


def test_equal_masks_are_told_in_words_and_have_no_picture(provided):
    root, made, frames = provided
    agreements = list(compare_masks(root, ["val"], made, workers=2))
    assert [pair.differing for pair in agreements] == [0] * 2 * len(frames)
    expected = f"No difference: 3 frames, {3 * 2 * 64 * 128:,} pixels of labelIds, labelTrainIds."
    assert agreement_in_words(agreements) == expected
    assert differences_picture(agreements) is None
    assert (agreement_table(agreements)["percent equal"] == 100).all()


def test_a_data_set_without_masks_of_its_own_has_nothing_to_compare(drawn):
    city, made = drawn
    agreements = list(compare_masks(city, ["train", "val"], made))
    assert agreements == []
    assert agreement_in_words(agreements).startswith("Nothing to compare with")
    assert agreement_table(agreements).shape == (0, 4)
    assert differences_picture(agreements) is None


def test_each_difference_is_counted_and_the_worst_comes_first(provided):
    root, made, frames = provided
    alter(frames[0].annotation(root, LABEL_IDS_SUFFIX), slice(5, 6), slice(7, 8), 33)
    alter(frames[2].annotation(root, TRAIN_IDS_SUFFIX), slice(10, 14), slice(20, 25), 200)
    frames[1].annotation(root, LABEL_IDS_SUFFIX).write_bytes(b"")
    agreements = list(compare_masks(root, ["val"], made))
    table = agreement_table(agreements)
    assert table["differing pixels"].tolist() == [0, 20, 1, 0, 0, 0]
    assert "not a whole PNG" in table["problem"][0]
    assert table["frame"].tolist()[:3] == [f"val {frames[i].name}" for i in (1, 2, 0)]
    assert table["mask"].tolist()[:3] == ["labelIds", "labelTrainIds", "labelIds"]
    assert table["percent equal"][1] == pytest.approx(100 * (1 - 20 / (64 * 128)))
    assert agreement_in_words(agreements).startswith("21 pixels differ: 3 frames, ")
    assert "1 masks could not be compared" in agreement_in_words(agreements)
    two, one = (differences_picture(agreements, count=count) for count in (3, 1))
    assert two.height > one.height
    assert as_color(DIFFERENCE_COLORS[1]) in colors_in(one)


def test_the_worst_spot_is_the_window_that_holds_most(provided):
    differs = np.zeros((60, 100), bool)
    differs[3, 3] = differs[50, 90] = differs[53, 94] = True
    rows, columns = worst_spot(differs, (8, 16))
    assert differs[rows, columns].sum() == 2
    assert (rows.stop - rows.start, columns.stop - columns.start) == (8, 16)
    differs[50:] = False
    rows, columns = worst_spot(differs, (5, 5))
    assert (rows, columns) == (slice(1, 6), slice(1, 6))
    assert worst_spot(differs[:4, :3], (8, 16)) == (slice(0, 4), slice(0, 3))


@pytest.mark.parametrize(
    ("suffix", "official", "ours"),
    [(LABEL_IDS_SUFFIX, 7, 26), (TRAIN_IDS_SUFFIX, 0, 13), (INSTANCE_IDS_SUFFIX, 7, 26003)],
)
def test_a_difference_shows_both_classes_and_where_they_differ(suffix, official, ours):
    masks = [np.full((200, 300), official, np.uint16 if ours > 255 else np.uint8) for _ in range(2)]
    masks[1][150:153, 290:292] = ours
    picture = difference_picture(*masks, name="frame", suffix=suffix)
    expected = {as_color(color) for color in (LABEL_ID_TO_COLOR[7], LABEL_ID_TO_COLOR[26], *DIFFERENCE_COLORS)}
    assert expected <= colors_in(picture)
    left = np.asarray(picture)[40:220, : picture.width // 3]
    assert not (left == LABEL_ID_TO_COLOR[26]).all(axis=-1).any(), "the official panel shows what is ours"
    different = (np.asarray(picture)[40:220, 2 * picture.width // 3 :] == DIFFERENCE_COLORS[1]).all(axis=-1)
    scale = (picture.width / 3 - 14) / 48
    assert different.sum() == pytest.approx(6 * scale**2, rel=0.25)


def test_masks_of_other_sizes_make_no_picture():
    with pytest.raises(InputError, match=r"frame: sizes differ, \(4, 4\) and \(4, 5\)"):
        difference_picture(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), name="frame")


def test_the_palette_shows_every_class_in_its_color():
    colors = colors_in(palette_picture())
    assert {as_color(color) for color in TRAIN_ID_TO_COLOR[:19]} <= colors
    assert {as_color(color) for color in LABEL_ID_TO_COLOR[:34]} <= colors


def test_an_agreement_reads_what_it_compared(provided):
    root, made, frames = provided
    (pair, *_) = compare_masks(root, ["val"], made)
    assert isinstance(pair, Agreement)
    assert (pair.frame, pair.suffix, pair.total) == (frames[0], LABEL_IDS_SUFFIX, 64 * 128)
    np.testing.assert_array_equal(*pair.read())
