"""The auxiliary head learns with the rest of the network, whichever way the loss is computed."""

import pytest
import torch
from support.tiny import tiny

from dlv3p.models.deeplab import build_network
from dlv3p.runs.folders import checkpoint_path
from dlv3p.train import train
from dlv3p.weights.checkpoint import load_checkpoint


def test_the_auxiliary_head_learns_and_changes_what_the_backbone_learns(city, workspace):
    states = {}
    for run, switches in {
        "without": {},
        "with": {"auxiliary_head": True},
        "chunked": {"auxiliary_head": True, "chunked_loss": True},
    }.items():
        parameters = tiny(city, run=run, optimizer="adamw", **switches)
        losses = train(parameters).history[-1]
        states[run] = load_checkpoint(checkpoint_path(run, "last"))["model"], losses["train_loss"]
    torch.manual_seed(0)
    initial = build_network(parameters, 19).state_dict()
    name, deep = "auxiliary.classifier.weight", "backbone.body.layer3.0.conv1.weight"
    assert (states["with"][0][name] - initial[name]).abs().max() > 1e-4
    assert (states["with"][0][deep] - states["without"][0][deep]).abs().max() > 1e-5
    assert states["with"][1] > 1.2 * states["without"][1]
    assert states["chunked"][1] == pytest.approx(states["with"][1], rel=0.01)
