"""What the architecture notebook tells of a network is so."""

from functools import partial

import numpy as np
import pytest
import torch

from cityscapes.errors import ParameterError
from dlv3p.models.anatomy import (
    FEATURES,
    count_macs,
    dilated_convolutions,
    effective_field,
    model_sizes,
    part_shapes,
    receptive_fields,
    share_within,
)
from dlv3p.models.deeplab import build_model
from dlv3p.parameters.network import BACKBONES, NetworkParameters
from dlv3p.pictures.anatomy import DRAWN, draw_fields, draw_shapes
from dlv3p.pictures.figures import png


def build(stride, architecture="deeplabv3plus", backbone="resnet18", **switches):
    return build_model(architecture, backbone, num_classes=19, output_stride=stride, **switches)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_shapes_are_those_of_the_network_itself(stride):
    table = part_shapes(partial(build, stride), 128, 256)
    assert table.loc["high-level"].tolist() == [512, 128 // stride, 256 // stride, stride]
    assert table.loc["low-level"].tolist() == [64, 32, 64, 4]
    assert table.loc["aspp.branch3", "channels"] == 256
    assert table.loc["decoder.low", "channels"] == 48
    assert table.loc["classifier"].tolist() == [19, 32, 64, 4]
    assert table.loc["logits"].tolist() == [19, 128, 256, 1]
    with torch.no_grad():
        features = build(stride).eval().backbone(torch.zeros(1, 3, 128, 256))
    assert [list(feature.shape[1:]) for feature in features] == table.loc[
        ["low-level", "middle", "high-level"], ["channels", "height", "width"]
    ].values.tolist()


def test_odd_sizes_keep_the_nominal_stride_and_deeplabv3_has_its_head():
    table = part_shapes(partial(build, 16, "deeplabv3"), 129, 257)
    assert table.loc["high-level"].tolist() == [512, 9, 17, 16]
    assert "head" in table.index
    assert "decoder.fuse" not in table.index


def test_dilations_and_rates_follow_from_the_stride():
    told = {stride: dilated_convolutions(build(stride)).set_index("part")["dilation"] for stride in (8, 16, 32)}
    assert told[8]["aspp.branch3"] == 36
    assert told[16]["aspp.branch1"] == 6
    assert set(told[8]["backbone.layer4"]) == {2, 4}
    assert not any(part.startswith("backbone") for part in told[32].index)


@pytest.mark.parametrize(
    "stride", [pytest.param(8, marks=pytest.mark.slow), 16, pytest.param(32, marks=pytest.mark.slow)]
)
def test_the_field_of_a_resnet18_is_435_pixels_at_every_stride(stride):
    """By hand: 7 and 4 for the stem, and for each 3x3 behind it twice the stride of its input."""
    by_hand = 7 + 2 * 2 + 4 * 2 * 4 + (2 * 4 + 3 * 2 * 8) + (2 * 8 + 3 * 2 * 16) + (2 * 16 + 3 * 2 * 32)
    fields = receptive_fields(NetworkParameters(backbone="resnet18", output_stride=stride), length=1281)
    assert fields["low-level"] == 7 + 2 * 2 + 4 * 2 * 4
    assert fields["high-level"] == by_hand == 435
    assert fields["logits"] > fields["high-level"] + 2 * 18 * 16


SLOW = pytest.mark.slow

CONV, HALVING, WIDE, WIDE_HALVING = (3, 1), (3, 2), (5, 1), (5, 2)
WINDOWS = {
    "vovnet39": (
        [HALVING, CONV, HALVING, *5 * [CONV]],
        [HALVING, *5 * [CONV], HALVING, *10 * [CONV]],
        [HALVING, *10 * [CONV]],
    ),
    "densenet121": (
        [(7, 2), HALVING, *6 * [CONV]],
        [(2, 2), *12 * [CONV], (2, 2), *24 * [CONV]],
        [(2, 2), *16 * [CONV]],
    ),
    "mobilenet_v2": (
        [HALVING, CONV, HALVING, CONV],
        [HALVING, *2 * [CONV], HALVING, *6 * [CONV]],
        [HALVING, *3 * [CONV]],
    ),
    "mobilenet_v3_large": (
        [HALVING, CONV, HALVING, CONV],
        [WIDE_HALVING],
        [*2 * [WIDE], HALVING, *5 * [CONV], WIDE_HALVING, *2 * [WIDE]],
    ),
    "timm:regnety_002": ([HALVING, HALVING], [HALVING, HALVING, *3 * [CONV]], [HALVING, *6 * [CONV]]),
}
"""Backbone: kernel and stride of every window on the longest way to its low-level, middle and high-level features."""


def fields_by_hand(backbone):
    """Each window adds its width less one, in pixels of its input."""
    field, pixel, fields = 1, 1, {}
    for name, windows in zip(FEATURES, WINDOWS[backbone], strict=True):
        for kernel, stride in windows:
            field, pixel = field + (kernel - 1) * pixel, pixel * stride
        fields[name] = field
    return fields


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=SLOW) if name in ("vovnet39", "densenet121") else name for name in WINDOWS]
)
def test_fields_are_those_of_the_kernels_at_every_stride(backbone, stride):
    if backbone.startswith("timm:"):
        pytest.importorskip("timm", reason="timm, an optional extra, is not installed")
    pooling = {"pooling": "dilated"} if backbone in LOST_BY_DROPPING else {}
    by_hand = fields_by_hand(backbone)
    length = by_hand["high-level"] + 64
    found = receptive_fields(NetworkParameters(backbone=backbone, output_stride=stride, **pooling), length=length)
    assert {name: found[name] for name in FEATURES} == by_hand


LOST_BY_DROPPING = {"vovnet39": {32: 0, 16: 2 * 16, 8: 2 * 16 + 2 * 8}, "densenet121": {32: 0, 16: 16, 8: 16 + 8}}
"""Pixels by output stride: the windows of the pooling layers that are left out as published."""


@pytest.mark.parametrize(
    ("backbone", "stride"),
    [
        ("vovnet39", 16),
        ("densenet121", 16),
        pytest.param("vovnet39", 8, marks=SLOW),
        pytest.param("densenet121", 8, marks=SLOW),
    ],
)
def test_dropped_pooling_makes_the_field_smaller(backbone, stride):
    by_hand = fields_by_hand(backbone)["high-level"]
    found = receptive_fields(NetworkParameters(backbone=backbone, output_stride=stride), length=by_hand + 64)
    assert found["high-level"] == by_hand - LOST_BY_DROPPING[backbone][stride]


def test_a_network_whose_field_cannot_be_measured_is_told_in_one_line():
    pytest.importorskip("timm", reason="timm, an optional extra, is not installed")
    with pytest.raises(ParameterError, match="backbone='timm:nf_regnet_b0': no gradient") as refusal:
        receptive_fields(NetworkParameters(backbone="timm:nf_regnet_b0", output_stride=32), length=65)
    assert "\n" not in str(refusal.value)


def test_a_field_wider_than_the_row_is_the_row():
    assert receptive_fields(NetworkParameters(backbone="mobilenet_v3_large"), length=129)["logits"] == 129


def test_the_effective_field_is_strongest_in_the_middle():
    torch.manual_seed(0)
    field = effective_field(build(16, channels=16), 129, 193)
    assert field.shape == (129, 193)
    assert field.max() == 1
    assert share_within(field, 65) > 2 * 65 * 65 / field.size
    assert share_within(field, 193) == pytest.approx(1)


@pytest.mark.parametrize("backbones", [("resnet50", "mobilenet_v2"), pytest.param(tuple(BACKBONES), marks=SLOW)])
def test_the_table_of_models_has_them_all_with_the_counts_of_each(monkeypatch, backbones):
    monkeypatch.setitem(model_sizes.__globals__, "BACKBONES", {name: BACKBONES[name] for name in backbones})
    parameters = NetworkParameters(architecture="deeplabv3", channels=16)
    sizes = model_sizes(parameters, 21, 64, 96)
    assert list(sizes.index) == list(backbones)
    one = build_model("deeplabv3", "mobilenet_v2", num_classes=21, channels=16)
    assert sizes.loc["mobilenet_v2", "parameters, M"] * 1e6 == pytest.approx(sum(p.numel() for p in one.parameters()))
    macs = count_macs(lambda: build_model("deeplabv3", "resnet50", num_classes=21, channels=16), 64, 96)
    assert sizes.loc["resnet50", "GMACs"] * 1e9 == pytest.approx(macs["total"])
    assert (sizes["of the backbone, GMACs"] < sizes["GMACs"]).all()


def test_pictures_show_every_part_that_there_is():
    tables = {stride: part_shapes(partial(build, stride), 128, 256) for stride in (8, 32)}
    figure = draw_shapes(tables, footer="")
    assert len(figure.axes) == 2
    words = " ".join(text.get_text() for text in figure.axes[1].texts)
    for part in set(DRAWN) & set(tables[32].index):
        assert part in words
    assert "4 x 8" in words
    field = np.ones((33, 65))
    assert png(draw_fields({8: field, 16: field}, {8: 21, 16: 21}, footer="")).startswith(b"\x89PNG")
