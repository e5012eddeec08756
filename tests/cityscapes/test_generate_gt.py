"""Masks of a whole data set: complete, resumable, compared, and with every bad file named."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.real_frames import ABSENT, POLYGON_FILES, beside, restored
from support.real_frames import ROOT as REAL

from cityscapes.demo import city as demo_city
from cityscapes.errors import BusyError, InputError, MachineError, MissingInputError, ParameterError
from cityscapes.files.locks import lock_folder
from cityscapes.generate_gt import generate_masks, main
from cityscapes.label_files import read_label_table
from cityscapes.labels import LABEL_ID_TO_COLOR, LABEL_ID_TO_TRAIN_ID
from cityscapes.layout import INSTANCE_IDS_SUFFIX, LABEL_IDS_SUFFIX, POLYGONS_SUFFIX, TRAIN_IDS_SUFFIX, Frame
from cityscapes.masks import polygons
from cityscapes.masks.frame import SUFFIXES

COMMAND = Path(__file__).parents[2] / "cityscapes" / "generate_gt.py"
FRAMES = [Frame(split, "ulm", "000000", f"{i:06}") for split in ("train", "val") for i in range(3)]
BROKEN = FRAMES[1]


def write_polygons(root: Path, frame: Frame, *, label: str = "car", height: int = 24, width: int = 48) -> None:
    road = {"label": "road", "polygon": [[0, 12], [width, 12], [width, height], [0, height]]}
    other = {"label": label, "polygon": [[3 + int(frame.frame), 4], [20, 5], [17, 20]]}
    path = frame.annotation(root, POLYGONS_SUFFIX)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"imgHeight": height, "imgWidth": width, "objects": [road, other]}))


@pytest.fixture
def root(tmp_path):
    for frame in FRAMES:
        write_polygons(tmp_path / "city", frame)
    return tmp_path / "city"


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith((".lock", ".made_from"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def command(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_every_frame_gets_three_masks_under_the_official_names(root, tmp_path):
    report = generate_masks(root, tmp_path / "out", workers=2)
    assert (report.written, report.up_to_date, report.failed, report.warnings) == (6, 0, (), ())
    expected = {str(frame.generated(Path(), suffix)) for frame in FRAMES for suffix in SUFFIXES}
    assert set(contents(tmp_path / "out")) == expected
    masks = [np.array(Image.open(FRAMES[0].generated(tmp_path / "out", suffix))) for suffix in SUFFIXES]
    assert set(np.unique(masks[0])) == {0, 7, 26}
    np.testing.assert_array_equal(masks[1], LABEL_ID_TO_TRAIN_ID[masks[0]])
    np.testing.assert_array_equal(masks[2][..., :3], LABEL_ID_TO_COLOR[masks[0]])


def test_the_number_of_workers_does_not_change_a_byte(root, tmp_path):
    generate_masks(root, tmp_path / "one", workers=1)
    generate_masks(root, tmp_path / "four", workers=4)
    assert contents(tmp_path / "one") == contents(tmp_path / "four")


def test_palette_masks_show_the_same_colors(root, tmp_path):
    generate_masks(root, tmp_path / "rgba")
    generate_masks(root, tmp_path / "palette", color_mode="palette")
    for frame in FRAMES:
        rgba, palette = (Image.open(frame.generated(tmp_path / m, SUFFIXES[2])) for m in ("rgba", "palette"))
        assert (rgba.mode, palette.mode) == ("RGBA", "P")
        assert palette.convert("RGBA").tobytes() == rgba.tobytes()


def test_a_second_run_writes_nothing(root, tmp_path):
    generate_masks(root, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    report = generate_masks(root, tmp_path / "out")
    assert (report.written, report.up_to_date) == (0, 6)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")} == before


def test_what_is_missing_is_made_and_leftovers_of_a_kill_are_removed(root, tmp_path):
    generate_masks(root, tmp_path / "out")
    whole = contents(tmp_path / "out")
    FRAMES[0].generated(tmp_path / "out", TRAIN_IDS_SUFFIX).unlink()
    orphan = FRAMES[4].generated(tmp_path / "out", SUFFIXES[2])
    orphan.with_name(f".{orphan.name}.999999999.abcdef01.tmp").write_bytes(orphan.read_bytes()[:50])
    orphan.unlink()
    assert generate_masks(root, tmp_path / "out").written == 2
    assert contents(tmp_path / "out") == whole


def flip_a_pixel(path: Path) -> None:
    pixels = np.array(Image.open(path))
    pixels[0, 0] = 33
    Image.fromarray(pixels).save(path)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip_a_pixel, flip_a_bit, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("suffix", SUFFIXES[:2])
def test_a_mask_that_changed_is_left_and_reported_until_forced(root, tmp_path, damage, suffix):
    generate_masks(root, tmp_path / "out")
    whole = contents(tmp_path / "out")
    stale = FRAMES[2].generated(tmp_path / "out", suffix)
    damage(stale)
    damaged = contents(tmp_path / "out")
    report = generate_masks(root, tmp_path / "out")
    assert (report.written, report.up_to_date, len(report.failed)) == (0, 5, 1)
    assert str(stale) in report.failed[0][1]
    assert "force" in report.failed[0][1]
    assert contents(tmp_path / "out") == damaged
    assert generate_masks(root, tmp_path / "out", force=True).failed == ()
    assert contents(tmp_path / "out") == whole


def test_changed_polygons_make_their_masks_stale(root, tmp_path):
    generate_masks(root, tmp_path / "out")
    write_polygons(root, FRAMES[0], label="bus")
    report = generate_masks(root, tmp_path / "out")
    assert [path for path, _ in report.failed] == [FRAMES[0].annotation(root, POLYGONS_SUFFIX)]
    generate_masks(root, tmp_path / "out", force=True)
    assert 28 in np.array(Image.open(FRAMES[0].generated(tmp_path / "out", LABEL_IDS_SUFFIX)))


def test_each_polygon_file_is_read_once_whatever_the_state_of_its_masks(root, tmp_path, monkeypatch):
    generate_masks(root, tmp_path / "out")
    whole, partial, absent, stale, damaged, damaged_and_partial = FRAMES
    partial.generated(tmp_path / "out", SUFFIXES[1]).unlink()
    damaged_and_partial.generated(tmp_path / "out", SUFFIXES[1]).unlink()
    for suffix in SUFFIXES:
        absent.generated(tmp_path / "out", suffix).unlink()
    write_polygons(root, stale, label="person")
    for frame in (damaged, damaged_and_partial):
        frame.annotation(root, POLYGONS_SUFFIX).write_text("{")
    reads: list[str] = []
    read = polygons.read_polygon_bytes
    monkeypatch.setattr(polygons, "read_polygon_bytes", lambda path: reads.append(path.name) or read(path))
    report = generate_masks(root, tmp_path / "out")
    assert sorted(reads) == sorted(frame.annotation(root, POLYGONS_SUFFIX).name for frame in FRAMES)
    assert (report.written, report.up_to_date) == (2, 1)
    problems = [line for _, line in report.failed]
    assert len(problems) == 3
    assert sum("--force" in line for line in problems) == 1


def test_all_bad_files_are_listed_and_the_good_ones_are_written(root, tmp_path):
    BROKEN.annotation(root, POLYGONS_SUFFIX).write_text('{"imgHeight": 1')
    write_polygons(root, FRAMES[4], label="no such label")
    report = generate_masks(root, tmp_path / "out")
    assert report.written == 4
    names = [path.name for path, _ in report.failed]
    assert names == [BROKEN.name + POLYGONS_SUFFIX, FRAMES[4].name + POLYGONS_SUFFIX]
    assert all("\n" not in line for _, line in report.failed)
    assert not BROKEN.generated(tmp_path / "out", LABEL_IDS_SUFFIX).exists()


def test_provided_masks_are_compared_and_each_difference_is_counted(root, tmp_path):
    generate_masks(root, tmp_path / "out")
    for frame in FRAMES[:3]:
        for suffix in (LABEL_IDS_SUFFIX, TRAIN_IDS_SUFFIX):
            shutil.copy(frame.generated(tmp_path / "out", suffix), frame.annotation(root, suffix))
    flip_a_pixel(FRAMES[1].annotation(root, LABEL_IDS_SUFFIX))
    report = generate_masks(root, tmp_path / "again")
    assert (report.compared, report.differing_pixels, report.total_pixels) == (3, 1, 3 * 2 * 24 * 48)
    assert report.differing == ((FRAMES[1].annotation(root, POLYGONS_SUFFIX), 1),)
    assert report.percent_equal == pytest.approx(100 * (1 - 1 / report.total_pixels), abs=1e-9)


@pytest.mark.parametrize(
    "image", [Image.new("L", (48, 23)), Image.new("RGB", (48, 24)), Image.new("P", (48, 24)), None]
)
def test_a_provided_mask_of_another_size_or_mode_or_damaged_is_reported(root, tmp_path, image):
    provided = FRAMES[0].annotation(root, LABEL_IDS_SUFFIX)
    image.save(provided) if image else provided.write_bytes(b"\x89PNG\r\n\x1a\n")
    report = generate_masks(root, tmp_path / "out")
    assert report.written == 6
    assert len(report.failed) == 1
    assert str(provided) in report.failed[0][1]


@pytest.mark.parametrize(
    "wrong", [{"color_mode": "rgb"}, {"workers": -1}, {"workers": 1.5}, {"splits": []}, {"splits": "train"}]
)
def test_a_wrong_argument_names_itself_and_what_is_allowed(root, tmp_path, wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        generate_masks(root, tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_an_absent_split_is_missing_input(root, tmp_path):
    with pytest.raises(MissingInputError, match="no such split"):
        generate_masks(root, tmp_path / "out", splits=["test"])


def test_a_second_run_on_the_same_output_is_refused(root, tmp_path):
    with lock_folder(tmp_path / "out"), pytest.raises(BusyError, match="is writing here"):
        generate_masks(root, tmp_path / "out")
    with lock_folder(tmp_path / "out"):
        done = command(COMMAND, "--root", root, "--output", tmp_path / "out")
    assert done.returncode == 7
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_run_that_has_nothing_to_write_does_not_mind_another_one(root, tmp_path):
    generate_masks(root, tmp_path / "out")
    with lock_folder(tmp_path / "out"):
        assert generate_masks(root, tmp_path / "out").up_to_date == 6
        with pytest.raises(BusyError):
            generate_masks(root, tmp_path / "out", force=True)


def test_a_full_disk_stops_the_run_in_one_line(root, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(MachineError, match="no space left"):
        generate_masks(root, tmp_path / "out")
    monkeypatch.undo()
    assert not list((tmp_path / "out").rglob("*.png*"))
    assert generate_masks(root, tmp_path / "out").written == 6


def test_a_killed_run_leaves_only_whole_files_and_the_next_one_finishes(root, tmp_path):
    for i in range(3, 40):
        write_polygons(root, Frame("train", "ulm", "000000", f"{i:06}"), height=500, width=1000)
    generate_masks(root, tmp_path / "clean")
    clean = contents(tmp_path / "clean")
    arguments = [sys.executable, COMMAND, "--root", root, "--output", tmp_path / "out", "--workers", "1"]
    deadline = time.monotonic() + 60
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL) as process:
        while len(list((tmp_path / "out").rglob("*_color.png"))) < 3 and time.monotonic() < deadline:
            pass
        process.send_signal(signal.SIGKILL)
    found = {name: content for name, content in contents(tmp_path / "out").items() if name.endswith(".png")}
    assert found.items() <= clean.items()
    report = generate_masks(root, tmp_path / "out")
    assert report.written + report.up_to_date == 43
    assert contents(tmp_path / "out") == clean


@pytest.mark.parametrize("folder", [COMMAND.parent, COMMAND.parents[1]])
def test_the_command_works_as_typed_from_the_root_and_from_its_own_folder(root, tmp_path, folder):
    done = command(
        COMMAND.relative_to(folder), "--root", root, "--output", tmp_path / "out", "--workers", 1, cwd=folder
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "frames written                6" in done.stdout


def test_the_command_lists_bad_files_one_line_each_and_ends_with_three(root, tmp_path):
    BROKEN.annotation(root, POLYGONS_SUFFIX).write_bytes(b"\xff")
    done = command(COMMAND, "--root", root, "--output", tmp_path / "out", "--splits", "train")
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: {BROKEN.annotation(root, POLYGONS_SUFFIX)}: not UTF-8 at byte 0")
    assert done.stderr.count("\n") == 1
    assert "frames written                2" in done.stdout


def test_the_command_takes_its_root_from_the_environment(root, tmp_path):
    done = command(COMMAND, CITYSCAPES_DATASET=str(root), DLV3P_WORKSPACE=str(tmp_path / "space"))
    assert done.returncode == 0, done.stderr
    assert FRAMES[0].generated(tmp_path / "space" / "data" / "generated_gt", LABEL_IDS_SUFFIX).is_file()


def test_the_bare_command_writes_the_embedded_city_once_and_finishes_one_that_was_interrupted(tmp_path, monkeypatch):
    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    monkeypatch.delenv("CITYSCAPES_DATASET", raising=False)
    monkeypatch.setattr(sys, "argv", ["generate_gt.py"])
    monkeypatch.setattr(demo_city, "DEFAULT_FRAMES", {"train": 2, "val": 1, "test": 0})
    whole = []
    for damage in (None, None, "unfinished"):
        if damage:
            description = tmp_path / "data" / "demo_city" / demo_city.DESCRIPTION
            description.write_text(description.read_text().replace('"complete": true', '"complete": false'))
            next((tmp_path / "data" / "demo_city" / "gtFine").rglob("*.json")).unlink()
        assert main() == 0
        whole.append(contents(tmp_path / "data"))
    assert len([name for name in whole[0] if name.endswith("_labelTrainIds.png")]) >= 3
    assert whole[0] == whole[1] == whole[2]


@pytest.mark.skipif(not POLYGON_FILES, reason=ABSENT)
def test_official_masks_are_all_matched(tmp_path):
    report = generate_masks(REAL, tmp_path)
    assert report.compared == report.written == 9
    assert (report.differing_pixels, report.percent_equal, report.failed) == (0, 100.0, ())


@pytest.mark.skipif(not POLYGON_FILES, reason=ABSENT)
def test_official_instance_ids_are_all_matched(tmp_path):
    for path in POLYGON_FILES:
        copy = tmp_path / "city" / path.relative_to(REAL)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(restored(path))
        for kind in ("labelIds.png", "instanceIds.png"):
            shutil.copy(beside(path, kind), copy.parent)
    report = generate_masks(tmp_path / "city", tmp_path / "out", instances=True)
    pixels = 9 * 1024 * 2048
    assert report.by_kind == ((LABEL_IDS_SUFFIX, 0, pixels), (INSTANCE_IDS_SUFFIX, 0, pixels))
    assert (report.compared, report.differing_pixels, report.failed) == (9, 0, ())
    for path in POLYGON_FILES:
        ours = tmp_path / "out" / beside(path, "instanceIds.png").relative_to(REAL / "gtFine")
        with Image.open(ours) as image, Image.open(beside(path, "instanceIds.png")) as official:
            assert (image.mode, image.size) == (official.mode, official.size)
            assert np.array_equal(np.array(image), np.array(official))


def test_instance_ids_come_on_request_and_complete_what_is_there(root, tmp_path):
    generate_masks(root, tmp_path / "out")
    before = contents(tmp_path / "out")
    report = generate_masks(root, tmp_path / "out", instances=True)
    assert (report.written, report.up_to_date, report.failed) == (6, 0, ())
    after = contents(tmp_path / "out")
    assert before.items() <= after.items()
    assert len(after) == len(before) + 6
    for frame in FRAMES:
        image = np.array(Image.open(frame.generated(tmp_path / "out", INSTANCE_IDS_SUFFIX)))
        assert set(np.unique(image)) == {0, 7, 26000}
    done = command(COMMAND, "--root", root, "--output", tmp_path / "again", "--instances")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "again") == after


def test_a_difference_of_instance_ids_alone_is_counted(root, tmp_path):
    generate_masks(root, tmp_path / "out", instances=True)
    provided = FRAMES[0].annotation(root, INSTANCE_IDS_SUFFIX)
    pixels = np.array(Image.open(FRAMES[0].generated(tmp_path / "out", INSTANCE_IDS_SUFFIX)))
    pixels[pixels == 26000] = 26001
    Image.fromarray(pixels).save(provided)
    report = generate_masks(root, tmp_path / "again", instances=True)
    differing = int((pixels == 26001).sum())
    assert report.by_kind == ((INSTANCE_IDS_SUFFIX, differing, 24 * 48),)
    assert generate_masks(root, tmp_path / "without").compared == 0


def test_too_many_instances_are_a_bad_file_by_its_name(root, tmp_path):
    car = {"label": "car", "polygon": [[0, 0], [1, 0], [1, 1]]}
    path = BROKEN.annotation(root, POLYGONS_SUFFIX)
    path.write_text(json.dumps({"imgHeight": 8, "imgWidth": 8, "objects": [car] * 1001}))
    assert generate_masks(root, tmp_path / "plain").failed == ()
    ((_, line),) = generate_masks(root, tmp_path / "out", instances=True).failed
    assert line.startswith(f"{path}: 1001 objects are labeled 'car'")


OTHER_LABELS = """name,label_id,train_id,category,has_instances,ignored,color
background,0,0,none,false,false,#102030
cat,64,1,animal,true,false,#ff0000
kitten,3,1,animal,true,false,#ff8000
shadow,9,255,none,false,true,#000000
collar,-1,-1,none,false,true,#0000ff
"""


@pytest.fixture
def cats(tmp_path):
    """A data set with names, labels and sizes of its own, as its makers would lay it out, and its label table."""
    names = ["shadow", "cat", "catgroup", "kitten", "cat", "collar"]
    objects = [{"label": name, "polygon": [[4 * i, 1], [4 * i + 3, 5]]} for i, name in enumerate(names)]
    path = tmp_path / "cats" / "gtFine" / "val" / "0" / "IMG 0001_gtFine_polygons.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"imgHeight": 7, "imgWidth": 31, "objects": objects}))
    (tmp_path / "labels.csv").write_text(OTHER_LABELS)
    return tmp_path / "cats"


def test_another_data_set_gets_masks_by_its_own_label_table(cats, tmp_path):
    arguments = ["--root", cats, "--output", tmp_path / "out", "--splits", "val", "--instances"]
    done = command(COMMAND, *arguments, "--labels", tmp_path / "labels.csv")
    assert (done.returncode, done.stderr) == (0, "")
    stem = tmp_path / "out" / "val" / "0" / "IMG 0001_gtFine_"
    masks = {kind: np.array(Image.open(f"{stem}{kind}.png")) for kind in ("labelIds", "labelTrainIds", "instanceIds")}
    assert set(np.unique(masks["labelIds"])) == {0, 3, 9, 64}
    assert set(np.unique(masks["instanceIds"])) == {0, 9, 64, 3000, 64000, 64001}
    expected = np.array([{0: 0, 3: 1, 9: 255, 64: 1}[value] for value in masks["labelIds"].flat], np.uint8)
    np.testing.assert_array_equal(masks["labelTrainIds"].ravel(), expected)
    colors = np.array(Image.open(f"{stem}color.png"))
    assert set(map(tuple, colors[masks["labelIds"] == 3])) == {(255, 128, 0, 255)}
    assert set(map(tuple, colors[masks["labelIds"] == 0])) == {(16, 32, 48, 255)}


def test_another_label_table_makes_masks_stale(cats, tmp_path):
    table = read_label_table(tmp_path / "labels.csv")
    assert generate_masks(cats, tmp_path / "out", splits=["val"], table=table).written == 1
    assert generate_masks(cats, tmp_path / "out", splits=["val"], table=table).up_to_date == 1
    (tmp_path / "labels.csv").write_text(OTHER_LABELS.replace("#ff8000", "#ff8001"))
    changed = read_label_table(tmp_path / "labels.csv")
    ((_, line),) = generate_masks(cats, tmp_path / "out", splits=["val"], table=changed).failed
    assert "with this label table" in line
    assert generate_masks(cats, tmp_path / "out", splits=["val"], table=changed, force=True).failed == ()


def test_a_bad_label_table_and_labels_it_lacks_are_one_line_each(cats, tmp_path):
    arguments = ["--root", cats, "--output", tmp_path / "out", "--splits", "val", "--labels", tmp_path / "labels.csv"]
    (tmp_path / "labels.csv").write_text(OTHER_LABELS.replace("kitten", "puppy"))
    done = command(COMMAND, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "'kitten' x 1" in done.stderr
    (tmp_path / "labels.csv").write_text(OTHER_LABELS.replace("64", "65"))
    done = command(COMMAND, *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "labels.csv: row 3, column has_instances" in done.stderr
    assert not list((tmp_path / "out").rglob("*.png"))


def test_frames_of_two_data_sets_with_equal_names_are_kept_apart(root, tmp_path):
    other = tmp_path / "other"
    for frame in FRAMES[3:]:
        write_polygons(other, frame, label="bus")
    write_polygons(other, Frame("val", "bonn", "000000", "000000"), label="bus")
    generate_masks(root, tmp_path / "out")
    before = contents(tmp_path / "out")
    done = command(COMMAND, "--root", other, "--output", tmp_path / "out", "--splits", "val")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert done.stderr.startswith(f"error: {tmp_path / 'out' / 'val' / 'ulm'}: holds masks made from {root}")
    assert "--output" in done.stderr
    assert contents(tmp_path / "out") == before
    assert generate_masks(other, tmp_path / "out", splits=["val"], force=True).failed == ()
    with pytest.raises(InputError, match=f"holds masks made from {other}"):
        generate_masks(root, tmp_path / "out")


def test_data_sets_with_cities_of_their_own_and_moved_ones_share_a_folder(root, tmp_path):
    write_polygons(tmp_path / "other", Frame("val", "bonn", "000000", "000000"))
    generate_masks(tmp_path / "other", tmp_path / "out", splits=["val"])
    generate_masks(root, tmp_path / "out")
    assert generate_masks(tmp_path / "other", tmp_path / "out", splits=["val"]).up_to_date == 1
    root.rename(tmp_path / "moved")
    FRAMES[0].generated(tmp_path / "out", LABEL_IDS_SUFFIX).unlink()
    report = generate_masks(tmp_path / "moved", tmp_path / "out")
    assert (report.written, report.up_to_date, report.failed) == (1, 5, ())
    shutil.copytree(tmp_path / "moved", root)  # a copy with the same polygons is no other data set
    FRAMES[0].generated(tmp_path / "out", LABEL_IDS_SUFFIX).unlink()
    assert generate_masks(root, tmp_path / "out").written == 1


def test_usage_mistakes_end_with_two(tmp_path):
    assert command(COMMAND, "--color-mode", "pink").returncode == 2
    assert command(COMMAND, "--root", tmp_path, "--workers", "-3").returncode == 2
    assert command(COMMAND, "--root", tmp_path, "--splits", "trian").returncode == 2


def test_help_answers_without_loading_what_drawing_needs():
    code = (
        "import sys, cityscapes.generate_gt as g, cityscapes.submission as s\ng._parser().format_help(), s._parser()\n"
        "print([m for m in ('torch', 'numpy', 'numba', 'PIL', 'tqdm') if m in sys.modules])"
    )
    assert command("-c", code).stdout == "[]\n"


def test_making_masks_needs_no_torch(root, tmp_path):
    code = (
        "import sys; sys.modules['torch'] = None\nfrom cityscapes.generate_gt import generate_masks\n"
        "print(generate_masks(sys.argv[1], sys.argv[2]).written)"
    )
    assert command("-c", code, root, tmp_path / "out").stdout == "6\n"
