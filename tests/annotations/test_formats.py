"""Readers on files that the tools themselves wrote or that their documentation quotes, and equal shapes in each format.

`written_by_tools/` holds one street with a road, a car over it, and a sign with a hole, 64 x 48 pixels. labelme 6.3.1
wrote `labelme/` (`write_label_file`), Datumaro 1.13.12 `coco/`, `cvat/`, `voc/` and `camvid/` (`Dataset.export` as
coco_instances, cvat, voc_segmentation and camvid; CVAT's own exports are made by it), and Ultralytics 8.4.190
`ultralytics/labels/` from the COCO file beside it (`convert_coco`), where a post of three parts is one outline.
`cvat_video/` are tracks of a car and a sign in four frames, by the same version of Datumaro (cvat, use_track=True).
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from cityscapes.errors import InputError, ParameterError
from cityscapes.labels import CITYSCAPES
from cityscapes.layout import POLYGONS_SUFFIX, find_frames
from cityscapes.masks.draw import draw_label_ids
from cityscapes.masks.polygons import Annotation, Polygon, read_polygons
from dlv3p.annotations.coco import CocoFile, CocoWriter
from dlv3p.annotations.cvat import CvatFile, CvatWriter
from dlv3p.annotations.demo import ANNOTATIONS, NAMES, WRITERS
from dlv3p.annotations.formats import Source, open_source
from dlv3p.annotations.shapes import AnnotatedImage, Shape, draw, split_at_bridges

WRITTEN = Path(__file__).parent / "written_by_tools"
IDS = {"background": 0, "road": 1, "car": 2, "sign": 3, "post": 4}
NOWHERE = Path("no results here")
QUOTED_BY_CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><labels><label><name>car</name></label><label><name>plate</name></label></labels></task></meta>
  <image id="0" name="filename000.jpg" width="1600" height="1200">
    <box label="plate" xtl="797.33" ytl="870.92" xbr="965.52" ybr="928.94" occluded="0" z_order="4">
    </box>
    <polyline label="traffic_line" points="462.10,0.00;126.80,1200.00" occluded="0" z_order="3">
    </polyline>
    <points label="wheel" points="574.90,939.48;1170.16,907.90" occluded="0" z_order="5">
    </points>
    <tag label="good_frame" source="manual">
    </tag>
    <skeleton label="s1" source="manual" z_order="0">
      <points label="1" occluded="0" source="manual" outside="0" points="54.47,94.81">
      </points>
    </skeleton>
    <mask label="car" source="manual" occluded="0" rle="3, 5, 7, 7, 5, 9, 3, 11, 2, 11, 2, 12, 1, 12, 1, 26, 1, 12, 1, \
12, 2, 11, 3, 9, 5, 7, 7, 5, 3" left="707" top="888" width="13" height="15" z_order="0">
    </mask>
  </image>
</annotations>
"""
"""From the section "Annotation" of CVAT's page "XML annotation format", docs.cvat.ai, with fewer labels and shapes."""


def sign() -> np.ndarray:
    """The sign of the street, with its hole, as it was given to the tools."""
    pixels = np.zeros((48, 64), bool)
    pixels[4:15, 44:57] = True
    pixels[7:12, 48:53] = False
    return pixels


@pytest.fixture
def street(tmp_path: Path) -> Path:
    """A folder with the image of the street, and one of the lane beside it."""
    for name in ("street", "lane"):
        Image.new("RGB", (64, 48), "gray").save(tmp_path / f"{name}.png")
    return tmp_path


def masks(source: Iterable[AnnotatedImage]) -> dict[str, np.ndarray]:
    found = list(source)
    assert [image.problem for image in found if image.problem] == []
    return {image.name: draw(image, IDS, unlabeled=0).mask for image in found}


def opened(name: str, images: Path) -> Source:
    return open_source(WRITTEN / name, images, without=NOWHERE)


def expected_street() -> np.ndarray:
    outlines = (("road", [0, 24, 63, 20, 63, 47, 0, 47]), ("car", [20, 18, 40, 18, 44, 30, 16, 30]))
    shapes = [Shape(name, (np.array(points, float).reshape(-1, 2),)) for name, points in outlines]
    mask = draw(AnnotatedImage("street.png", (64, 48), tuple(shapes)), IDS, unlabeled=0).mask
    return np.where(sign(), IDS["sign"], mask).astype(np.uint8)


@pytest.mark.parametrize("name", ["labelme", "coco", "cvat"])
def test_files_of_the_tools_give_the_street_with_the_hole_in_its_sign(name: str, street: Path) -> None:
    source = opened(name, street)
    assert source.format == name
    found = masks(source)
    assert len(source) == len(found) == (1 if name == "labelme" else 2)
    for mask in found.values():
        np.testing.assert_array_equal(mask, expected_street())


def test_splits_are_named_by_the_files_of_coco_and_cvat(street: Path) -> None:
    for name in ("coco", "cvat"):
        assert [image.subset for image in opened(name, street)] == ["train", "val"]


@pytest.mark.parametrize("name", ["voc", "camvid"])
def test_masks_of_colors_are_read_by_the_table_beside_them(name: str, street: Path) -> None:
    """Datumaro fills polygons by a rule of its own, so the sign, which it was given as pixels, is compared."""
    for split, image in (("train", "street"), ("val", "lane")):
        (street / split).mkdir()
        (street / f"{image}.png").rename(street / split / f"{image}.png")
    source = open_source(WRITTEN / name, street, without=NOWHERE)
    assert source.format == "masks"
    assert [label.name for label in source.labels] == ["background", "road", "car", "sign"]
    assert {image.name: image.subset for image in source} == {"train/street.png": "train", "val/lane.png": "val"}
    for mask in masks(source).values():
        np.testing.assert_array_equal(mask == IDS["sign"], sign())
        assert (mask != expected_street()).mean() < 0.05


@pytest.mark.parametrize(
    ("masks_in", "images_in"),
    [("masks", "images"), ("SegmentationClass", "JPEGImages"), ("trainannot", "train"), ("masks/train", "img/train")],
)
def test_a_folder_of_images_and_masks_is_read_as_a_whole(tmp_path: Path, masks_in: str, images_in: str) -> None:
    for folder in (masks_in, images_in):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (64, 48), "gray").save(tmp_path / images_in / "street.png")
    Image.new("RGB", (64, 48), (0, 0, 142)).save(tmp_path / masks_in / "street.png")
    (tmp_path / masks_in.split("/")[0] / "label_colors.txt").write_text("0 0 142 car\n")
    (image,) = source = open_source(tmp_path, without=NOWHERE)
    assert (source.format, image.problem, source.images.find(image.name).parent) == ("masks", "", tmp_path / images_in)
    assert [label.name for label in source.labels] == ["car"]


def test_images_and_masks_in_one_folder_are_refused(street: Path) -> None:
    Image.new("L", (64, 48), 2).save(street / "street_mask.png")
    with pytest.raises(ParameterError, match=r"its images and masks lie in one folder; put the masks into a folder"):
        open_source(street, street, without=NOWHERE)


def test_the_parts_that_ultralytics_joins_in_one_outline_are_those_of_coco(street: Path) -> None:
    folder = street / "yolo"
    (folder / "labels").mkdir(parents=True)
    (folder / "data.yaml").write_text("names: [road, car, post]\n")
    (folder / "labels" / "street.txt").write_bytes((WRITTEN / "ultralytics" / "labels" / "street.txt").read_bytes())
    (folder / "images").mkdir()
    (street / "street.png").rename(folder / "images" / "street.png")
    (street / "lane.png").unlink()
    yolo = open_source(folder, without=NOWHERE)
    assert yolo.format == "yolo"
    (ours,) = masks(yolo).values()
    (theirs,) = masks(CocoFile(WRITTEN / "ultralytics" / "instances.json")).values()
    assert np.unique(ours).tolist() == [0, 1, 2, 4]
    np.testing.assert_array_equal(ours, theirs)


def test_a_hole_that_yolo_text_joins_to_its_outline_stays_a_hole(tmp_path: Path) -> None:
    outer, hole = [[2, 2], [30, 2], [30, 30], [2, 30], [2, 2]], [[10, 10], [10, 20], [20, 20], [20, 10], [10, 10]]
    text = " ".join(f"{x / 64:.6f} {y / 48:.6f}" for x, y in outer + hole)
    (tmp_path / "classes.txt").write_text("sign\n")
    (tmp_path / "a.txt").write_text(f"0 {text}\n")
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    (mask,) = masks(open_source(tmp_path, format="yolo", without=NOWHERE)).values()
    rows = np.flatnonzero(mask[:, 5]), np.flatnonzero(mask[15]), np.flatnonzero(mask[6])
    assert [len(row) for row in rows] == [28, 29 - 11, 29]
    assert mask[10:20, 10:21].any() == 0


def test_two_formats_in_one_folder_are_refused_until_one_is_named(tmp_path: Path, street: Path) -> None:
    """YOLO's files were read, and the images that COCO's annotated passed as pure background."""
    for name in ("coco", "ultralytics/labels"):
        shutil.copytree(WRITTEN / name, tmp_path / "both" / Path(name).name)
    with pytest.raises(ParameterError, match=r"formats, coco \(instances_train\.json\) and yolo \(\w+\.txt\); name"):
        open_source(tmp_path / "both", street, without=NOWHERE)
    assert open_source(tmp_path / "both", street, "coco", without=NOWHERE).format == "coco"
    shutil.rmtree(tmp_path / "both" / "coco")
    (tmp_path / "both" / "data.yaml").write_text("names: [road, car, sign]")
    (tmp_path / "both" / "predictions.json").write_text('{"images": {}}')  # no sign of COCO
    assert open_source(tmp_path / "both", street, without=NOWHERE).format == "yolo"


def test_a_folder_above_called_labels_says_nothing_of_the_format(tmp_path: Path, street: Path) -> None:
    folder = shutil.copytree(WRITTEN / "coco", tmp_path / "labels" / "export")
    assert open_source(folder, street, without=NOWHERE).format == "coco"


def test_what_cvat_documents_is_read(tmp_path: Path) -> None:
    path = tmp_path / "annotations.xml"
    path.write_text(QUOTED_BY_CVAT)
    (image,) = CvatFile(path)
    assert (image.name, image.size, image.problem) == ("filename000.jpg", (1600, 1200), "")
    assert image.notes == ("polyline", "points", "tag", "skeleton")
    box, mask = image.shapes
    assert (box.label, box.is_box, mask.label) == ("plate", True, "car")
    drawn = draw(image, {"car": 1, "plate": 2}, unlabeled=0).mask
    columns, rows = np.nonzero(drawn.T == 1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (888, 902, 707, 719)
    assert drawn[888, 707:720].tolist() == [0] * 3 + [1] * 5 + [0] * 5


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_compressed_run_lengths_of_pycocotools_are_read_as_stored(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((48, 64)) < 0.5
    stored = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    entry = {"size": stored["size"], "counts": stored["counts"].decode()}
    image = {"id": 7, "file_name": "a.png", "width": 64, "height": 48}
    content = {"images": [image], "categories": [{"id": 3, "name": "road"}]}
    content["annotations"] = [{"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 1, "segmentation": entry}]
    (tmp_path / "coco.json").write_text(json.dumps(content))
    (mask,) = masks(CocoFile(tmp_path / "coco.json")).values()
    np.testing.assert_array_equal(mask == 1, pixels)


def test_hostile_run_lengths_are_refused_in_one_line(tmp_path: Path) -> None:
    image = {"id": 7, "file_name": "a.png", "width": 64, "height": 48}
    whole = coco_mask.encode(np.zeros((48, 64), np.uint8, order="F"))["counts"].decode()
    for counts in ([10**12], [1, 2], "zzzzzzzzzzzz", "o" * 10_000, [-1, 3073], f"{whole}o", whole[:-1], f"{whole}~~"):
        entry = {"size": [48, 64], "counts": counts}
        content = {"images": [image], "categories": [{"id": 3, "name": "road"}]}
        content["annotations"] = [{"id": 1, "image_id": 7, "category_id": 3, "segmentation": entry}]
        (tmp_path / "coco.json").write_text(json.dumps(content))
        (found,) = CocoFile(tmp_path / "coco.json")
        with pytest.raises(InputError, match="coco.json: /annotations/0"):
            draw(found, IDS, unlabeled=0)


def city_shapes(city: Path) -> list[tuple[AnnotatedImage, np.ndarray]]:
    """The frames of the tiny city as shapes under their labels' names, and their official label ids."""
    found = []
    for frame in find_frames(city, "train")[:3]:
        annotation = read_polygons(frame.annotation(city, POLYGONS_SUFFIX))
        drawn = [polygon for polygon in annotation.polygons if polygon.label.label_id >= 0]
        shapes = tuple(Shape(polygon.label.name, (polygon.points.astype(float),)) for polygon in drawn)
        name = f"{frame.city}/{frame.name}.png"
        found.append((AnnotatedImage(name, (annotation.width, annotation.height), shapes), draw_label_ids(annotation)))
    return found


ODD = {
    "beyond all borders": [[-20, -9], [90, 20], [30, 70]],
    "a bow": [[5, 5], [50, 40], [50, 5], [5, 40]],
    "a line": [[3, 3], [40, 30]],
    "a point": [[7, 7]],
    "there and back": [[2, 40], [30, 44], [2, 40], [8, 46]],
}


@pytest.mark.parametrize("kind", ["coco", "cvat"])
def test_odd_polygons_come_back_as_the_official_rule_fills_them(kind: str, tmp_path: Path) -> None:
    label = CITYSCAPES.by_name["car"]
    for name, points in ODD.items():
        polygon = Polygon(label, np.array(points, np.int32))
        official = draw_label_ids(Annotation(48, 64, (polygon,)))
        assert (official.any() and not official.all()) or name == "a point"
        path = tmp_path / "annotations"
        with open(path, "wb") as file:
            writer = (CocoWriter if kind == "coco" else CvatWriter)(file, ["car"], np.zeros((1, 3), np.uint8))
            writer.add(AnnotatedImage("a.png", (64, 48), (Shape("car", (np.array(points, float),)),)))
            writer.finish()
        (image,) = (CocoFile if kind == "coco" else CvatFile)(path)
        mask = draw(image, {"car": label.label_id}, unlabeled=0).mask
        np.testing.assert_array_equal(mask, official, err_msg=name)


@pytest.mark.parametrize("kind", ["coco", "cvat"])
def test_polygons_of_cityscapes_written_and_read_back_differ_in_no_pixel(kind: str, city: Path, tmp_path: Path) -> None:
    frames = city_shapes(city)
    names = {shape.label for image, _ in frames for shape in image.shapes}
    ids = {name: CITYSCAPES.by_name[name].label_id for name in sorted(names)}
    path = tmp_path / f"annotations.{'json' if kind == 'coco' else 'xml'}"
    with open(path, "wb") as file:
        colors = np.zeros((len(ids), 3), np.uint8)
        writer = (CocoWriter if kind == "coco" else CvatWriter)(file, list(ids), colors)
        for image, _ in frames:
            writer.add(image)
        writer.finish()
    read = list(CocoFile(path) if kind == "coco" else CvatFile(path))
    assert [image.name for image in read] == [image.name for image, _ in frames]
    for image, (_, official) in zip(read, frames, strict=True):
        np.testing.assert_array_equal(draw(image, ids, unlabeled=0).mask, official)


def test_the_same_shapes_in_every_format_give_equal_masks(city: Path, tmp_path: Path) -> None:
    """But for two triangles that a line joins, of which there are some: in YOLO's text, the line is none."""
    images = []
    for image, _ in city_shapes(city):
        areas = (shape for shape in image.shapes if shape.label in NAMES and len(shape.rings[0]) > 2)
        shapes = tuple(shape for shape in areas if len(split_at_bridges(shape.rings[0])) == 1)
        images.append(AnnotatedImage(image.name, image.size, shapes))
        (tmp_path / "images" / image.name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", image.size).save(tmp_path / "images" / image.name)
    ids = {name: index for index, name in enumerate(NAMES, start=1)} | {"background": 0}
    expected = {image.name: draw(image, ids, unlabeled=0).mask for image in images}
    assert len(np.unique(next(iter(expected.values())))) > 4
    for format, write in WRITERS.items():
        write(tmp_path, images)
        source = open_source(tmp_path / ANNOTATIONS[format], tmp_path / "images", format, without=NOWHERE)
        drawn = {image.name.removeprefix("images/"): draw(image, ids, unlabeled=0).mask for image in source}
        assert drawn.keys() == expected.keys()
        for name, mask in drawn.items():
            np.testing.assert_array_equal(mask, expected[name], err_msg=format)


VIDEO = """<annotations><meta><task><size>4</size><start_frame>10</start_frame><frame_filter>step=2</frame_filter>
<labels><label><name>car</name></label></labels>
<original_size><width>8</width><height>6</height></original_size></task></meta>
<track id="0" label="car" source="manual">
<polygon frame="10" keyframe="1" outside="0" occluded="0" points="0,0;4,0;4,4" z_order="0"></polygon>
<polygon frame="12" keyframe="0" outside="0" occluded="0" points="1,0;5,0;5,4" z_order="0"></polygon>
<polygon frame="14" keyframe="1" outside="1" occluded="0" points="1,0;5,0;5,4" z_order="0"></polygon>
</track>
<track id="1" label="car" source="manual">
<mask frame="12" keyframe="1" outside="0" rle="1, 3" left="2" top="2" width="2" height="2" z_order="1"></mask>
<mask frame="14" keyframe="1" outside="1" rle="1, 3" left="2" top="2" width="2" height="2" z_order="1"></mask>
</track></annotations>"""
"""By hand after the source of CVAT's exporter ("CVAT for video 1.1"), not by CVAT; a brushed mask lasts a frame."""


def test_tracks_of_cvat_are_the_frames_that_the_file_states(tmp_path: Path) -> None:
    path = tmp_path / "annotations.xml"
    path.write_text(VIDEO)
    read = list(CvatFile(path))
    assert [image.name for image in read] == ["frame_000010", "frame_000012", "frame_000014", "frame_000016"]
    assert [len(image.shapes) for image in read] == [1, 2, 0, 0]
    assert not any(image.problem for image in read)
    assert {image.size for image in read} == {(8, 6)}
    assert [shape.order for shape in read[1].shapes] == [0, 1]


def test_tracks_that_a_tool_wrote_are_read_frame_by_frame() -> None:
    car, sign = np.array([[2, 3], [20, 3], [20, 20], [2, 20]]), np.array([[30, 10], [42, 10], [42, 19], [30, 19]])
    read = list(CvatFile(WRITTEN / "cvat_video" / "default.xml"))
    assert [image.name for image in read] == [f"frame_00000{number}" for number in range(4)]
    assert {(image.size, image.problem) for image in read} == {((64, 48), "")}
    for number, image in enumerate(read):
        found = {shape.label: shape.rings[0].tolist() for shape in image.shapes}
        expected = {"car": (car + [number, 0]).tolist(), "sign": (sign + [0, number]).tolist()}
        assert found == (expected if number < 2 else {"sign": expected["sign"]})  # the car is outside from then on


def test_parts_of_a_skeleton_that_is_tracked_are_left_out(tmp_path: Path) -> None:
    """As in a file of CVAT's server, where a track of a skeleton holds a track for each of its points."""
    path = tmp_path / "annotations.xml"
    skeleton = '<skeleton frame="10" outside="0" points="1,1;2,2"></skeleton><track id="0" label="1">'
    skeleton += '<points frame="10" outside="0" points="1,1"></points></track>'
    path.write_text(VIDEO.replace("</annotations>", f'<track id="2" label="person">{skeleton}</track></annotations>'))
    read = list(CvatFile(path))
    assert [len(image.shapes) for image in read] == [1, 2, 0, 0]
    assert not any(image.problem for image in read)
    assert read[0].notes == ("points", "skeleton")


def test_frames_that_would_have_to_be_interpolated_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "annotations.xml"
    stated = next(line for line in VIDEO.splitlines() if 'frame="12" keyframe="0"' in line)
    path.write_text(VIDEO.replace(stated, ""))
    first, second, *rest = CvatFile(path)
    assert len(first.shapes) == 1
    assert not any(image.problem for image in rest)
    assert "frame_000012: track 0 (car) would have to be interpolated; export the task again" in second.problem
    path.write_text(VIDEO.replace('<polygon frame="14" keyframe="1" outside="1"', '<polygon frame="14" outside="0"'))
    assert "frame_000016: track 0" in list(CvatFile(path))[-1].problem


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("<size>4<", "<size>0<"),
        ("step=2", "step=0"),
        ('polygon frame="14"', 'polygon frame="13"'),
        ('polygon frame="14"', 'polygon frame="12"'),
        ('<track id="0"', '<track id="0" task_id="3"'),
        ("original_size", "other_size"),
    ],
)
def test_tracks_that_fit_no_single_video_are_refused_with_the_remedy(tmp_path: Path, was: str, now: str) -> None:
    path = tmp_path / "annotations.xml"
    path.write_text(VIDEO.replace(was, now))
    with pytest.raises(InputError, match="export the task again as 'CVAT for images 1.1'"):
        CvatFile(path)
