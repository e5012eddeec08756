"""Many images into a folder: the same files however they come about, and a bad image never costs the good ones."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.prediction_folders import contents, predict

from cityscapes.errors import IntegrityError, MachineError, ParameterError
from cityscapes.labels import TRAIN_ID_TO_COLOR, TRAIN_ID_TO_LABEL_ID
from dlv3p.data.roots import open_images
from dlv3p.evaluation.predictions import pack_submission, save_predictions
from dlv3p.prediction.__main__ import main
from dlv3p.prediction.memory import MemoryLimit
from dlv3p.prediction.predict import predict_images
from dlv3p.prediction.results import FOLDERS, Outputs
from dlv3p.prediction.sources import IMAGE_SUFFIXES, find_images

pytestmark = pytest.mark.usefixtures("trained")

IDS_ALONE = Outputs(colors=False, overlays=False)


def test_predictions_of_a_split_are_those_of_save_predictions_byte_for_byte(predictor, city, tmp_path: Path) -> None:
    split = open_images(city, "val")
    expected = save_predictions(predictor.network, split, progress="none")
    found = predict(predictor, city / "leftImg8bit" / "val", tmp_path / "out", Outputs())
    assert len(found.done) == len(split) == 3
    for frame in split.frames:
        ours = found.folder / "ids" / frame.city / f"{frame.name}_leftImg8bit.png"
        theirs = expected / frame.city / f"{frame.name}_labelIds.png"
        assert ours.read_bytes() == theirs.read_bytes()


def test_all_that_is_asked_for_is_written_at_the_images_size(predictor, photos: Path, tmp_path: Path) -> None:
    found = predict(predictor, photos, tmp_path / "out")
    assert (found.done, found.made, found.problems) == (("a", "b", "below/a"), 3, ())
    labels, sure = predictor.with_confidence(photos / "below" / "a.png")
    out = tmp_path / "out"
    assert np.array_equal(np.array(Image.open(out / "ids/below/a.png")), TRAIN_ID_TO_LABEL_ID[labels])
    assert np.array_equal(np.array(Image.open(out / "colors/below/a.png").convert("RGB")), TRAIN_ID_TO_COLOR[labels])
    assert np.array_equal(np.array(Image.open(out / "confidence/below/a.png")), sure)
    assert Image.open(out / "overlays/below/a.jpg").size == (96, 64)
    with open(found.table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a", "b", "below/a"]
    shares = [float(value) for name, value in rows[2].items() if name.startswith("share of ")]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert float(rows[2]["mean_confidence"]) == pytest.approx(sure.mean() / 255, abs=1e-4)
    record = json.loads((out / "predictions.json").read_text())
    assert record["runtime"] == "exact"
    assert record["weights"]["sha256"] == predictor.network.weights_sha256
    assert {"torch", "tifffile"} < record["versions"].keys()
    assert "onnxruntime" not in record["versions"]
    assert record["images"]["count"] == 3


def test_an_image_of_16_bits_that_comes_out_nearly_black_is_a_warning_whenever_it_was_made(
    predictor, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    gray = np.linspace(0, 2**12 - 1, 64 * 96).reshape(64, 96).astype(np.uint16)
    (tmp_path / "in").mkdir()
    Image.fromarray(gray).save(tmp_path / "in" / "sensor.png")
    Image.fromarray(gray * 16).save(tmp_path / "in" / "stretched.png")
    for made in (2, 0):
        found = predict(predictor, tmp_path / "in", tmp_path / "out", Outputs())
        assert found.made == made
        said = capsys.readouterr().out
        assert "warning: 1 images of 16 bits came out nearly black, the first sensor; stretch the values" in said
    with open(found.table, newline="") as file:
        notes = {row["image"]: row["note"] for row in csv.DictReader(file)}
    assert notes["sensor"] == "it comes out nearly black: its 16-bit values reach 16 of the levels 0 to 255"
    assert notes["stretched"] == ""


def test_train_ids_and_ids_alone_are_written_on_request(predictor, photos: Path, tmp_path: Path) -> None:
    found = predict(predictor, photos / "a.png", tmp_path / "out", Outputs("train", colors=False, overlays=False))
    assert np.array_equal(np.array(Image.open(found.folder / "ids/a.png")), predictor(photos / "a.png"))
    assert sorted(path.name for path in found.folder.iterdir() if path.is_dir()) == ["ids"]


def test_pictures_of_every_kind_are_read_as_they_are_shown(predictor, picture: Image.Image, tmp_path: Path) -> None:
    folder = tmp_path / "kinds"
    folder.mkdir()
    gray = picture.convert("L")
    picture.save(folder / "w.webp", lossless=True)
    picture.save(folder / "v.avif", quality=100)
    picture.convert("RGBA").save(folder / "alpha.png")
    gray.save(folder / "gray.png")
    Image.fromarray(np.asarray(gray).astype(np.uint16) * 257).save(folder / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    picture.save(folder / "phone.heic", quality=-1)
    found = predict(predictor, folder, tmp_path / "out", Outputs("train"))
    assert found.problems == ()
    ids = {name: np.array(Image.open(found.folder / "ids" / f"{name}.png")) for name in found.done}
    expected = predictor(picture)
    assert {name: one.shape for name, one in ids.items()} == dict.fromkeys(ids, (64, 96))
    for name in ("w", "alpha", "turned"):
        assert np.array_equal(ids[name], expected), name
    assert np.array_equal(ids["gray"], ids["sixteen"])
    assert (ids["v"] == expected).mean() > 0.9
    assert (ids["phone"] == expected).mean() > 0.9
    with open(found.table, newline="") as file:
        notes = {row["image"]: row["note"] for row in csv.DictReader(file)}
    assert notes["alpha"] == "alpha ignored"
    assert set(notes.values()) == {"", "alpha ignored"}


def test_a_bad_image_is_named_and_the_others_are_done(predictor, photos: Path, tmp_path: Path, capsys) -> None:
    good = predict(predictor, photos, tmp_path / "good")
    whole = (photos / "a.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "loop.png").symlink_to("loop.png")
    found = predict(predictor, photos, tmp_path / "out")
    assert found.done == good.done
    named = [Path(line.split(": ")[0]).name for line in found.problems]
    assert named == ["cut.png", "empty.jpg", "loop.png"]
    assert "replace the file" in found.problems[0]
    assert json.loads((found.folder / "predictions.json").read_text())["problems"] == list(found.problems)
    listed = photos.parent / "some.txt"
    listed.write_text("photos/a.png\nphotos/gone.png\n")
    words = [str(listed), "--run", "done", "--output", str(tmp_path / "listed"), "--threads", "1", "--device", "cpu"]
    assert main(words) == 3
    assert "not predicted: " in (shown := capsys.readouterr()).err
    assert "gone.png: no such file" in shown.err
    assert "1 predicted, 0 kept, 1 not predicted" in shown.out


def test_what_a_list_names_that_is_no_image_is_told_by_its_kind(predictor, photos: Path, tmp_path: Path) -> None:
    types = " ".join(IMAGE_SUFFIXES)
    named = {
        "clip.mp4": "is a video, and a list names images; give the video itself",
        "clip.ts": "is a video, and a list names images; give the video itself",
        "other.txt": "is no image; give a list itself, not in another list",
        "below": "is a folder, and a list names files; give the folder itself",
        "moving.gif": f"is no image of a type that is read; allowed are {types}; convert it, as to PNG",
        "missing.gif": "no such file",
    }
    for name in ("clip.mp4", "clip.ts", "other.txt", "moving.gif"):
        (photos / name).write_bytes(b"?")
    (photos / "list.txt").write_text("a.png\n" + "\n".join(named))
    found = predict_images(predictor, find_images(photos / "list.txt"), tmp_path / "out", progress="none")
    assert found.done == ("a",)
    assert found.problems == tuple(f"{photos / name}: {why}" for name, why in named.items())


def test_an_interrupted_call_ends_in_the_same_files(predictor, photos: Path, tmp_path: Path, interrupted) -> None:
    expected = predict(predictor, photos, tmp_path / "at once")
    with interrupted(), pytest.raises(KeyboardInterrupt):
        predict(predictor, photos, tmp_path / "out")
    found = predict(predictor, photos, tmp_path / "out")
    assert (found.made, len(found.done)) == (1, 3)
    assert contents(tmp_path / "out") == contents(tmp_path / "at once")
    assert found.done == expected.done


def test_what_is_damaged_or_of_another_image_is_made_again(predictor, photos: Path, tmp_path: Path) -> None:
    predict(predictor, photos, tmp_path / "out")
    before = contents(tmp_path / "out")
    path = tmp_path / "out" / "ids" / "a.png"
    path.write_bytes(path.read_bytes()[:-20])
    (tmp_path / "out" / "overlays" / "b.jpg").unlink()
    assert predict(predictor, photos, tmp_path / "out").made == 2
    assert contents(tmp_path / "out") == before
    Image.open(photos / "b.jpg").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(photos / "b.jpg")
    assert predict(predictor, photos, tmp_path / "out").made == 1


@pytest.mark.parametrize("kind", ["ids", "colors", "overlays", "confidence"])
def test_a_flipped_bit_in_any_picture_is_mended(predictor, photos: Path, tmp_path: Path, kind: str) -> None:
    predict(predictor, photos, tmp_path / "out")
    before, path = contents(tmp_path / "out"), tmp_path / "out" / kind / f"a.{FOLDERS[kind]}"
    for place in (0, 5, 40, 120, -30) if kind == "overlays" else (-30,):
        content = bytearray(path.read_bytes())
        content[place] ^= 4
        path.write_bytes(content)
        assert predict(predictor, photos, tmp_path / "out").made == 1
        assert contents(tmp_path / "out") == before
    assert Image.open(tmp_path / "out" / "overlays" / "a.jpg").size == (96, 64)


def test_a_picture_of_another_kind_is_not_taken_for_ids(predictor, city, tmp_path: Path) -> None:
    split = open_images(city, "val")
    folder = save_predictions(predictor.network, split, progress="none")
    found = predict(predictor, city / "leftImg8bit" / "val", tmp_path / "out")
    ids = sorted((found.folder / "ids").rglob("*.png"))
    expected = [path.read_bytes() for path in ids]
    for path, kind in zip(ids, ("colors", "confidence"), strict=False):
        path.write_bytes((found.folder / kind / path.relative_to(found.folder / "ids")).read_bytes())
    theirs = folder / split.frames[0].city / f"{split.frames[0].name}_labelIds.png"
    theirs.write_bytes(ids[0].read_bytes())
    with pytest.raises(IntegrityError, match=f"{theirs.name}: is not what"):
        pack_submission(predictor.network, split, folder)
    assert predict(predictor, city / "leftImg8bit" / "val", tmp_path / "out").made == 2
    assert [path.read_bytes() for path in ids] == expected


def test_a_changed_table_is_not_taken_up(predictor, photos: Path, tmp_path: Path, capsys) -> None:
    predict(predictor, photos, tmp_path / "out")
    before, path = contents(tmp_path / "out"), tmp_path / "out" / "predictions.csv"
    text = path.read_text()
    path.write_text(text.replace("0.", "9.", 1))
    assert predict(predictor, photos, tmp_path / "out").made == 3
    assert "predictions.csv: is damaged, so that its images are predicted again" in capsys.readouterr().out
    assert contents(tmp_path / "out") == before


def test_results_of_images_that_are_gone_are_said(predictor, photos: Path, tmp_path: Path, capsys) -> None:
    predict(predictor, photos, tmp_path / "out")
    assert "also holds" not in capsys.readouterr().out
    (photos / "b.jpg").unlink()
    predict(predictor, photos, tmp_path / "out")
    assert "also holds results of 1 images that are not among these, the first ids/b.png" in capsys.readouterr().out


def test_what_is_not_asked_for_does_not_stay_of_other_pixels(predictor, photos: Path, tmp_path: Path, capsys) -> None:
    predict(predictor, photos, tmp_path / "out")
    before = contents(tmp_path / "out")
    Image.open(photos / "b.jpg").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(photos / "b.jpg")
    assert predict(predictor, photos, tmp_path / "out", IDS_ALONE).made == 1
    left = contents(tmp_path / "out")
    assert {name for name in before if name not in left} == {"colors/b.png", "overlays/b.jpg", "confidence/b.png"}
    (tmp_path / "out" / "ids" / "a.png").unlink()
    assert predict(predictor, photos, tmp_path / "out", IDS_ALONE).made == 1
    assert "overlays/a.jpg" in contents(tmp_path / "out"), "of the same pixels"

    (photos / "b.jpg").write_bytes(b"damaged since")
    capsys.readouterr()
    found = predict(predictor, photos, tmp_path / "out", IDS_ALONE)
    assert "also holds results of 1 images that are not among these, the first ids/b.png" in capsys.readouterr().out
    assert "b," not in found.table.read_text()


def test_tiles_of_another_size_are_predicted_again(predictor, photos: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(MemoryLimit, "needs_tiles", lambda *size, **options: True)
    small = replace(predictor, limit=replace(predictor.limit, tile=64, overlap=16))
    predict(small, photos, tmp_path / "out")
    (tmp_path / "out" / "predictions.json").unlink()
    assert predict(small, photos, tmp_path / "out").made == 0
    (tmp_path / "out" / "predictions.json").unlink()
    other = replace(small, limit=replace(small.limit, tile=48))
    assert predict(other, photos, tmp_path / "out").made == 3


def test_a_killed_command_ends_in_the_same_files(photos: Path, tmp_path: Path, picture: Image.Image) -> None:
    for number in range(30):
        picture.rotate(number).save(photos / f"{number}.png")
    words = [str(photos), "--run", "done", "--threads", "1", "--device", "cpu", "--confidence", "--progress", "none"]
    killed = subprocess.Popen([sys.executable, "-m", "dlv3p", "predict", *words, "--output", str(tmp_path / "killed")])
    ids = tmp_path / "killed" / "ids"
    while killed.poll() is None and len(list(ids.glob("*.png"))) < 3:
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "it was done before it could be killed"
    for name in ("killed", "at once"):
        assert main([*words, "--output", str(tmp_path / name)]) == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "at once")
    assert len(contents(tmp_path / "killed")) == 33 * 4 + 2


def test_results_of_another_network_or_runtime_are_not_mixed(predictor, photos: Path, tmp_path: Path) -> None:
    predict(predictor, photos, tmp_path / "out")
    with pytest.raises(ParameterError, match="holds predictions of runtime='exact'; choose another output"):
        predict(replace(predictor, runtime="openvino"), photos, tmp_path / "out")
    found = predict(replace(predictor, runtime="onnxruntime"), photos, tmp_path / "other")
    assert json.loads((found.folder / "predictions.json").read_text())["versions"]["onnxruntime"]
    other = replace(predictor, network=replace(predictor.network, weights_sha256="0" * 64))
    with pytest.raises(ParameterError, match="holds predictions of weights="):
        predict(other, photos, tmp_path / "out")
    with pytest.raises(ParameterError, match="holds predictions of batch_size=1"):
        predict(predictor, photos, tmp_path / "out", batch_size=2)


def test_results_of_a_run_that_was_renamed_since_are_still_its_own(predictor, photos: Path, tmp_path: Path) -> None:
    made = predict(predictor, photos, tmp_path / "out")
    renamed = replace(predictor, network=replace(predictor.network, run="better", checkpoint=Path("better/best.pt")))
    again = predict(renamed, photos, tmp_path / "out")
    assert (again.made, again.done) == (0, made.done)
    record = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert record["weights"]["name"] == "better"


def test_batches_hold_neighbors_of_one_size(predictor, photos: Path, tmp_path: Path, picture: Image.Image) -> None:
    picture.crop((0, 0, 80, 60)).save(photos / "c.png")
    seen, kind = [], type(predictor)
    whole = kind.predict

    def predicted(self, images, **options):
        seen.append([image.size for image in images])
        return whole(self, images, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "predict", predicted)
        found = predict(predictor, photos, tmp_path / "out", batch_size=2)
    assert found.done == ("a", "b", "below/a", "c")
    assert seen == [[(96, 64)] * 2, [(96, 64)], [(80, 60)]]


def test_a_batch_larger_than_the_memory_of_images_on_their_way_is_predicted(predictor, photos, tmp_path) -> None:
    """In a process of its own, since what it is about is a wait without end."""
    limit = "import dlv3p.prediction.pipeline as it; it.IN_FLIGHT_BYTES = 2 * 96 * 64 * 12"
    words = [str(photos), "--run", "done", "--threads", "1", "--device", "cpu", "--batch-size", "3"]
    code = f"{limit}; from dlv3p.prediction.__main__ import main; main()"
    command = [sys.executable, "-c", code, *words, "--output", str(tmp_path / "out")]
    assert "3 predicted" in subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_a_damaged_image_does_not_take_its_batch_along(predictor, photos: Path, tmp_path: Path) -> None:
    whole = (photos / "a.png").read_bytes()
    (photos / "aa.png").write_bytes(whole[: len(whole) // 2])
    (photos / "ab.png").write_bytes(b"")
    found = predict(predictor, photos, tmp_path / "out", batch_size=3)
    assert found.done == ("a", "b", "below/a")
    assert [Path(line.split(": ")[0]).name for line in found.problems] == ["aa.png", "ab.png"]


def test_a_folder_that_cannot_be_written_is_one_line(predictor, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineError, match="a file is where a folder should be"):
        predict(predictor, photos, tmp_path / "file" / "out")
    if Path("/proc/self").exists():
        with pytest.raises(MachineError, match="/proc/nowhere.*: no file can be created in this folder"):
            predict(predictor, photos, Path("/proc/nowhere"))


def test_a_thousand_images_take_no_more_memory_than_ten(predictor, picture: Image.Image, tmp_path: Path) -> None:
    resident = Path("/proc/self/statm")
    if not resident.is_file():
        pytest.skip("resident memory is read from /proc, which is of Linux")
    large, folder = tmp_path / "large.png", tmp_path / "many"
    picture.resize((192, 160)).save(large)
    folder.mkdir()
    memory = []
    for count in (10, 1000):
        for number in range(count):
            if not (path := folder / f"{number}.png").exists():
                os.link(large, path)
        assert (
            len(predict(predictor, folder, tmp_path / str(count), Outputs(colors=False, overlays=False)).done) == count
        )
        memory.append(int(resident.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    assert memory[1] - memory[0] < 40 * 2**20, "the decoded images alone have 92 MB"
