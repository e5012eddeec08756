"""Where the first value of a step is not finite: in which layer, on the way forward or back."""

import math

import pytest
import torch
from torch import nn

from dlv3p.training.not_finite import BACKWARD, BEFORE, FORWARD, LOSS, NORM, FirstNotFinite


class SteepRoot(nn.Module):
    """A root at 0, which is finite and has no finite slope."""

    def forward(self, value):
        return value + (value - value.detach()).sqrt()


class Net(nn.Module):
    """A convolution, a norm, a ReLU in place, something in between, and another convolution."""

    def __init__(self, between=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.between, self.last = between or nn.Identity(), nn.Conv2d(4, 2, 1)

    def forward(self, image):
        return self.last(self.between(self.relu(self.norm(self.first(image)))))


def step(net, *, factor=1.0):
    """Take a step and return where it began, with the loss."""
    torch.manual_seed(1)
    with FirstNotFinite(net) as watch:
        loss = net(torch.rand(2, 3, 8, 8)).square().mean() * factor
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    return watch, loss.item()


def filled(net, value):
    nn.init.constant_(net.last.weight, value)
    return net


def test_a_step_that_is_finite_has_no_origin_and_the_same_bits():
    watch, loss = step(Net())
    assert watch.origin is None
    assert list(watch.sizes) == ["first", "norm", "relu", "last"]
    net = Net()
    torch.manual_seed(1)
    assert net(torch.rand(2, 3, 8, 8)).square().mean().item() == loss


@pytest.mark.parametrize(
    ("net", "factor", "layer", "phase"),
    [
        (lambda: filled(Net(), 3e38), 1.0, "last", FORWARD),
        (lambda: filled(Net(), 1e30), 1.0, LOSS, FORWARD),
        (lambda: Net(SteepRoot()), 1.0, "between", BACKWARD),
        (lambda: Net(), 3e37, NORM, BACKWARD),
        (lambda: filled(Net(), math.inf), 1.0, "last", BEFORE),
    ],
    ids=["a layer", "the loss", "a slope", "the norm", "a weight"],
)
def test_the_place_where_it_began_is_named(net, factor, layer, phase):
    watch, _ = step(net(), factor=factor)
    assert (watch.origin.layer, watch.origin.phase) == (layer, phase)


def test_the_hooks_are_gone_after_the_step():
    net = Net()
    step(net)
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in net.modules())
