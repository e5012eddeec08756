"""The path grammar of a data set, and where its root is looked for."""

from pathlib import Path

import pytest

from cityscapes.errors import MissingInputError, ParameterError
from cityscapes.layout import (
    IMAGE_SUFFIX,
    LABEL_IDS_SUFFIX,
    POLYGONS_SUFFIX,
    Frame,
    check_split_name,
    default_root,
    find_frames,
)

FRAME = Frame("val", "frankfurt", "000000", "000576")


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_paths_are_those_of_the_data_set():
    root = Path("root")
    name = "frankfurt/frankfurt_000000_000576"
    assert FRAME.image(root) == root / f"leftImg8bit/val/{name}_leftImg8bit.png"
    assert FRAME.annotation(root, POLYGONS_SUFFIX) == root / f"gtFine/val/{name}_gtFine_polygons.json"
    assert FRAME.generated(root, LABEL_IDS_SUFFIX) == root / f"val/{name}_gtFine_labelIds.png"


def test_frames_are_found_in_the_order_of_a_drive_whatever_order_the_disk_has(tmp_path):
    frames = [Frame("val", city, f"{s:06}", f"{f:06}") for city in ("b", "a") for s in (1, 0) for f in (19, 3)]
    for frame in frames:
        touch(frame.image(tmp_path))
    assert find_frames(tmp_path, "val") == sorted(frames)


def test_polygons_and_images_are_looked_for_in_their_own_folders(tmp_path):
    touch(FRAME.annotation(tmp_path, POLYGONS_SUFFIX))
    assert find_frames(tmp_path, "val", suffix=POLYGONS_SUFFIX) == [FRAME]
    with pytest.raises(MissingInputError, match="no such split"):
        find_frames(tmp_path, "val", suffix=IMAGE_SUFFIX)


@pytest.mark.parametrize(
    "name", ["a/a_1_2", "a/b_000000_000000", "a/a_000000_0000000", "a/a_000000_000000_x", "a/.png"]
)
def test_files_that_break_the_grammar_are_not_frames(tmp_path, name):
    touch(tmp_path / "leftImg8bit" / "val" / (name + IMAGE_SUFFIX))
    with pytest.raises(MissingInputError, match="holds no file named"):
        find_frames(tmp_path, "val")


@pytest.mark.parametrize("name", [".ipynb_checkpoints/x", "berlin/.x"])
def test_hidden_files_and_folders_are_left_out(tmp_path, name):
    touch(tmp_path / "leftImg8bit" / "val" / (name + IMAGE_SUFFIX))
    touch(FRAME.image(tmp_path))
    assert find_frames(tmp_path, "val", any_name=True) == [FRAME]


def test_an_absent_split_says_where_it_was_looked_for_and_what_is_there(tmp_path):
    (tmp_path / "leftImg8bit" / "train").mkdir(parents=True)
    with pytest.raises(MissingInputError, match="which holds train") as caught:
        find_frames(tmp_path, "val")
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["", "..", "../val", "val/../../x", "/val", "a\\b", ".hidden", "val\n"])
def test_a_split_cannot_lead_out_of_its_folder(tmp_path, split):
    (tmp_path / "leftImg8bit").mkdir()
    with pytest.raises(ParameterError, match="split=.*the name of a folder of the data set"):
        find_frames(tmp_path, split)


def test_root_is_the_named_one_then_data_then_the_embedded_city(tmp_path, monkeypatch):
    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    monkeypatch.delenv("CITYSCAPES_DATASET", raising=False)
    data = tmp_path / "data"
    assert default_root() == data / "demo_city"
    (data / "cityscapes" / "gtFine").mkdir(parents=True)
    assert default_root() == data / "cityscapes"
    (data / "gtFine").mkdir()
    assert default_root() == data
    monkeypatch.setenv("CITYSCAPES_DATASET", "/elsewhere")
    assert default_root() == Path("/elsewhere")


@pytest.mark.parametrize("split", ["a" * 181, "a/" * 100 + "b"])
def test_a_split_whose_name_fits_no_file_is_refused(split):
    with pytest.raises(ParameterError, match="too long for the name of a folder"):
        check_split_name(split)
    check_split_name("a" * 180)
