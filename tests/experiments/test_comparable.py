"""What compares with a published figure and what does not: results of every wrong kind are planted and refused."""

import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest

from cityscapes.workspace import output_folder, run_folder
from dlv3p.evaluation.published_figures import choose, published_figures
from dlv3p.experiments.comparable import (
    Result,
    changes_of,
    differences,
    follows,
    objection,
    read_recipe,
    read_results,
    recipe_of,
    stage_before,
    stands_beside,
    training_images,
)
from dlv3p.experiments.table import WHILE_TRAINING
from dlv3p.parameters.protocols import PUBLISHED, Protocol
from dlv3p.runs.folders import write_json
from dlv3p.runs.record import read_record, write_record

FIGURES = published_figures()
SCORES = {"mIoU": 0.77, "mPA": 0.84, "pixel_accuracy": 0.96, "mDice": 0.86}
CITY, VOC = "Cityscapes val", "PASCAL VOC 2012 val"


def ours(recipe: str, data: str = CITY, protocol: str = "whole_image", trained_on: str = "Cityscapes train", **changes):
    """A result of ours from a recipe, with some of its parameters changed."""
    parameters = read_recipe(recipe).as_dict() | changes
    return Result(changes.get("run", "mine"), "best", data, protocol, trained_on, SCORES, parameters)


SOUND = ours("cityscapes_deeplabv3plus_resnet50_os8_80k_mmseg")


def test_a_result_by_a_published_protocol_on_the_same_images_is_ranked():
    assert objection(SOUND, FIGURES) == ""
    assert objection(replace(SOUND, protocol="six_scales_flip"), FIGURES) == ""
    assert objection(replace(SOUND, parameters=SOUND.parameters | {"learning_rate": 0.02}), FIGURES) == "", "any recipe"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"data": "city val, 40 images"}, "other images: published scores are of Cityscapes val and PASCAL"),
        ({"data": "Cityscapes val, 500 images"}, "other images"),
        ({"protocol": "whole_image, images at 0.5"}, "another protocol: on these images, whole_image, six_scales_flip"),
        ({"protocol": Protocol((0.5, 1.0)).name}, "another protocol"),
        ({"protocol": "voc_padded_513"}, "another protocol"),
        ({"protocol": "three_scales_flip"}, "another protocol"),
        ({"protocol": WHILE_TRAINING}, "scored while training, not by a published protocol: papermill evaluate.ipynb"),
        ({"data": VOC}, "another protocol: on these images, voc_padded_513"),
        ({"trained_on": "city val, 500 images"}, "trained on city val, 500 images; published by this protocol: Citys"),
        ({"trained_on": "PASCAL VOC 2012 train_aug"}, "trained on PASCAL VOC 2012 train_aug"),
        ({"trained_on": "Cityscapes train, after the images of coco.pth",
          "parameters": SOUND.parameters | {"initial_weights": "coco.pth"}}, "after the images of coco.pth; published"),
    ],
)  # fmt: skip
def test_a_result_of_another_kind_is_never_ranked_and_the_reason_is_told(wrong, said):
    planted = replace(SOUND, **wrong)
    assert said in objection(planted, FIGURES)
    assert not any(stands_beside(planted, one) for one in FIGURES)


def test_a_result_stands_beside_the_published_training_that_it_repeats():
    beside = {(one.system, one.written) for one in FIGURES if stands_beside(SOUND, one)}
    assert beside == {("mmsegmentation", "80.09"), ("mmsegmentation", "80.28")}
    several = replace(SOUND, protocol="six_scales_flip")
    assert {one.written for one in FIGURES if stands_beside(several, one)} == {"81.13", "81.44"}
    for changed in ({"seed": 3}, {"precision": "float32"}, {"data_root": "/data"}, {"threads": 9}, {"run": "other"}):
        assert any(stands_beside(replace(SOUND, parameters=SOUND.parameters | changed), one) for one in FIGURES)


@pytest.mark.parametrize(
    "changed",
    [
        {"learning_rate": 0.02},
        {"backbone": "vovnet39"},
        {"steps": 60000},
        {"norm": "group"},
        {"initial_weights": "my.pth"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_training_stands_beside_none_and_the_difference_is_named(changed):
    other = replace(SOUND, parameters=SOUND.parameters | changed)
    assert not any(stands_beside(other, one) for one in FIGURES)
    (figure,) = choose(FIGURES, system="mmsegmentation", written="80.09")
    assert differences(other, figure) == list(changed)


def test_a_network_in_8_bits_has_no_counterpart_in_float():
    float_network = ours("cityscapes_deeplabv3plus_resnet101_os16_vainf")
    beside = {(one.system, one.written) for one in FIGURES if stands_beside(float_network, one)}
    assert beside == {
        ("ICT-ANS/StarLight", "76.21"),
        ("ICT-ANS/StarLight", "83.75"),
        ("ICT-ANS/StarLight", "95.87"),
        ("VainF/DeepLabV3Plus-Pytorch", "76.2"),
    }


def test_half_precision_stands_beside_half_precision_alone():
    half = ours("cityscapes_deeplabv3plus_resnet101_os8_80k_mmseg", precision="float16")
    assert {"80.46", "80.97", "80.16"} == {one.written for one in FIGURES if stands_beside(half, one)}
    full = replace(half, parameters=half.parameters | {"precision": "bfloat16"})
    assert {"80.97", "80.16"} == {one.written for one in FIGURES if stands_beside(full, one)}


def test_a_training_of_several_stages_saw_the_images_of_all():
    third = "voc_deeplabv3_resnet101_os8_mindspore_s8_r2"
    assert stage_before(third) == "voc_deeplabv3_resnet101_os8_mindspore_s8_r1"
    assert stage_before(stage_before(third)) == "voc_deeplabv3_resnet101_os16_mindspore_s16"
    assert stage_before(stage_before(stage_before(third))) == ""
    start = "/anywhere/saved/mindspore_s8_r1/model.safetensors"
    told = f"PASCAL VOC 2012 train, after the images of {start}"
    result = ours(third, VOC, "voc_long_side_513", told, initial_weights=start)
    assert training_images(result, FIGURES) == "PASCAL VOC 2012 train_aug, then train"
    assert objection(result, FIGURES) == ""
    assert {one.written for one in FIGURES if stands_beside(result, one)} == {"78.84"}
    elsewhere = replace(result, parameters=result.parameters | {"initial_weights": "saved/other/model.safetensors"})
    assert "published by this protocol: PASCAL VOC 2012 train_aug" in objection(elsewhere, FIGURES)
    other_images = replace(result, trained_on="PASCAL VOC 2012 train_aug")
    assert not any(follows(other_images, one) for one in FIGURES if one.recipe == third)


def test_every_recipe_with_its_changes_is_the_network_of_its_figure():
    with_recipe = {(one.recipe, one.changes): one for one in FIGURES if one.recipe}
    assert len(with_recipe) > 45
    for one in with_recipe.values():
        recipe = recipe_of(one)
        found = (recipe.architecture, recipe.backbone, recipe.output_stride)
        assert found == (one.architecture, one.backbone, one.output_stride)
        assert (recipe.norm == "group") == ("group norm" in one.details)
        if one.changes:
            unchanged = read_recipe(one.recipe).as_dict()
            assert all(recipe.as_dict()[name] != unchanged[name] for name in changes_of(one.changes))


@contextmanager
def planted_run(name: str, protocol: str = "whole_image", **changes):
    """A copy of the finished run with a changed record, and an evaluation that claims to be of Cityscapes val."""
    folder = run_folder(name)
    shutil.copytree(run_folder("done"), folder)
    try:
        record = read_record(folder / "run.json") | {"run": name}
        record["data"]["train"]["images"] = changes.pop("images", record["data"]["train"]["images"])
        record.pop("sha256")
        write_record(folder / "run.json", record | changes)
        content = {"protocol_switches": PUBLISHED[protocol].as_dict(), "checkpoint": "best.pt", "data": CITY}
        write_json(output_folder(name) / "evaluation.json", content | {"image_scale": 1.0} | SCORES)
        yield
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(output_folder(name))


def test_a_run_that_was_trained_on_the_demo_is_told_apart_by_its_images(trained):
    """The classes of a record alone do not make its images those of Cityscapes."""
    (result,) = read_results(["done"])
    assert result.protocol == WHILE_TRAINING
    assert result.trained_on.endswith(" train, 6 images")
    with planted_run("planted"):
        (planted,) = read_results(["planted"])
    assert (planted.data, planted.protocol, planted.scores) == (CITY, "whole_image", SCORES)
    assert objection(planted, FIGURES).startswith(f"trained on {result.trained_on}; published by this protocol")


def test_a_run_of_a_recipe_on_cityscapes_is_ranked_from_its_files_alone(trained):
    with planted_run("real", "six_scales_flip", parameters=SOUND.parameters, images=2975):
        (result,) = read_results(["real"])
    assert result.trained_on == "Cityscapes train"
    assert objection(result, FIGURES) == ""
    assert {one.written for one in FIGURES if stands_beside(result, one)} == {"81.13", "81.44"}


def test_a_run_that_was_trained_in_the_rain_is_not_ranked(trained):
    parameters = SOUND.parameters | {"data_root": "/data/cityscapes_rain"}
    with planted_run("rain", "six_scales_flip", parameters=parameters, images=2975):
        (result,) = read_results(["rain"])
    assert result.trained_on == "cityscapes_rain train, 2975 images"
    assert objection(result, FIGURES).startswith("trained on cityscapes_rain train")


def test_an_imported_network_was_trained_on_images_of_others(trained):
    with planted_run("imported", imported={"source": "vainf_plus"}, parameters=SOUND.parameters, images=2975):
        (result,) = read_results(["imported"])
    assert result.trained_on == "images of whoever published its weights"
    assert "published by this protocol" in objection(result, FIGURES)
