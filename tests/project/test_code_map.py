"""The map of the code follows the docstrings, and these say what a module is or does."""

import importlib.util
from pathlib import Path

import pytest

ROOT = next(parent for parent in Path(__file__).parents if (parent / "pyproject.toml").is_file())
_SPEC = importlib.util.spec_from_file_location("map_code", ROOT / "docs" / "map_code.py")
map_code = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(map_code)

MODULES = sorted(path for package in map_code.PACKAGES for path in (ROOT / package).rglob("*.py"))
NO_SUBJECT = ("What", "How", "Which", "Who", "Where", "When", "Whether", "From", "All that", "Everything that", "TODO")


def test_the_map_on_disk_is_the_one_that_the_docstrings_make() -> None:
    assert map_code.MAP.read_text(encoding="utf-8") == map_code.code_map(), f"refresh it: {map_code.COMMAND}"


def test_the_map_has_a_line_for_every_module() -> None:
    lines = map_code.code_map().splitlines()
    for path in MODULES:
        entry = path.parent if path.name == "__init__.py" else path
        name = entry.relative_to(ROOT).as_posix()
        if name not in map_code.PACKAGES:
            assert sum(f"(../{name})" in line for line in lines) == 1, name


def test_packages_and_rooms_come_from_the_ground_up() -> None:
    text = map_code.code_map()
    order = ["## cityscapes", "(../cityscapes/errors.py)", "(../cityscapes/submission.py)", "## dlv3p"]
    order += ["(../dlv3p/parameters)", "(../dlv3p/models)", "(../dlv3p/train.py)", "(../dlv3p/jupyter)"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_docstring_begins_with_what_the_module_is_or_does(path: Path) -> None:
    sentence = map_code.first_sentence(path)
    assert sentence.endswith(".")
    assert not sentence.startswith(tuple(f"{word} " for word in NO_SUBJECT) + ("TODO",)), sentence


def test_a_sentence_ends_neither_in_a_file_name_nor_in_a_number(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""Read `run.json`,\nas arXiv:1706.05587 says. The rest is left out.\n\nMore.\n"""\n')
    assert map_code.first_sentence(module) == "Read `run.json`, as arXiv:1706.05587 says."


def test_a_module_without_a_docstring_is_named(tmp_path: Path) -> None:
    module = tmp_path / "bare.py"
    module.write_text("x = 1\n")
    with pytest.raises(ValueError, match="bare.py: has no docstring"):
        map_code.first_sentence(module)
