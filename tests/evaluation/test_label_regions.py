"""Regions of doubtful labels: what the shift of a border explains, what is left, and the best of many."""

import numpy as np
import pytest

from cityscapes.labels import IGNORE
from dlv3p.evaluation.label_regions import BestRegions, LabelRegion, find_regions, usual_mistakes

SIZE = (40, 60)
CONFUSION = np.full((10, 10), 10)
"""Of each class, a network takes a tenth for any class."""
USUAL = np.log(0.5) + np.log(0.1) / 2


def regions_of(given: np.ndarray, seen: np.ndarray, **options: int) -> list[LabelRegion]:
    """The regions where a sure network sees other classes than the given ones."""
    doubted = (given != seen) & (given != IGNORE)
    suggested = np.where(doubted, seen, IGNORE).astype(np.uint8)
    odds = np.where(doubted, np.float32(2), 0)
    usual = usual_mistakes(CONFUSION, 0.5)
    return list(find_regions(3, given, suggested, odds, usual, **({"border": 2, "smallest": 10} | options)))


def street(edge: int = 30) -> np.ndarray:
    """A mask of class 1 to the left of an edge, and of class 2 to its right."""
    return np.where(np.arange(SIZE[1]) < edge, 1, 2)[None].repeat(SIZE[0], axis=0).astype(np.uint8)


@pytest.mark.parametrize("shift", [-2, -1, 1, 2])
def test_a_border_that_is_shifted_is_no_error(shift: int) -> None:
    assert regions_of(street(), street(30 + shift)) == []
    assert len(regions_of(street(), street(30 + shift), border=abs(shift) - 1)) == 1


def test_a_border_is_also_that_of_an_ignored_region() -> None:
    given = street()
    given[10:20, 5:15] = IGNORE
    seen = street()
    seen[8:22, 3:17] = 7
    assert regions_of(given, seen) == []
    assert len(regions_of(given, seen, border=1)) == 1


def test_an_object_with_a_wrong_label_is_found_whole() -> None:
    given, seen = street(), street()
    given[5:15, 40:55] = 4
    (region,) = regions_of(given, seen)
    assert (region.image, region.given, region.suggested) == (3, 4, 2)
    assert (region.pixels, region.coverage) == (150, 1)
    inside = np.zeros(SIZE, bool)
    inside[region.place] = region.mask()
    np.testing.assert_array_equal(inside, given == 4)
    assert region.score == pytest.approx(2 - USUAL)
    assert regions_of(given, seen, smallest=11 * 6) == [region]
    assert regions_of(given, seen, smallest=11 * 6 + 1) == []  # what the border does not explain is smaller


def test_a_missing_object_is_found_and_parts_of_an_object_count_less() -> None:
    given, seen = street(), street()
    seen[10:20, 5:12] = 5
    (missing,) = regions_of(given, seen)
    assert (missing.given, missing.suggested, missing.pixels) == (1, 5, 70)
    given[10:20, 5:12], seen[10:20, 5:12] = 5, 6
    (whole,) = regions_of(given, seen)
    assert whole.coverage == 1
    assert missing.coverage == pytest.approx(70 / 1200)
    assert missing.score == pytest.approx(2 + np.log(70 / 1200) / 2 - USUAL)


def test_a_region_that_reaches_another_object_has_its_share_of_its_own() -> None:
    given = street()
    given[:10, 30:] = 3
    seen = given.copy()
    given[10:20, 40:50] = given[8, 45] = 4  # an object, and a pixel of the same class before it
    seen[8, 45] = 2
    (region,) = regions_of(given, seen)
    assert region.pixels == 101
    assert region.coverage == 1, "not 101 times the single pixel"


def test_regions_touch_neither_over_corners_nor_over_classes_and_small_ones_are_left_out() -> None:
    given, seen = street(), street()
    seen[5:10, 5:10] = seen[10:15, 10:15] = 5
    seen[10:15, 5:10] = 6
    assert sorted((one.suggested, one.pixels) for one in regions_of(given, seen, border=0)) == [
        (5, 25),
        (5, 25),
        (6, 25),
    ]
    assert regions_of(given, seen, border=0, smallest=26) == []


def test_a_mask_that_is_doubted_everywhere_is_one_region() -> None:
    (region,) = regions_of(np.zeros(SIZE, np.uint8), np.full(SIZE, 9, np.uint8))
    assert region.pixels == SIZE[0] * SIZE[1]
    assert region.coverage == 1


def test_what_a_network_often_confuses_is_no_sign_of_a_wrong_label() -> None:
    confusion = np.diag([90, 100, 0])
    confusion[0, 1] = 10
    few, many = (usual_mistakes(confusion, share) for share in (0.1, 0.4))
    np.testing.assert_allclose(many, 4 * few)
    assert few[0, 1] == pytest.approx(0.1 * np.sqrt(0.1))
    assert (usual_mistakes(confusion, 0) > 0).all()  # whose logarithm is taken


def test_only_the_best_of_many_regions_are_kept() -> None:
    best = BestRegions(5)
    scores = np.random.default_rng(0).permutation(100).tolist()
    for score in scores:
        best.add(LabelRegion(score, 0, 0, 1, 10, 0.0, 1.0, 0, 0, (2, 5), b"\xff\xc0"))
    assert best.found == 100
    assert [region.score for region in best.ranked()] == [99, 98, 97, 96, 95]
