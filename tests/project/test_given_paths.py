"""A path that no file can have is one line for everything that takes a path, and never a traceback."""

from pathlib import Path

import pytest
from support.tiny import tiny

from cityscapes.errors import UserError
from dlv3p.annotations.formats import open_source
from dlv3p.data.audit import audit
from dlv3p.data.parts import choose_listed
from dlv3p.data.roots import resolve_data_root
from dlv3p.experiments.grid import find_notebook, read_sweep
from dlv3p.parameters.files import read_config
from dlv3p.prediction.networks import open_network
from dlv3p.prediction.sources import find_images
from dlv3p.runs.bands import band_for
from dlv3p.train import train
from dlv3p.weights.loading import load_model

GIVEN = {
    "long": "a" * 5000,
    "long in parts": "/".join(["a" * 200] * 30),
    "no home": "~nobody-of-this-name/x",
    "no name": "a\0b",
    "no letter": "\ud800",
}
TAKERS = {
    "annotations": lambda given: open_source(given, without=Path("none")),
    "audit": lambda given: audit(resolve_data_root(given), ["train"], progress="none"),
    "band": lambda given: band_for(tiny(band=given), None),
    "config": lambda given: read_config(Path(given)),
    "images": find_images,
    "network": lambda given: open_network(given, checkpoint="best", runtime="torch", device="cpu", threads=1),
    "notebook": find_notebook,
    "sweep": lambda given: read_sweep(Path(given)),
    "train_list": lambda given: choose_listed(given, [], parameter="train_list"),
    "weights": load_model,
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("given", GIVEN)
def test_a_path_that_no_file_can_have_is_one_line(given: str, taker: str, workspace: Path) -> None:
    with pytest.raises(UserError) as caught:
        TAKERS[taker](GIVEN[given])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("parameter", ["initial_weights", "teacher"])
@pytest.mark.parametrize("given", GIVEN)
def test_weights_that_no_file_can_hold_are_one_line(given: str, parameter: str, city: Path, workspace: Path) -> None:
    with pytest.raises(UserError) as caught:
        train(tiny(city, run="none", **{parameter: GIVEN[given]}))
    assert "\n" not in str(caught.value)
