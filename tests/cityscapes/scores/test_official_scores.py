"""The official scores: the same numbers as the official script gives, from any input that it accepts."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import official_tool
from cityscapes.errors import InputError, ParameterError
from cityscapes.ids import ids_in
from cityscapes.labels import LABELS, TRAIN_ID_TO_LABEL_ID, TRAINED_LABELS
from cityscapes.scores.official_scores import AVERAGE_OBJECT_PIXELS, ScoreAccumulator
from cityscapes.scores.pixel_counts import NUM_IDS, PixelCounts, count_pixels

try:
    official_tool.load()
    OFFICIAL = True
except ImportError:
    OFFICIAL = False
needs_official = pytest.mark.skipif(not OFFICIAL, reason="compares with cityscapesScripts, which is not installed")

OBJECTS = [label.label_id for label in LABELS if label.has_instances]
VOID = [label.label_id for label in LABELS if label.ignored and label.label_id >= 0]


def blocks(rng: np.random.Generator, values: list[int], shape: tuple[int, int], dtype: type) -> np.ndarray:
    """Fill an image with rectangles of a few values, over one another, so that runs of all lengths occur."""
    image = np.full(shape, rng.choice(values), dtype)
    for _ in range(rng.integers(0, 12)):
        top, left = rng.integers(shape[0]), rng.integers(shape[1])
        image[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = rng.choice(values)
    return image


@st.composite
def image_sets(draw) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Sets of (truth, prediction, instances); the three need not agree, as the official script never compares them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    any_id = list(range(NUM_IDS))
    few = draw(st.lists(st.sampled_from(any_id), min_size=1, max_size=6))
    images = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.tuples(st.integers(1, 20), st.integers(1, 24)))
        truth_ids = draw(st.sampled_from([any_id, few, VOID, OBJECTS]))
        truth = blocks(rng, truth_ids, shape, np.uint8)
        prediction = blocks(rng, draw(st.sampled_from([any_id, few, OBJECTS])), shape, np.uint8)
        keep = rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))
        prediction[keep] = truth[keep]
        numbered = [1000 * label_id + number for label_id in OBJECTS for number in (0, 1, 7, 999)]
        odd = [1000, 1001, 4000, -1, -24000, *any_id]  # not above 1000, of an ignored class, not drawn, groups
        kind = draw(st.sampled_from([np.uint16, np.int32]))
        instance_ids = [i for i in numbered + odd if i >= 0 or kind is np.int32]
        instances = blocks(rng, instance_ids, shape, kind)
        if draw(st.booleans()):  # as in real files: objects exactly where the truth has their class
            numbers = truth.astype(np.int64) * 1000 + rng.integers(0, 3, shape)
            instances = np.where(np.isin(truth, OBJECTS), numbers, truth).astype(kind)
        images.append((truth, prediction, instances))
    return images


def null_for_nan(value: object) -> object:
    """The official file's content with None for nan, all the way down."""
    if isinstance(value, dict):
        return {key: null_for_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def assert_same(ours: object, theirs: object, where: str = "") -> None:
    if isinstance(theirs, dict):
        assert isinstance(ours, dict)
        extra = set(ours) - set(theirs)
        assert set(theirs) <= set(ours), where
        assert not extra or "perImageScores" in where, (where, extra)
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12), where
    else:
        assert ours == theirs, where


def add_all(images: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> ScoreAccumulator:
    accumulator = ScoreAccumulator()
    for index, (truth, prediction, instances) in enumerate(images):
        accumulator.add(f"{index}_prediction.png", truth, prediction, instances)
    return accumulator


@needs_official
@settings(max_examples=300, deadline=None)
@given(images=image_sets())
def test_e4_every_number_is_the_official_one(images):
    theirs = null_for_nan(official_tool.score_arrays(images))
    assert_same(add_all(images).result().as_official_json(), theirs)


@needs_official
@settings(max_examples=30, deadline=None)
@given(images=image_sets())
def test_without_objects_the_other_numbers_stay_and_iiou_is_absent(images):
    accumulator = ScoreAccumulator()
    for index, (truth, prediction, _) in enumerate(images):
        accumulator.add(f"{index}_prediction.png", truth, prediction)
    content = accumulator.result().as_official_json()
    theirs = null_for_nan(official_tool.score_arrays(images))
    for key in ("confMatrix", "priors", "labels", "classScores", "categoryScores", "averageScoreClasses"):
        assert_same(content[key], theirs[key], key)
    assert content["averageScoreInstClasses"] is content["averageScoreInstCategories"] is None
    assert {*content["classInstScores"].values(), *content["categoryInstScores"].values()} == {None}
    assert accumulator.result().class_iiou is None


def test_one_image_without_objects_takes_the_iiou_of_all_away():
    accumulator = ScoreAccumulator()
    truth = np.full((2, 2), 26, np.uint8)
    accumulator.add("a", truth, truth, truth.astype(np.uint16) * 1000 + 1)
    assert accumulator.result().averages["averageScoreInstClasses"] == 1
    accumulator.add("b", truth, truth)
    scores = accumulator.result()
    assert scores.class_iiou is scores.category_iiou is None
    assert scores.averages["averageScoreInstClasses"] is None


@settings(max_examples=30, deadline=None)
@given(images=image_sets(), data=st.data())
def test_neither_order_nor_merging_shows_in_any_bit(images, data):
    whole = add_all(images)
    parts = [ScoreAccumulator() for _ in range(3)]
    for index in data.draw(st.permutations(range(len(images)))):
        data.draw(st.sampled_from(parts)).add(f"{index}_prediction.png", *images[index])
    merged = ScoreAccumulator()
    for part in parts:
        merged.merge(part)
    assert json.dumps(merged.result().as_official_json()) == json.dumps(whole.result().as_official_json())


def test_the_sum_over_hundreds_of_objects_is_exact():
    rng, no_pixels = np.random.default_rng(3), np.zeros((NUM_IDS, NUM_IDS), np.int64)
    sizes = rng.integers(3, 10**6, 300).tolist()
    accumulator = ScoreAccumulator()
    for index, size in enumerate(sizes):
        objects = np.array([[26_001, size, size // 3, size // 2]])
        accumulator.add_counts(str(index), PixelCounts(no_pixels, objects))
    weights = [AVERAGE_OBJECT_PIXELS["car"] / size for size in sizes]
    hits = math.fsum(size // 3 * weight for size, weight in zip(sizes, weights, strict=True))
    misses = math.fsum((size - size // 3) * weight for size, weight in zip(sizes, weights, strict=True))
    assert accumulator.result().class_iiou["car"] == hits / (hits + misses)


def test_e4_a_class_that_occurs_nowhere_is_nan_and_in_no_mean():
    truth = np.array([[7, 7, 26, 0]], np.uint8)
    accumulator = ScoreAccumulator()
    accumulator.add("a", truth, np.array([[7, 26, 26, 26]], np.uint8), np.array([[7, 7, 26000, 0]], np.uint16))
    scores = accumulator.result()
    assert scores.class_iou["road"] == 0.5  # one of two; what is predicted on ignored ground counts for nobody
    assert scores.class_iou["car"] == 0.5
    assert math.isnan(scores.class_iou["sky"])
    assert scores.averages["averageScoreClasses"] == 0.5
    text = json.dumps(scores.as_official_json(), allow_nan=False)
    assert json.loads(text)["classScores"]["sky"] is None


def test_e4_nothing_to_score_is_an_error_and_no_nan():
    with pytest.raises(InputError, match="no images to score"):
        ScoreAccumulator().result()


def test_ignored_predictions_cost_the_class_that_was_there():
    truth, prediction = np.full((1, 4), 7, np.uint8), np.array([[7, 7, 0, 4]], np.uint8)
    accumulator = ScoreAccumulator()
    accumulator.add("a", truth, prediction)
    assert accumulator.result().class_iou["road"] == 0.5


@pytest.mark.slow
def test_e6_more_pixels_than_32_bits_count_are_counted_one_by_one():
    side = 2**13
    truth, prediction = np.full((side, side), 7, np.uint8), np.full((side, side), 7, np.uint8)
    prediction[0] = 8
    accumulator = ScoreAccumulator()
    for index in range(65):
        accumulator.add(str(index), truth, prediction)
    confusion = accumulator.result().confusion
    assert (int(confusion[7, 7]), int(confusion[7, 8])) == (65 * side * (side - 1), 65 * side)
    assert confusion.sum() == 65 * 2**26 > 2**32


@needs_official
def test_e6_more_pixels_than_32_bits_count():
    """With counts that stand for pixels; counting as many one by one is a slow test."""
    ones = np.zeros((NUM_IDS, NUM_IDS), np.int64)
    ones[7, 7], ones[7, 8], ones[8, 8] = 2**33 + 1, 2**32 + 3, 5
    accumulator = ScoreAccumulator()
    for index in range(3):
        accumulator.add_counts(str(index), PixelCounts(ones, None))
    scores = accumulator.result()
    assert int(scores.confusion.sum()) == 3 * (2**33 + 2**32 + 9)
    assert scores.class_iou["road"] == pytest.approx((2**33 + 1) / (2**33 + 2**32 + 4), rel=1e-15)
    tool = official_tool.load()
    tool.generateMatrix(tool.args)
    assert scores.class_iou["sidewalk"] == tool.getIouScoreForLabel(8, 3 * ones.astype(np.ulonglong), tool.args)


def test_an_image_counts_once():
    truth = np.full((2, 2), 7, np.uint8)
    one, other = ScoreAccumulator(), ScoreAccumulator()
    for accumulator in (one, other):
        accumulator.add("a", truth, truth)
    with pytest.raises(ParameterError, match="already added"):
        one.add("a", truth, truth)
    with pytest.raises(ParameterError, match="in both"):
        one.merge(other)
    assert int(one.result().confusion.sum()) == 4


GOOD = np.full((3, 4), 26, np.uint8)


@pytest.mark.parametrize(
    ("truth", "prediction", "instances", "expected"),
    [
        (GOOD, GOOD.T, None, "prediction has 3 x 4 pixels, the truth 4 x 3"),
        (GOOD, GOOD, GOOD[:2], "instance ids has 4 x 2 pixels"),
        (GOOD, GOOD[None], None, "must be integer"),
        (GOOD, GOOD.astype(np.float32), None, "must be integer"),
        (GOOD[:0], GOOD[:0], None, "must be integer"),
        (GOOD, GOOD + 8, None, "prediction holds the id 34"),
        (GOOD, GOOD + 229, None, "prediction holds the id 255"),
        (GOOD, GOOD.astype(np.int64) - 27, None, "prediction holds the id -1"),
        (GOOD, GOOD.astype(np.int64) + 256, None, "prediction holds the id 282"),
        (GOOD + 14, GOOD, None, "truth holds the id 40"),
        (GOOD.astype(np.int16) - 27, GOOD, None, "truth holds the id -1"),
        (GOOD, GOOD, GOOD.astype(np.uint16) * 1000 + 8000, "instance id 34000 belongs to no class"),
        (GOOD, GOOD, np.full((3, 4), 7001, np.int32), "instance id 7001 is of road, a class without instances"),
        (GOOD, GOOD, np.full((3, 4), 70_000, np.int32), "instance ids holds the id 70000"),
    ],
)
def test_e3_what_the_table_does_not_know_is_refused_by_name(truth, prediction, instances, expected):
    with pytest.raises(InputError, match=f"image 1: .*{expected}"):
        count_pixels("image 1", truth, prediction, instances)


def test_train_ids_are_translated_on_the_way():
    rng = np.random.default_rng(0)
    truth, prediction = (rng.integers(0, 19, (30, 40), np.uint8) for _ in range(2))
    truth = TRAIN_ID_TO_LABEL_ID[truth]
    translated = count_pixels("a", truth, prediction, label_ids=TRAIN_ID_TO_LABEL_ID)
    plain = count_pixels("a", truth, TRAIN_ID_TO_LABEL_ID[prediction])
    np.testing.assert_array_equal(translated.confusion, plain.confusion)
    assert translated.confusion.sum() == truth.size


def test_views_and_other_integers_count_like_plain_arrays():
    rng = np.random.default_rng(1)
    ids = [label.label_id for label in TRAINED_LABELS]
    truth, prediction = (rng.choice(ids, (20, 30)).astype(np.uint8) for _ in range(2))
    plain = count_pixels("a", truth, prediction, truth.astype(np.uint16))
    for change in (np.asfortranarray, lambda a: a.astype(np.int64), lambda a: np.repeat(a, 2, 1)[:, ::2]):
        changed = count_pixels("a", change(truth), change(prediction), change(truth.astype(np.int32)))
        np.testing.assert_array_equal(changed.confusion, plain.confusion)
    assert ids_in(truth) == set(np.unique(truth).tolist())


def test_the_counts_of_an_image_keep_nothing_else_in_memory():
    ids = np.full((2, 2), 7, np.uint8)
    for instances in (None, ids.astype(np.uint16)):
        assert count_pixels("a", ids, ids, instances).confusion.base is None
