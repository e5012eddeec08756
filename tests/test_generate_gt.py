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

from cityscapes.atomic import lock_folder
from cityscapes.demo import city as demo_city
from cityscapes.errors import BusyError, MachineError, MissingInputError, ParameterError
from cityscapes.frame_masks import SUFFIXES
from cityscapes.generate_gt import generate_masks, main
from cityscapes.labels import LABEL_ID_TO_COLOR, LABEL_ID_TO_TRAIN_ID
from cityscapes.layout import LABEL_IDS_SUFFIX, POLYGONS_SUFFIX, TRAIN_IDS_SUFFIX, Frame

COMMAND = Path(__file__).parents[1] / "cityscapes" / "generate_gt.py"
FRAMES = [Frame(split, "ulm", "000000", f"{i:06}") for split in ("train", "val") for i in range(3)]
BROKEN = FRAMES[1]
REAL = Path(__file__).parents[2] / "shared" / "data" / "cityscapes"


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
    orphan.with_name(f".{orphan.name}.123.abcdef01.tmp").write_bytes(orphan.read_bytes()[:50])
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


@pytest.mark.skipif(not (REAL / "gtFine").is_dir(), reason="the Cityscapes sample is not here")
def test_official_masks_are_all_matched(tmp_path):
    report = generate_masks(REAL, tmp_path)
    assert report.compared == report.written > 0
    assert (report.differing_pixels, report.percent_equal, report.failed) == (0, 100.0, ())


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
