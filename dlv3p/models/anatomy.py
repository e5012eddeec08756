"""Describe a network: the shapes of its parts, dilations, receptive fields, parameters and multiply-adds (MACs).

Shapes and counts come from networks on the meta device, which have shapes but no numbers and cost nothing to run. A MAC
is a multiplication and an addition, so two FLOPs; many published FLOPs are MACs. Convolutions and matrix products are
counted, as is usual; normalization, activations and bilinear upsampling are not.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from cityscapes.errors import ParameterError
from dlv3p.models.deeplab import DeepLab, build_network
from dlv3p.models.inputs import input_channels
from dlv3p.parameters.network import BACKBONES, NetworkParameters

FEATURES = ("low-level", "middle", "high-level")
ROWS = 33
"""Height of the strip on which receptive fields are measured: enough to be halved five times."""


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Count the trainable and frozen parameters of each direct part of `model`, such as backbone, and in total."""
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in model.named_children()}
    return counts | {"total": sum(weight.numel() for weight in model.parameters())}


def count_macs(build: Callable[[], nn.Module], height: int, width: int) -> dict[str, int]:
    """Count the MACs of each direct part of the network that `build` makes, and in total, for one image.

    `height` and `width` are the image's, in pixels. The network is built on the meta device, so a count takes a second
    and no memory at any size.
    """
    with torch.device("meta"):
        model = build().eval()
        image = torch.empty(1, input_channels(model), height, width)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(image)
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    whole = type(model).__name__
    parts = {name: flops.get(f"{whole}.{name}", 0) // 2 for name, _ in model.named_children()}
    return parts | {"total": counter.get_total_flops() // 2}


def count_parts(build: Callable[[], nn.Module], height: int, width: int) -> dict[str, dict[str, int]]:
    """Count "parameters", "macs" and "flops" of each direct part of the network that `build` makes, and in total.

    For one image of `height` x `width` pixels, on the meta device; a MAC is two FLOPs.
    """
    with torch.device("meta"):
        parameters = count_parameters(build())
    macs = count_macs(build, height, width)
    return {part: {"parameters": parameters[part], "macs": macs[part], "flops": 2 * macs[part]} for part in macs}


def part_shapes(build: Callable[[], DeepLab], height: int, width: int) -> pd.DataFrame:
    """Return channels, height, width and stride of the output of each part for one image, in order of computation.

    Rows are the image, the backbone's three features, ASPP's branches and ASPP itself, the parts of the head or
    decoder, the logits of the classifier, and those at full size.
    """
    with torch.device("meta"):
        model, image = build().eval(), torch.empty(1, 3, height, width)
    rows: dict[str, Tensor] = {"image": image}
    names = [f"aspp.{name}" for name, _ in model.aspp.named_children() if name not in ("project", "dropout")]
    names += ["aspp", *(f"decoder.{name}" for name in ("low", "fuse", "refine")), "head", "classifier"]
    parts = dict(model.named_modules())
    for name in names:
        if name in parts and not isinstance(parts[name], nn.Identity):
            parts[name].register_forward_hook(lambda part, inputs, output, name=name: rows.update({name: output}))
    model.backbone.register_forward_hook(lambda part, inputs, output: rows.update(zip(FEATURES, output, strict=True)))
    with torch.no_grad():
        rows["logits"] = model(image)
    table = pd.DataFrame({name: output.shape[1:] for name, output in rows.items()}, ["channels", "height", "width"]).T
    stride = height / table["height"]
    table["stride"] = np.where(table["height"] > 1, 2 ** np.log2(stride).round(), np.nan)
    return table.rename_axis("part")


def dilated_convolutions(model: DeepLab) -> pd.DataFrame:
    """Count the dilated convolutions by part and dilation; `span` is the extent of the kernel, in pixels."""
    rows = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.dilation[0] > 1:
            part = ".".join(name.split(".")[:2])
            span = module.dilation[0] * (module.kernel_size[0] - 1) + 1
            rows.append({"part": part, "kernel": module.kernel_size[0], "dilation": module.dilation[0], "span": span})
    columns = ["part", "kernel", "dilation", "span"]
    counted = pd.DataFrame(rows, columns=columns).groupby(columns, sort=False).size()
    return counted.rename("convolutions").reset_index()


def receptive_fields(parameters: NetworkParameters, *, length: int = 2049) -> dict[str, int]:
    """Return how many pixels in a row can change one pixel of "low-level", "middle", "high-level" and "logits".

    It is measured, not derived: with positive weights and mean pooling no path cancels or hides another, so the
    gradient is positive exactly where there is one. Branches that see the whole image, which are image pooling and
    squeeze-excitation, are left out. A field larger than `length` pixels is reported as `length`.
    """
    model = build_network(_changed(parameters, norm="batch", channels=8), 2).double().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()  # some start with a weight of zero, which blocks their branch
        elif isinstance(module, nn.MaxPool2d):
            module.forward = partial(_mean_pool, module, module.forward)
    # Dark, since a saturated ReLU6 passes no gradient.
    image = torch.full((1, 3, ROWS, length), 1e-6, dtype=torch.float64, requires_grad=True)
    with _WithoutGlobalMeans():
        features = model.backbone(image)
        parts = dict(zip(FEATURES, features, strict=True)) | {"logits": model.logits_of(features)}
    found = {}
    for name, output in parts.items():
        middle = output[0, :, output.shape[2] // 2, output.shape[3] // 2].sum()
        (gradient,) = torch.autograd.grad(middle, image, retain_graph=True)
        seen = gradient[0].sum(dim=(0, 1)).nonzero().flatten()
        if not len(seen):
            raise ParameterError(
                f"backbone={parameters.backbone!r}: no gradient passes with equal weights, for example with "
                "weight standardization, so its receptive field cannot be measured; take another backbone"
            )
        found[name] = int(seen[-1] - seen[0] + 1)
    return found


def effective_field(model: DeepLab, height: int, width: int, *, samples: int = 2) -> np.ndarray:
    """Return the influence of each pixel on the central logits: float (height, width), 1 at most.

    The mean absolute gradient over random images, as in arXiv:1701.04128, section 3.
    """
    model, generator = model.eval(), torch.Generator().manual_seed(0)
    total = torch.zeros(height, width)
    for _ in range(samples):
        image = torch.randn(1, 3, height, width, generator=generator, requires_grad=True)
        logits = model.logits_at_stride(image)
        middle = logits[0, :, logits.shape[2] // 2, logits.shape[3] // 2]
        (gradient,) = torch.autograd.grad((middle * torch.randn(len(middle), generator=generator)).sum(), image)
        total += gradient[0].abs().sum(dim=0)
    return (total / total.max()).numpy()


def share_within(field: np.ndarray, size: int) -> float:
    """Return the share of an effective field that lies in the central square of `size` pixels."""
    middle = [slice(max(0, (length - size) // 2), (length + size) // 2) for length in field.shape]
    return float(field[tuple(middle)].sum() / field.sum())


def model_sizes(parameters: NetworkParameters, num_classes: int, height: int, width: int) -> pd.DataFrame:
    """Return parameters (millions) and MACs (billions, for one image) of the network with every backbone."""
    rows = {}
    for backbone in BACKBONES:
        one = _changed(parameters, backbone=backbone)

        def build(one: NetworkParameters = one) -> nn.Module:
            return build_network(one, num_classes)

        with torch.device("meta"):
            counts = count_parameters(build())
        macs = count_macs(build, height, width)
        rows[backbone] = {
            "parameters, M": counts["total"] / 1e6,
            "of the backbone, M": counts["backbone"] / 1e6,
            "GMACs": macs["total"] / 1e9,
            "of the backbone, GMACs": macs["backbone"] / 1e9,
        }
    return pd.DataFrame(rows).T.rename_axis("backbone")


def _changed(parameters: NetworkParameters, **changes: object) -> NetworkParameters:
    """Return the network's switches, from any superset of NetworkParameters, with some changes."""
    values = {item.name: getattr(parameters, item.name) for item in fields(NetworkParameters)}
    return NetworkParameters.from_mapping(values | changes)


def _mean_pool(pool: nn.MaxPool2d, largest: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """Take the mean where `pool` takes the `largest` value, with zeros outside the map."""
    options = (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    size, stride, padding, dilation = (option if isinstance(option, int) else option[0] for option in options)
    wanted = largest(features).shape[2:]  # with ceil_mode, or with the pool's own padding
    below, right = (
        (count - 1) * stride + dilation * (size - 1) + 1 - length - padding
        for count, length in zip(wanted, features.shape[2:], strict=True)
    )
    padded = functional.pad(features, (padding, right, padding, below))
    channels = features.shape[1]
    weights = torch.full((channels, 1, size, size), 1 / size**2, dtype=features.dtype)
    return functional.conv2d(padded, weights, None, stride, 0, dilation, channels)


class _WithoutGlobalMeans(TorchFunctionMode):
    """Block the gradient of global pooling, one number per channel of a map, in any library's implementation."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result, source = function(*args, **(kwargs or {})), args[0] if args else None
        if isinstance(source, Tensor) and isinstance(result, Tensor) and source.dim() == 4:
            one_a_channel = result.shape[:2] == source.shape[:2] and result.numel() == result.shape[:2].numel()
            return result.detach() if one_a_channel and source.numel() > result.numel() else result
        return result
