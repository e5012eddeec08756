"""Every public network through our importer gives the logits of the original code, to the fixture's own tolerance."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from dlv3p.loading import load_model

FOLDER = Path(__file__).parents[2] / "shared" / "reference" / "checkpoints"
ABSENT = "the golden checkpoints are not here"


def load_fill():
    """The module that makes weights, images and published files of the golden networks."""
    specification = importlib.util.spec_from_file_location("golden_fill", FOLDER / "fill.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["golden_fill"] = module
    specification.loader.exec_module(module)
    return module


fill = load_fill() if FOLDER.is_dir() else None
NAMES = fill.names(logits_only=True) if fill else []


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


def golden_test(name: str):
    """One test function for a network, so that it can be selected by name."""

    def test(tmp_path_factory):
        check_golden(name, tmp_path_factory.getbasetemp())

    test.__doc__ = f"The logits of {name}."
    return test


for golden_name in NAMES:
    globals()[f"test_golden_{golden_name}"] = golden_test(golden_name)


@pytest.mark.skipif(fill is None, reason=ABSENT)
def test_golden_networks_are_there():
    assert len(NAMES) >= 19
