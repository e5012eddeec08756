"""A folder to train on from annotations: classes, splits, mistakes, a killed call, and what training reads of it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError, MachineError, MissingInputError, ParameterError
from dlv3p.annotations.__main__ import main
from dlv3p.annotations.image_files import ImageIndex
from dlv3p.annotations.plan import plan_splits
from dlv3p.annotations.prepare import Preparation, prepare_annotations
from dlv3p.annotations.shapes import AnnotatedImage, Shape, draw
from dlv3p.data.audit import audit
from dlv3p.data.folder import open_folder
from dlv3p.parameters.annotations import PrepareAnnotationsParameters

ROAD = [[0, 24], [63, 20], [63, 47], [0, 47]]
CAR = [[20, 18], [40, 18], [44, 30], [16, 30]]


def write_labelme(folder: Path, name: str, *shapes: tuple[str, list, str], size: tuple[int, int] = (64, 48)) -> Path:
    """Write an image of 64 x 48 pixels, and what LabelMe says of it."""
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(sum(name.encode())).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path.with_suffix(".png"))
    shapes = shapes or (("road", ROAD, "polygon"), ("car", CAR, "polygon"))
    listed = [{"label": label, "points": points, "shape_type": kind} for label, points, kind in shapes]
    entry = {
        "shapes": listed,
        "imagePath": path.with_suffix(".png").name,
        "imageWidth": size[0],
        "imageHeight": size[1],
    }
    path.write_text(json.dumps({"version": "6.3.1", **entry, "imageData": None}))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten annotated images: two streets of five."""
    for number in range(10):
        write_labelme(tmp_path / "photos", f"street_{number // 5}_{number}")
    return tmp_path / "photos"


def prepare(annotations: Path, **changes: object) -> Preparation:
    output = changes.pop("output", annotations.parent / "out")
    return prepare_annotations(
        PrepareAnnotationsParameters(annotations=str(annotations), output=str(output), progress="none", **changes)
    )


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def table(folder: Path, text: str) -> str:
    path = folder / "table.csv"
    path.write_text(text)
    return str(path)


def test_the_folder_is_read_as_data_of_ones_own_and_passes_the_audit(photos: Path) -> None:
    found = prepare(photos)
    assert (found.made, found.kept, found.problems, found.splits) == (10, 0, (), {"train": 8, "val": 2})
    train = open_folder(found.folder, "train", labeled=True)
    assert train.class_names == ("background", "car", "road")
    _, mask = train.pair(0)
    assert [int(mask[y, x]) for y, x in ((2, 2), (19, 30), (40, 5), (28, 30))] == [0, 1, 2, 1]
    assert audit(found.folder, ["train", "val"], progress="none").errors == ()
    alone = [Shape(name, (np.array(points, float),)) for name, points in (("road", ROAD), ("car", CAR))]
    drawn = [draw(AnnotatedImage("a", (64, 48), (shape,)), {shape.label: 1}, unlabeled=0).mask for shape in alone]
    assert found.covered == {("road", "car"): (10 * int((drawn[0] & drawn[1]).sum()), 10)}


def test_a_second_call_draws_what_is_missing_or_changed_alone_and_ends_in_the_same_files(photos: Path) -> None:
    found = prepare(photos)
    before = contents(found.folder)
    train = sorted((found.folder / "masks" / "train").glob("*.png"))
    train[0].unlink()
    train[1].write_bytes(train[1].read_bytes()[:-20])
    next((found.folder / "images" / "val").glob("*.png")).unlink()
    again = prepare(photos)
    assert (again.made, again.kept, contents(found.folder)) == (3, 7, before)
    image = next((found.folder / "images" / "train").glob("*.png"))
    image.write_bytes(image.read_bytes()[:-1] + b"?")  # of equal size
    again = prepare(photos)
    assert (again.made, again.kept, contents(found.folder)) == (1, 9, before)
    assert prepare(photos).kept == 10


def test_a_changed_annotation_is_drawn_again_and_new_images_leave_the_others_where_they_are(photos: Path) -> None:
    before = prepare(photos)
    plan = (before.folder / "splits.csv").read_text().splitlines()
    write_labelme(photos, "street_0_0", ("road", ROAD, "polygon"), ("car", [[1, 1], [9, 1], [9, 9]], "polygon"))
    for number in range(10, 20):
        write_labelme(photos, f"street_2_{number}")
    found = prepare(photos)
    assert (found.made, found.kept, found.splits) == (11, 9, {"train": 16, "val": 4})
    assert set(plan) <= set((found.folder / "splits.csv").read_text().splitlines())


def test_a_killed_call_is_resumed_by_the_same_call(photos: Path, tmp_path: Path) -> None:
    expected = contents(prepare(photos, output=tmp_path / "whole").folder)
    code = (
        "import os, signal, sys\nfrom dlv3p.annotations import prepare as module\n"
        "from dlv3p.annotations.__main__ import main\nwrite, written = module.write_bytes, []\n"
        "def last(*arguments, **options):\n    written.append(1)\n"
        "    if len(written) > 7: os.kill(os.getpid(), signal.SIGKILL)\n    write(*arguments, **options)\n"
        "module.write_bytes = last\nmain(sys.argv[1:])\n"
    )
    words = ["prepare", str(photos), "--output", str(tmp_path / "out"), "--progress", "none", "--workers", "1"]
    killed = subprocess.run([sys.executable, "-c", code, *words], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert 0 < len(list((tmp_path / "out" / "masks").rglob("*.png"))) < 10
    found = prepare(photos)
    assert found.made + found.kept == 10
    assert found.kept >= 1
    assert contents(found.folder) == expected


def test_bad_annotations_are_a_line_each_and_the_good_ones_are_done(photos: Path) -> None:
    write_labelme(photos, "wide", size=(640, 48))
    write_labelme(photos, "text", ("road", [[0, 0], ["a", 1], [2, 2]], "polygon"))
    write_labelme(photos, "far", ("road", [[0, 0], [1e9, 1], [2, 2]], "polygon"))
    write_labelme(photos, "box", ("car", [[1, 1], [9, 9]], "rectangle"))
    write_labelme(photos, "star", ("car", [[1, 1], [9, 9]], "star"))
    write_labelme(photos, "lost").with_suffix(".png").unlink()
    cut = write_labelme(photos, "cut")
    cut.write_text(cut.read_text()[:50])
    twice = write_labelme(photos, "twice")
    twice.write_text(twice.read_text().replace('"label":', '"label": "car", "label":', 1))
    found = prepare(photos)
    lines = sorted(found.problems)
    assert found.made == 10
    assert len(lines) == 8
    assert all("\n" not in line for line in lines)
    for words in (
        "annotated with 640 x 48",
        "not numbers",
        "beyond",
        "boxes=draw",
        "star is not known",
        "is missing",
        "duplicate key 'label'",
    ):
        assert sum(words in line for line in lines) == 1, words
    assert sum("cut.json: not valid JSON at line 1" in line for line in lines) == 1


def test_the_command_says_all_of_that_and_its_status_is_3(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelme(photos, "lost").with_suffix(".png").unlink()
    words = ["prepare", str(photos), "--output", str(photos.parent / "out"), "--progress", "none"]
    assert main(words) == 3
    shown = capsys.readouterr()
    assert shown.err == f"not used: lost.png: the image is missing; looked in {photos}, give images=\n"
    assert "labelme: 3 classes; images: train 8 (8 groups), val 2 (2 groups)" in shown.out
    assert shown.out.endswith(
        f"out: fit to train on\nnext, in notebooks/: papermill train.ipynb -p data_root {photos.parent / 'out'}\n"
    )
    (photos / "lost.json").unlink()
    assert main(words) == 0


def test_labels_that_the_table_does_not_name_are_refused_by_name_before_anything_is_written(photos: Path) -> None:
    write_labelme(photos, "street_0_0", ("raod", ROAD, "polygon"))
    with pytest.raises(InputError, match=r"labels that it does not name: 'raod' x 1; add a line for each"):
        prepare(photos, class_table=table(photos.parent, "label,class\nroad,road\ncar,car\n"))
    assert not (photos.parent / "out").exists()


def test_a_table_merges_ignores_and_skips_labels_and_gives_ids_and_colors(photos: Path) -> None:
    write_labelme(photos, "street_0_0", ("road", ROAD, "polygon"), ("glare", CAR, "polygon"))
    rows = "label,class,red,green,blue\ncar,thing,0,0,142\nroad,ground,128,64,128\nglare,ignore,,,\n"
    found = prepare(photos, class_table=table(photos.parent, rows), unlabeled="ignore")
    assert (found.folder / "classes.csv").read_text().splitlines()[1:] == ["0,thing,0,0,142", "1,ground,128,64,128"]
    (path,) = found.folder.glob("masks/*/street_0_0.png")
    mask = Image.open(path)
    assert [mask.getpixel(place) for place in ((2, 2), (30, 28), (5, 40))] == [255, 255, 1]
    assert mask.getpalette()[3:6] == [128, 64, 128]


def test_a_comma_without_quotes_moves_no_value_of_a_table(photos: Path) -> None:
    with pytest.raises(InputError, match="line 2: more values than columns; put a value that holds a comma in double"):
        prepare(photos, class_table=table(photos.parent, "label,class\nroad, wet,road\ncar,car\n"))
    listed = table(photos.parent, "image,split\nstreet_0_0, left,train\n")
    with pytest.raises(InputError, match="line 2: more values than columns"):
        prepare(photos, split_list=listed)


@pytest.mark.parametrize("color", ["0,0,256", "-1,0,0", "0,0,"])
def test_a_color_that_is_none_is_refused_with_its_line(photos: Path, color: str) -> None:
    rows = f"label,class,red,green,blue\nroad,road,1,2,255\ncar,car,{color}\n"
    with pytest.raises(InputError, match=rf"line 3: its color is {color}; expected three numbers from 0 to 255"):
        prepare(photos, class_table=table(photos.parent, rows))


def test_labels_that_differ_in_case_alone_are_not_two_classes_unasked(photos: Path) -> None:
    write_labelme(photos, "street_0_0", ("Road", ROAD, "polygon"))
    with pytest.raises(InputError, match="differ in case or spaces alone: 'Road', 'road'"):
        prepare(photos)


def test_groups_are_never_torn_apart(photos: Path) -> None:
    found = prepare(photos, image_groups="^(street_[0-9]+)_", splits="train 0.5 val 0.5")
    assert found.groups == {"train": 1, "val": 1}
    for split in ("train", "val"):
        names = [path.name[:8] for path in (found.folder / "masks" / split).glob("*.png")]
        assert (len(names), len(set(names))) == (5, 1)


@pytest.mark.parametrize("seed", range(6))
def test_as_many_groups_as_splits_fill_them_all_however_unequal(photos: Path, seed: int) -> None:
    """Of a street of nine images and one of a single image, the small one is for validation, whatever the seed."""
    subset_of = {f"street_{min(n, 1)}_{n}": "" for n in range(10)}
    plan = plan_splits(subset_of, groups="^(street_[0-9]+)_", seed=seed)
    assert set(plan.split_of.values()) == {"train", "val"}
    assert plan.split_of["street_0_0"] == "val"
    three = {f"street_{n // 4}_{n}": "" for n in range(9)}
    plan = plan_splits(three, groups="^(street_[0-9]+)_", shares="train 0.98 val 0.01 test 0.01", seed=seed)
    assert len(set(plan.split_of.values())) == 3
    assert plan.splits()[0] == "train"


def test_too_few_images_or_groups_for_the_splits_are_told_as_what_they_are(photos: Path) -> None:
    one, two = {"a_0": ""}, {f"street_0_{n}": "" for n in range(5)}
    with pytest.raises(InputError, match="^split 'val' would have no image: 1 image for 2 splits; name f"):
        plan_splits(one)
    said = "^split 'val' would have no image: 5 images in 1 group for 2 splits, and a group is never divided; .*"
    with pytest.raises(InputError, match=f"{said}, or other image_groups$"):
        plan_splits(two, groups="^(street_[0-9]+)_")
    with pytest.raises(InputError, match="5 images in the splits of an earlier call, which they keep; cho"):
        plan_splits(two, before=dict.fromkeys(two, "train"))


def test_a_list_that_tears_a_group_apart_is_refused(photos: Path) -> None:
    rows = "".join(f"street_{n // 5}_{n}.png,{'val' if n in (1, 8) else 'train'}\n" for n in range(10))
    listed = table(photos.parent, f"image,split\n{rows}")
    with pytest.raises(InputError, match="2 groups are in several splits, the first street_0 in train, val"):
        prepare(photos, split_list=listed, image_groups="^(street_[0-9]+)_")
    assert prepare(photos, split_list=listed).splits == {"train": 8, "val": 2}


def test_lists_as_of_voc_choose_images_and_say_what_they_leave_out(photos: Path) -> None:
    lists = photos.parent / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("street_0_0\nstreet_0_1\nstreet_7_7\n")
    (lists / "val.txt").write_text("street_1_5\n")
    found = prepare(photos, split_list=str(lists))
    assert found.splits == {"train": 2, "val": 1}
    assert "7 images are not in lists and are left out" in found.notes
    assert "lists names 1 images that cannot be used, the first street_7_7" in found.notes


def test_folders_named_as_splits_are_splits_and_other_folders_groups(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        for number in range(3):
            write_labelme(tmp_path / "named" / split, f"{split}_{number}")
    assert prepare(tmp_path / "named").splits == {"train": 3, "val": 3}
    for street in "abcd":
        for number in range(3):
            write_labelme(tmp_path / "streets" / street, f"{street}_{number}")
    found = prepare(tmp_path / "streets", output=tmp_path / "out2", splits="train 0.75 val 0.25")
    assert (found.splits, found.groups) == ({"train": 9, "val": 3}, {"train": 3, "val": 1})


def test_larger_shapes_first_keeps_small_ones_visible(tmp_path: Path) -> None:
    for number in range(4):
        write_labelme(
            tmp_path / "photos",
            f"a{number}",
            ("car", CAR, "polygon"),
            ("road", [[0, 0], [63, 0], [63, 47], [0, 47]], "polygon"),
        )
    hidden = prepare(tmp_path / "photos")
    assert hidden.hidden == {"car": 4}
    shown = prepare(tmp_path / "photos", output=tmp_path / "out2", draw_order="area")
    assert shown.hidden == {}
    assert shown.covered.keys() == {("road", "car")}


def test_other_settings_and_other_data_in_the_folder_are_refused(photos: Path, tmp_path: Path) -> None:
    prepare(photos)
    with pytest.raises(ParameterError, match="was prepared with seed=0; choose another output"):
        prepare(photos, seed=1)
    (tmp_path / "other" / "images").mkdir(parents=True)
    with pytest.raises(ParameterError, match="holds another data set"):
        prepare(photos, output=tmp_path / "other")
    with pytest.raises(ParameterError, match="holds what is read"):
        prepare(photos, output=photos)


def test_images_can_be_hard_links(photos: Path) -> None:
    found = prepare(photos, image_files="hardlink")
    linked = next((found.folder / "images").rglob("*.png"))
    assert os.path.samefile(linked, photos / linked.name)
    assert prepare(photos, image_files="hardlink").kept == 10


def test_a_disk_without_hard_links_is_named_with_the_remedy(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(MachineError, match="cannot be a hard link .* choose image_files=copy"):
        prepare(photos, image_files="hardlink")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"splits": "train 0.8 val 0.3"}, "add up to 1.1"),
        ({"splits": "train"}, "expected names and shares"),
        ({"splits": "../x 0.5 val 0.5"}, "split='../x'"),
        ({"image_groups": "street"}, "one pair of parentheses"),
        ({"image_groups": "(street"}, "no regular expression"),
        ({"splits": "a 0.5 b 0.5", "split_list": "x.csv"}, "give one of them"),
        ({"format": "voc"}, "allowed are auto, coco, labelme, cvat, yolo, masks"),
    ],
)
def test_wrong_parameters_are_refused_at_once(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        PrepareAnnotationsParameters(**changes)


def test_what_holds_no_annotations_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        prepare(tmp_path / "nothing")
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="is an archive; unpack it"):
        prepare(tmp_path / "a.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no annotations of a known format; found nothing"):
        prepare(tmp_path / "empty")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match="no whole JSON object"):
        prepare(tmp_path / "list.json")
    (tmp_path / "video.xml").write_text("<annotations><track id='0' label='car'></track></annotations>")
    with pytest.raises(InputError, match="tracks of a video; export the task again as 'CVAT for images 1.1'"):
        prepare(tmp_path / "video.xml")
    (tmp_path / "bomb.xml").write_text("<!DOCTYPE a [<!ENTITY b 'b'>]><annotations></annotations>")
    with pytest.raises(InputError, match="does not begin as CVAT's XML"):
        prepare(tmp_path / "bomb.xml")


def test_yolo_text_with_mistakes_is_named_by_file_and_line(tmp_path: Path) -> None:
    lines = {"a": "0 0 0.5 1 0.4 1 1 0 1\n", "b": "7 0 0 1 1 0 1", "c": "0 1 2 3", "d": "0 0.5 0.5 0.2 0.2", "e": ""}
    lines |= {"f": "0 10 20 40 20 40 30", "g": "0 0 0.5 1 0.4 1 1 0 1\n1 .1 .1 .4 .1 .4 .4\n"}
    for name, text in lines.items():
        for kind in ("images", "labels"):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(tmp_path / "set" / "images" / f"{name}.png")
        (tmp_path / "set" / "labels" / f"{name}.txt").write_text(text)
    (tmp_path / "set" / "data.yaml").write_text("names:\n  0: road\n  1: car\n")
    found = prepare(tmp_path / "set")
    shown = sorted(line.rsplit("/", 1)[-1] for line in found.problems)
    assert (found.made, found.empty) == (3, 1)
    assert shown == [
        "b.txt, line 1: class 7; allowed are 0 to 1",
        "c.txt, line 1: 3 numbers after the class; expected x y pairs, three or more",
        "d.png: has 1 x rectangle, which outlines no object; choose boxes=draw or boxes=skip",
        "f.txt, line 1: coordinates of 40; expected shares of the image, 0 to 1",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("names:\n  0: road\n  1: [car\n", "line 4, column 1: expected ',' or"),
        ("names:\n  0: road\n  0: car\n", "duplicate key '0'"),
    ],
)
def test_names_of_yolo_that_cannot_be_read_are_told_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "set" / "labels").mkdir(parents=True)
    (tmp_path / "set" / "labels" / "a.txt").write_text("0 0 0.5 1 0.4 1 1 0 1\n")
    (tmp_path / "set" / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"data.yaml: not YAML with a list of names \({said}"):
        prepare(tmp_path / "set")


@pytest.mark.parametrize("found", [None, [1], 1.0, True])
def test_an_image_of_coco_without_a_number_gets_nobodys_annotations(tmp_path: Path, found: object) -> None:
    outline = [0, 24, 63, 20, 63, 47, 0, 47]
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    image = {"id": found, "file_name": "a.png", "width": 64, "height": 48}
    entry = {"id": 1, "image_id": found, "category_id": 1, "segmentation": [outline]}
    content = {"images": [image], "annotations": [entry], "categories": [{"id": 1, "name": "road"}]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="/images/0: expected an id, a whole number"):
        prepare(tmp_path / "coco.json")
    content["images"][0]["id"] = 1
    content["annotations"].append(entry | {"image_id": 1})
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="1 annotations have an image_id that no image has"):
        prepare(tmp_path / "coco.json")  # which has one image, too few for two splits


def test_a_coco_file_with_strays_names_them_and_keeps_the_rest(tmp_path: Path) -> None:
    outline = [0, 24, 63, 20, 63, 47, 0, 47]
    images = [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in range(6)]
    entries = [{"id": n, "image_id": n, "category_id": 1, "segmentation": [outline]} for n in range(6)]
    entries[2]["category_id"] = 9
    entries[3]["segmentation"], entries[3]["bbox"] = [], [1, 2, 3, 4]
    entries[4]["segmentation"] = [[1, 2, 3, 4]]
    entries.append({"id": 9, "image_id": 77, "category_id": 1, "segmentation": [outline]})
    for image in images:
        Image.new("RGB", (64, 48)).save(tmp_path / image["file_name"])
    content = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "road"}]}
    path = tmp_path / "a coco file.json"
    path.write_text(json.dumps(content))
    found = prepare(path, images=str(tmp_path))
    assert (found.made, found.empty) == (4, 1)
    assert "1 x outline of fewer than three points left out" in found.notes
    assert sorted(line.split(": ", 1)[-1] for line in found.problems) == [
        "/annotations/2: category_id 9 is not in /categories (1 ...)",
        "1 annotations have an image_id that no image has",
        "has 1 x rectangle, which outlines no object; choose boxes=draw or boxes=skip",
    ]


def test_binary_masks_of_0_and_255_become_two_classes(tmp_path: Path) -> None:
    for number in range(5):
        for kind in ("images", "masks"):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
        mask = np.zeros((48, 64), np.uint8)
        mask[:, number : number + 20] = 255
        Image.new("RGB", (64, 48), (number, 0, 0)).save(tmp_path / "set" / "images" / f"{number}.jpg")
        Image.fromarray(mask).save(tmp_path / "set" / "masks" / f"{number}_mask.png")
    rows = "label,class\n0,background\n255,cell\n"
    found = prepare(tmp_path / "set" / "masks", class_table=table(tmp_path, rows))
    assert found.class_names == ("background", "cell")
    for split in found.splits:
        opened = open_folder(found.folder, split, labeled=True)
        for index in range(len(opened)):
            number = int(opened.name(index))
            assert np.flatnonzero(opened.mask(index)[0]).tolist() == list(range(number, number + 20))


def write_masks(folder: Path, *masks: np.ndarray) -> Path:
    """Write masks as they are, and an image for each."""
    for number, mask in enumerate(masks):
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", mask.shape[1::-1], (number, 0, 0)).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder / "masks"


HALVES = np.repeat(np.array([[0, 1]], np.uint8), 32, axis=1).repeat(48, axis=0)


def test_masks_that_label_every_pixel_get_no_class_for_the_rest(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "set", *[HALVES] * 5)
    found = prepare(folder)
    assert found.class_names == ("0", "1")
    assert audit(found.folder, list(found.splits), progress="none").errors == ()
    skipped = table(tmp_path, "label,class\n0,skip\n1,car\n")
    assert prepare(folder, class_table=skipped, output=tmp_path / "b").class_names == ("background", "car")


def test_a_255_beside_several_ids_is_a_class_and_said(tmp_path: Path) -> None:
    ids = np.where(np.arange(64) < 8, 255, HALVES).astype(np.uint8)
    found = prepare(write_masks(tmp_path / "set", *[ids] * 5))
    assert found.class_names == ("0", "1", "255")
    assert any(note.startswith("255 is a class; where it marks pixels to ignore") for note in found.notes)


def test_masks_of_16_bits_are_refused_not_cut(tmp_path: Path) -> None:
    found = prepare(write_masks(tmp_path / "set", *[HALVES] * 5, HALVES.astype(np.uint16) * 1000))
    (problem,) = found.problems
    assert "5.png: has 16 bits a pixel, and ids and colors have 8; store it with 8 bits" in problem
    assert found.class_names == ("0", "1")


@pytest.mark.parametrize(
    ("labelmap", "message"),
    [
        ("", "masks of colors beside masks of ids: #000000, #ffffff"),
        ("a:0,0,0::\n", "colors that have no name: #ffffff"),
    ],
)
def test_colors_that_nothing_names_are_no_classes_beside_others(tmp_path: Path, labelmap: str, message: str) -> None:
    colors = np.stack([HALVES * 255] * 3, axis=2)
    folder = write_masks(tmp_path / "set", *[colors if labelmap else HALVES] * 4, colors)
    if labelmap:
        (folder / "labelmap.txt").write_text(labelmap)
    with pytest.raises(InputError, match=message):
        prepare(folder)
    assert not (tmp_path / "set" / "out").exists()
    rows = "label,class\n0,a\n1,b\na,a\n#000000,a\n#ffffff,ignore\n"
    assert prepare(folder, class_table=table(tmp_path, rows)).problems == ()


def test_a_label_that_no_class_can_have_is_refused_before_anything_is_written(photos: Path) -> None:
    write_labelme(photos, "odd", ("a\nb", ROAD, "polygon"))
    with pytest.raises(InputError, match="the label .* holds a character that cannot be shown"):
        prepare(photos)
    assert not (photos.parent / "out" / "classes.csv").exists()


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_one_damaged_file_does_not_hide_the_format_of_a_folder(photos: Path, content: str) -> None:
    (photos / "a_first.json").write_text(content)
    found = prepare(photos)
    assert (found.format, found.made, len(found.problems)) == ("labelme", 10, 1)


def test_an_image_whose_outline_cannot_be_read_is_not_drawn_without_it(tmp_path: Path) -> None:
    outline = [0.0, 24.0, 63.0, 20.0, 63.0, 47.0, 0.0, 47.0]
    images = [{"id": n, "file_name": f"{n}.png", "width": 64, "height": 48} for n in range(5)]
    for image in images:
        Image.new("RGB", (64, 48)).save(tmp_path / image["file_name"])
    entries = [{"id": n, "image_id": n, "category_id": 1, "segmentation": [outline]} for n in range(5)]
    entries[0]["segmentation"] = [[float("nan"), *outline[1:]]]
    content = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "road"}]}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    found = prepare(path, images=str(tmp_path))
    assert (found.made, len(found.problems)) == (4, 1)
    assert "/annotations/0/segmentation/0: a coordinate is not finite" in found.problems[0]
    path.write_text(json.dumps(content).replace('"image_id": 3,', '"image_id": 3,,'))
    with pytest.raises(InputError, match=r"/annotations/3: not valid JSON .* copy it again"):
        prepare(path, images=str(tmp_path), output=tmp_path / "b")
    path.write_text(json.dumps(content).replace('"image_id": 3,', '"image_id": 2, "image_id": 3,'))
    with pytest.raises(InputError, match=r"/annotations/3: duplicate key 'image_id'; keep one of them"):
        prepare(path, images=str(tmp_path), output=tmp_path / "c")


def test_labels_without_a_shape_are_no_classes_and_colors_are_the_tools(tmp_path: Path) -> None:
    names = (("road", "#804080"), ("car", "#00008e"), ("lane", "#ffffff"))
    labels = "".join(f"<label><name>{name}</name><color>{color}</color></label>" for name, color in names)
    images = ""
    for split in ("train", "val"):
        (tmp_path / "set" / split).mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(tmp_path / "set" / split / "a.png")
        shapes = [("car", "20,18;40,18;44,30;16,30", 1), ("road", "0,24;63,20;63,47;0,47", 0)]
        drawn = "".join(f'<polygon label="{a}" points="{b}" z_order="{c}"></polygon>' for a, b, c in shapes)
        images += f'<image id="0" name="{split}/a.png" width="64" height="48">{drawn}</image>'
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    (tmp_path / "set" / "annotations.xml").write_text(f"<annotations>{meta}{images}</annotations>")
    (tmp_path / "set" / "val" / "a.png").rename(tmp_path / "set" / "val" / "b.png")
    text = (tmp_path / "set" / "annotations.xml").read_text()
    (tmp_path / "set" / "annotations.xml").write_text(text.replace("val/a.png", "val/b.png"))
    found = prepare(tmp_path / "set")
    assert found.splits == {"train": 1, "val": 1}
    rows = (found.folder / "classes.csv").read_text().splitlines()[1:]
    assert rows == ["0,background,0,0,0", "1,road,128,64,128", "2,car,0,0,142"]
    assert "1 labels do not occur and are no classes: lane" in found.notes
    mask = Image.open(found.folder / "masks" / "train" / "a.png")
    assert (mask.getpixel((30, 28)), mask.getpixel((5, 40))) == (2, 1)


def test_images_of_one_name_in_two_splits_are_two_images(tmp_path: Path) -> None:
    """As where each video's frames are counted from 0; names then begin with the folder of the split."""
    write_labelme(tmp_path / "set" / "images" / "train", "a")
    write_labelme(tmp_path / "set" / "images" / "val", "a", ("road", ROAD, "polygon"))
    write_labelme(tmp_path / "set" / "images" / "val", "b")
    for shares in ("", "train 0.5 val 0.5"):
        found = prepare(tmp_path / "set", splits=shares, output=tmp_path / (shares or "annotated"))
        assert (found.problems, sum(found.splits.values())) == ((), 3)
        for name, value in (("train/a", 1), ("val/a", 2), ("val/b", 1)):  # car, road, car
            (mask,) = (found.folder / "masks").glob(f"*/{name}.png")
            assert Image.open(mask).getpixel((30, 28)) == value
            image = found.folder / "images" / mask.relative_to(found.folder / "masks")
            assert image.read_bytes() == (tmp_path / "set" / "images" / f"{name}.png").read_bytes()
    assert sum(len(open_folder(found.folder, split, labeled=True)) for split in found.splits) == 3


def test_an_image_that_two_annotations_claim_is_drawn_by_neither(photos: Path) -> None:
    once = prepare(photos)
    name = json.loads(sorted(photos.glob("*.json"))[0].read_text())["imagePath"]
    (photos / "copy.json").write_text(sorted(photos.glob("*.json"))[0].read_text())
    found = prepare(photos, output=photos.parent / "twice")
    assert sum(found.splits.values()) == sum(once.splits.values()) - 1
    assert [line for line in found.problems if "is annotated twice" in line and line.startswith(name)]
    assert not list((photos.parent / "twice" / "masks").rglob(f"{Path(name).stem}.png"))
    assert [note for note in found.notes if "1 images of" in note and f"the first {name}; they are left out" in note]


def test_masks_that_are_no_png_and_images_without_masks_are_named(tmp_path: Path) -> None:
    folder = write_masks(tmp_path, *[np.tile(np.uint8([[0, 1]]), (4, 4))] * 6)
    assert not prepare(folder, output=tmp_path / "a").notes
    mask = sorted(folder.glob("*.png"))[-1]
    Image.open(mask).convert("L").save(mask.with_suffix(".jpg"))
    mask.unlink()
    found = prepare(folder, output=tmp_path / "b")
    assert found.problems == (f"{mask.with_suffix('.jpg')}: is no PNG, and so are 0 more; masks are stored as PNG",)
    assert [note for note in found.notes if f"no annotation that can be used, the first {mask.stem}." in note]


def test_a_mask_whose_image_is_of_a_type_that_is_not_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        MissingInputError, match=r"a.png: no image below .* has its name up to the suffix; give images="
    ):
        ImageIndex(tmp_path).find_named(Path("a.png"))
    (tmp_path / "a.webp").touch()
    with pytest.raises(MissingInputError, match=r"\(1 below it are of types that are not read: convert them to PNG\)"):
        ImageIndex(tmp_path).find_named(Path("a.png"))
