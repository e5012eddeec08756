"""ASPP, decoder, 3x3 head and auxiliary head: what each switch does, and that it does nothing else."""

import math

import pytest
import torch
from torch import nn
from torchvision.models.segmentation import deeplabv3_resnet50

from dlv3p.models.deeplab import ASPP, build_model
from dlv3p.parameters.choices import HEAD_INITIALIZATIONS
from dlv3p.parameters.network import ARCHITECTURES


def small(architecture: str, **switches):
    """A small network of four classes."""
    narrow = {"channels": 8} | ({"low_level_channels": 4} if architecture == "deeplabv3plus" else {})
    return build_model(architecture, "resnet18", **({"num_classes": 4} | narrow | switches))


def dilations(model) -> list[int]:
    """The dilations of the 3x3 convolutions of ASPP."""
    convs = (module for module in model.aspp.modules() if isinstance(module, nn.Conv2d))
    return [conv.dilation[0] for conv in convs if conv.kernel_size == (3, 3)]


@pytest.mark.parametrize(("output_stride", "rates"), [(32, [3, 6, 9]), (16, [6, 12, 18]), (8, [12, 24, 36])])
@pytest.mark.parametrize("separable", ["off", "plain", "normalized"])
def test_atrous_rates_follow_from_the_output_stride(output_stride, rates, separable):
    assert dilations(small("deeplabv3", output_stride=output_stride, separable=separable)) == rates


@pytest.mark.parametrize(("text", "rates"), [("6 12 18", [6, 12, 18]), ("12 24 36", [12, 24, 36]), ("2 3", [2, 3])])
def test_given_rates_are_kept_at_every_stride(text, rates):
    for output_stride in (8, 16):
        model = small("deeplabv3plus", output_stride=output_stride, atrous_rates=text)
        assert dilations(model) == rates
        assert model.aspp.project.conv.in_channels == 8 * (len(rates) + 2)
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 64, 64)


@pytest.mark.parametrize("image_pooling", [True, False])
def test_image_pooling_sees_the_whole_image(image_pooling):
    torch.manual_seed(0)
    aspp = ASPP(4, 8, (1, 1, 1), image_pooling=image_pooling).eval()
    features = torch.zeros(1, 4, 32, 32)
    before = aspp(features)[0, :, 0, 0]
    features[..., 31, 31] = 1000
    assert torch.equal(aspp(features)[0, :, 0, 0], before) != image_pooling


@pytest.mark.parametrize("training", [True, False])
def test_what_aspp_joins_is_in_the_layout_of_networks(training):
    aspp = ASPP(4, 8, (6, 12, 18)).to(memory_format=torch.channels_last).train(training)
    joined = []
    aspp.project.register_forward_pre_hook(lambda module, inputs: joined.append(inputs[0]))
    aspp(torch.randn(2, 4, 16, 16).to(memory_format=torch.channels_last))
    assert joined[0].is_contiguous(memory_format=torch.channels_last)


def test_dropout_acts_in_training_only():
    aspp = ASPP(4, 8, (6, 12, 18), dropout=0.7)
    assert aspp.dropout.p == 0.7
    features = torch.randn(2, 4, 16, 16)
    assert not torch.equal(aspp(features), aspp(features))
    aspp.eval()
    assert torch.equal(aspp(features), aspp(features))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_biases_go_to_every_convolution_before_a_norm_and_to_no_backbone(architecture):
    plain, biased = small(architecture), small(architecture, convolution_bias=True)
    added = set(biased.state_dict()) - set(plain.state_dict())
    convs = {name for name, module in plain.named_modules() if isinstance(module, nn.Conv2d)}
    assert added == {f"{name}.bias" for name in convs if not name.startswith(("backbone.", "classifier"))}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_epsilon_and_momentum_are_those_of_each_part(architecture):
    switches = {"norm_epsilon": 3e-4, "norm_momentum": 0.0003, "backbone_norm_momentum": 0.05, "auxiliary_head": True}
    model = small(architecture, separable="normalized", **switches)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            expected = (1e-5, 0.05) if name.startswith("backbone.") else (3e-4, 0.0003)
            assert (module.eps, module.momentum) == expected, name
    assert {m.momentum for m in small(architecture).modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("separable", ["plain", "normalized"])
def test_separable_convolutions_replace_every_3x3_behind_the_backbone(architecture, separable):
    off, model = small(architecture), small(architecture, separable=separable)
    for name, module in off.named_modules():
        if not isinstance(module, nn.Conv2d) or name.startswith("backbone."):
            continue
        found = model.get_submodule(name)
        if module.kernel_size == (1, 1):
            assert isinstance(found, nn.Conv2d)
            continue
        parts = ["depthwise", "pointwise"] if separable == "plain" else ["depthwise", "bn", "relu", "pointwise"]
        assert [part for part, _ in found.named_children()] == parts
        assert found.depthwise.groups == found.depthwise.in_channels == module.in_channels
        assert (found.depthwise.dilation, found.depthwise.padding) == (module.dilation, module.padding)
        assert found.pointwise.weight.shape == (*module.weight.shape[:2], 1, 1)


def test_the_order_of_concatenation_is_the_order_of_the_decoders_input():
    torch.manual_seed(0)
    low_first, aspp_first = (
        small("deeplabv3plus", concatenation=order).eval() for order in ("low_level_first", "aspp_first")
    )
    state = low_first.state_dict()
    weight = state["decoder.fuse.conv.weight"]
    aspp_first.load_state_dict(state | {"decoder.fuse.conv.weight": torch.cat([weight[:, 4:], weight[:, :4]], dim=1)})
    image = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        assert torch.allclose(low_first(image), aspp_first(image), atol=1e-5)
        aspp_first.load_state_dict(state)
        assert not torch.allclose(low_first(image), aspp_first(image), atol=1e-2)


def test_the_decoder_of_the_paper_has_a_second_convolution():
    one, two = small("deeplabv3plus"), small("deeplabv3plus", decoder_convolutions=2)
    added = set(two.state_dict()) - set(one.state_dict())
    assert {name.rsplit(".", 1)[0] for name in added} == {"decoder.refine.conv", "decoder.refine.bn"}
    assert two.decoder.refine.conv.weight.shape == (8, 8, 3, 3)
    assert two(torch.zeros(2, 3, 64, 64)).shape == (2, 4, 64, 64)


def test_without_the_3x3_the_classifier_reads_aspp():
    model = small("deeplabv3", head_convolution=False).eval()
    assert not any(name.startswith("head") for name in model.state_dict())
    features = model.backbone(torch.randn(1, 3, 64, 64))
    expected = model.classifier(model.aspp(features.high_level))
    assert torch.equal(model.logits_of(features), expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("align_corners", [True, False])
def test_align_corners_lays_corners_on_corners(architecture, align_corners):
    model = small(architecture, align_corners=align_corners).eval()
    image = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        logits, small_logits = model(image), model.logits_at_stride(image)
        between = (logits[..., 0, 1] - logits[..., 0, 0]).abs().max() > 1e-6
    assert torch.allclose(logits[..., -1, -1], small_logits[..., -1, -1], atol=1e-5)
    assert bool(between) == align_corners  # otherwise pixels beyond the outermost center repeat it


def test_align_corners_reaches_the_decoder():
    torch.manual_seed(0)
    false, true = (small("deeplabv3plus", align_corners=value).eval() for value in (False, True))
    true.load_state_dict(false.state_dict())
    image = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        assert not torch.allclose(false.logits_at_stride(image), true.logits_at_stride(image), atol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_auxiliary_head_leaves_the_logits_alone_and_teaches_the_backbone(architecture):
    model = small(architecture, auxiliary_head=True)
    image = torch.randn(2, 3, 65, 97)
    logits, auxiliary = model.eval().forward_with_auxiliary(image)
    assert torch.equal(logits, model(image))
    assert auxiliary.shape == logits.shape
    model.train().forward_with_auxiliary(image)[1].square().mean().backward()
    reached = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == {"backbone", "auxiliary"}
    assert all(parameter.grad is None for parameter in model.backbone.layer4.parameters())
    with pytest.raises(AttributeError, match="auxiliary"):
        small(architecture).forward_with_auxiliary(image)


def test_the_auxiliary_head_is_torchvisions():
    with torch.device("meta"):
        theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True).aux_classifier
        ours = build_model("deeplabv3", "resnet50", num_classes=21, output_stride=8, auxiliary_head=True).auxiliary
    assert [repr(part) for part in ours] == [repr(part).replace("ReLU()", "ReLU(inplace=True)") for part in theirs]


WIDE = {"channels": 64, "low_level_channels": 48, "auxiliary_head": True, "num_classes": 40}


def head_convolutions(model) -> dict[str, nn.Conv2d]:
    """The convolutions after the backbone by name."""
    modules = dict(model.named_modules()).items()
    return {name: m for name, m in modules if isinstance(m, nn.Conv2d) and not name.startswith("backbone.")}


def deviation(how: str, conv: nn.Conv2d) -> float:
    """The standard deviation that a source's initialization gives the weights of a convolution."""
    area = conv.kernel_size[0] * conv.kernel_size[1]
    fan_in, fan_out = area * conv.in_channels // conv.groups, area * conv.out_channels
    return {
        "he_normal": math.sqrt(2 / fan_in),
        "fan_out_normal": math.sqrt(2 / fan_out),
        "xavier": math.sqrt(2 / (fan_in + fan_out)),
        "torch": math.sqrt(1 / (3 * fan_in)),  # uniform up to the root of 1 / fan_in
    }[how]


@pytest.mark.parametrize("separable", ["off", "normalized"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("how", HEAD_INITIALIZATIONS)
def test_weights_are_drawn_with_the_deviation_of_the_source(how, architecture, separable):
    torch.manual_seed(0)
    model = small(architecture, head_initialization=how, separable=separable, **WIDE)
    convolutions = head_convolutions(model)
    assert len(convolutions) >= 9
    for name, conv in convolutions.items():
        drawn, expected = conv.weight.detach(), deviation(how, conv)
        assert drawn.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * drawn.numel())), name
        uniform = drawn.abs().max().item() <= math.sqrt(3) * expected * 1.0001  # a normal distribution goes further
        assert uniform == (how in ("xavier", "torch")), name
        if conv.bias is not None:
            assert bool((conv.bias == 0).all()) == (how in ("he_normal", "xavier")), name


def test_the_backbone_does_not_depend_on_how_the_head_is_initialized():
    backbones = []
    for how in HEAD_INITIALIZATIONS:
        torch.manual_seed(0)
        backbones.append(small("deeplabv3", head_initialization=how).backbone.state_dict())
    for other in backbones[1:]:
        assert all(torch.equal(value, other[name]) for name, value in backbones[0].items())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_default_draws_the_weights_of_all_earlier_runs(architecture):
    """He's normal distribution over ASPP, head, and classifier, in this order, after everything is built."""
    torch.manual_seed(0)
    model = small(architecture)
    torch.manual_seed(0)
    earlier = small(architecture, head_initialization="torch")
    head = earlier.decoder if architecture == "deeplabv3plus" else earlier.head
    for conv in (conv for part in (earlier.aspp, head, earlier.classifier) for conv in part.modules()):
        if isinstance(conv, nn.Conv2d):
            nn.init.kaiming_normal_(conv.weight)
    nn.init.zeros_(earlier.classifier.bias)
    assert all(torch.equal(value, earlier.state_dict()[name]) for name, value in model.state_dict().items())


def test_chenxi116_leaves_the_classifier_alone_where_it_standardizes_weights():
    torch.manual_seed(0)
    model = small("deeplabv3", head_initialization="fan_out_normal", norm="group", channels=64, num_classes=40)
    for name, conv in head_convolutions(model).items():
        how = "torch" if name == "classifier" else "fan_out_normal"
        assert conv.weight.std().item() == pytest.approx(deviation(how, conv), rel=0.06), name
