"""A submission is built only when every file is right, always with the same bytes; a check lists every problem."""

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import MachineError, MissingInputError, ParameterError
from cityscapes.findings import ProblemsError
from cityscapes.labels import LABEL_ID_TO_TRAIN_ID
from cityscapes.layout import Frame
from cityscapes.scores.official_scores import ScoreAccumulator
from cityscapes.scores.truth_files import TruthFiles, find_truth
from cityscapes.submissions.build import build_submission, save_prediction
from cityscapes.submissions.check import check_submission
from cityscapes.submissions.manifest import manifest_path

COMMAND = Path(__file__).parents[2] / "cityscapes" / "submission.py"
SIZE = (16, 32)
FRAMES = [Frame("test", city, "000000", f"{i:06}") for city in ("ulm", "bonn") for i in (19, 1)]
PREDICTION_SUFFIX = "_prediction_labelIds.png"
NAMES = sorted(frame.name + PREDICTION_SUFFIX for frame in FRAMES)


def train_ids(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 19, SIZE, np.uint8)


@pytest.fixture
def predictions(tmp_path):
    for i, frame in enumerate(FRAMES):
        save_prediction(train_ids(i), tmp_path / "predictions" / frame.city / (frame.name + PREDICTION_SUFFIX))
    return tmp_path / "predictions"


@pytest.fixture
def good_zip(predictions, tmp_path):
    return build_submission(predictions, tmp_path / "good.zip", expected=FRAMES, size=SIZE).path


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    file = BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, "PNG")
    return file.getvalue()


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def read_zip(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def problems_of(path: Path, expected: list[Frame] = FRAMES) -> str:
    return "\n".join(check_submission(path, expected=expected, size=SIZE).problems)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_a_prediction_is_saved_as_label_ids_that_lead_back_to_its_train_ids(tmp_path, dtype):
    save_prediction(train_ids(0).astype(dtype), tmp_path / "a" / "p.png")
    image = Image.open(tmp_path / "a" / "p.png")
    assert (image.mode, image.size) == ("L", (32, 16))
    np.testing.assert_array_equal(LABEL_ID_TO_TRAIN_ID[np.array(image)], train_ids(0))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (np.full(SIZE, 255, np.uint8), "found also 255"),
        (np.full(SIZE, -1, np.int64), "found also -1"),
        (np.full(SIZE, 19, np.uint8), "found also 19"),
        (np.zeros(SIZE, np.float32), "expected train ids, integer"),
        (np.zeros((1, *SIZE), np.uint8), "expected train ids, integer"),
        (np.zeros((0, 5), np.uint8), "expected train ids, integer"),
    ],
)
def test_what_is_not_a_prediction_is_not_saved(tmp_path, wrong, expected):
    with pytest.raises(ParameterError, match=expected):
        save_prediction(wrong, tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_a_zip_holds_every_prediction_once_under_a_plain_name(predictions, tmp_path):
    manifest = build_submission(predictions, tmp_path / "s.zip", expected=FRAMES, size=SIZE)
    content = read_zip(tmp_path / "s.zip")
    assert list(content) == list(manifest.names) == NAMES
    assert content == {path.name: path.read_bytes() for path in predictions.rglob("*.png")}
    assert manifest.size_bytes == (tmp_path / "s.zip").stat().st_size
    assert check_submission(tmp_path / "s.zip", expected=FRAMES, size=SIZE).problems == ()


@pytest.mark.parametrize("name", [".ipynb_checkpoints/{}", "._{}"])
def test_hidden_files_are_no_predictions(predictions, tmp_path, name):
    first = sorted(predictions.rglob("*.png"))[0]
    hidden = predictions / name.format(first.name)
    hidden.parent.mkdir(exist_ok=True)
    hidden.write_bytes(first.read_bytes())
    assert list(build_submission(predictions, tmp_path / "s.zip", expected=FRAMES, size=SIZE).names) == NAMES


def test_s3_the_same_predictions_give_the_same_bytes(predictions, tmp_path):
    first = build_submission(predictions, tmp_path / "1.zip", expected=FRAMES, size=SIZE)
    for path in predictions.rglob("*.png"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    second = build_submission(predictions, tmp_path / "2.zip", expected=FRAMES[::-1], size=None)
    assert first.sha256 == second.sha256
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def remove(folder: Path) -> None:
    (folder / "ulm" / NAMES[-1]).unlink()


def add_extra(folder: Path) -> None:
    save_prediction(train_ids(9), folder / "ulm_000000_000077_x.png")


def double(folder: Path) -> None:
    save_prediction(train_ids(9), folder / "elsewhere" / NAMES[0])


def replace(content: bytes):
    def damage(folder: Path) -> None:
        (folder / "ulm" / NAMES[-1]).write_bytes(content)

    return damage


def link(folder: Path) -> None:
    path = folder / "ulm" / NAMES[-1]
    path.rename(folder.parent / "outside.png")
    path.symlink_to(folder.parent / "outside.png")


def link_folder(folder: Path) -> None:
    (folder / "ulm").rename(folder.parent / "elsewhere")
    (folder / "ulm").symlink_to(folder.parent / "elsewhere")


GRAY = np.full(SIZE, 7, np.uint8)
FAULTS = [
    (remove, "missing"),
    (add_extra, "extra"),
    (double, "2 files, one is allowed"),
    (link, "a symbolic link; copy the file itself"),
    (link_folder, "ulm: a symbolic link; copy the folder itself"),
    (replace(png(GRAY[:-1])), "32 x 16, found mode L, 32 x 15"),
    (replace(png(GRAY.T.copy())), "found mode L, 16 x 32"),
    (replace(png(GRAY, "RGB")), "found mode RGB"),
    (replace(png(GRAY, "P")), "found mode P"),
    (replace(png(GRAY, "1")), "found mode 1"),
    (replace(png(GRAY.astype(np.uint16))), "found mode I;16"),
    (replace(png(np.full(SIZE, 255, np.uint8))), "ids that are not allowed in a submission: 255"),
    (replace(png(np.full(SIZE, 34, np.uint8))), "ids that are not allowed in a submission: 34"),
    (replace(b""), "not a whole PNG"),
    (replace(png(GRAY)[:50]), "not a whole PNG"),
    (replace(b"GIF89a"), "not a whole PNG"),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS)
def test_s1_a_bad_prediction_is_named_no_zip_is_written_and_the_old_one_stays(predictions, tmp_path, fault, expected):
    fault(predictions)
    (tmp_path / "s.zip").write_bytes(b"old")
    with pytest.raises(ProblemsError) as caught:
        build_submission(predictions, tmp_path / "s.zip", expected=FRAMES, size=SIZE)
    assert any(expected in problem for problem in caught.value.problems)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "s.zip").read_bytes() == b"old"
    assert not list(tmp_path.glob(".*"))


def test_s1_all_problems_are_listed_at_once(predictions, tmp_path):
    replace(png(GRAY, "RGB"))(predictions)
    add_extra(predictions)
    (predictions / "bonn" / NAMES[0]).unlink()
    with pytest.raises(ProblemsError) as caught:
        build_submission(predictions, tmp_path / "s.zip", expected=FRAMES, size=SIZE)
    assert len(caught.value.problems) == 3


def test_s1_train_ids_in_place_of_label_ids_are_recognized(predictions, tmp_path):
    members = {}
    for i, path in enumerate(sorted(predictions.rglob("*.png"))):
        path.write_bytes(png(train_ids(i)))
        members[path.name] = path.read_bytes()
    with pytest.raises(ProblemsError, match="look like train ids"):
        build_submission(predictions, tmp_path / "s.zip", expected=FRAMES, size=SIZE)
    assert "look like train ids" in problems_of(write_zip(tmp_path / "s.zip", members))


def test_an_absent_folder_or_zip_is_missing_input(tmp_path):
    with pytest.raises(MissingInputError, match="no such folder"):
        build_submission(tmp_path / "none", tmp_path / "s.zip", expected=FRAMES)
    with pytest.raises(MissingInputError, match="no such zip"):
        check_submission(tmp_path / "none.zip", expected=FRAMES)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_s2_a_disk_that_refuses_leaves_the_old_zip(predictions, tmp_path, monkeypatch, failing):
    (tmp_path / "s.zip").write_bytes(b"old")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, refuse)
    with pytest.raises(MachineError, match="no space left"):
        build_submission(predictions, tmp_path / "s.zip", expected=FRAMES, size=SIZE)
    assert (tmp_path / "s.zip").read_bytes() == b"old"


KILLED = """
import os, signal, sys
from cityscapes.layout import Frame
from cityscapes.submissions import build as submission_build
module, name, left = sys.argv[3:6]
owner = sys.modules[module] if module in sys.modules else __import__(module)
for part in name.split(".")[:-1]:
    owner = getattr(owner, part)
call, left = getattr(owner, name.split(".")[-1]), [int(left)]
def until_killed(*arguments, **options):
    result = call(*arguments, **options)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, name.split(".")[-1], until_killed)
frames = [Frame("test", *name.split("_")[:3]) for name in sys.argv[6:]]
submission_build.build_submission(sys.argv[1], sys.argv[2], expected=frames)
"""


@pytest.mark.parametrize(
    ("module", "name", "count"),
    [
        ("zipfile", "ZipFile.writestr", 3),
        ("zipfile", "ZipFile.testzip", 1),
        ("os", "fsync", 1),
    ],
)
def test_s2_a_kill_while_zipping_leaves_the_old_zip(predictions, tmp_path, module, name, count):
    old = write_zip(tmp_path / "s.zip", {"old": b"old"}).read_bytes()
    words = [predictions, tmp_path / "s.zip", module, name, str(count), *NAMES]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "s.zip").read_bytes() == old
    assert not manifest_path(tmp_path / "s.zip").exists()
    build_submission(predictions, tmp_path / "s.zip", expected=FRAMES, size=SIZE)
    assert problems_of(tmp_path / "s.zip") == ""


def test_s2_a_kill_between_zip_and_manifest_is_seen_by_the_check(predictions, tmp_path):
    build_submission(predictions, tmp_path / "s.zip", expected=FRAMES, size=SIZE)
    save_prediction(train_ids(99), predictions / "ulm" / NAMES[-1])
    words = [predictions, tmp_path / "s.zip", "os", "replace", "1", *NAMES]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], check=False)
    assert done.returncode == -signal.SIGKILL
    assert "differs from the zip that s.zip.manifest.json records" in problems_of(tmp_path / "s.zip")


def test_s2_no_space_leaves_the_old_zip_and_exits_with_4(root, predictions, tmp_path):
    old = write_zip(tmp_path / "s.zip", {"old": b"old"}).read_bytes()
    code = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import numba  # whose own files may be large
from cityscapes.submissions import rules as submission_rules
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    words = [COMMAND, "build", predictions, tmp_path / "s.zip", "--root", root]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "s.zip").read_bytes() == old
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("folder", ["", "results/", "a/b c/"])
def test_a_zip_with_folders_or_other_suffixes_is_fine(good_zip, tmp_path, folder):
    members = {f"{folder}{name[:-4]}-1.png": content for name, content in read_zip(good_zip).items()}
    assert problems_of(write_zip(tmp_path / "s.zip", members)) == ""


def test_ids_that_are_never_right_are_only_a_warning(good_zip, tmp_path):
    members = read_zip(good_zip)
    members[NAMES[0]] = png(np.full(SIZE, 4, np.uint8))
    report = check_submission(write_zip(tmp_path / "s.zip", members), expected=FRAMES, size=SIZE)
    assert report.problems == ()
    assert "label ids 4 are never counted" in report.warnings[0]


@pytest.mark.parametrize(
    "name", ["../x.png", "/x.png", "a/../../x.png", "C:x.png", "a\\x.png", "..", f"../{NAMES[0]}", f"..\\{NAMES[0]}"]
)
def test_s4_names_that_would_leave_the_folder_are_problems(good_zip, tmp_path, name):
    path = write_zip(tmp_path / "s.zip", {**read_zip(good_zip), name: b""})
    assert f"{name!r}: unsafe name" in problems_of(path)


def test_s4_a_link_in_a_zip_is_a_problem(good_zip, tmp_path):
    members = read_zip(good_zip)
    del members[NAMES[0]]
    write_zip(tmp_path / "s.zip", members)
    member = zipfile.ZipInfo(NAMES[0])
    member.create_system, member.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "s.zip", "a") as archive:
        archive.writestr(member, "/etc/passwd")
    assert "a symbolic link" in problems_of(tmp_path / "s.zip")


@pytest.mark.parametrize(("fault", "expected"), [fault for fault in FAULTS if fault[0] not in (link, link_folder)])
def test_s1_a_check_finds_in_any_zip_what_a_build_refuses(predictions, tmp_path, fault, expected):
    fault(predictions)
    members = {str(path.relative_to(predictions)): path.read_bytes() for path in predictions.rglob("*.png")}
    assert expected in problems_of(write_zip(tmp_path / "s.zip", members))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_s1_the_same_name_twice_in_a_zip_is_a_problem(good_zip):
    with zipfile.ZipFile(good_zip, "a") as archive:
        archive.writestr(NAMES[0], b"")
    assert "2 files, one is allowed" in problems_of(good_zip)


def test_a_bomb_is_refused_before_it_unpacks(good_zip, tmp_path):
    members = read_zip(good_zip)
    members[NAMES[0]] = bytes(40 * 2**20)
    assert "unpacks to more than 16 MB" in problems_of(write_zip(tmp_path / "s.zip", members))
    many = {f"{i:0100}": b"" for i in range(40_000)}
    assert "directory is far larger" in problems_of(write_zip(tmp_path / "many.zip", many))


@pytest.mark.parametrize(
    "method",
    [
        zipfile.ZIP_DEFLATED,
        *(pytest.param(one, marks=pytest.mark.slow) for one in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
    ],
)
def test_a_bomb_that_lies_about_its_size_is_not_unpacked(tmp_path, method):
    code = """
import sys, zipfile
from pathlib import Path
from cityscapes.layout import Frame
from cityscapes.submissions.check import check_submission
from cityscapes.submissions.rules import inspect_files
before = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
report = check_submission(sys.argv[1], expected=[Frame("test", "ulm", "000000", "000019")], size=(16, 32))
print(len(report.problems), (int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) - before) >> 10)
"""
    path = write_zip(tmp_path / "s.zip", {})
    with zipfile.ZipFile(path, "w", method) as archive, archive.open("ulm_000000_000019.png", "w") as member:
        for _ in range(256):
            member.write(bytes(2**20))
    content = bytearray(path.read_bytes())
    for start in (22, content.rfind(b"PK\1\2") + 24):  # the size unpacked, before the file and in the directory
        content[start : start + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    problems, megabytes = map(int, done.stdout.split())
    assert problems == 1
    assert megabytes < 128


@pytest.mark.parametrize("junk", [b"", b"PK", b"no zip at all", b"PK\5\6" + bytes(18), b"PK\5\6" + b"\xff" * 18])
def test_what_is_not_a_zip_is_a_problem_not_a_crash(tmp_path, junk):
    (tmp_path / "s.zip").write_bytes(junk)
    report = check_submission(tmp_path / "s.zip", expected=FRAMES, size=SIZE)
    assert report.problems
    assert all("\n" not in problem for problem in report.problems)


def test_no_damaged_zip_crashes_the_check_or_passes_it(good_zip, tmp_path):
    content, rng = good_zip.read_bytes(), np.random.default_rng(0)
    whole, harmless = list(read_zip(good_zip).values()), 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        (tmp_path / "s.zip").write_bytes(damaged)
        if not problems_of(tmp_path / "s.zip"):  # a time stamp or a mode bit: the files inside are the same
            assert list(read_zip(tmp_path / "s.zip").values()) == whole
            harmless += 1
    assert harmless < 75


def test_s4_only_plain_names_get_into_a_zip(predictions, tmp_path):
    deep = predictions / "a b" / "c"
    deep.mkdir(parents=True)
    (predictions / "ulm" / NAMES[-1]).rename(deep / NAMES[-1])
    manifest = build_submission(predictions, tmp_path / "s.zip", expected=FRAMES, size=SIZE)
    assert list(manifest.names) == NAMES


def test_s3_the_manifest_holds_the_hash_of_the_zip_and_of_every_file_inside(predictions, tmp_path):
    manifest = build_submission(predictions, tmp_path / "s.zip", expected=FRAMES, size=SIZE)
    content = json.loads(manifest_path(tmp_path / "s.zip").read_text())
    assert content["sha256"] == manifest.sha256 == hashlib.sha256((tmp_path / "s.zip").read_bytes()).hexdigest()
    assert content["bytes"] == (tmp_path / "s.zip").stat().st_size
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in predictions.rglob("*.png")}
    assert content["files"] == hashes


def test_a_zip_that_its_manifest_does_not_record_is_a_problem_which_names_the_file(good_zip):
    members = read_zip(good_zip)
    members[NAMES[1]] = png(np.full(SIZE, 26, np.uint8))
    listed = problems_of(write_zip(good_zip, members))
    assert "differs from the zip that good.zip.manifest.json records" in listed
    assert f"{NAMES[1]}: differs from what good.zip.manifest.json records" in listed
    assert NAMES[0] not in listed
    manifest_path(good_zip).unlink()
    assert problems_of(good_zip) == ""


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3, "sha256": "", "format": 1}', "[" * 100_000])
def test_a_manifest_that_cannot_be_read_is_a_problem_not_a_crash(good_zip, content):
    manifest_path(good_zip).write_text(content)
    assert "not a readable manifest" in problems_of(good_zip)


def true_files(tmp_path: Path) -> dict[str, TruthFiles]:
    """Truth of every frame: two cars on a road, one far away."""
    truth = {}
    for frame in FRAMES:
        objects = np.full(SIZE, 7, np.uint16)
        objects[4:12, 4:20], objects[2:4, 24:28] = 26000, 26001
        label_ids = np.where(objects > 1000, objects // 1000, objects).astype(np.uint8)
        paths = [tmp_path / "truth" / f"{frame.name}_{kind}.png" for kind in ("labelIds", "instanceIds")]
        paths[0].parent.mkdir(exist_ok=True)
        for path, pixels in zip(paths, (label_ids, objects), strict=True):
            Image.fromarray(pixels).save(path)
        truth[frame.name] = TruthFiles(frame.name, *paths, None)
    return truth


def test_a_check_with_the_truth_gives_the_scores_of_the_files_inside(good_zip, tmp_path):
    truth = true_files(tmp_path)
    accumulator = ScoreAccumulator()
    for (name, content), frame in zip(read_zip(good_zip).items(), sorted(truth), strict=True):
        label_ids, objects = truth[frame].read()
        accumulator.add(name, label_ids, np.array(Image.open(BytesIO(content))), objects)
    scores = check_submission(good_zip, expected=FRAMES, size=SIZE, truth=truth).scores
    assert scores.averages == accumulator.result().averages
    assert scores.averages["averageScoreInstClasses"] < 0.2
    assert check_submission(good_zip, expected=FRAMES, size=SIZE).scores is None


def test_a_zip_with_problems_has_no_scores(good_zip, tmp_path):
    members = read_zip(good_zip)
    del members[NAMES[0]]
    report = check_submission(write_zip(good_zip, members), expected=FRAMES, size=SIZE, truth=true_files(tmp_path))
    assert report.scores is None
    assert report.problems


def command(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def root(tmp_path):
    for frame in FRAMES:
        path = frame.image(tmp_path / "city")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(path)
    return tmp_path / "city"


def test_the_command_builds_and_checks_against_the_images_of_the_split(root, predictions, tmp_path):
    done = command("build", predictions, tmp_path / "s.zip", "--root", root)
    assert (done.returncode, done.stderr) == (0, "")
    assert "holds 4 images of 32 x 16" in done.stdout
    done = command("check", tmp_path / "s.zip", "--root", root)
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 files, ready to upload" in done.stdout
    done = command("check", tmp_path / "s.zip", "--root", root, "--size", 1024, 2048)
    assert done.returncode == 3
    assert done.stderr.count("expected one 8-bit channel (mode L), 2048 x 1024") == 4


def test_s1_the_command_lists_every_problem_and_writes_no_zip(root, predictions, tmp_path):
    remove(predictions)
    add_extra(predictions)
    done = command("build", predictions, tmp_path / "s.zip", "--root", root)
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 3
    assert not (tmp_path / "s.zip").exists()
    assert command("build", predictions).returncode == 2


def test_images_without_a_readable_size_are_one_line(root, predictions, tmp_path):
    header = struct.pack(">IIBBBBB", 10**5, 10**5, 8, 2, 0, 0, 0)  # more pixels than the imaging library believes
    huge = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", header), (b"IDAT", b"")):
        huge += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    for content in (b"no image", huge):
        for frame in FRAMES:
            frame.image(root).write_bytes(content)
        done = command("build", predictions, tmp_path / "s.zip", "--root", root)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert "not an image; copy it again, or give --size" in done.stderr


def test_checking_a_labeled_split_predicts_the_score(city, tmp_path):
    frames = find_truth(city, "val")
    for frame in frames:
        train_ids = LABEL_ID_TO_TRAIN_ID[frame.read()[0]]
        save_prediction(np.where(train_ids == 255, 0, train_ids), tmp_path / "p" / f"{frame.name}.png")
    assert command("build", tmp_path / "p", tmp_path / "s.zip", "--root", city, "--split", "val").returncode == 0
    done = command("check", tmp_path / "s.zip", "--root", city, "--split", "val")
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("Classes", "InstClasses", "Categories", "InstCategories"):
        assert f"averageScore{name} 1.0000" in " ".join(done.stdout.split())
