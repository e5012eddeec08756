"""Parts of a split: what a list chooses, k folds that keep neighbors together, and what a training makes of them."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.tiny import tiny

from cityscapes.demo.city import write_demo_city
from cityscapes.errors import InputError, IntegrityError, MissingInputError, ParameterError
from dlv3p.data.audit import audit, usable_pairs
from dlv3p.data.fingerprints import data_fingerprint
from dlv3p.data.parts import choose_listed, number_folds
from dlv3p.data.roots import open_images, open_split, open_training
from dlv3p.data.write_shards import write_shards
from dlv3p.experiments.table import gather_results, over_seeds
from dlv3p.runs.check import check_run
from dlv3p.runs.folders import TRAIN_IMAGES
from dlv3p.runs.record import read_record, record_problems
from dlv3p.train import train


class Named:
    """A split of which only the names and groups of its images are known."""

    root, split = Path("data"), "train"

    def __init__(self, *names: str) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        return self.names[index].rsplit("/", 1)[-1]

    def group(self, index: int) -> str:
        return self.names[index].rpartition("/")[0]


def names(split) -> list[str]:
    return [split.name(index) for index in range(len(split))]


def write_list(folder: Path, *lines: str) -> str:
    path = folder / "list.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_folders_are_never_torn_apart_where_there_are_enough_of_them() -> None:
    split = Named(*(f"city{city}/frame_{frame:06d}" for city in range(7) for frame in range(10 + city)))
    numbers = number_folds(split, 3)
    folds_of = {
        split.group(i): {numbers[j] for j in range(len(split)) if split.group(j) == split.group(i)}
        for i in range(len(split))
    }
    assert all(len(found) == 1 for found in folds_of.values())
    assert sorted(Counter(numbers).values()) == [27, 27, 37]


def test_drives_stay_together_where_folders_are_too_few() -> None:
    drives = [drive for drive, frames in enumerate((6, 7, 3, 5, 4, 6, 5, 4, 5)) for _ in range(frames)]
    split = Named(*(f"city/city_{drive:06d}_{frame:06d}" for frame, drive in enumerate(drives)))
    numbers = number_folds(split, 3)
    assert len(set(zip(drives, numbers, strict=True))) == 9
    assert set(Counter(numbers).values()) == {15}


def test_one_video_is_cut_into_stretches() -> None:
    numbers = number_folds(Named(*(f"video/{frame:04d}" for frame in range(11))), 3)
    assert numbers == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    with pytest.raises(ParameterError, match="folds=12: data has only 11 images in 'train'"):
        number_folds(Named(*(f"video/{frame:04d}" for frame in range(11))), 12)


def test_every_image_is_in_one_fold_and_trained_on_in_all_others(city) -> None:
    whole = names(open_split(city, "train"))
    seen = []
    for fold in range(3):
        training, held = open_training(tiny(city, folds=3, fold=fold))
        assert set(names(training)).isdisjoint(names(held))
        assert sorted(names(training) + names(held)) == sorted(whole)
        seen += names(held)
        mask = held.mask(0)
        assert (mask == open_split(city, "train").mask(whole.index(held.name(0)))).all()
    assert sorted(seen) == sorted(whole)


@pytest.mark.parametrize("values", [{"folds": 1}, {"folds": 3, "fold": 3}, {"fold": 1}])
def test_folds_that_do_not_exist_are_refused(city, values) -> None:
    with pytest.raises(ParameterError, match="fold is 0 to one less than folds"):
        tiny(city, **values)


def test_names_of_folds_that_do_not_exist_are_refused(city) -> None:
    for name in ("train.fold3of3", "train.without0of1"):
        with pytest.raises(ParameterError, match="numbered from 0"):
            open_images(city, name)


def test_a_list_chooses_by_paths_and_names_in_the_order_of_the_split(city, tmp_path) -> None:
    split = open_split(city, "train")
    listed = write_list(tmp_path, "# chosen", str(split.image_path(4)), "", split.name(1))
    (part,) = choose_listed(listed, [split], parameter="train_list")
    assert names(part) == [split.name(1), split.name(4)]
    assert (part.mask(1) == split.mask(4)).all()
    assert part.image_bytes(0) == split.image_bytes(1)
    assert data_fingerprint(part) != data_fingerprint(split)


def test_a_list_of_other_images_is_refused_with_the_parameter(city, tmp_path) -> None:
    training, validation = (open_split(city, name) for name in ("train", "val"))
    listed = write_list(tmp_path, str(training.image_path(0)), str(validation.image_path(0)))
    with pytest.raises(InputError, match="train_list=.*: names 1 images that are not in 'train' of .*val"):
        open_training(tiny(city, train_list=listed))
    with pytest.raises(MissingInputError, match="no such list of images"):
        open_training(tiny(city, train_list=str(tmp_path / "none.txt")))
    for text, why in (("\n", "names no image"), ("a\0b", "not a text file")):
        (tmp_path / "bad.txt").write_text(text)
        with pytest.raises(InputError, match=why):
            open_training(tiny(city, train_list=str(tmp_path / "bad.txt")))


def test_shards_have_folds_and_lists_with_fingerprints_of_their_own(city, tmp_path) -> None:
    for name in ("train", "val"):
        write_shards(open_split(city, name), tmp_path / "shards", samples=4)
    shards = open_split(tmp_path / "shards", "train")
    held, rest = (open_split(tmp_path / "shards", f"train.{kind}0of3") for kind in ("fold", "without"))
    assert len({shards.fingerprint, held.fingerprint, rest.fingerprint}) == 3
    assert len({data_fingerprint(split) for split in (shards, held, rest)}) == 3
    (part,) = choose_listed(write_list(tmp_path, str(shards.image_path(2))), [shards], parameter="train_list")
    assert names(part) == [shards.name(2)]


def test_only_listed_images_are_audited(city, tmp_path) -> None:
    validation = open_split(city, "val")
    listed = write_list(tmp_path, validation.name(2))
    report = audit(city, ["train", "val"], image_list=listed, progress="none")
    assert [(counts.split, counts.images) for counts in report.splits] == [("val", 1)]
    shown = usable_pairs(report, count=5, image_list=listed)
    assert [split.name(index) for split, index in shown] == [validation.name(2)]


def test_a_run_records_the_images_that_its_list_and_its_fold_leave(city, workspace, tmp_path) -> None:
    split = open_split(city, "train")
    listed = write_list(tmp_path, *(split.name(index) for index in range(5)))
    parameters = tiny(city, run="part", train_list=listed, folds=3, fold=1, batch_size=1, epochs=1)
    result = train(parameters)
    trained_on = [Path(line).name for line in (result.folder / TRAIN_IMAGES).read_text().splitlines()]
    held = set(names(open_split(city, "train.fold1of3")))
    expected = [split.image_path(index).name for index in range(5) if split.name(index) not in held]
    assert trained_on == expected
    record = read_record(result.folder / "run.json")
    assert list(record["data"]) == ["train.without1of3", "train.fold1of3"]
    assert record["data"]["train.without1of3"]["images"] == len(expected)
    assert record["data"]["train.without1of3"]["list"] == TRAIN_IMAGES
    assert not list(record_problems(record))
    findings, summary = check_run(result.folder, every_byte=True)
    assert not [finding for finding in findings if finding.kind.startswith("data")]
    assert f"{len(expected) + len(held)} images" in summary


def test_a_run_is_not_resumed_with_other_images_of_the_same_number(city, workspace, tmp_path) -> None:
    split = open_split(city, "train")
    listed = write_list(tmp_path, *(split.name(index) for index in range(2)))
    folder = train(tiny(city, run="part", train_list=listed, epochs=1)).folder
    content = json.loads((folder / "run.json").read_text())
    write_list(tmp_path, *(split.name(index) for index in range(1, 3)))
    from dlv3p.training.recording import record_resumption

    parameters = tiny(city, run="part", train_list=listed, epochs=1)
    with pytest.raises(IntegrityError, match="other images of .* are in train than when the run began"):
        record_resumption(folder, parameters, open_training(parameters), steps=1)
    with pytest.raises(IntegrityError, match="other images of .* are in train than when the run began"):
        train(parameters)  # which is finished
    assert json.loads((folder / "run.json").read_text()) == content


def test_the_folds_of_a_split_are_one_row_of_the_table(city, workspace) -> None:
    scores = [train(tiny(city, run=f"fold{fold}", folds=3, fold=fold, epochs=1)).best_mean_iou for fold in range(3)]
    table = over_seeds(gather_results())
    assert len(table) == 1
    assert table["runs"][0] == 3
    assert table["data"][0] == f"{Path(city).name} train, 3 folds"
    assert table["mIoU, %"][0] == pytest.approx(100 * np.mean(scores))


def test_nothing_of_a_fold_is_random(tmp_path) -> None:
    city = write_demo_city(tmp_path / "city", height=64, width=128, frames={"train": 20, "val": 1, "test": 1})
    assert [len(open_images(city, f"train.fold{fold}of4")) for fold in range(4)] == [5, 5, 5, 5]
    assert names(open_images(city, "train.fold0of4")) == names(open_images(city, "train.fold0of4"))
