"""A data root, or weights, that do not exist are refused with the nearest name, and before anything heavy is loaded."""

from pathlib import Path

import pytest

from cityscapes.errors import MissingInputError, ParameterError
from dlv3p.data.roots import open_images, open_split
from dlv3p.data.write_shards import write_shards
from dlv3p.parameters import notebooks
from dlv3p.parameters.data_roots import EMBEDDED, EMBEDDED_SPLITS, embedded_folder, find_data_root, find_split
from dlv3p.parameters.notebooks import (
    AuditDataParameters,
    EvaluateParameters,
    PrepareVocParameters,
    RenderGifParameters,
    TrainParameters,
)


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


def make_voc(city: Path, folder: Path) -> Path:
    kit = folder / "VOCdevkit" / "VOC2012"
    for below in ("JPEGImages", "ImageSets/Segmentation"):
        (kit / below).mkdir(parents=True)
    for split in ("train", "val", "trainval"):
        (kit / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("a\n")
    return folder


def make_folder(city: Path, folder: Path) -> Path:
    for below in ("images/train", "images/val", "images/.ipynb_checkpoints", "masks/train"):
        (folder / below).mkdir(parents=True)
    return folder


def write_city_shards(city: Path, folder: Path) -> Path:
    for split in ("train", "val"):
        write_shards(open_split(city, split), folder)
    return folder


LAYOUTS = {
    "cityscapes": (lambda city, folder: city, {"train", "val", "test"}),
    "voc": (make_voc, {"train", "val", "trainval"}),
    "folder": (make_folder, {"train", "val"}),
    "shards": (write_city_shards, {"train", "val"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_split_is_refused_by_a_look_at_the_folders_exactly_where_opening_it_would(
    city: Path, tmp_path: Path, layout: str
) -> None:
    make, splits = LAYOUTS[layout]
    root = make(city, tmp_path / layout)
    for split in sorted({*splits, "vall", "Train", "testt"}):
        if split in splits:
            find_split(split, str(root), "split")
            continue
        with pytest.raises(MissingInputError):
            open_images(root, split)
        with pytest.raises(MissingInputError) as refusal:
            find_split(split, str(root), "split")
        assert str(refusal.value).startswith(f"split={split!r}: no such split; ")
        assert str(refusal.value).endswith(f" has {', '.join(sorted(splits))}")
    with pytest.raises(MissingInputError, match=r"^split='vall': no such split; did you mean 'val'\? "):
        find_split("vall", str(root), "split")


def test_a_split_is_refused_wherever_it_is_a_parameter_and_left_to_the_data_where_folders_do_not_tell(
    city: Path, mine: Path
) -> None:
    for kind in vars(notebooks).values():
        for name in ("split", "splits", "train_split", "val_split", "temperature_split"):
            known = getattr(kind, "__dataclass_fields__", {})
            if name in known and "data_root" in known:
                metadata = known[name].metadata
                assert (metadata["find"], metadata["within"]) == (find_split, "data_root"), f"{kind.__name__}.{name}"
    wrong = {"data_root": str(city), "train_split": "trian"}
    with pytest.raises(MissingInputError, match=r"^train_split='trian': no such split; did you mean 'train'\?"):
        TrainParameters.from_cell(wrong)
    with pytest.raises(MissingInputError, match=r"^splits='vall': "):
        AuditDataParameters.from_cell({"data_root": str(city), "splits": "train vall"})
    with pytest.raises(MissingInputError, match=r"^split='vall': .*/demo_city has test, train, val"):
        EvaluateParameters(split="vall").find_inputs(data_root="demo_city")
    with pytest.raises(ParameterError, match=r"^split='\.\./val': "):
        EvaluateParameters(split="../val").find_inputs(data_root="demo_city")
    find_split("train_aug", str(make_voc(city, mine / "voc")), "split")  # of which opening it tells how it is made
    for root in ("", str(mine), "https://nowhere.example/shards"):
        find_split("vall", root, "split")
    find_split("train.fold0of5", str(city), "split")
    TrainParameters(data_root=str(city), val_split="none", folds=2).find_inputs()
    RenderGifParameters(split="none", images=__file__).find_inputs(data_root=str(city))


@pytest.mark.parametrize("data_root", EMBEDDED)
def test_embedded_data_has_its_splits_before_it_is_drawn_and_where_drawing_it_was_interrupted(
    mine: Path, data_root: str
) -> None:
    """As by Ctrl-C in the first minute: the folders of one split are there, and the next run draws the others."""
    splits = EMBEDDED_SPLITS[data_root]
    begun = embedded_folder(data_root)
    for interrupted in (False, True):
        if interrupted:
            for folder in ("leftImg8bit/train", "images/train", "ImageSets/Segmentation"):
                (begun / folder).mkdir(parents=True)
            (begun / "ImageSets/Segmentation/train.txt").write_text("a\n")
        for split in splits:
            find_split(split, data_root, "split")
        with pytest.raises(
            MissingInputError, match=f"^split='vall': no such split; .* has {', '.join(sorted(splits))}"
        ):
            find_split("vall", data_root, "split")
