"""Large JSON is parsed by a fast parser only where it cannot have hidden a duplicate key."""

import json

import pytest

from cityscapes.errors import InputError
from cityscapes.files.untrusted import load_json_fast

DOCUMENT = {"images": [{"id": 1, "name": "a:b.png", "empty": [], "points": [[0, 1.5], [2, 3]]}], "none": None, "n": {}}


def test_it_parses_what_the_strict_parser_does() -> None:
    assert load_json_fast(json.dumps(DOCUMENT).encode(), "here") == DOCUMENT
    assert load_json_fast(b"[1, 2]", "here") == [1, 2]


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '[{"b": {"a": [], "a": []}}]', '[1, {"a": 1, "a": 2}]', '[[[0, 1], {"a": 1, "a": 2}]]']
)
def test_a_duplicate_key_is_refused_wherever_it_is(text: str) -> None:
    with pytest.raises(InputError, match=r"^here: duplicate key 'a'; keep one of them$"):
        load_json_fast(text.encode(), "here")


def test_nesting_that_the_fast_parser_takes_is_no_traceback() -> None:
    text = '[{"a":' * 400 + "1" + "}]" * 400
    value = load_json_fast(text.encode(), "here")
    for _ in range(400):
        (inner,) = value
        value = inner["a"]
    assert value == 1


def test_constants_are_numbers_where_the_reader_checks_them() -> None:
    with pytest.raises(InputError, match="here: NaN is not a JSON number"):
        load_json_fast(b'{"a": NaN}', "here")
    assert str(load_json_fast(b'{"a": NaN}', "here", constants=True)) == "{'a': nan}"
    with pytest.raises(InputError, match="here: duplicate key 'a'"):
        load_json_fast(b'{"a": NaN, "a": 1}', "here", constants=True)
