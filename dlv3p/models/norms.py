"""Replace the norms of a whole network, which is built with batch norm, by those that the `norm` switch names.

Networks are built with batch norm everywhere; `use_norm` then replaces the layers in place, so that neither backbones
nor heads depend on the choice. Names in the state dict stay.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional

from cityscapes.errors import ParameterError
from dlv3p.runtime.processes import sum_over_processes

GROUPS = 32
"""Group norm's groups (arXiv:1803.08494, section 4.1)."""

STANDARDIZATION_EPSILON = 1e-5


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with fixed statistics, weights and biases, in training too (DeepLabV3, section 4.1)."""

    def __init__(self, channels: int, *, eps: float, momentum: float | None) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        """Stay in evaluation mode."""
        return super().train(False)


class WeightStandardizedConv2d(nn.Conv2d):
    """Convolution with weights of mean 0 and deviation 1 in every filter (arXiv:1903.10520; chenxi116).

    The deviation is the unbiased one, and epsilon is added to it, not to the variance.
    """

    def forward(self, features: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, dim=(1, 2, 3), correction=1, keepdim=True)
        weight = (self.weight - mean) / (deviation + STANDARDIZATION_EPSILON)
        return self._conv_forward(features, weight, self.bias)


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes, whose gradient is summed over them alike."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor) -> Tensor:
        return sum_over_processes(value.clone())

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return sum_over_processes(gradient.clone())


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with the statistics of all processes in training; for CPUs, since torch's own needs GPUs.

    The variance is summed around the common mean, which takes two messages per layer and loses no digits.
    """

    def forward(self, features: Tensor) -> Tensor:
        if not (self.training and distributed.is_initialized()):
            return super().forward(features)
        kind = features.dtype
        features = features.to(torch.promote_types(kind, torch.float32))
        together = _SumOverProcesses.apply
        count = sum_over_processes(features.new_tensor(features.numel() / features.shape[1]))
        mean = together(features.sum((0, 2, 3))) / count
        centered = features - mean[:, None, None]
        variance = together(centered.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(kind)


def share_statistics(network: nn.Module, device: torch.device) -> nn.Module:
    """Make the batch norms of `network` share statistics among all processes of the training; return it."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    _replace(network, nn.BatchNorm2d, _shared)
    return network


def use_norm(network: nn.Module, norm: str, *, standardized: bool = False) -> nn.Module:
    """Replace the batch norms of `network` by another `norm`, in place, and return it.

    * "sync" is batch norm: where processes train together, all batch norms share their statistics.
    * "frozen" keeps statistics, weights and biases as they were loaded.
    * "group" is group norm.

    `standardized` standardizes the weights of all convolutions without a bias: those with one, such as the classifier,
    are not followed by a norm.
    Raises ParameterError for a timm network whose norms include their activation.
    """
    if norm != "batch":
        _refuse_fused_norms(network, norm)
    if norm in ("frozen", "group"):
        _replace(network, nn.BatchNorm2d, _frozen if norm == "frozen" else _grouped)
    if standardized:
        _replace(network, nn.Conv2d, _standardized)
    return network


def set_momentum(network: nn.Module, momentum: float) -> None:
    """Set the momentum of batch norms' running statistics; TensorFlow's decay is one minus that."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum


def batch_norm_one_pixel(norm: nn.Module, pooled: Tensor) -> Tensor:
    """Apply `norm` to a map of one pixel (N,C,1,1), from which batch norm cannot estimate a variance when N is 1.

    In training, batch norm then uses its running statistics and leaves them as they are.
    """
    alone = isinstance(norm, nn.BatchNorm2d) and not isinstance(norm, SharedBatchNorm2d)
    if alone and norm.training and pooled.shape[0] == 1:
        return functional.batch_norm(pooled, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
    return norm(pooled)


def _refuse_fused_norms(network: nn.Module, norm: str) -> None:
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and type(module) is not nn.BatchNorm2d:
            kind = type(module).__name__
            raise ParameterError(f"norm={norm!r}: {name} is a {kind}, which cannot be replaced; take norm='batch'")


def _replace(network: nn.Module, kind: type, make: Callable[..., nn.Module]) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is kind:
                setattr(parent, name, make(child))


def _frozen(norm: nn.BatchNorm2d) -> FrozenBatchNorm2d:
    frozen = FrozenBatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    frozen.load_state_dict(norm.state_dict())
    return frozen


def _shared(norm: nn.BatchNorm2d) -> SharedBatchNorm2d:
    shared = SharedBatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    shared.weight, shared.bias = norm.weight, norm.bias
    shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
    shared.num_batches_tracked = norm.num_batches_tracked
    return shared


def _grouped(norm: nn.BatchNorm2d) -> nn.GroupNorm:
    # A group of one channel has no variance on a map of one pixel; 48 channels do not divide into 32 groups.
    channels = norm.num_features
    return nn.GroupNorm(math.gcd(GROUPS, channels, channels // 2), channels, eps=norm.eps)


def _standardized(conv: nn.Conv2d) -> nn.Conv2d:
    if conv.bias is not None:
        return conv
    with torch.device("meta"):
        standardized = WeightStandardizedConv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            bias=False,
        )
    standardized.weight = conv.weight
    return standardized
