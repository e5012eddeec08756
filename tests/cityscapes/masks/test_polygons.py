"""Polygon files: what is right is read exactly, everything else is refused in one line that names the place."""

import gc
import json
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cityscapes.errors import InputError, MissingInputError
from cityscapes.masks.polygons import (
    MAX_CROSSINGS,
    MAX_FILE_BYTES,
    MAX_OBJECTS,
    MAX_POINTS,
    Annotation,
    parse_polygons,
    read_polygons,
)

SQUARE = [[1, 1], [5, 1], [5, 5], [1, 5]]


def document(objects: object = (), **members: object) -> bytes:
    return json.dumps({"imgHeight": 8, "imgWidth": 16, "objects": list(objects), **members}).encode()


def labeled(label: str, polygon: object = SQUARE, **members: object) -> dict:
    return {"label": label, "polygon": polygon, **members}


def parse(content: bytes) -> Annotation:
    return parse_polygons(content, "file.json")


def refusal(content: bytes) -> str:
    """Return the one line that `content` is refused with, in little time and memory."""
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        parse(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - start < 20  # it would take minutes; how fast it is does not matter here
    assert peak < 300e6
    message = str(caught.value)
    assert message.startswith("file.json: ")
    assert "\n" not in message
    assert len(message) < 2000
    return message


def test_objects_come_in_file_order_with_their_points():
    annotation = parse(document([labeled("road"), labeled("car", [[-3, 2], [40, 2], [7, 90]])]))
    assert (annotation.height, annotation.width, annotation.warnings) == (8, 16, ())
    assert [polygon.label.name for polygon in annotation.polygons] == ["road", "car"]
    assert annotation.polygons[1].points.dtype == np.int32
    assert annotation.polygons[1].points.tolist() == [[-3, 2], [40, 2], [7, 90]]


def test_a_byte_order_mark_is_accepted():
    assert len(parse(b"\xef\xbb\xbf" + document([labeled("road")])).polygons) == 1


def test_unknown_keys_are_ignored():
    assert len(parse(document([labeled("road", id=7, user="x", date=None)], comment={"deep": [[[]]]})).polygons) == 1


def test_group_label_falls_back_to_single_only_when_the_name_is_unknown():
    annotation = parse(document([labeled("cargroup"), labeled("polegroup"), labeled("license plategroup")]))
    assert [polygon.label.name for polygon in annotation.polygons] == ["car", "polegroup", "license plate"]


@pytest.mark.parametrize("deleted", [1, True])
def test_deleted_objects_are_left_out_whatever_they_are_called(deleted):
    annotation = parse(document([labeled("no such thing", deleted=deleted), labeled("road", deleted=0)]))
    assert [polygon.label.name for polygon in annotation.polygons] == ["road"]


@pytest.mark.parametrize("polygon", [[], [[3, 3]]])
def test_polygons_of_less_than_two_points_are_skipped_with_a_warning(polygon):
    annotation = parse(document([labeled("car", polygon), labeled("road")]))
    assert [polygon.label.name for polygon in annotation.polygons] == ["road"]
    assert len(annotation.warnings) == 1
    assert "/objects/0/polygon" in annotation.warnings[0]


def test_fractions_are_cut_off_toward_zero():
    points = parse(document([labeled("car", [[1.9, -1.9], [2, 0.5], [-0.5, 7.0]])])).polygons[0].points
    assert points.tolist() == [[1, -1], [2, 0], [0, 7]]


def test_all_unknown_labels_are_listed_with_their_counts():
    objects = [labeled(name) for name in ("rode", "group", "rode", "carr", "road")]
    message = refusal(document(objects))
    assert "'rode' x 2" in message
    assert "'carr' x 1" in message
    assert "'group' x 1" in message
    assert "'road'" not in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not valid JSON at line 1, column 1"),
        (document()[:-9], "not valid JSON at line 1"),
        (b"<html>\n<body>404</body>", "not valid JSON"),
        (document().decode().encode("utf-16"), "not UTF-8 at byte 0"),
        (document() + b"{}", "Extra data"),
        (b"[]", "expected an object with imgHeight"),
        (b"null", "found null"),
        (b'{"imgHeight": 8, "imgHeight": 9, "imgWidth": 8, "objects": []}', "duplicate key 'imgHeight'"),
    ],
)
def test_what_is_not_a_polygon_file_is_refused(content, expected):
    assert expected in refusal(content)


@pytest.mark.parametrize("key", ["imgHeight", "imgWidth", "objects"])
def test_a_missing_member_is_named(key):
    members = json.loads(document())
    del members[key]
    assert f"/{key}: is missing" in refusal(json.dumps(members).encode())


@pytest.mark.parametrize("key", ["imgHeight", "imgWidth"])
@pytest.mark.parametrize("side", [0, -1, 64.5, 64.0, True, "64", None, [8], 16385, 10**9, 2**40, 10**400])
def test_an_impossible_side_is_refused_before_memory_is_spent(key, side):
    assert f"/{key}: expected a whole number of pixels from 1 to 16384" in refusal(document(**{key: side}))


def test_more_pixels_than_a_camera_has_are_refused():
    assert "million pixels" in refusal(document(imgHeight=16384, imgWidth=16384))


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (7, "/objects/1: expected an object, found the number 7"),
        ({"polygon": SQUARE}, "/objects/1/label: is missing"),
        ({"label": "car"}, "/objects/1/polygon: is missing"),
        (labeled(["car"]), "/objects/1/label: expected a string, found a list"),
        (labeled("car", {"x": 1}), "/objects/1/polygon: expected a list, found an object"),
        (labeled("car", [[1, 2], [3]]), "/objects/1/polygon/1: expected a point"),
        (labeled("car", [[1, 2, 3]]), "/objects/1/polygon/0: expected a point"),
        (labeled("car", [[1, 2], 3]), "/objects/1/polygon/1: expected a point"),
        (labeled("car", [[1, 2], ["3", 4]]), "/objects/1/polygon/1: expected a point"),
        (labeled("car", [[1, 2], [True, 4]]), "/objects/1/polygon/1: expected a point"),
        (labeled("car", [[1, 2], [None, 4]]), "/objects/1/polygon/1: expected a point"),
        (labeled("car", ["ab", [1, 2]]), "/objects/1/polygon/0: expected a point"),
        (labeled("car", [{"x": 1, "y": 2}]), "/objects/1/polygon/0: expected a point"),
        (labeled("car", [[1, 2], [10**7, 4]]), "/objects/1/polygon/1: a coordinate lies beyond 1000000"),
        (labeled("car", [[1, 2], [3, -1e308]]), "/objects/1/polygon/1: a coordinate lies beyond 1000000"),
        (labeled("car", [[1, 2], [10**400, 4]]), "/objects/1/polygon/1: a coordinate lies beyond 1000000"),
        (labeled("car", deleted="no"), "/objects/1/deleted: expected 0 or 1, found a string"),
        (labeled("car", deleted=2), "/objects/1/deleted: expected 0 or 1"),
    ],
)
def test_a_broken_object_is_named_by_its_place(item, expected):
    assert expected in refusal(document([labeled("road"), item]))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(number):
    message = refusal(document([labeled("car")]).replace(b"[5, 5]", f"[{number}, 5]".encode()))
    assert number in message or "not finite" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (document([labeled("car", [[0, 0]] * (MAX_POINTS + 1))]), f"at most {MAX_POINTS}"),
        (document([labeled("car", [])] * (MAX_OBJECTS + 1)), f"at most {MAX_OBJECTS}"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (document().replace(b"16", b"9" * 5000), "integer string"),
        (document([labeled("car", [[0, 0], [0, 8191]] * 9000)] * 2, imgHeight=8192), f"at most {MAX_CROSSINGS}"),
    ],
)
def test_an_endless_file_is_refused_in_little_time_and_memory(content, expected):
    assert expected in refusal(content)


def test_a_huge_file_is_refused_by_its_size(tmp_path):
    path = tmp_path / "huge.json"
    with open(path, "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(InputError, match="larger than 8 MB"):
        read_polygons(path)


def test_an_absent_file_is_missing_input(tmp_path):
    with pytest.raises(MissingInputError, match="no such polygon file"):
        read_polygons(tmp_path / "none.json")


def read_or_refuse(content: bytes) -> Annotation | None:
    """Return the annotation, or None when the refusal is one printable line; anything else fails the test."""
    try:
        return parse(content)
    except InputError as error:
        return pytest.fail(repr(error)) if not str(error).isprintable() else None


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["car", "x"])
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2)
)
POINTS = st.lists(st.lists(SCALARS | st.integers(-9, 99), min_size=1, max_size=3) | ANYTHING, max_size=5)
OBJECTS = st.fixed_dictionaries({}, optional={"label": SCALARS, "polygon": POINTS | ANYTHING, "deleted": SCALARS})
SIDES = st.integers(-1, 20000) | SCALARS
DOCUMENTS = st.fixed_dictionaries(
    {}, optional={"imgHeight": SIDES, "imgWidth": SIDES, "objects": st.lists(OBJECTS | ANYTHING, max_size=4) | ANYTHING}
)


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS | ANYTHING)
def test_any_json_is_either_drawn_safely_or_refused_in_one_line(value):
    annotation = read_or_refuse(json.dumps(value).encode())
    if annotation is not None:
        assert 1 <= annotation.height * annotation.width <= 2**26
        assert all(polygon.points.shape[1] == 2 and len(polygon.points) >= 2 for polygon in annotation.polygons)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=30), st.integers(0, 200), st.integers(0, 30))
def test_any_damage_to_a_file_is_either_harmless_or_refused_in_one_line(junk, place, length):
    content = document([labeled("road"), labeled("cargroup", [[0, 0], [9, 0], [5.5, 7]], deleted=0)])
    read_or_refuse(content[:place] + junk + content[place + length :])


@pytest.mark.parametrize(
    "text",
    [
        '{"imgHeight": 8, "imgHeight": 9, "imgWidth": 16, "objects": []}',
        '{"imgHeight": 8, "imgWidth": 16, "objects": [{"label": "road", "polygon": [], "polygon": [[1, 1], [5, 5]]}]}',
        '{"imgHeight": 8, "imgWidth": 16, "objects": [{"label": "x", "label": "road", "polygon": [], "a\\u003a": 1}]}',
        '{"imgHeight": 8, "imgWidth": 16, "objects": [], "note": {"a": 1, "a": 2}}',
        '{"imgHeight": 8, "imgWidth": 16, "objects": [], "note\\u003a\\u003a": 1, "imgWidth": 16}',
    ],
)
def test_a_duplicate_key_is_found_wherever_the_fast_parser_would_drop_it(text):
    assert "duplicate key" in refusal(text.encode())


def test_colons_inside_text_and_nested_members_are_read_by_the_strict_parser_alike():
    plain = parse(document([labeled("road")]))
    noted = parse(document([labeled("road", date="12:30:59")], comment={"deep": {"a:b": ":"}}))
    assert [polygon.points.tolist() for polygon in noted.polygons] == [p.points.tolist() for p in plain.polygons]


@pytest.mark.parametrize("running", [True, False])
def test_python_s_collector_is_left_as_it_was_found(running):
    was_running = gc.isenabled()
    try:
        (gc.enable if running else gc.disable)()
        parse(document([labeled("road")]))
        refusal(b"{")
        assert gc.isenabled() == running
    finally:
        (gc.enable if was_running else gc.disable)()
