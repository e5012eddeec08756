"""Scoring folders of predictions: pairing, encodings, bad files, and the result file that others read."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import official_tool
from cityscapes.errors import InputError, MissingInputError, ParameterError
from cityscapes.evaluate import score_tables, write_scores
from cityscapes.findings import ProblemsError
from cityscapes.generate_gt import generate_masks
from cityscapes.ids import recognize
from cityscapes.labels import LABEL_ID_TO_TRAIN_ID
from cityscapes.scores.score_files import score_folder
from cityscapes.scores.truth_files import find_truth

try:
    official_tool.load()
    OFFICIAL = True
except ImportError:
    OFFICIAL = False

COMMAND = Path(__file__).parents[3] / "cityscapes" / "evaluate.py"
REAL = Path(__file__).parents[4] / "shared" / "data" / "cityscapes"
STREET = [7, 7, 7, 8, 11, 17, 21, 23, 24, 26, 0, 4, 33]


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def noisy(truth: np.ndarray, seed: int) -> np.ndarray:
    """The truth as a network sees it: a little beside it, with blobs of other classes, and no class left open."""
    rng = np.random.default_rng(seed)
    prediction = np.roll(truth, (1, 2), (0, 1))
    for _ in range(5):
        top, left = rng.integers(truth.shape[0]), rng.integers(truth.shape[1])
        prediction[top : top + 5, left : left + 9] = rng.choice([7, 11, 21, 23, 24, 26])
    prediction[LABEL_ID_TO_TRAIN_ID[prediction] == 255] = 7
    return prediction


@pytest.fixture
def truth(tmp_path) -> Path:
    """Three frames of val with label and instance ids, and a folder of predictions beside them."""
    rng = np.random.default_rng(0)
    for index in range(3):
        name = f"ulm_000000_{index:06}"
        label_ids = np.kron(rng.choice(STREET, (6, 8)), np.ones((5, 6))).astype(np.uint8)
        numbers = np.kron(rng.integers(0, 2, (6, 8)), np.ones((5, 6))).astype(np.uint16)
        objects = np.where(np.isin(label_ids, [24, 26, 33]), label_ids * np.uint16(1000) + numbers, label_ids)
        stem = tmp_path / "root" / "gtFine" / "val" / "ulm" / f"{name}_gtFine_"
        write(Path(f"{stem}labelIds.png"), label_ids)
        write(Path(f"{stem}instanceIds.png"), objects.astype(np.uint16))
        write(tmp_path / "predictions" / "any" / f"{name}-mine.png", noisy(label_ids, index))
    return tmp_path / "root"


@pytest.fixture
def predictions(truth) -> Path:
    return truth.parent / "predictions"


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def change(paths: list[Path], how) -> None:
    for path in paths:
        write(path, how(np.array(Image.open(path))))


def command(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, COMMAND, *map(str, words)], capture_output=True, text=True, check=False)


def problems_of(predictions: Path, truth: Path, ids: str = "auto") -> str:
    with pytest.raises(ProblemsError) as caught:
        score_folder(predictions, find_truth(truth), ids=ids, progress=False)
    assert "\n" not in str(caught.value)
    return "\n".join(caught.value.problems)


def same(ours: object, theirs: object) -> bool:
    if isinstance(theirs, dict):
        return all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, float):
        return ours is None if math.isnan(theirs) else math.isclose(ours, theirs, rel_tol=1e-12)
    return ours == theirs


@pytest.mark.skipif(not OFFICIAL, reason="compares with cityscapesScripts, which is not installed")
def test_the_result_file_is_the_official_one(truth, predictions, tmp_path):
    done = command("--truth", truth, "--predictions", predictions, "--output", tmp_path / "new" / "scores.json")
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads((tmp_path / "new" / "scores.json").read_text())
    truths = sorted(str(path) for path in truth.rglob("*_labelIds.png"))
    theirs = official_tool.score(list(zip(map(str, files(predictions)), truths, strict=True)))
    assert same(content, theirs)
    assert set(content) == {*theirs, "predictionIds"}
    assert content["predictionIds"] == "label"
    assert 0.1 < content["averageScoreInstClasses"] < 0.99
    assert f"{content['averageScoreClasses']:.4f}" in done.stdout
    assert "label ids" in done.stdout


@pytest.mark.skipif(not OFFICIAL, reason="compares with cityscapesScripts, which is not installed")
@pytest.mark.skipif(not REAL.is_dir(), reason="the Cityscapes sample is not here")
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_frames_score_as_the_official_tool_says(tmp_path, split):
    pairs = []
    for index, frame in enumerate(find_truth(REAL, split)[:2]):
        path = tmp_path / f"{frame.name}_x.png"
        write(path, noisy(frame.read()[0], index))
        pairs.append((str(path), str(frame.label_ids)))
    ours = score_folder(tmp_path, [f for f in find_truth(REAL, split) if list(tmp_path.glob(f"{f.name}*"))])
    assert same(ours.scores.as_official_json(), official_tool.score(pairs))
    assert ours.scores.averages["averageScoreInstClasses"] > 0.1


@pytest.mark.parametrize("of", ["", "gtFine", "gtFine/val", "gtFine/val/ulm"])
def test_the_truth_may_be_given_as_any_of_its_folders(truth, predictions, of):
    assert len(find_truth(truth / of)) == 3
    whole = score_folder(predictions, find_truth(truth), progress=False)
    assert score_folder(predictions, find_truth(truth / of), progress=False).scores.averages == whole.scores.averages


def test_a_linked_city_of_the_truth_counts_and_hidden_files_do_not(truth, predictions):
    folder = truth / "gtFine" / "val"
    city = sorted(path for path in folder.iterdir() if path.is_dir())[0]
    hidden = folder / ".ipynb_checkpoints"
    hidden.mkdir()
    (hidden / sorted(city.glob("*_labelIds.png"))[0].name).write_bytes(b"")
    city.rename(truth / "elsewhere")
    city.symlink_to("../../elsewhere")
    assert len(find_truth(truth)) == 3


@pytest.mark.parametrize("name", [".ipynb_checkpoints/{}", "._{}"])
def test_hidden_files_are_no_predictions(truth, predictions, name):
    first = sorted(predictions.rglob("*.png"))[0]
    whole = score_folder(predictions, find_truth(truth), progress=False)
    hidden = predictions / name.format(first.name)
    hidden.parent.mkdir(exist_ok=True)
    hidden.write_bytes(b"")
    assert score_folder(predictions, find_truth(truth), progress=False).scores.averages == whole.scores.averages


def test_a_linked_folder_of_predictions_is_scored_and_a_circular_one_refused(truth, predictions, tmp_path):
    whole = score_folder(predictions, find_truth(truth), progress=False)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "ours").symlink_to(predictions)
    found = score_folder(tmp_path / "linked", find_truth(truth), progress=False)
    assert found.scores.averages == whole.scores.averages
    (predictions / "again").symlink_to(predictions)
    with pytest.raises(InputError, match="again: a circular link; remove it"):
        score_folder(predictions, find_truth(truth), progress=False)


def test_the_number_of_threads_shows_nowhere(truth, predictions):
    one, four = (
        score_folder(predictions, find_truth(truth), workers=workers, progress=False).scores.as_official_json()
        for workers in (1, 4)
    )
    assert json.dumps(one) == json.dumps(four)


def test_objects_are_drawn_from_polygons_where_there_is_no_image_of_them(city, tmp_path):
    frames = find_truth(city, "val")
    assert all(frame.label_ids is frame.instance_ids is None for frame in frames)
    for index, frame in enumerate(frames):
        write(tmp_path / f"{frame.name}.png", noisy(frame.read()[0], index))
    scores = score_folder(tmp_path, frames, progress=False).scores
    assert scores.class_iiou["car"] > 0.1
    assert scores.averages["averageScoreClasses"] > 0.3


def test_polygons_with_more_objects_than_can_be_numbered_are_named(tmp_path):
    polygons = tmp_path / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_polygons.json"
    objects = [{"label": "car", "polygon": [[0, 0], [4, 0], [4, 4]]}] * 1001
    polygons.parent.mkdir(parents=True)
    polygons.write_text(json.dumps({"imgHeight": 8, "imgWidth": 8, "objects": objects}))
    write(tmp_path / "predictions" / "ulm_000000_000019.png", np.full((8, 8), 7, np.uint8))
    (problem,) = problems_of(tmp_path / "predictions", tmp_path).splitlines()
    assert problem.startswith(f"{polygons}: 1001 objects are labeled 'car'")


def test_a_folder_of_generated_masks_is_a_truth_too(city, tmp_path):
    generate_masks(city, tmp_path / "masks", splits=("val",), progress=False)
    for index, frame in enumerate(find_truth(city, "val")):
        write(tmp_path / "predictions" / f"{frame.name}.png", noisy(frame.read()[0], index))
    drawn, generated = (
        score_folder(tmp_path / "predictions", find_truth(folder), progress=False).scores
        for folder in (city, tmp_path / "masks")
    )
    assert generated.class_iou == pytest.approx(drawn.class_iou, abs=0, nan_ok=True)
    assert generated.category_iou == pytest.approx(drawn.category_iou, abs=0, nan_ok=True)


def test_without_objects_or_polygons_there_is_no_iiou_and_the_command_says_so(truth, predictions, tmp_path):
    for path in truth.rglob("*_instanceIds.png"):
        path.unlink()
    done = command("--truth", truth, "--predictions", predictions, "--output", tmp_path / "s.json")
    assert done.returncode == 0
    assert "no iIoU: 3 images" in done.stdout
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["averageScoreInstClasses"] is None
    assert set(content["classInstScores"].values()) == {None}


def missing(predictions: Path) -> None:
    files(predictions)[1].unlink()


def extra(predictions: Path) -> None:
    shutil.copy(files(predictions)[0], predictions / "ulm_000000_000077.png")


def stray(predictions: Path) -> None:
    shutil.copy(files(predictions)[0], predictions / "legend.png")


def double(predictions: Path) -> None:
    shutil.copy(files(predictions)[0], predictions / "ulm_000000_000000_color.png")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (missing, "ulm_000000_000001*.png: missing"),
        (extra, "'ulm_000000_000077.png': extra"),
        (stray, "'legend.png': extra"),
        (double, "ulm_000000_000000*.png: 2 files, one is allowed"),
    ],
)
def test_e1_missing_extra_and_double_predictions_are_listed(truth, predictions, fault, expected):
    fault(predictions)
    assert expected in problems_of(predictions, truth)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (lambda a: a[:-1], "48 x 30, found mode L, 48 x 29"),
        (lambda a: a.T.copy(), "48 x 30, found mode L, 30 x 48"),
        (lambda a: np.stack([a] * 3, 2), "found mode RGB"),
        (lambda a: a.astype(np.uint16), "found mode I;16"),
        (lambda a: a > 7, "found mode 1"),
    ],
)
def test_e2_wrong_sizes_and_modes_are_listed(truth, predictions, how, expected):
    change(files(predictions)[1:], how)
    assert problems_of(predictions, truth).count(expected) == 2


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_e2_damaged_files_are_listed(truth, predictions, content):
    files(predictions)[0].write_bytes(content)
    path = files(predictions)[2]
    path.write_bytes(path.read_bytes()[:60])
    assert problems_of(predictions, truth).count("not a whole PNG") == 2


def test_e2_a_truth_whose_objects_have_another_size_is_named(truth, predictions):
    change(list(truth.rglob("*000001_gtFine_instanceIds.png")), lambda a: a[1:])
    assert "instance ids has 48 x 29 pixels, the truth 48 x 30" in problems_of(predictions, truth)


def with_id(value: int):
    def change_first(pixels: np.ndarray) -> np.ndarray:
        pixels[0, 0] = value
        return pixels

    return change_first


@pytest.mark.parametrize(("value", "ids"), [(40, "auto"), (254, "auto"), (34, "label"), (19, "train"), (34, "train")])
def test_e3_ids_outside_the_table_are_refused_by_name(truth, predictions, value, ids):
    if ids == "train":
        change(files(predictions), lambda a: LABEL_ID_TO_TRAIN_ID[a])
    change(files(predictions)[1:2], with_id(value))
    listed = problems_of(predictions, truth, ids)
    assert f"holds the ids {value}, but" in listed
    assert listed.count("\n") == 0


def test_e3_train_ids_are_recognized_and_score_as_the_label_ids_do(truth, predictions):
    as_labels = score_folder(predictions, find_truth(truth), progress=False)
    change(files(predictions), lambda a: LABEL_ID_TO_TRAIN_ID[a])
    found = score_folder(predictions, find_truth(truth), progress=False)
    assert (as_labels.encoding, found.encoding) == ("label", "train")
    assert found.scores.averages == as_labels.scores.averages
    assert "no id from 19 to 33 occurs" in found.because


def test_e3_train_ids_where_label_ids_are_asked_for_are_never_silent(truth, predictions):
    change(files(predictions), lambda a: LABEL_ID_TO_TRAIN_ID[a])
    done = command("--truth", truth, "--predictions", predictions, "--ids", "label")
    assert "warning: read as label ids, as asked, although they look like train ids" in done.stderr
    assert "predictions: label ids (road is 7)" in done.stdout
    change(files(predictions), with_id(255))
    listed = problems_of(predictions, truth, "label")
    assert listed.count("look like train ids: --ids train") == 3


def test_e3_label_ids_where_train_ids_are_asked_for_are_refused_with_a_hint(truth, predictions):
    assert problems_of(predictions, truth, "train").count("look like label ids: --ids label") == 3


def test_e3_mixtures_are_refused(truth, predictions):
    change(files(predictions)[:1], lambda a: LABEL_ID_TO_TRAIN_ID[a])
    assert "2 files look like label ids" in problems_of(predictions, truth)
    change(files(predictions)[:1], lambda a: np.array([[255, 33] * 24] * 30, np.uint8))
    assert "holds 255, which is a train id, beside 19 to 33" in problems_of(predictions, truth)


def test_e3_what_could_be_either_is_refused_and_a_flag_settles_it(truth, predictions):
    change(files(predictions), lambda a: np.where(a > 17, 7, a).astype(np.uint8))
    assert "choose with --ids label or --ids train" in problems_of(predictions, truth)
    label, train = (score_folder(predictions, find_truth(truth), ids=ids, progress=False) for ids in ("label", "train"))
    assert label.scores.class_iou["road"] > 0.2
    assert train.scores.class_iou["road"] == 0


@pytest.mark.parametrize(
    ("files_ids", "expected"),
    [
        ({"a": {7, 26}, "b": {7, 8}}, "label"),
        ({"a": {0, 255}}, "train"),
        ({"a": {0, 1, 2}, "b": {0}}, "train"),
        ({"a": {7, 8}, "b": {0, 11}}, None),
        ({"a": {7, 26}, "b": {1, 2}}, None),
        ({"a": {0, 4, 7, 23}, "b": {7, 21}}, "label"),
    ],
)
def test_e3_the_encoding_is_recognized_by_ids_that_only_one_has(files_ids, expected):
    assert recognize(files_ids)[0] == expected


def test_e4_an_absent_class_is_nan_in_the_table_and_null_in_the_file(truth, predictions, tmp_path):
    found = score_folder(predictions, find_truth(truth), progress=False)
    (line,) = (line for line in score_tables(found.scores) if line.startswith("truck"))
    assert line.split() == ["truck", "nan", "nan"]
    write_scores(tmp_path / "s.json", found)
    assert json.loads((tmp_path / "s.json").read_text())["classScores"]["truck"] is None


def test_e4_an_empty_split_is_missing_input(tmp_path, predictions):
    with pytest.raises(MissingInputError, match="holds no <city>_<seq>_<frame>_gtFine_labelIds.png"):
        find_truth(tmp_path / "predictions")


def test_bad_predictions_leave_the_old_result_and_are_all_listed(truth, predictions, tmp_path):
    (tmp_path / "s.json").write_text("old")
    missing(predictions)
    for index in range(60):
        shutil.copy(files(predictions)[0], predictions / f"x{index}.png")
    done = command("--truth", truth, "--predictions", predictions, "--output", tmp_path / "s.json")
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert len(lines) == 52
    assert lines[-2:] == ["error: and 11 more", f"error: {predictions}: not scored, problems found: 61"]
    assert "Traceback" not in done.stderr
    assert (tmp_path / "s.json").read_text() == "old"


def test_wrong_arguments_are_refused(truth, predictions, tmp_path):
    assert command("--truth", truth).returncode == 2
    with pytest.raises(ParameterError, match="ids is 'color'"):
        score_folder(predictions, find_truth(truth), ids="color")
    with pytest.raises(ParameterError, match="workers"):
        score_folder(predictions, find_truth(truth), workers=-1)
    with pytest.raises(MissingInputError, match="has no split train, only val"):
        find_truth(truth, "train")
    with pytest.raises(MissingInputError, match="no such folder of predictions"):
        score_folder(tmp_path / "none", find_truth(truth))
    shutil.copytree(truth / "gtFine" / "val" / "ulm", truth / "gtFine" / "val" / "bonn")
    with pytest.raises(InputError, match="is also at"):
        find_truth(truth)
    (tmp_path / "file").write_text("")
    done = command(
        "--truth", truth / "gtFine/val/ulm", "--predictions", predictions, "--output", tmp_path / "file" / "s.json"
    )
    assert done.returncode == 4
    assert done.stderr.startswith("error: ")
    assert "a file is where a folder should be" in done.stderr


def test_tables_name_what_is_absent(truth, predictions):
    lines = score_tables(score_folder(predictions, find_truth(truth), progress=False).scores)
    shown = {line[:16].strip(): line[16:].split() for line in lines}
    assert shown["road"][1] == "-"  # has no objects, so no iIoU
    assert shown["classes"] == ["IoU", "iIoU"]
    assert len([line for line in lines if line.startswith("average")]) == 2
