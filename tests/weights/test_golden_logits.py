"""Every public network through our importer gives the logits of the original code, to the fixture's own tolerance."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from dlv3p.weights.loading import load_model

FOLDER = Path(__file__).parents[3] / "shared" / "reference" / "checkpoints"
ABSENT = "the golden checkpoints are not here"


def load_fill():
    """The module that makes weights, images and published files of the golden networks."""
    specification = importlib.util.spec_from_file_location("golden_fill", FOLDER / "fill.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["golden_fill"] = module
    specification.loader.exec_module(module)
    return module


fill = load_fill() if FOLDER.is_dir() else None

NAMES = [
    "chenxi_resnet101_bn_21",
    "chenxi_resnet101_gn_ws_21",
    "stigma_densenet161",
    "stigma_densenet201",
    "stigma_resnet50",
    "stigma_vovnet39",
    "stigma_vovnet57",
    "torchvision_deeplabv3_mobilenet_v3_large_21",
    "torchvision_deeplabv3_resnet101_21",
    "torchvision_deeplabv3_resnet50_21",
    "vainf_deeplabv3_resnet50_os16_21",
    "vainf_deeplabv3plus_mobilenet_os16_21",
    "vainf_deeplabv3plus_mobilenet_separable_os16_21",
    "vainf_deeplabv3plus_resnet101_os16_19",
    "vainf_deeplabv3plus_resnet101_os8_19",
    "vainf_deeplabv3plus_resnet50_os16_21",
    "yor_deeplabv3plus_resnet152_os16_20",
    "yor_deeplabv3plus_resnet50_os16_20",
    "yor_deeplabv3plus_resnet50_os8_20",
]
"""Written out, so that each is told to be left out where the checkpoints are not."""

QUICK = ("torchvision_deeplabv3_mobilenet_v3_large_21", "vainf_deeplabv3plus_mobilenet_os16_21")
"""The smallest of each architecture, which speak for all in the quick tests."""

needs_checkpoints = pytest.mark.skipif(fill is None, reason=ABSENT)


def published(name: str, folder: Path) -> Path:
    """Write the file as it is published; two strides share one. Its own name tells nothing about the network."""
    path = folder / f"published-{fill.load_spec(name)['fill_crc32']}.pth"
    if not path.exists():
        for previous in folder.glob("published-*.pth"):
            previous.unlink()
        torch.save(fill.published(name), path)
    return path


def check_golden(name: str, folder: Path) -> None:
    """Load the published file by its path, and compare the logits at every size."""
    specification, path = fill.load_spec(name), published(name, folder)

    def by_path(_: object):
        model, parameters, class_names = load_model(path, output_stride=specification["output_stride"])
        assert not model.training
        assert sum(weight.numel() for weight in model.parameters()) == specification["parameters"]
        assert parameters.align_corners == specification["align_corners"]
        assert list(parameters.rates) == specification["aspp_rates"]
        assert class_names is None or len(class_names) == specification["num_classes"]
        if not parameters.auxiliary_head:
            return model
        return lambda image: dict(zip(("out", "aux"), model.forward_with_auxiliary(image), strict=True))

    assert fill.check(name, by_path)


@needs_checkpoints
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_golden(name, tmp_path_factory):
    check_golden(name, tmp_path_factory.getbasetemp())


@needs_checkpoints
def test_every_golden_network_is_tested():
    assert sorted(fill.names(logits_only=True)) == NAMES
