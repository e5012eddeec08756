"""Runs that nobody trained, for tests of what is done with one: weights of seed 0, on disk as training leaves them."""

from typing import Any

import torch

from cityscapes.labels import CLASS_NAMES
from dlv3p.evaluation.inference import Predictor, load_run_predictor
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.notebooks import RunParameters, TrainParameters
from dlv3p.runs.folders import checkpoint_path
from dlv3p.weights.checkpoint import save_checkpoint


def untrained_run(run: str, **values: Any) -> Predictor:
    """Save an untrained network as a run's best checkpoint in the workspace, and load it; `values` are parameters."""
    parameters = TrainParameters(**values)
    torch.manual_seed(0)
    state = {"epoch": 1, "model": build_network(parameters, 19).state_dict(), "parameters": parameters.as_dict()}
    save_checkpoint(checkpoint_path(run, "best"), {**state, "class_names": list(CLASS_NAMES)})
    return load_run_predictor(RunParameters(run=run, threads=1, device="cpu"))
