"""Fixtures of the tests that evaluate: the network of the finished tiny run, and its evaluation."""

import pytest

from dlv3p.data.roots import open_split
from dlv3p.evaluation.evaluate import evaluate
from dlv3p.evaluation.inference import load_run_predictor
from dlv3p.parameters.notebooks import RunParameters


@pytest.fixture(scope="module")
def predictor(trained):
    """The best network of the tiny run."""
    return load_run_predictor(RunParameters(device="cpu", threads=1))


@pytest.fixture(scope="module")
def evaluation(city, predictor):
    """The scores of that network on the tiny city's validation split."""
    return evaluate(predictor, open_split(city, "val"), progress="none")
