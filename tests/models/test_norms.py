"""Norms of a whole network: frozen stays frozen, weights are standardized where a norm follows, names stay."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cityscapes.errors import ParameterError
from dlv3p.models.deeplab import build_model
from dlv3p.models.norms import WeightStandardizedConv2d, batch_norm_one_pixel, use_norm
from dlv3p.parameters.network import BACKBONES


def small(norm: str, backbone: str = "resnet18", architecture: str = "deeplabv3plus"):
    """A small network of four classes with an auxiliary head."""
    return build_model(architecture, backbone, num_classes=4, channels=16, norm=norm, auxiliary_head=True)


def test_frozen_norms_stay_frozen_through_train_and_a_step():
    model = small("frozen")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    norms = {
        name: value.clone() for name, value in model.state_dict().items() if ".bn" in name or ".downsample.1." in name
    }
    assert sum(name.endswith("running_var") for name in norms) == sum(
        isinstance(module, nn.BatchNorm2d) for module in model.modules()
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model.eval().train()
    image = torch.randn(2, 3, 64, 64)
    for _ in range(2):
        optimizer.zero_grad()
        sum(logits.square().mean() for logits in model.forward_with_auxiliary(image)).backward()
        optimizer.step()
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in norms.items())
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} < set(norms)
    assert model.training
    assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def test_frozen_and_batch_read_the_same_file_and_agree_in_evaluation():
    batch, frozen = small("batch").eval(), small("frozen").eval()
    frozen.load_state_dict(batch.state_dict())
    image = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        assert torch.equal(batch(image), frozen(image))


def test_a_standardized_filter_has_mean_0_and_unbiased_deviation_1_but_for_epsilon():
    torch.manual_seed(0)
    conv = WeightStandardizedConv2d(3, 5, 3, padding=2, dilation=2, bias=False).double()
    conv.weight.data *= torch.tensor([1e-5, 1e-3, 1, 10, 100], dtype=torch.float64).view(5, 1, 1, 1)
    image = torch.randn(1, 3, 9, 9, dtype=torch.float64)
    filters = conv.weight.detach().numpy().reshape(5, -1)
    deviation = filters.std(axis=1, ddof=1, keepdims=True)
    expected = torch.from_numpy((filters - filters.mean(axis=1, keepdims=True)) / (deviation + 1e-5)).view(5, 3, 3, 3)
    result = functional.conv2d(image, expected, padding=2, dilation=2)
    torch.testing.assert_close(conv(image), result, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backbone", ["resnet18", "vovnet39", "densenet121", "mobilenet_v2", "mobilenet_v3_large"])
def test_with_group_norm_no_batch_norm_is_left_and_only_convolutions_that_no_norm_follows_are_plain(backbone):
    with torch.device("meta"):
        batch, group = small("batch", backbone), small("group", backbone)
    kinds = {type(module) for module in group.modules()}
    assert nn.BatchNorm2d not in kinds
    plain = {name for name, module in group.named_modules() if type(module) is nn.Conv2d}
    expected = {"classifier", "auxiliary.classifier"}
    assert {name for name in plain if ".fc" not in name} == expected  # .fc1 and .fc2: squeeze-excitation
    names = {name for name in batch.state_dict() if "running" not in name and "tracked" not in name}
    assert set(group.state_dict()) == names


def test_weights_are_standardized_apart_from_the_kind_of_norm():
    def kinds(**switches):
        with torch.device("meta"):
            model = build_model("deeplabv3plus", "resnet18", num_classes=4, channels=16, **switches)
        return {type(module) for module in model.backbone.modules()} & {nn.Conv2d, WeightStandardizedConv2d}

    assert kinds(norm="group") == kinds(norm="batch", weight_standardization="always") == {WeightStandardizedConv2d}
    assert kinds(norm="batch") == kinds(norm="group", weight_standardization="never") == {nn.Conv2d}
    with pytest.raises(ParameterError, match="weight_standardization='always'"):
        kinds(weight_standardization="always", convolution_bias=True)


def test_groups_are_32_or_as_many_as_divide_the_channels():
    with torch.device("meta"):
        model = build_model("deeplabv3plus", "resnet50", num_classes=4, norm="group")
    groups = {name: module.num_groups for name, module in model.named_modules() if isinstance(module, nn.GroupNorm)}
    assert groups.pop("decoder.low.bn") == 8  # of 48 channels
    assert set(groups.values()) == {32}


def test_sync_is_batch_norm_while_there_is_nobody_to_synchronize_with():
    kinds = {type(module) for module in small("sync").modules()}
    assert nn.BatchNorm2d in kinds
    assert nn.SyncBatchNorm not in kinds


def test_a_network_whose_norms_hold_an_activation_is_refused():
    class NormAndReLU(nn.BatchNorm2d):
        pass

    with pytest.raises(ParameterError, match="0 is a NormAndReLU"):
        use_norm(nn.Sequential(NormAndReLU(8)), "group")


def test_a_batch_of_one_uses_the_running_statistics_of_the_pooled_branch_and_leaves_them():
    norm = nn.BatchNorm2d(3, eps=0.5)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    pooled = torch.randn(1, 3, 1, 1)
    expected = (pooled - norm.running_mean.view(1, 3, 1, 1)) / 1.5**0.5
    torch.testing.assert_close(batch_norm_one_pixel(norm, pooled), expected)
    assert norm.running_mean.tolist() == [1, 2, 3]
    two = batch_norm_one_pixel(norm, torch.randn(2, 3, 1, 1))
    assert two.mean().abs() < 1e-6
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name.endswith(("18", "39", "121", "v2", "large"))])
def test_a_batch_of_one_trains_with_every_family(norm, backbone):
    model = small(norm, backbone, "deeplabv3")
    sum(logits.square().mean() for logits in model.forward_with_auxiliary(torch.randn(1, 3, 64, 64))).backward()
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in learning.items() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in learning.values())
