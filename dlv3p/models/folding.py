"""Fold batch norms into the convolutions before them, for predictions that need not be equal to the bit.

In evaluation mode, a batch norm multiplies and shifts each channel by constants, which the weights and the bias of the
convolution before it can take over (arXiv:1712.05877, section 3.2). Each layer then passes once less over memory.
"""

import copy
from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dlv3p.models.inputs import input_channels
from dlv3p.models.norms import FrozenBatchNorm2d, SharedBatchNorm2d

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d, SharedBatchNorm2d)
"""Norms that are constants in evaluation mode; timm's, which include their activation, are not among them."""

EXAMPLE_SIDE = 65
"""Height and width of the image that shows which norm follows which convolution."""


def fold_norms(network: nn.Module) -> nn.Module:
    """Return a copy of a network, in evaluation mode, whose batch norms are folded into convolutions where they can be.

    Its logits differ from the network's by rounding. A norm that does not directly follow a convolution, as in a
    DenseNet, stays; so do group norms, and norms behind standardized weights.
    """
    folded = copy.deepcopy(network).eval()
    for convolution, norm in convolutions_with_norms(folded):
        layer = folded.get_submodule(convolution)
        fused = fuse_conv_bn_eval(layer, folded.get_submodule(norm)).requires_grad_(False)
        folded.set_submodule(convolution, fused)
        folded.set_submodule(norm, nn.Identity())
    return folded


@torch.inference_mode()
def convolutions_with_norms(network: nn.Module) -> list[tuple[str, str]]:
    """Return the names of each convolution and of the batch norm that takes its output, as one image passes through.

    Layers that an image passes more than once are left out, and so are convolutions that several norms follow.
    """
    outputs: list[tuple[str, Tensor]] = []
    pairs: list[tuple[str, str]] = []
    calls: Counter[str] = Counter()

    def watch(name: str, layer: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def see(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            calls[name] += 1
            if type(layer) is nn.Conv2d:
                outputs.append((name, output))
            else:
                pairs.extend((before, name) for before, made in outputs if made is inputs[0])

        return layer.register_forward_hook(see)

    layers = [(name, layer) for name, layer in network.named_modules() if type(layer) in (nn.Conv2d, *NORMS)]
    handles = [watch(name, layer) for name, layer in layers]
    weight = next(network.parameters())
    try:
        network.logits_at_stride(weight.new_zeros(1, input_channels(network), EXAMPLE_SIDE, EXAMPLE_SIDE))
    finally:
        for handle in handles:
            handle.remove()
    readers = Counter(convolution for convolution, _ in pairs)
    return [pair for pair in pairs if calls[pair[0]] == calls[pair[1]] == readers[pair[0]] == 1]
