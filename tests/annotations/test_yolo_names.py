"""YOLO's texts and names are found in any Unicode form, and what belongs to nothing is named, never left out."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError
from dlv3p.annotations.prepare import Preparation, prepare_annotations
from dlv3p.parameters.annotations import PrepareAnnotationsParameters

NFC = "café"
NFD = unicodedata.normalize("NFD", NFC)
OUTLINE = "0 0.1 0.1 0.6 0.1 0.6 0.6\n"
COUNT = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images whose names a Mac wrote, without texts."""
    (tmp_path / "labels").mkdir()
    for number in range(COUNT):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3)).astype(np.uint8)
        (tmp_path / "images" / NFD).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "images" / NFD / f"{NFD}{number}.png")
    (tmp_path / "data.yaml").write_text("names: [car]\n")
    return tmp_path


def write_texts(folder: Path, name: str = NFC, text: str = OUTLINE) -> None:
    for number in range(COUNT):
        (folder / "labels" / NFC).mkdir(exist_ok=True)
        (folder / "labels" / NFC / f"{name}{number}.txt").write_text(text)


def prepare(folder: Path) -> Preparation:
    parameters = {"annotations": str(folder), "output": str(folder / "made"), "image_groups": "none"}
    return prepare_annotations(PrepareAnnotationsParameters(**parameters, progress="none"))


def test_texts_of_another_unicode_form_are_those_of_the_images(folder: Path) -> None:
    write_texts(folder)
    prepared = prepare(folder)
    assert (prepared.made, prepared.empty, prepared.problems) == (COUNT, 0, ())


def test_texts_of_no_image_are_named(folder: Path) -> None:
    write_texts(folder)
    write_texts(folder, "other")
    prepared = prepare(folder)
    assert prepared.made == COUNT
    (problem,) = prepared.problems
    assert problem.endswith("other0.txt: is of no image, and so are 2 more; images and texts have the same names")


def test_where_no_text_fits_the_reason_is_told(folder: Path) -> None:
    write_texts(folder, "other")
    with pytest.raises(InputError, match=r"1 classes: background.*other0.txt: is of no image, and so are 2"):
        prepare(folder)


def test_a_text_that_fits_two_images_is_of_neither(folder: Path) -> None:
    write_texts(folder)
    for name in ("one", "two"):
        (folder / name).mkdir()
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / name / "a.png")
    (folder / "a.txt").write_text(OUTLINE)
    problems = prepare(folder).problems
    assert len(problems) == 2
    assert all("a.txt: fits 2 images; put it beside the one that it is of" in problem for problem in problems)


def test_shapes_beyond_the_image_are_counted_apart_from_covered_ones(folder: Path) -> None:
    write_texts(folder)
    (folder / "labels" / NFC / f"{NFC}0.txt").write_text(OUTLINE + "0 1.2 1.2 1.4 1.2 1.4 1.4\n" + OUTLINE)
    lines = prepare(folder).lines()
    assert "outside: 1 x car has no pixel in its image; check its coordinates, and which image it is of" in lines
    assert "overlap: nothing is left of 1 x car" in lines


NAMES = {
    "bom": ("classes.txt", b"\xef\xbb\xbfcar\r\nsky\r\n", None),
    "blank line": ("classes.txt", b"car\n\nsky\n", "classes.txt, line 2: is empty, and ids count lines"),
    "utf-16": ("obj.names", "car\nsky\n".encode("utf-16"), "obj.names: not UTF-8 at byte 0; save it as UTF-8"),
    "yaml in utf-16": ("data.yaml", "names: [car]\n".encode("utf-16"), "yaml: not UTF-8 at byte 0; save it"),
    "another number": ("data.yaml", b"nc: 3\nnames: [car]\n", "data.yaml: nc is 3, and it names 1; correct one"),
}


@pytest.mark.parametrize(("file", "content", "said"), NAMES.values(), ids=NAMES)
def test_names_that_could_be_misread_are_refused(folder: Path, file: str, content: bytes, said: str | None) -> None:
    write_texts(folder)
    (folder / "data.yaml").unlink()
    (folder / file).write_bytes(content)
    if said is None:
        assert prepare(folder).class_names == ("background", "car")
    else:
        with pytest.raises(InputError, match=said):
            prepare(folder)
