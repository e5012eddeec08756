"""The label table and the look-up tables that follow from it."""

import numpy as np

from cityscapes.labels import (
    CLASS_NAMES,
    IGNORE,
    LABEL_BY_ID,
    LABEL_ID_TO_COLOR,
    LABEL_ID_TO_TRAIN_ID,
    LABELS,
    NUM_CLASSES,
    TRAIN_ID_TO_COLOR,
    TRAIN_ID_TO_LABEL_ID,
    TRAINED_LABELS,
)


def test_nineteen_classes_are_trained_in_the_published_order():
    assert NUM_CLASSES == 19
    assert [label.train_id for label in TRAINED_LABELS] == list(range(19))
    assert CLASS_NAMES[0] == "road"
    assert CLASS_NAMES[13] == "car"
    assert CLASS_NAMES[18] == "bicycle"
    evaluated = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert [label.label_id for label in TRAINED_LABELS] == evaluated


def test_names_and_label_ids_are_unique():
    assert len({label.name for label in LABELS}) == len({label.label_id for label in LABELS}) == len(LABELS) == 35


def test_train_ids_survive_the_way_to_label_ids_and_back():
    train_ids = np.arange(NUM_CLASSES, dtype=np.uint8)
    np.testing.assert_array_equal(LABEL_ID_TO_TRAIN_ID[TRAIN_ID_TO_LABEL_ID[train_ids]], train_ids)


def test_what_is_not_trained_is_ignored_and_what_is_ignored_becomes_unlabeled():
    trained = {label.label_id for label in TRAINED_LABELS}
    assert all(LABEL_ID_TO_TRAIN_ID[i] == IGNORE for i in range(256) if i not in trained)
    assert all(TRAIN_ID_TO_LABEL_ID[i] == 0 for i in range(NUM_CLASSES, 256))


def test_color_tables_agree_with_each_other_and_with_the_table():
    for label in TRAINED_LABELS:
        assert tuple(LABEL_ID_TO_COLOR[label.label_id]) == tuple(TRAIN_ID_TO_COLOR[label.train_id]) == label.color
    assert not LABEL_ID_TO_COLOR[len(LABEL_BY_ID) :].any()
    assert not TRAIN_ID_TO_COLOR[IGNORE].any()


def test_tables_cannot_be_changed_by_accident():
    tables = (LABEL_ID_TO_TRAIN_ID, TRAIN_ID_TO_LABEL_ID, LABEL_ID_TO_COLOR, TRAIN_ID_TO_COLOR)
    assert not any(table.flags.writeable for table in tables)


def test_ignored_classes_are_exactly_those_without_a_train_id():
    assert all(label.ignored == (not 0 <= label.train_id < IGNORE) for label in LABELS)
