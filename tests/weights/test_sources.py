"""Every public source: our networks under its names and back, with its switches, stride and classes."""

import numpy as np
import pytest
import torch
from support.backbone_checks import EVERY_BACKBONE
from support.public_files import SMALL, mindspore_file, network_of, published

from cityscapes.errors import IntegrityError
from dlv3p.data.augment import MEAN, STD
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.network import NetworkParameters
from dlv3p.weights.loading import drop_void, load_model
from dlv3p.weights.names import to_ours, to_theirs
from dlv3p.weights.recognition import find_backbone
from dlv3p.weights.sources import SOURCES

CASES = [
    (key, family, others)
    for key, source in SOURCES.items()
    if source.architecture and key != "mindspore"
    for family in source.families
    for others in ({}, {"norm": "group"} if key == "chenxi116" else None)
    if others is not None
]
CASES = list({repr(case): case for case in CASES}.values())
CASES += [("vainf_plus", "resnet", {"separable": "plain"}), ("vainf_v3", "resnet", {"separable": "plain"})]
CASES += [("torchvision", "resnet", {"auxiliary_head": True}), ("vainf_plus", "resnet", {"low_level_channels": 40})]


@pytest.mark.parametrize(("key", "family", "others"), CASES, ids=lambda value: str(value))
def test_a_network_under_public_names_comes_back_with_its_switches(key, family, others, tmp_path):
    network = network_of(key, family, **others)
    state = published(key, network, 5)
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "a.pth")
    model, parameters, class_names = load_model(tmp_path / "a.pth")
    assert parameters == network
    assert class_names is None
    torch.manual_seed(7)
    expected = build_network(network, 5).state_dict()
    found = model.state_dict()
    assert list(found) == list(expected)
    for name, value in found.items():
        assert torch.equal(value, state[to_theirs(name, SOURCES[key].names)]), name


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_names_can_be_read_in_both_directions(backbone):
    of_it = {key: source for key, source in SOURCES.items() if backbone.startswith(tuple(source.families))}
    assert of_it
    for key, source in of_it.items():
        head = {"architecture": source.architecture or "deeplabv3", **source.switches}
        head["multi_grid"] = "1 1 1"  # which a small network's last stage has no blocks for
        network = NetworkParameters(backbone=backbone, **head)
        with torch.device("meta"):
            ours = list(build_network(network, 2).state_dict())
        ours = [name for name in ours if source.architecture or name.startswith("backbone.")]
        theirs = [to_theirs(name, source.names) for name in ours]
        assert len(set(theirs)) == len(theirs), key
        assert [to_ours(name, source.names) for name in theirs] == ours, key


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_the_backbone_is_told_by_its_convolutions(backbone):
    with torch.device("meta"):
        state = build_network(NetworkParameters(backbone=backbone), 2).state_dict()
    assert find_backbone(state) == backbone
    del state[next(name for name, value in state.items() if value.ndim == 4 and "layer3" in name or "4" in name)]
    assert find_backbone(state) == backbone


def test_mindspore_weights_are_read_and_their_first_convolution_takes_red_first(tmp_path):
    network, state = mindspore_file(tmp_path / "a.npz")
    model, parameters, _ = load_model(tmp_path / "a.npz")
    assert parameters == network
    assert (parameters.multi_grid, parameters.first_dilation, parameters.rates) == ("1 2 4", "new", (6, 12, 18))
    found = model.state_dict()
    assert torch.equal(found["backbone.conv1.weight"], state["resnet.conv1.weight"].flip(1))
    assert torch.equal(found["backbone.layer4.2.bn3.running_var"], state["resnet.layer4.2.bn3.running_var"])
    assert torch.equal(found["classifier.bias"], state["aspp.conv2.bias"])


def test_only_what_training_left_may_stand_beside_a_mindspore_network(tmp_path):
    for extra in ("evil", "resnet.evil.weight", "my_momentum"):
        mindspore_file(tmp_path / "a.npz", others={extra: np.zeros(2)})
        with pytest.raises(IntegrityError, match=rf"1 entry unknown \({extra}\)"):
            load_model(tmp_path / "a.npz")


def test_blue_first_statistics_are_ours_turned_around():
    """The first convolution sees the same numbers either way."""
    theirs = np.array([103.53, 116.28, 123.675]), np.array([57.375, 57.120, 58.395])
    pixel = np.array([200.0, 30.0, 90.0])  # red, green, blue
    ours = (pixel / 255 - np.asarray(MEAN).ravel()) / np.asarray(STD).ravel()
    assert np.allclose(((pixel[::-1] - theirs[0]) / theirs[1])[::-1], ours, atol=2e-5)


def test_the_output_stride_is_asked_for_or_named_or_published(tmp_path):
    state = published("yor", network_of("yor", "resnet"), 20)
    for name, asked, expected in (
        ("a.pth", None, 8),
        ("dlv3p_os_16_e_30.pth", None, 16),
        ("dlv3p_os_16_e_30.pth", 8, 8),
        ("best_os8.pth", 32, 32),
        ("best-os32.pth", None, 32),
        ("epos160.pth", None, 8),
        ("photos16.pth", None, 8),
    ):
        torch.save(state, tmp_path / name)
        assert load_model(tmp_path / name, output_stride=asked).parameters.output_stride == expected


def test_the_class_of_ignored_pixels_is_dropped(tmp_path):
    torch.save(published("yor", network_of("yor", "resnet"), 20), tmp_path / "a.pth")
    loaded = load_model(tmp_path / "a.pth")
    assert loaded.class_names[-1] == "void"
    image = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        before = loaded.model(image)
        dropped = drop_void(loaded)
        assert torch.allclose(dropped.model(image), before[:, :19], atol=1e-6)
    assert len(dropped.class_names) == 19
    assert drop_void(dropped) is dropped


PINNED = {
    "vainf_plus": ("deeplabv3plus", 16, {"aspp_dropout": 0.1, "backbone_norm_momentum": 0.01}),
    "vainf_plus_mobilenet": (
        "deeplabv3plus",
        16,
        {"aspp_dropout": 0.1, "backbone_norm_momentum": 0.01, "mobilenet_padding": "fixed"},
    ),
    "vainf_v3": ("deeplabv3", 16, {"aspp_dropout": 0.1, "backbone_norm_momentum": 0.01}),
    "vainf_v3_mobilenet": (
        "deeplabv3",
        16,
        {"aspp_dropout": 0.1, "backbone_norm_momentum": 0.01, "mobilenet_padding": "fixed"},
    ),
    "torchvision": ("deeplabv3", 8, {"aspp_dropout": 0.5}),
    "torchvision_mobilenet": (
        "deeplabv3",
        16,
        {"aspp_dropout": 0.5, "atrous_rates": "12 24 36", "first_dilation": "new"},
    ),
    "chenxi116": (
        "deeplabv3",
        16,
        {
            "align_corners": True,
            "aspp_dropout": 0.0,
            "head_convolution": False,
            "norm_momentum": 0.0003,
            "backbone_norm_momentum": 0.05,
        },
    ),
    "stigma0617": (
        "deeplabv3",
        16,
        {"align_corners": True, "aspp_dropout": 0.0, "head_convolution": False, "norm_epsilon": 0.0003},
    ),
    "yor": (
        "deeplabv3plus",
        8,
        {
            "align_corners": True,
            "aspp_dropout": 0.0,
            "concatenation": "aspp_first",
            "convolution_bias": True,
            "low_level_channels": 64,
        },
    ),
    "mindspore": (
        "deeplabv3",
        16,
        {
            "align_corners": True,
            "aspp_dropout": 0.7,
            "head_convolution": False,
            "multi_grid": "1 2 4",
            "first_dilation": "new",
            "atrous_rates": "6 12 18",
        },
    ),
    "imagenet_resnet": ("", None, {}),
    "imagenet_densenet": ("", None, {}),
    "imagenet_mobilenet": ("", None, {}),
    "imagenet_vovnet": ("", None, {}),
}
"""Architecture, output stride and switches other than ours by default, as each source publishes its networks."""


@pytest.mark.parametrize("key", PINNED)
def test_every_source_has_the_switches_that_were_published(key, tmp_path):
    assert list(SOURCES) == list(PINNED)
    architecture, stride, switches = PINNED[key]
    assert SOURCES[key].architecture == architecture
    if not architecture:
        assert not SOURCES[key].switches
        return
    for family in SOURCES[key].families:
        backbone = "resnet50" if key == "mindspore" else SMALL[family]
        expected = NetworkParameters(architecture, backbone, stride, **({"channels": 32} | switches))
        torch.save(published(key, expected, 5), tmp_path / "a.pth")
        assert load_model(tmp_path / "a.pth").parameters == expected


@pytest.mark.parametrize(
    ("key", "classes", "last"),
    [
        ("vainf_plus", 19, "bicycle"),
        ("vainf_plus", 20, None),
        ("vainf_v3", 21, "tv/monitor"),
        ("torchvision", 21, "tv/monitor"),
        ("chenxi116", 20, None),
        ("stigma0617", 21, "tv/monitor"),
        ("yor", 20, "void"),
        ("yor", 21, None),
    ],
)
def test_classes_are_named_where_their_number_says_which_they_are(key, classes, last, tmp_path):
    torch.save(published(key, network_of(key, SOURCES[key].families[0]), classes), tmp_path / "a.pth")
    loaded = load_model(tmp_path / "a.pth")
    assert (loaded.class_names and loaded.class_names[-1]) == last
    assert drop_void(loaded).model.classifier.out_channels == classes - (last == "void")
