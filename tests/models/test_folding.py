"""Batch norms folded into convolutions: the same logits from fewer layers, whatever the network."""

import pytest
import torch
from support.backbone_checks import EVERY_BACKBONE, shake
from torch import nn

from dlv3p.models.deeplab import build_model
from dlv3p.models.folding import NORMS, convolutions_with_norms, fold_norms

HALF_STAY = "densenet"
"""The first norm of each of its layers takes what earlier layers made."""


def count_norms(network: nn.Module) -> int:
    """Count the batch norms that are left in a network."""
    return sum(type(layer) in NORMS for layer in network.modules())


def pair_of_logits(network: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a network and of its folded copy for one image, float64."""
    image = torch.randn(1, 3, 70, 101, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return network.logits_at_stride(image), fold_norms(network).logits_at_stride(image)


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_a_folded_network_has_the_same_logits(backbone: str) -> None:
    network = shake(build_model("deeplabv3plus", backbone, num_classes=5, channels=16))
    norms, left = count_norms(network), count_norms(fold_norms(network))
    assert norms > 20
    assert norms / 3 < left <= norms / 2 if backbone.startswith(HALF_STAY) else left == 0
    expected, found = pair_of_logits(network)
    assert (expected - found).abs().max() <= 1e-11 * expected.abs().max()
    assert count_norms(network) == norms  # only the copy was changed


@pytest.mark.parametrize("switches", [{"separable": "plain"}, {"norm": "frozen"}, {"convolution_bias": True}])
def test_every_norm_that_is_constant_is_folded(switches: dict[str, str]) -> None:
    network = shake(build_model("deeplabv3", "resnet18", num_classes=5, channels=16, **switches))
    assert count_norms(fold_norms(network)) == 0
    expected, found = pair_of_logits(network)
    assert (expected - found).abs().max() <= 1e-11 * expected.abs().max()


def test_group_norm_and_standardized_weights_stay() -> None:
    network = shake(build_model("deeplabv3", "resnet18", num_classes=5, channels=32, norm="group"))
    assert not convolutions_with_norms(network)
    expected, found = pair_of_logits(network)
    assert torch.equal(expected, found)


class Shared(nn.Module):
    """A convolution and a norm that an image passes twice, and one whose output two layers read."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.read_by_two, self.left, self.right = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def logits_at_stride(self, image: torch.Tensor) -> torch.Tensor:
        """Return what stands for logits."""
        image = self.norm(self.twice(self.norm(self.twice(image))))
        both = self.read_by_two(image)
        return self.left(both) + self.right(both)


def test_layers_that_are_used_more_than_once_stay() -> None:
    network = shake(Shared())
    assert convolutions_with_norms(network) == []
    expected, found = pair_of_logits(network)
    assert torch.equal(expected, found)
