"""Convolution, norm, ReLU: the building block of every head, plain or separable."""

from collections import OrderedDict

from torch import nn

from dlv3p.parameters.network import NetworkParameters


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel_size: int, parameters: NetworkParameters, *, dilation: int = 1
) -> nn.Sequential:
    """Build `conv`, `bn` and `relu`, which keep height and width; those wider than 1x1 may be `separable`."""
    options = {"bias": parameters.convolution_bias}
    if kernel_size > 1:
        options |= {"padding": dilation * (kernel_size // 2), "dilation": dilation}
    if kernel_size == 1 or parameters.separable == "off":
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, **options)
    else:
        depthwise = nn.Conv2d(in_channels, in_channels, kernel_size, groups=in_channels, **options)
        pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=parameters.convolution_bias)
        between = {"bn": batch_norm(in_channels, parameters), "relu": nn.ReLU(inplace=True)}
        if parameters.separable == "plain":
            between = {}
        conv = nn.Sequential(OrderedDict(depthwise=depthwise, **between, pointwise=pointwise))
    norm = batch_norm(out_channels, parameters)
    return nn.Sequential(OrderedDict(conv=conv, bn=norm, relu=nn.ReLU(inplace=True)))


def batch_norm(channels: int, parameters: NetworkParameters) -> nn.BatchNorm2d:
    """Build a batch norm behind the backbone."""
    return nn.BatchNorm2d(channels, eps=parameters.norm_epsilon, momentum=parameters.norm_momentum)


def initialize(*modules: nn.Module) -> None:
    """He initialisation for convolutions, as for the heads of the public checkpoints; biases start at zero."""
    for module in modules:
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
