"""From a finished run to label maps, scores, a zip and pictures."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cityscapes.errors import DivergedError, InputError, IntegrityError, MachineError, MissingInputError, ParameterError
from cityscapes.labels import CLASS_NAMES, TRAIN_ID_TO_LABEL_ID
from cityscapes.workspace import output_folder
from dlv3p.data.augment import normalize
from dlv3p.data.roots import open_images, open_split
from dlv3p.evaluation.comparison import read_evaluations
from dlv3p.evaluation.evaluate import evaluate
from dlv3p.evaluation.image_counts import read_image_counts
from dlv3p.evaluation.inference import Predictor, load_run_predictor
from dlv3p.evaluation.metrics import confusion_matrix
from dlv3p.evaluation.predictions import pack_submission, save_predictions
from dlv3p.evaluation.results import result_path, split_word
from dlv3p.jupyter.demo import load_run
from dlv3p.parameters.notebooks import RunParameters, TrainParameters
from dlv3p.parameters.protocols import PUBLISHED, WHOLE_IMAGE
from dlv3p.pictures import gallery
from dlv3p.pictures.gallery import (
    choose_frames,
    class_shares,
    crops_picture,
    examples_picture,
    samples_picture,
)
from dlv3p.weights.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.usefixtures("trained")


def test_the_newest_run_is_loaded_and_described_by_its_checkpoint(predictor, trained):
    assert (predictor.run, predictor.epoch) == ("done", trained.best_epoch)
    assert predictor.parameters.image_scale == 0.5
    assert len(predictor.class_names) == 19


def test_results_that_cannot_be_written_are_told_before_they_are_made(trained, monkeypatch, tmp_path):
    (tmp_path / "saved").symlink_to(trained.folder.parent)
    (tmp_path / "outputs").write_text("a file stands where the folder would be")
    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    with pytest.raises(MachineError, match=r"outputs.*: a file is where a folder should be"):
        load_run(RunParameters(run="done", device="cpu", threads=1))


def test_a_run_that_does_not_exist_is_told_with_those_that_do(trained):
    with pytest.raises(MissingInputError, match="did you mean 'done'"):
        load_run_predictor(RunParameters(run="don"))


@pytest.mark.parametrize("size", [(128, 64), (97, 65), (200, 100)])
def test_a_prediction_has_the_size_of_its_image(predictor, size):
    prediction = predictor(Image.new("RGB", size, (90, 90, 90)))
    assert prediction.shape == size[::-1]
    assert prediction.dtype == np.uint8
    assert prediction.max() < 19


def test_a_prediction_is_the_best_class_of_the_full_size_logits(predictor, city):
    image = open_split(city, "val").image(0)
    with torch.no_grad():
        logits = predictor.model.logits_at_stride(
            normalize(image, image_scale=0.5)[None].to(memory_format=torch.channels_last)
        )
        expected = predictor.model.upsample(logits, image.size[::-1]).argmax(dim=1)[0]
    assert torch.equal(predictor.predict(image).long(), expected)


def test_a_network_that_returns_nan_is_refused_instead_of_predicting_road(predictor):
    model = load_run_predictor(RunParameters(run="done", threads=1)).model
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    with pytest.raises(DivergedError, match="not finite"):
        replace(predictor, model=model)(Image.new("RGB", (64, 64)))


def test_an_evaluation_counts_every_labeled_pixel_of_every_image_once(city, predictor, evaluation):
    split = open_split(city, "val")
    expected = torch.zeros(19, 19, dtype=torch.int64)
    for index in range(len(split)):
        image, mask = split.pair(index)
        expected += confusion_matrix(torch.from_numpy(mask), torch.from_numpy(predictor(image)), 19)
    assert np.array_equal(evaluation.confusion, expected.numpy())


def test_evaluation_agrees_with_the_score_of_the_training_epoch(trained, evaluation):
    best = trained.history[trained.best_epoch - 1]
    assert evaluation.scores.mean_iou == pytest.approx(best["val_mIoU"], abs=1e-9)
    assert evaluation.scores.mean_dice == pytest.approx(best["val_mDice"], abs=1e-9)


def test_data_of_another_number_of_classes_is_not_scored(city, predictor):
    with pytest.raises(ParameterError, match="has 19 classes and the run 'done' 5"):
        evaluate(replace(predictor, class_names=list("abcde")), open_split(city, "val"), progress="none")


def test_classes_that_are_numbered_in_another_way_are_refused_and_other_names_are_said(predictor, city, capsys):
    split, names = open_split(city, "val"), list(predictor.class_names)
    swapped = replace(predictor, class_names=[names[1], names[0], *names[2:]])
    with pytest.raises(ParameterError, match="numbers the classes of the run 'done' in another way: id 0 is 'road'"):
        evaluate(swapped, split, progress="none")
    renamed = replace(predictor, class_names=["Strasse", *names[1:]])
    evaluate(renamed, split, progress="none")
    said = (
        "names 1 of 19 classes otherwise than the run 'done', id 0 'road' instead of 'Strasse'; ids are taken as they"
    )
    assert said in capsys.readouterr().out
    evaluate(predictor, split, progress="none")
    assert "warning" not in capsys.readouterr().out


def test_the_saved_evaluation_holds_what_its_numbers_follow_from(evaluation):
    content = json.loads(evaluation.save().read_text())
    assert np.array(content["confusion"]).sum() == evaluation.confusion.sum()
    assert content["mIoU"] == evaluation.scores.mean_iou
    assert set(content["classes"]) == set(evaluation.predictor.class_names)
    assert "single scale" in content["protocol"]
    assert list(evaluation.images["mIoU"]) == sorted(evaluation.images["mIoU"])


def test_predictions_are_label_ids_of_every_image_and_make_a_checked_zip(city, predictor):
    split = open_images(city, "test")
    folder = save_predictions(predictor, split, progress="none")
    submission = pack_submission(predictor, split, folder)
    assert submission.report.problems == ()
    with zipfile.ZipFile(output_folder("done") / "submission.zip") as archive:
        assert len(archive.namelist()) == len(split)
        with archive.open(archive.namelist()[0]) as file:
            saved = np.array(Image.open(file))
    assert np.array_equal(saved, TRAIN_ID_TO_LABEL_ID[predictor(split.image(0))])
    again = pack_submission(predictor, split, folder)
    assert again.manifest.sha256 == submission.manifest.sha256


@pytest.mark.parametrize("change", ["by hand", "another image's", "another checkpoint's"])
def test_a_prediction_that_the_network_did_not_make_is_not_packed(city, predictor, change):
    split = open_images(city, "test")
    folder = save_predictions(predictor, split, progress="none")
    first, second = sorted(folder.rglob("*.png"))
    content = first.read_bytes()
    if change == "by hand":
        with Image.open(first) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(first)
    elif change == "another image's":
        first.write_bytes(second.read_bytes())
    else:
        predictor = replace(predictor, class_names=["another", *predictor.class_names[1:]])
    with pytest.raises(
        IntegrityError, match=rf"{first.name}: is not what best\.pt of done predicts of this image; run"
    ):
        pack_submission(predictor, split, folder)
    first.write_bytes(content)


def test_predicting_again_goes_on_where_it_stopped(city, predictor):
    split = open_images(city, "test")
    folder = save_predictions(predictor, split, progress="none")
    first, second = sorted(folder.rglob("*.png"))
    kept, content = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    assert save_predictions(predictor, split, progress="none") == folder
    assert first.stat().st_mtime_ns == kept
    assert second.read_bytes() == content


def test_other_processes_make_the_same_predictions_wherever_they_run(city, predictor, tmp_path, monkeypatch):
    split = open_images(city, "test")
    folder = save_predictions(predictor, split, progress="none")
    made = {path: path.read_bytes() for path in folder.rglob("*.png")}
    for path in made:
        path.unlink()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=os.chdir, initargs=(tmp_path,)) as pool:
        monkeypatch.setattr(Predictor, "__call__", None)  # this process predicts nothing
        assert save_predictions(predictor, split, progress="none", executor=pool) == folder
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == made


def test_workers_make_what_one_process_makes(city, predictor, monkeypatch):
    split = open_images(city, "test")
    folder = save_predictions(predictor, split, progress="none")
    made = {path: path.read_bytes() for path in folder.rglob("*.png")}
    for path in made:
        path.unlink()
    monkeypatch.setattr(Predictor, "__call__", None)  # this process predicts nothing
    assert save_predictions(predictor, split, progress="none", workers=2) == folder
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == made


def test_a_worker_refuses_another_checkpoint_than_the_one_that_names_the_predictions(city, predictor):
    other = replace(predictor, weights_sha256="0" * 64, class_names=["another", *predictor.class_names[1:]])
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(IntegrityError, match="best.pt: is another checkpoint than the one that was loaded"),
    ):
        save_predictions(other, open_images(city, "test"), progress="none", executor=pool)
    assert not list(output_folder("done").glob(f"predictions/*-{other.network_sha256[:8]}/*/*.png"))


@pytest.fixture
def copied(city, tmp_path):
    """A copy of the city elsewhere, with the same names of frames, whose files can be changed."""
    return Path(shutil.copytree(city, tmp_path / "other"))


def test_predictions_of_other_data_lie_beside_those_of_the_runs_own(city, copied, predictor):
    own, other = open_images(city, "test"), open_images(copied, "test")
    for index in range(len(other)):
        Image.open(other.image_path(index)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other.image_path(index))
    folders = [save_predictions(predictor, split, progress="none") for split in (own, other)]
    packed = [pack_submission(predictor, split, folder) for split, folder in zip((own, other), folders, strict=True)]
    assert folders[1].name.startswith(f"{folders[0].name}_other-")
    assert packed[1].manifest.path.name.startswith("submission_other-")
    assert packed[0].manifest.path.name == "submission.zip"
    for split, folder in zip((own, other), folders, strict=True):
        saved = np.array(Image.open(sorted(folder.rglob("*.png"))[0]))
        assert np.array_equal(saved, TRAIN_ID_TO_LABEL_ID[predictor(split.image(0))])


def test_a_prediction_of_an_image_that_was_mended_or_that_is_damaged_is_made_anew(copied, predictor, capsys):
    split = open_images(copied, "test")
    folder = save_predictions(predictor, split, progress="none")
    first, second = sorted(folder.rglob("*.png"))
    good = second.read_bytes()
    second.write_bytes(good[:-20] + bytes([good[-20] ^ 1]) + good[-19:])
    Image.open(split.image_path(0)).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(split.image_path(0))
    capsys.readouterr()
    save_predictions(predictor, split, progress="none")
    assert "2 of 2 predictions were damaged or of other images" in capsys.readouterr().out
    assert second.read_bytes() == good
    assert np.array_equal(np.array(Image.open(first)), TRAIN_ID_TO_LABEL_ID[predictor(split.image(0))])


def test_the_counts_of_each_image_are_kept_and_read_back(evaluation):
    folder = evaluation.save().parent
    counts = read_image_counts(folder / "evaluation_images.npz")
    assert np.array_equal(counts.confusions().sum(axis=0), evaluation.confusion)
    assert (counts.names, counts.class_names) == (evaluation.counts.names, tuple(evaluation.predictor.class_names))
    assert set(counts.groups) == {frame.city for frame in evaluation.split.frames}
    table = pd.read_csv(folder / "evaluation_images.csv").set_index("image")
    for row in evaluation.images.itertuples():
        assert table.loc[row.image, "mIoU"] == pytest.approx(row.mIoU, abs=1e-12)
    assert [name for name in table if name.startswith("IoU ")] == [f"IoU {name}" for name in counts.class_names]
    stored = json.loads((folder / "evaluation.json").read_text())["mIoU_interval"]
    assert stored == {"low": None, "high": None, "blocks": len(counts.names)}, "three images are too few"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive"])
def test_damaged_counts_are_one_line(tmp_path, content):
    path = tmp_path / "evaluation_images.npz"
    with pytest.raises(MissingInputError, match="evaluate the run again"):
        read_image_counts(path)
    path.write_bytes(content)
    with pytest.raises(InputError, match="not the counts of an evaluation"):
        read_image_counts(path)


def test_counts_with_a_flipped_bit_are_the_same_or_one_line(evaluation, tmp_path):
    path, random = tmp_path / "evaluation_images.npz", np.random.default_rng(0)
    evaluation.counts.save(path)
    content, refused = path.read_bytes(), 0
    for place, bit in zip(random.integers(0, len(content), 150), random.integers(0, 8, 150), strict=True):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(bit)
        path.write_bytes(flipped)
        try:
            same = np.array_equal(read_image_counts(path).cells, evaluation.counts.cells)
        except InputError:
            refused += 1
        else:
            assert same
    assert refused > 50


def test_scores_of_other_data_do_not_replace_the_runs_own(city, copied, predictor, evaluation):
    own = evaluation.save()
    before = own.read_bytes()
    other = evaluate(predictor, open_split(copied, "val"), progress="none").save()
    assert own.name == "evaluation.json"
    assert other.name.startswith("evaluation_other-")
    assert own.read_bytes() == before
    assert json.loads(before)["made_from"]["checkpoint_sha256"] == predictor.weights_sha256


def test_no_two_splits_share_a_file_whatever_they_are_called(predictor, evaluation):
    odd = ("a/b", "a-b", "a_b", "last", "a_last", "a", "flip", "six_scales", "six_scales_flip", "five_scales", "test")
    half = replace(WHOLE_IMAGE, scales=(0.5,))
    protocols = [*PUBLISHED.values(), half, replace(half, flip=True)]
    last = replace(predictor, checkpoint=predictor.checkpoint.with_name("last.pt"))
    names = [*odd, *(split_word(name) for name in odd)]
    paths = [
        result_path(network, SimpleNamespace(split=split, root=evaluation.split.root), "evaluation.json", protocol)
        for network in (predictor, last)
        for split in dict.fromkeys(names)
        for protocol in protocols
    ]
    assert len(set(paths)) == len(paths)
    names = {path.name for path in paths}
    assert {"evaluation_a.json", "evaluation_a_b.json"} <= names, "others keep the names of earlier versions"


def test_a_result_under_an_ambiguous_name_of_earlier_versions_loads_until_it_is_made_again(evaluation):
    folder = evaluation.save().parent
    former = folder / "evaluation_a-b.json"
    content = json.loads((folder / "evaluation.json").read_text())
    del content["content_sha256"]
    odd = replace(evaluation, split=copy(evaluation.split))
    odd.split.split = "a/b"
    try:
        for split, kept in (("a-b", True), ("a/b", False)):
            former.write_text(json.dumps({**content, "split": split}))
            assert former in [one.path for one in read_evaluations([folder.name])]
            odd.save()
            assert former.is_file() == kept
    finally:
        for path in folder.glob("evaluation*a-b*"):
            path.unlink()


def test_pictures_of_samples_crops_and_errors_are_as_wide_as_asked_and_say_what_they_are_of(
    city, trained, evaluation, monkeypatch
):
    said, draw = [], gallery.with_footer
    monkeypatch.setattr(gallery, "with_footer", lambda picture, footer: said.append(footer) or draw(picture, footer))
    split = open_split(city, "val")
    parameters = TrainParameters(data_root=str(city), crop_height=64, crop_width=128)
    names = list(evaluation.images["image"][:2])
    for picture in (
        samples_picture(split, [0, 1]),
        crops_picture(parameters, split),
        examples_picture(evaluation, names),
    ):
        assert picture.width == 1200
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50
    data = f"{city.name} val, {len(split)} images"
    crops = f"{parameters.run_name} · {data} · crops of 64 x 128, as in epoch 1"
    assert said == [data, crops, f"done, epoch {evaluation.predictor.epoch} · {data} · whole_image"]


def test_frames_of_a_drive_are_chosen_in_order_and_a_wrong_sequence_names_what_there_is(city):
    split = open_images(city, "val")
    assert choose_frames(split, count=2) == [0, 1]
    with pytest.raises(MissingInputError, match=split.frames[0].city):
        choose_frames(split, sequence="999999", count=2)


def test_class_shares_add_up_and_come_most_first(city):
    shares = class_shares(open_split(city, "train"))
    assert isinstance(shares, pd.DataFrame)
    assert shares["share of pixels"].sum() == pytest.approx(1)
    assert shares["share of pixels"].is_monotonic_decreasing


def test_predictions_are_named_after_the_weights_that_made_them(city, trained):
    """A training that saves between loading and predicting changes the file, not the network in memory."""
    shutil.copytree(trained.folder, trained.folder.with_name("goes_on"))
    parameters = RunParameters(run="goes_on", device="cpu", threads=1)
    loaded = load_run_predictor(parameters)
    state = load_checkpoint(loaded.checkpoint)
    state["model"] = {name: value + 1 for name, value in state["model"].items()}
    save_checkpoint(loaded.checkpoint, state)
    later = load_run_predictor(parameters)
    assert later.weights_sha256 != loaded.weights_sha256
    folders = [save_predictions(one, open_images(city, "test"), progress="none") for one in (loaded, later)]
    assert [folder.name for folder in folders] == [f"test-best-{one.network_sha256[:8]}" for one in (loaded, later)]
    assert folders[0] != folders[1]
    shutil.rmtree(loaded.checkpoint.parents[1])


def test_a_training_that_came_to_the_same_weights_at_another_time_has_the_same_predictions(city, trained):
    shutil.copytree(trained.folder, trained.folder.with_name("repeated"))
    parameters = RunParameters(run="repeated", device="cpu", threads=1)
    first = load_run_predictor(parameters)
    save_checkpoint(first.checkpoint, load_checkpoint(first.checkpoint) | {"seconds": 7.0})
    second = load_run_predictor(parameters)
    assert second.weights_sha256 != first.weights_sha256
    split = open_images(city, "test")
    folder = save_predictions(first, split, progress="none")
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert save_predictions(second, split, progress="none") == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == kept
    shutil.rmtree(first.checkpoint.parents[1])


@pytest.mark.parametrize("change", [{"image_scale": 0.25}, {"output_stride": 8}])
def test_a_network_that_computes_otherwise_has_another_hash(predictor, change):
    other = replace(predictor, parameters=replace(predictor.parameters, **change))
    assert other.network_sha256 != predictor.network_sha256


PEAKS = """
import resource, sys
from dlv3p.data.roots import open_split
from dlv3p.evaluation.evaluate import evaluate
from dlv3p.evaluation.inference import load_saved
for split in ("few", "many"):
    evaluate(load_saved("done", device="cpu", threads=1), open_split(sys.argv[1], split), progress="none")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_the_memory_of_scoring_large_images_does_not_grow_with_their_number(tmp_path):
    (tmp_path / "classes.csv").write_text("id,name\n" + "".join(f"{i},{name}\n" for i, name in enumerate(CLASS_NAMES)))
    Image.new("RGB", (2048, 1024)).save(tmp_path / "image.png")
    Image.new("L", (2048, 1024), 1).save(tmp_path / "mask.png")
    for split, count in (("few", 4), ("many", 24)):
        for kind in ("images", "masks"):
            (tmp_path / kind / split).mkdir(parents=True)
            for index in range(count):
                (tmp_path / kind / split / f"{index}.png").hardlink_to(tmp_path / f"{kind[:-1]}.png")
    words = [sys.executable, "-c", PEAKS, str(tmp_path)]
    few, many = map(float, subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-2:])
    assert many - few < 80, "MiB: an image more keeps some 10"
