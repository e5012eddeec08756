"""The class table says what stands for a class in the masks, which no one has to touch."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError
from dlv3p.data.fingerprints import content_fingerprint, labels_fingerprint, masks_fingerprint
from dlv3p.data.roots import open_split
from dlv3p.data.write_shards import write_shards

STORED = np.array([[0, 255, 7], [7, 8, 3]], np.uint8)


def folder(root: Path, table: str, mask: np.ndarray = STORED) -> Path:
    (root / "classes.csv").write_text(table)
    for kind, pixels in (("images", np.full((*mask.shape[:2], 3), 90, np.uint8)), ("masks", mask)):
        (root / kind / "train").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / kind / "train" / "a.png")
    return root


def test_classes_are_merged_renamed_and_ignored(tmp_path: Path) -> None:
    root = folder(tmp_path, "id,name,stored\n0,ground,0\n1,vehicle,7 8 255\n255,ignored,3\n")
    split = open_split(root, "train")
    assert split.class_names == ("ground", "vehicle")
    assert split.mask(0).tolist() == [[0, 1, 1], [1, 1, 255]]
    write_shards(split, tmp_path / "shards")
    assert np.array_equal(open_split(tmp_path / "shards", "train").mask(0), split.mask(0))


@pytest.mark.parametrize("channels", [1, 3])
def test_masks_of_0_and_255_are_two_classes(tmp_path: Path, channels: int) -> None:
    mask = np.repeat(np.array([[0, 255], [255, 0]], np.uint8)[..., None], channels, axis=2)
    root = folder(tmp_path, "id,name,stored\n0,background,0\n1,tumor,255\n", mask if channels == 3 else mask[..., 0])
    assert open_split(root, "train").mask(0).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (
            "id,name,stored\n0,a,0\n1,b,7\n",
            "a.png: holds the values 3, 8, 255, which no row of classes.csv lists",
        ),
        ("id,name,stored\n0,a,0 7\n1,b,7\n", "line 3: the stored value 7 already belongs to another class"),
        ("id,name,stored\n0,a,0 7 8 3 255\n1,b,\n", "line 3: stored is empty; list the values of this class, or"),
        ("id,name,stored\n0,a,0\n1,b,7 x\n", "line 3: a stored value is 'x'; expected a whole number from 0 to 255"),
        ("id,name,stored\n0,a,0\n1,b,7,8\n", "line 3: more values than columns; put a value that holds a comma"),
        ("id,name,stored\n0,a,0\n1,b,256\n", "line 3: a stored value is '256'; expected a whole number from 0 to 255"),
    ],
)
def test_a_table_that_does_not_settle_every_value_is_refused(tmp_path: Path, table: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        open_split(folder(tmp_path, table), "train").mask(0)


def test_other_values_are_other_labels_to_every_fingerprint(tmp_path: Path) -> None:
    def fingerprints(table: str) -> tuple[str | None, ...]:
        split = open_split(folder(tmp_path, table), "train")
        names = (masks_fingerprint(split), content_fingerprint(split))
        return (*names, labels_fingerprint(split, version="1").split()[0])

    first = fingerprints("id,name,stored\n0,a,0\n1,b,7 8 3 255\n")
    second = fingerprints("id,name,stored\n0,a,0 3\n1,b,7 8 255\n")
    assert not set(first) & set(second)
