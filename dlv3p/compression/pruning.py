"""Structured pruning: whole channels are taken out of a network, which is then smaller and needs no sparse kernels.

Batch norms whose inputs have changed get new statistics from forward passes over training images, without a step.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cityscapes.errors import IntegrityError, ParameterError, reason
from dlv3p.compression.channels import CRITERIA, ChannelGroups, all_logits, choose_channels
from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.models.widths import widths_of
from dlv3p.parameters.choices import PRUNED_PARTS, PRUNING_CRITERIA, check_choice
from dlv3p.parameters.network import TIMM, NetworkParameters
from dlv3p.training.losses import AUXILIARY_WEIGHT, cross_entropy

PRUNABLE = (
    "plain and depthwise convolutions with batch norm can be pruned, as in resnet50, mobilenet_v2 or timm:resnet26d"
)

COMPARED_SIZES = ((97, 129), (128, 224))
"""Heights and widths of the images on which a pruned network is compared with what a reader of its file will build."""

TOLERANCE = 1e-5
"""How far its logits may be off, in parts of the largest."""


@dataclass(frozen=True)
class Pruned:
    """A pruned network in evaluation mode on the CPU, and by group the channels that went."""

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

    `sparsity` is the share of channels that go, `criterion` one of CRITERIA, `ranking` as in `choose_channels`. The
    classifiers keep their classes, and `parts="backbone"` leaves ASPP and decoder as wide as they are. "taylor" learns
    from `batches` of training images and masks. Raises ParameterError for anything that is not allowed and for
    a network that cannot be pruned, as with group norm or grouped convolutions; MachineError without torch-pruning.
    """
    check_choice("criterion", criterion, PRUNING_CRITERIA)
    check_choice("parts", parts, PRUNED_PARTS)
    if parameters.norm == "group":
        raise ParameterError(
            "norm='group': cannot be pruned, for the mean of a group of channels changes with each that goes; train "
            "with norm='batch'"
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
    except IndexError as error:  # torch-pruning has lost a channel's place, as where a layer's output is split
        raise ParameterError(
            f"backbone={parameters.backbone!r}: cannot be pruned, for its channels cannot be followed; {PRUNABLE}"
        ) from error
    return Pruned(_rebuilt(smaller, parameters), removed)


def accumulate_gradients(model: DeepLab, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Add up the gradients of the cross entropy over batches, with the norms as they are; raises without a batch."""
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


def _refuse_unprunable(model: DeepLab, backbone: str) -> None:
    """Raise ParameterError for the first layer whose channels only go in blocks, or are averaged with one another."""
    for name, module in model.named_modules():
        kind = ""
        if isinstance(module, nn.Conv2d) and 1 < module.groups < max(module.in_channels, module.out_channels):
            kind = f"convolution in {module.groups} groups"
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            kind = type(module).__name__
        if kind:
            raise ParameterError(f"backbone={backbone!r}: cannot be pruned, for {name} is a {kind}; {PRUNABLE}")


def _rebuilt(smaller: DeepLab, parameters: NetworkParameters) -> DeepLab:
    """Build the network anew from its description alone, as every reader of its file will, and compare the two."""
    num_classes = smaller.classifier.out_channels
    with torch.device("cpu" if parameters.backbone.startswith(TIMM) else "meta"):
        dense = build_network(parameters, num_classes)
    try:
        model = build_network(parameters, num_classes, widths=widths_of(smaller, dense))
        model.load_state_dict(smaller.state_dict())
    except (IntegrityError, RuntimeError) as error:
        told = reason(error.__cause__ or error)  # what does not fit, without what a reader of a file could do about it
        raise ParameterError(
            f"backbone={parameters.backbone!r}: cannot be pruned to a network that works ({told}), and stays as it is; "
            f"{PRUNABLE}"
        ) from error
    _compare(smaller.eval(), model.eval())
    return model


@torch.inference_mode()
def _compare(found: DeepLab, rebuilt: DeepLab) -> None:
    generator = torch.Generator().manual_seed(0)
    for height, width in COMPARED_SIZES:
        image = torch.randn(1, 3, height, width, generator=generator)
        for one, other in zip(all_logits(found, image), all_logits(rebuilt, image), strict=True):
            if one.shape != other.shape or not (one - other).abs().max() <= TOLERANCE * one.abs().max():
                raise ParameterError(
                    f"the pruned network, built anew from its description, gives another answer for {height}x{width} "
                    "pixels; the dense one stays as it is"
                )


@torch.no_grad()
def recalibrate(model: DeepLab, images: Iterable[Tensor]) -> int:
    """Replace running means and variances by their averages over batches of `images`, in place; return their number.

    Every batch (N,3,H,W) counts the same, frozen norms are recalibrated too, and nothing else changes. A norm that got
    no statistics, as the one behind image pooling does from batches of one image, keeps what it had; so do all without
    a batch. The model is left in evaluation mode.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [({name: value.clone() for name, value in norm.named_buffers()}, norm.momentum) for norm in norms]
    device, number = next(model.parameters()).device, 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the average of all batches, each with the same weight
            norm.training = True  # not train(), which frozen norms do not listen to
        for image in images:
            all_logits(model, image.to(device))
            number += 1
    finally:
        for norm, (buffers, momentum) in zip(norms, before, strict=True):
            norm.momentum, norm.training = momentum, False
            if not norm.num_batches_tracked:
                norm.load_state_dict(buffers, strict=False)
    return number
