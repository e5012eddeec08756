"""The official scores of a run: while it is evaluated, and from the zip that the server would get."""

import json
import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from cityscapes.errors import DivergedError, ParameterError
from cityscapes.scores.score_files import score_folder
from cityscapes.scores.truth_files import find_truth
from cityscapes.workspace import output_folder
from dlv3p.data.roots import open_images, open_split
from dlv3p.evaluation.evaluate import evaluate
from dlv3p.evaluation.inference import load_run_predictor
from dlv3p.evaluation.predictions import pack_submission, save_predictions
from dlv3p.parameters.notebooks import RunParameters
from dlv3p.parameters.protocols import Protocol

pytestmark = pytest.mark.usefixtures("trained")


def test_the_official_class_iou_is_the_miou_because_only_evaluated_classes_are_predicted(evaluation):
    official = evaluation.official
    assert official.averages["averageScoreClasses"] == pytest.approx(evaluation.scores.mean_iou, abs=1e-12)
    for name, iou in zip(evaluation.predictor.class_names, evaluation.scores.iou, strict=True):
        assert official.class_iou[name] == pytest.approx(iou, abs=1e-12, nan_ok=True)
    by_image = evaluation.images.set_index("image")
    for image in official.images:
        assert image.mean_iou == pytest.approx(by_image.loc[image.name, "mIoU"], abs=1e-12)
        assert image.correct / image.pixels == pytest.approx(by_image.loc[image.name, "pixel_accuracy"], abs=1e-12)


def test_scores_streamed_from_memory_are_those_of_the_files(city, predictor, evaluation):
    split = open_split(city, "val")
    folder = save_predictions(predictor, split, progress="none")
    from_files = score_folder(folder, find_truth(city, "val"), ids="label", progress=False).scores
    assert from_files.class_iiou == pytest.approx(evaluation.official.class_iiou, abs=0, nan_ok=True)
    assert (from_files.confusion == evaluation.official.confusion).all()
    submission = pack_submission(predictor, split, folder)
    assert submission.report.problems == ()
    assert submission.report.scores.averages == pytest.approx(evaluation.official.averages, abs=0, nan_ok=True)
    content = json.loads((output_folder("done") / "submission_val.json").read_text())
    expected = {k: None if math.isnan(v) else v for k, v in evaluation.official.averages.items()}
    assert content["official"] == expected


def test_by_another_protocol_the_zip_scores_as_the_evaluation_and_lies_beside_the_first(city, predictor, evaluation):
    split, protocol = open_split(city, "val"), Protocol((0.75, 1.0), flip=True)
    other = evaluate(predictor, split, protocol, progress="none")
    assert other.official.averages["averageScoreClasses"] == pytest.approx(other.scores.mean_iou, abs=1e-12)
    assert (other.confusion != evaluation.confusion).any()
    first = save_predictions(predictor, split, progress="none")
    folder = save_predictions(predictor, split, protocol, progress="none")
    assert folder != first
    submission = pack_submission(predictor, split, folder, protocol)
    assert submission.manifest.path.name == f"submission_val_{protocol.name}.zip"
    assert submission.report.scores.averages == pytest.approx(other.official.averages, abs=0, nan_ok=True)
    assert json.loads(submission.manifest.path.with_suffix(".json").read_text())["protocol"] == str(protocol)


def test_the_test_split_has_no_truth_to_score_against(city, predictor):
    split = open_images(city, "test")
    submission = pack_submission(predictor, split, save_predictions(predictor, split, progress="none"))
    assert submission.report.scores is None
    assert json.loads((output_folder("done") / "submission.json").read_text())["official"] is None


def test_the_saved_evaluation_holds_the_official_file(evaluation):
    official = json.loads(evaluation.save().read_text())["official"]
    assert official["averageScoreClasses"] == evaluation.official.averages["averageScoreClasses"]
    assert sum(map(sum, official["confMatrix"])) == evaluation.official.confusion.sum()
    assert set(official["perImageScores"]) == set(evaluation.images["image"])


def test_official_tables_end_with_the_averages(evaluation):
    classes, categories = evaluation.official_tables()
    assert list(classes.columns) == list(categories.columns) == ["IoU", "iIoU"]
    assert len(classes) == 19 + 1
    assert len(categories) == 7 + 1
    assert classes.loc["average", "IoU"] == pytest.approx(evaluation.scores.mean_iou)
    assert math.isnan(classes.loc["road", "iIoU"])


def test_data_with_other_classes_has_no_official_scores_and_no_submission(city, predictor):
    other = replace(predictor, class_names=[f"class {i}" for i in range(19)])
    evaluation = evaluate(other, open_split(city, "val"), progress="none")
    assert evaluation.official is None
    assert evaluation.official_tables()[0].empty

    class Elsewhere:
        root = "elsewhere"

    with pytest.raises(ParameterError, match="elsewhere is not laid out as Cityscapes"):
        save_predictions(predictor, Elsewhere(), progress="none")


def test_e5_logits_that_are_nan_are_refused_and_nothing_is_saved(city, predictor):
    model = load_run_predictor(RunParameters(run="done", threads=1)).model
    torch.nn.init.constant_(model.classifier.bias, float("nan"))
    broken = replace(predictor, model=model)
    with pytest.raises(DivergedError, match="not finite"):
        broken(Image.new("RGB", (64, 64)))
    with pytest.raises(DivergedError, match="not finite"):
        evaluate(broken, open_split(city, "val"), progress="none")
    assert DivergedError.exit_status == 5
