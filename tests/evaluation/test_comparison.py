"""Evaluations by protocol: what is scored, what is stored, and that no table mixes two protocols."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cityscapes.dataset import CityscapesSplit
from cityscapes.demo.city import DESCRIPTION
from cityscapes.errors import InputError, ParameterError
from cityscapes.workspace import output_folder
from dlv3p.data.demo import write_demo_voc
from dlv3p.data.roots import open_split
from dlv3p.data.voc import VocSplit
from dlv3p.evaluation.benchmarks import BENCHMARKS, data_name
from dlv3p.evaluation.comparison import read_evaluations, score_table
from dlv3p.evaluation.evaluate import evaluate, scored_pair
from dlv3p.evaluation.inference import Predictor
from dlv3p.evaluation.predictions import save_predictions
from dlv3p.parameters.protocols import PUBLISHED, WHOLE_IMAGE, Protocol
from dlv3p.parameters.training import TrainParameters

FLIP = Protocol((0.75, 1.0), flip=True)
CROP = replace(PUBLISHED["voc_center_crop_513"], center_crop=65)
SIZES = ((100, 75), (75, 100), (99, 66), (91, 100))


class Brightness(nn.Module):
    """Class 0 where an image is dark, 1 where it is bright."""

    align_corners = False

    def logits_at_stride(self, image):
        bright = image.mean(dim=1, keepdim=True)
        return torch.cat([-bright, bright], dim=1)


class Photographs:
    """Pictures of odd sizes, dark and bright in halves, the masks with a border of 255 between the two as in VOC."""

    root, split, class_names, num_classes = Path("photographs"), "val", ("dark", "bright"), 2

    def __len__(self):
        return len(SIZES)

    fingerprint = label_rule = meaning = ""
    pixel_rule = None

    def name(self, index):
        return f"photograph {index}"

    def group(self, index):
        return ""

    def image_path(self, index):
        return Path(__file__)  # any file: the pictures below are drawn, not read

    def image_bytes(self, index):
        return self.pair(index)[0].tobytes()

    def pair(self, index):
        width, height = SIZES[index]
        mask = np.zeros((height, width), np.uint8)
        mask[:, width // 2 :] = 1
        image = Image.fromarray((mask * 255)[:, :, None].repeat(3, axis=2))
        mask[:, width // 2 - 5 : width // 2 + 5] = 255
        mask[:3] = mask[-3:] = 255
        return image, mask


@pytest.fixture
def predictor(workspace):
    """A predictor with the name of a run in an empty workspace."""
    cpu, trained = torch.device("cpu"), TrainParameters(data_root="photographs")
    return Predictor("first", Path("best.pt"), 3, Brightness(), trained, Photographs.class_names, cpu)


PROTOCOLS = [
    WHOLE_IMAGE,
    FLIP,
    Protocol(long_side=65, padded=65),
    Protocol(window_height=40, window_width=50, overlap=9),
]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
def test_every_labeled_pixel_is_scored_once_at_the_images_own_size_and_255_never(predictor, protocol):
    split = Photographs()
    evaluation = evaluate(predictor, split, protocol, progress="none")
    masks = [split.pair(index)[1] for index in range(len(split))]
    assert evaluation.confusion.sum(axis=1).tolist() == [sum(int((mask == k).sum()) for mask in masks) for k in (0, 1)]
    assert evaluation.scores.mean_iou == 1  # the border that is hard to get right is not scored


def test_a_center_crop_scores_the_center_of_resized_masks_only(predictor):
    split = Photographs()
    for index, (width, height) in enumerate(SIZES):
        image, mask = scored_pair(split, index, CROP)
        assert image.size == (65, 65)
        assert mask.shape == (65, 65)
        assert set(np.unique(mask)) <= {0, 1, 255}
        middle = np.flatnonzero(mask[32] == 255)
        assert abs(middle.mean() - 32) < 1.5  # the border between the halves stays in the middle
        assert abs(len(middle) - 10 * 65 / min(width, height)) <= 1.5
    evaluation = evaluate(predictor, split, CROP, progress="none")
    assert evaluation.confusion.sum() < len(SIZES) * 65 * 65
    assert evaluation.scores.mean_iou == 1


def test_each_protocol_has_a_file_that_states_it(predictor):
    paths = [evaluate(predictor, Photographs(), protocol, progress="none").save() for protocol in PROTOCOLS]
    assert len(set(paths)) == len(PROTOCOLS)
    assert paths[0].name == "evaluation.json"
    content = json.loads(paths[1].read_text())
    assert content["protocol"] == str(FLIP)
    assert content["protocol_switches"] == FLIP.as_dict()
    assert content["data"] == "photographs val, 4 images"
    evaluate(predictor, Photographs(), FLIP, progress="none").save()
    assert {path.name for path in output_folder("first").glob("*.json")} == {path.name for path in paths}


def test_each_split_and_each_checkpoint_has_a_file(predictor):
    training = Photographs()
    training.split = "train"
    last = replace(predictor, checkpoint=predictor.checkpoint.with_name("last.pt"))
    saved = [(predictor, Photographs()), (predictor, training), (last, Photographs()), (last, training)]
    names = [evaluate(one, split, progress="none").save().name for one, split in saved]
    assert names == ["evaluation.json", "evaluation_train.json", "evaluation_last.json", "evaluation_train_last.json"]
    assert len(read_evaluations(["first"])) == 4


def test_a_table_has_a_column_for_each_protocol_and_never_two_in_one(predictor):
    second = replace(predictor, run="second")
    for one, protocol in ((predictor, WHOLE_IMAGE), (predictor, FLIP), (second, FLIP), (second, CROP)):
        evaluate(one, Photographs(), protocol, progress="none").save()
    table = score_table(read_evaluations(["first", "second"]))
    assert [name for _, name in table.columns] == ["whole_image", FLIP.name, CROP.name]
    assert {data for data, _ in table.columns} == {"photographs val, 4 images"}
    assert table.notna().to_numpy().tolist() == [[True, True, False], [False, True, True]]


def test_other_images_are_another_column(predictor):
    fewer = Photographs()
    fewer.split = "train"
    evaluations = []
    for one, split in ((predictor, Photographs()), (replace(predictor, run="second"), fewer)):
        evaluate(one, split, progress="none").save()
        evaluations += read_evaluations([one.run])
    table = score_table(evaluations)
    assert table.isna().to_numpy().tolist() == [[False, True], [True, False]]


def test_images_at_another_scale_are_another_column_and_stand_beside_no_published_score(predictor):
    half = replace(predictor, run="second", parameters=TrainParameters(image_scale=0.5))
    for one in (predictor, half):
        evaluate(one, Photographs(), progress="none").save()
    table = score_table(read_evaluations(["first", "second"]))
    assert [name for _, name in table.columns] == ["whole_image", "whole_image, images at 0.5"]
    assert table.isna().to_numpy().tolist() == [[False, True], [True, False]]
    (small,) = read_evaluations(["second"])
    assert len(score_table([replace(small, data="Cityscapes val")])) == 1


@pytest.mark.parametrize("damage", ["no protocol", "another field", "no json", "no score", 1.2, -0.1, True, "0.9"])
def test_a_number_without_its_protocol_is_refused_in_one_line(predictor, damage):
    path = evaluate(predictor, Photographs(), progress="none").save()
    content = json.loads(path.read_text())
    del content["content_sha256"]  # or it would be refused for that alone
    if damage == "no protocol":
        del content["protocol_switches"]
    elif damage == "another field":
        content["protocol_switches"]["crop"] = 513
    elif damage == "no score":
        del content["mIoU"]
    else:
        content["mIoU"] = damage
    path.write_text("{" if damage == "no json" else json.dumps(content))
    with pytest.raises(InputError, match=r"evaluation\.json: does not say by which protocol") as refusal:
        read_evaluations(["first"])
    assert "\n" not in str(refusal.value)


def test_published_scores_stand_in_the_column_of_their_own_protocol_and_images(predictor):
    evaluate(predictor, Photographs(), progress="none").save()
    (one,) = read_evaluations(["first"])
    assert len(score_table([one])) == 1  # nobody published anything about these images
    flipped = replace(one, data="Cityscapes val", protocol=PUBLISHED["six_scales_flip"], run="second")
    table = score_table([replace(one, data="Cityscapes val"), flipped])
    row = "DeepLabV3+ ResNet-50 stride 8 (mmsegmentation, 80k steps of 512x1024)"
    assert table.loc[row, ("Cityscapes val", "whole_image")] == 0.8009
    assert table.loc[row, ("Cityscapes val", "six_scales_flip")] == 0.8113
    vainf = table.loc["DeepLabV3+ ResNet-101 stride 16 (VainF/DeepLabV3Plus-Pytorch)"]
    assert vainf.isna().tolist() == [False, True]
    assert len(score_table([flipped], "mDice")) == len(score_table([flipped], published=False)) == 1


def test_data_is_named_by_its_folder_split_and_number_of_images():
    assert data_name(Photographs()) == "photographs val, 4 images"


def test_an_embedded_city_of_the_size_of_a_benchmark_is_none(city, tmp_path, monkeypatch):
    monkeypatch.setitem(BENCHMARKS, (CityscapesSplit, "val", 3), "Cityscapes val")
    assert data_name(open_split(city, "val")) == f"{city.name} val, 3 images"
    real = shutil.copytree(city, tmp_path / "real", ignore=shutil.ignore_patterns(DESCRIPTION))
    assert data_name(open_split(real, "val")) == f"{real.name} val, 3 images", "of other cities"
    cities = Counter(frame.city for frame in open_split(real, "val").frames)
    monkeypatch.setattr("dlv3p.evaluation.benchmarks.CITIES", cities)
    assert data_name(open_split(real, "val")) == f"{real.name} val, 3 images", "smaller ones"
    monkeypatch.setattr("dlv3p.evaluation.benchmarks.SIZE", (128, 64))
    assert data_name(open_split(real, "val")) == "Cityscapes val"


@pytest.mark.parametrize("linked", ["images", "one image", "a folder", "the root's name"])
def test_a_variant_of_the_images_of_a_benchmark_is_none(city, tmp_path, monkeypatch, linked):
    monkeypatch.setenv("DLV3P_FOLLOW_LINKS", "1")
    monkeypatch.setitem(BENCHMARKS, (CityscapesSplit, "val", 3), "Cityscapes val")
    monkeypatch.setattr("dlv3p.evaluation.benchmarks.SIZE", (128, 64))
    name = "cityscapes_foggy" if linked == "the root's name" else "real"
    real = shutil.copytree(city, tmp_path / name, ignore=shutil.ignore_patterns(DESCRIPTION))
    cities = Counter(frame.city for frame in open_split(real, "val").frames)
    monkeypatch.setattr("dlv3p.evaluation.benchmarks.CITIES", cities)
    assert (data_name(open_split(real, "val")) == "Cityscapes val") == (name == "real")
    foggy = tmp_path / "leftImg8bit_foggy"
    shutil.copytree(real / "leftImg8bit", foggy)
    images = sorted((real / "leftImg8bit" / "val").rglob("*.png"))
    for image in {"images": images, "one image": images[1:2]}.get(linked, []):
        copy = foggy / image.relative_to(real / "leftImg8bit")
        image.unlink()
        image.symlink_to(copy.rename(copy.with_name(f"{copy.stem}_foggy_beta_0.02.png")))
    if linked == "a folder":
        shutil.rmtree(real / "leftImg8bit")
        (real / "leftImg8bit").symlink_to(foggy)
    assert data_name(open_split(real, "val")) == f"{name} val, 3 images"


def test_photographs_in_the_layout_of_voc_are_not_voc(tmp_path, workspace, monkeypatch):
    voc = write_demo_voc(tmp_path / "voc")
    split = open_split(voc, "val")
    monkeypatch.setitem(BENCHMARKS, (VocSplit, "val", len(split)), "PASCAL VOC 2012 val")
    assert data_name(split) == "PASCAL VOC 2012 val", "which the demo imitates"
    split.class_names = [*split.class_names[:-1], "sofa"]
    assert data_name(split) == f"VOC2012 val, {len(split)} images"
    split = open_split(voc, "val")
    monkeypatch.setattr(type(split), "name", lambda self, index: f"holiday_{index:06d}")
    assert data_name(split) == f"VOC2012 val, {len(split)} images"


def test_the_server_gets_whole_images_only(predictor, city):
    from dlv3p.data.roots import open_images

    with pytest.raises(ParameterError, match="sees the center only"):
        save_predictions(predictor, open_images(city, "test"), CROP, progress="none")
