"""A data root, or weights, that do not exist are refused with the nearest name, and before anything heavy is loaded."""

from pathlib import Path

import pytest

from cityscapes.errors import MissingInputError
from dlv3p.parameters.data_roots import find_data_root
from dlv3p.parameters.notebooks import AuditDataParameters, PrepareVocParameters, TrainParameters


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data beside two others, in the current folder of a workspace."""
    for name in ("my_data", "pictures", "videos/2024"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my_data"


@pytest.mark.parametrize("typed", ["{}/my_dat", "{}/My_Data", "{}/my-data", "~/mydata", "my_data_", "{}/my_dta/"])
def test_a_misspelled_folder_is_refused_with_the_nearest(mine: Path, typed: str) -> None:
    typed = typed.format(mine.parent)
    with pytest.raises(MissingInputError) as refusal:
        find_data_root(typed)
    begin = f"data_root={typed!r}: no such folder; did you mean {str(mine)!r}? Allowed are 'demo_city', 'demo_voc', and"
    assert str(refusal.value).startswith(begin)
    assert "\n" not in str(refusal.value)


def test_every_part_of_a_path_may_be_misspelled(mine: Path) -> None:
    with pytest.raises(MissingInputError, match=r"did you mean '.*/videos/2024'\?"):
        find_data_root(str(mine.parent / "vidoes" / "2O24"))
    with pytest.raises(MissingInputError, match=r"did you mean 'demo_city'\?"):
        find_data_root("demo-city")


@pytest.mark.parametrize("typed", ["qqqq", "/qqqq/my_data", "~/qqqq"])
def test_where_nothing_is_near_nothing_is_named(mine: Path, typed: str) -> None:
    with pytest.raises(MissingInputError, match=r": no such folder; allowed are 'demo_city', 'demo_voc', and folders"):
        find_data_root(typed)


def test_a_parameters_cell_is_refused_and_the_record_of_data_that_has_moved_is_not(mine: Path) -> None:
    moved = {"data_root": str(mine / "gone")}
    for kind in (TrainParameters, AuditDataParameters):
        assert kind.from_mapping(moved).data_root == moved["data_root"]
        with pytest.raises(MissingInputError, match="no such folder"):
            kind.from_cell(moved)
        assert kind.from_cell({"data_root": str(mine)}).data_root == str(mine)
    assert PrepareVocParameters.from_cell(moved).data_root == moved["data_root"], "which is yet to be made"
    with pytest.raises(MissingInputError, match=r"initial_weights='nope\.pth': no such file; allowed are 'random'"):
        TrainParameters.from_cell({"initial_weights": "nope.pth"})
