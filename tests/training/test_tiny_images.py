"""An image that is too small for a network is told before an epoch is lost to it, and when it is predicted."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from support.tiny import tiny

from cityscapes.errors import InputError
from dlv3p.data.roots import open_split
from dlv3p.evaluation.inference import Predictor
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.training import TrainParameters
from dlv3p.train import train
from dlv3p.training.validation import refuse_tiny_images

CPU = torch.device("cpu")


def network(backbone, **switches):
    return build_network(TrainParameters(backbone=backbone, channels=8, **switches), 19)


@pytest.mark.usefixtures("workspace")
def test_a_training_whose_images_are_too_small_to_validate_with_does_not_begin(city, workspace):
    with pytest.raises(
        InputError, match=r"val: .* has 128x64 pixels, too few for this network at image_scale=0.15; give"
    ):
        train(tiny(city, run="tiny", backbone="densenet121", image_scale=0.15))
    assert not (workspace / "saved" / "tiny" / "metrics.csv").exists()
    assert not (workspace / "saved" / "tiny" / "checkpoints").exists()


def test_small_images_that_a_network_takes_are_not_refused(city):
    model = network("densenet121")
    refuse_tiny_images(model, open_split(city, "val"), CPU, image_scale=0.25)
    assert model.training
    refuse_tiny_images(network("mobilenet_v2"), open_split(city, "val"), CPU, image_scale=0.05)


@pytest.mark.parametrize("backbone", ["densenet121", "vovnet39"])
def test_a_prediction_of_a_tiny_image_is_one_line(backbone):
    model = network(backbone, output_stride=16).eval()
    predictor = Predictor("x", Path("best.pt"), 1, model, TrainParameters(), ("a",) * 19, CPU)
    assert predictor(Image.new("RGB", (33, 33))).shape == (33, 33)
    with pytest.raises(InputError, match=r"best.pt: 4x4 pixels are too few for this network"):
        predictor(Image.new("RGB", (4, 4)))
