"""Prune a network structurally: remove whole channels, so that it is smaller and needs no sparse kernels.

Batch norms whose inputs have changed get new statistics from forward passes over training images, without a step.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cityscapes.errors import IntegrityError, ParameterError, reason
from dlv3p.compression.channels import ChannelGroups, all_logits
from dlv3p.compression.importance import CRITERIA, choose_channels
from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.models.inputs import input_channels
from dlv3p.models.widths import widths_of
from dlv3p.parameters.choices import PRUNED_PARTS, PRUNING_CRITERIA, check_choice
from dlv3p.parameters.network import TIMM, NetworkParameters
from dlv3p.training.losses import AUXILIARY_WEIGHT, cross_entropy

PRUNABLE = (
    "plain and depthwise convolutions with batch norm can be pruned, as in resnet50, mobilenet_v2 or timm:resnet26d"
)

COMPARED_SIZES = ((97, 129), (128, 224))
"""Heights and widths of the images on which a pruned network is compared with the one rebuilt from its file."""

TOLERANCE = 1e-5
"""Largest difference of their logits, as a share of the largest logit."""


@dataclass(frozen=True)
class Pruned:
    """A pruned network in evaluation mode on the CPU, and the removed channels by group."""

    model: DeepLab
    removed: dict[str, list[int]]


def prune_model(
    model: DeepLab,
    parameters: NetworkParameters,
    *,
    sparsity: float = 0.5,
    criterion: str = "magnitude",
    ranking: str = "uniform",
    round_to: int = 16,
    parts: str = "all",
    batches: Iterable[tuple[Tensor, Tensor]] = (),
) -> Pruned:
    """Return a smaller network; `model`, which `parameters` describe, stays as it is.

    `sparsity` is the share of channels to remove, `criterion` one of CRITERIA, `ranking` as in `choose_channels`. The
    classifiers keep their classes, and `parts="backbone"` keeps the widths of ASPP and decoder. "taylor" takes
    gradients of `batches` of training images and masks. Raises ParameterError for values that are not allowed and for
    a network that cannot be pruned, as with group norm or grouped convolutions; MachineError without torch-pruning.
    """
    check_choice("criterion", criterion, PRUNING_CRITERIA)
    check_choice("parts", parts, PRUNED_PARTS)
    if parameters.norm == "group":
        raise ParameterError(
            "norm='group': cannot be pruned, since removing a channel changes the mean of its group; train with "
            "norm='batch'"
        )
    if parameters.standardizes_weights:
        raise ParameterError(
            "weight_standardization='always': cannot be pruned, since removing a channel changes the mean of the "
            "filters that read it; train without"
        )
    _refuse_unprunable(model, parameters.backbone)
    smaller = copy.deepcopy(model).cpu().eval().requires_grad_(True)
    groups = ChannelGroups(smaller, parts=parts)
    if criterion == "taylor":
        accumulate_gradients(smaller, batches)
    try:
        scores = {name: CRITERIA[criterion](group) for name, group in groups.groups.items()}
        removed = choose_channels(groups.groups, scores, sparsity=sparsity, ranking=ranking, round_to=round_to)
        smaller.zero_grad(set_to_none=True)
        for name, channels in removed.items():
            groups.remove(name, channels)
    except IndexError as error:  # torch-pruning has lost track of a channel, as where a layer's output is split
        raise ParameterError(
            f"backbone={parameters.backbone!r}: cannot be pruned, since its channels cannot be traced; {PRUNABLE}"
        ) from error
    return Pruned(_rebuilt(smaller, parameters), removed)


def accumulate_gradients(model: DeepLab, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Accumulate the gradients of the cross entropy over batches, with frozen norms.

    Raises ParameterError without a batch.
    """
    model.eval()
    model.zero_grad(set_to_none=True)
    number = 0
    for image, mask in batches:
        first, *others = all_logits(model, image)
        loss = cross_entropy(first, mask) + AUXILIARY_WEIGHT * sum(cross_entropy(other, mask) for other in others)
        loss.backward()
        number += 1
    if not number:
        raise ParameterError("criterion='taylor': needs batches of training images, and there is none")


@torch.no_grad()
def recalibrate(model: DeepLab, images: Iterable[Tensor]) -> int:
    """Replace running means and variances by their averages over batches of `images`, in place; return their number.

    Every batch (N,3,H,W) has the same weight, frozen norms are recalibrated too, and nothing else changes. A norm that
    gets no statistics, like the one after image pooling from batches of one image, keeps its own; so do all norms
    without a batch. The model is left in evaluation mode.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [({name: value.clone() for name, value in norm.named_buffers()}, norm.momentum) for norm in norms]
    device, number = next(model.parameters()).device, 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the average of all batches, each with the same weight
            norm.training = True  # not train(), which frozen norms ignore
        for image in images:
            all_logits(model, image.to(device))
            number += 1
    finally:
        for norm, (buffers, momentum) in zip(norms, before, strict=True):
            norm.momentum, norm.training = momentum, False
            if not norm.num_batches_tracked:
                norm.load_state_dict(buffers, strict=False)
    return number


def _refuse_unprunable(model: DeepLab, backbone: str) -> None:
    """Raise ParameterError for the first layer whose channels are grouped, or averaged with one another."""
    for name, module in model.named_modules():
        kind = ""
        if isinstance(module, nn.Conv2d) and 1 < module.groups < max(module.in_channels, module.out_channels):
            kind = f"convolution in {module.groups} groups"
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            kind = type(module).__name__
        if kind:
            raise ParameterError(f"backbone={backbone!r}: cannot be pruned, since {name} is a {kind}; {PRUNABLE}")


def _rebuilt(smaller: DeepLab, parameters: NetworkParameters) -> DeepLab:
    """Rebuild the network from its description alone, as every reader of its file will, and compare the two."""
    num_classes = smaller.classifier.out_channels
    with torch.device("cpu" if parameters.backbone.startswith(TIMM) else "meta"):
        dense = build_network(parameters, num_classes, rule=smaller.rule)
    try:
        model = build_network(parameters, num_classes, widths=widths_of(smaller, dense), rule=smaller.rule)
        model.colors = smaller.colors
        model.load_state_dict(smaller.state_dict())
    except (IntegrityError, RuntimeError) as error:
        why = reason(error.__cause__ or error)  # without the remedy for readers of a file
        raise ParameterError(
            f"backbone={parameters.backbone!r}: cannot be pruned to a working network ({why}), and stays as it is; "
            f"{PRUNABLE}"
        ) from error
    _compare(smaller.eval(), model.eval())
    return model


@torch.inference_mode()
def _compare(found: DeepLab, rebuilt: DeepLab) -> None:
    generator = torch.Generator().manual_seed(0)
    for height, width in COMPARED_SIZES:
        image = torch.randn(1, input_channels(found), height, width, generator=generator)
        for one, other in zip(all_logits(found, image), all_logits(rebuilt, image), strict=True):
            if one.shape != other.shape or not (one - other).abs().max() <= TOLERANCE * one.abs().max():
                raise ParameterError(
                    f"the pruned network, rebuilt from its description, gives other logits for {height}x{width} "
                    "pixels; the dense one stays as it is"
                )
