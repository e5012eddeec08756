"""The importer, without any file from elsewhere: our networks under public names and back, switches, refusals."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

from cityscapes.errors import IntegrityError, MissingInputError, NewerFormatError, ParameterError
from dlv3p.backbones.catalog import BACKBONES
from dlv3p.checkpoint import load_checkpoint, save_checkpoint, save_weights, weights_sha256
from dlv3p.config import TrainParameters
from dlv3p.deeplab import build_model, build_network
from dlv3p.loading import LoadedModel, drop_void, load_model, save_model
from dlv3p.network import NetworkParameters
from dlv3p.samples.photometric import MEAN, STD
from dlv3p.weights.inspection import describe
from dlv3p.weights.names import MINDSPORE_LEAVES, to_ours, to_theirs
from dlv3p.weights.printing import shown
from dlv3p.weights.reading import read_weights
from dlv3p.weights.recognition import find_backbone, recognize
from dlv3p.weights.sources import SOURCES

SMALL = {"resnet": "resnet18", "mobilenet_v2": "mobilenet_v2", "mobilenet_v3": "mobilenet_v3_large"}
SMALL |= {"vovnet": "vovnet39", "densenet": "densenet121"}
BACKBONE_FILES = sorted((Path(__file__).parents[1] / "dlv3p" / "backbones").glob("[a-z]*.py"))
LEAVES = {ours: theirs for theirs, ours in MINDSPORE_LEAVES.items()}


def network_of(key: str, family: str, **others: object) -> NetworkParameters:
    """The switches of a small network as the source called `key` publishes it."""
    source = SOURCES[key]
    switches = {"channels": 32, "backbone": SMALL[family], "output_stride": source.output_stride} | source.switches
    if key == "yor":
        switches |= {"convolution_bias": True, "low_level_channels": 64}
    if key == "mindspore":
        switches |= {"backbone": "resnet50"}
    return NetworkParameters(architecture=source.architecture, **{**switches, **others})


def published(key: str, network: NetworkParameters, num_classes: int) -> dict[str, torch.Tensor]:
    """A random network of ours under the names of a source."""
    torch.manual_seed(7)
    state = build_network(network, num_classes).state_dict()
    for name, value in state.items():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return {to_theirs(name, SOURCES[key].names): value for name, value in state.items()}


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


@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        ([f"dlv3p.backbones.{path.stem}" for path in BACKBONE_FILES], "dlv3p.weights"),
        (["dlv3p.weights.recognition"], "dlv3p.datasets.voc"),
    ],
    ids=["backbones", "recognition"],
)
def test_imports_point_one_way(imported, absent):
    code = f"import sys, {', '.join(imported)}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_can_be_read_in_both_directions():
    for key, source in SOURCES.items():
        for family in source.families:
            for backbone in (name for name in BACKBONES if name.startswith(family)):
                head = {"architecture": source.architecture or "deeplabv3", **source.switches}
                head["multi_grid"] = "1 1 1"  # which a small network's last stage has no blocks for
                network = NetworkParameters(backbone=backbone, **head)
                with torch.device("meta"):
                    ours = list(build_network(network, 2).state_dict())
                ours = [name for name in ours if source.architecture or name.startswith("backbone.")]
                theirs = [to_theirs(name, source.names) for name in ours]
                assert len(set(theirs)) == len(theirs), key
                assert [to_ours(name, source.names) for name in theirs] == ours, key


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_backbone_is_told_by_its_convolutions(backbone):
    with torch.device("meta"):
        state = build_network(NetworkParameters(backbone=backbone), 2).state_dict()
    assert find_backbone(state) == backbone
    del state[next(name for name, value in state.items() if value.ndim == 4 and "layer3" in name or "4" in name)]
    assert find_backbone(state) == backbone


def mindspore_file(path, num_classes=21, others=None):
    """A DeepLabV3 in the words of MindSpore, and the network that it was made of."""
    network = network_of("mindspore", "resnet")
    state = published("mindspore", network, num_classes)
    arrays = {}
    for name, value in state.items():
        stem, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        is_norm = f"{stem}.running_mean" in state
        arrays[f"network.{stem}.{LEAVES[leaf] if is_norm else leaf}"] = value.numpy()
    np.savez(path, **arrays, **{"moments.network.resnet.conv1.weight": np.zeros(3)}, global_step=np.array([7]),
             **(others or {}))  # fmt: skip
    return network, state


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
        with pytest.raises(IntegrityError, match=rf"1 entries unknown \({extra}\)"):
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


@pytest.mark.parametrize("stride", [5, 0, "8"])
def test_an_output_stride_that_no_network_has_is_no_fault_of_the_file(stride, tmp_path):
    network = NetworkParameters(backbone="resnet18", channels=8)
    save_model(tmp_path / "own.safetensors", build_network(network, 2), network, ["a", "b"])
    torch.save(published("yor", network_of("yor", "resnet"), 20), tmp_path / "a.pth")
    for name in ("own.safetensors", "a.pth"):
        with pytest.raises(ParameterError, match=f"output_stride={stride!r}: allowed are 8, 16, 32$"):
            load_model(tmp_path / name, output_stride=stride)


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


@pytest.fixture(scope="module")
def vainf():
    """A DeepLabV3+ as VainF publishes it, of 21 classes."""
    return published("vainf_plus", network_of("vainf_plus", "resnet"), 21)


def refusal(state, path, **options) -> str:
    torch.save(state, path)
    with pytest.raises(IntegrityError) as refused:
        load_model(path, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_a_file_lacks_and_has_beyond_is_listed_under_its_own_names(vainf, tmp_path):
    state = dict(vainf)
    del state["backbone.layer4.1.conv2.weight"]
    state["backbone.layer1.0.conv1.weight"] = torch.zeros(64, 64, 5, 5)
    state |= {f"extra.{number}.weight": torch.zeros(1) for number in range(12)}
    message = refusal(state, tmp_path / "a.pth")
    assert "1 entries missing (backbone.layer4.1.conv2.weight)" in message
    assert "backbone.layer1.0.conv1.weight (64, 64, 5, 5) for (64, 64, 3, 3)" in message
    assert "12 entries unknown (extra.0.weight, " in message
    assert "extra.9.weight, ...)" in message
    assert "extra.10.weight" not in message


@pytest.mark.parametrize("extra", ["evil", "optimizer.step", "classifier.extra.weight", "evil.num_batches_tracked"])
def test_what_stands_beside_a_wrapped_network_is_unknown_and_called_as_in_the_file(extra, vainf, tmp_path):
    state = {f"module.{name}": value for name, value in vainf.items()} | {extra: torch.zeros(1)}
    assert f"1 entries unknown ({extra})" in refusal(state, tmp_path / "a.pth")


def test_an_entry_that_stands_there_twice_is_refused(vainf, tmp_path):
    state = vainf | {"module.backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}
    assert "holds backbone.conv1.weight twice" in refusal(state, tmp_path / "a.pth")
    state = vainf | {"backbone..conv1.weight": torch.zeros(64, 3, 7, 7)}
    assert "1 entries unknown (backbone..conv1.weight)" in refusal(state, tmp_path / "a.pth")


def test_a_count_of_batches_has_the_shape_of_a_number_or_is_absent(vainf, tmp_path):
    name = "backbone.bn1.num_batches_tracked"
    message = refusal(vainf | {name: torch.zeros(5, dtype=torch.int64)}, tmp_path / "a.pth")
    assert f"1 entries of another shape ({name} (5,) for ())" in message
    state = models.resnet18().state_dict() | {"bn1.num_batches_tracked": torch.zeros(5, dtype=torch.int64)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(IntegrityError, match="of another shape .bn1.num_batches_tracked .5,. for "):
        build_network(NetworkParameters(backbone="resnet18", channels=8), 2, initial_weights=str(tmp_path / "a.pth"))


def test_every_single_missing_entry_is_noticed_but_for_counts_of_batches(vainf, tmp_path):
    weights = [name for name in vainf if not name.endswith("num_batches_tracked")]
    for name in weights[:: len(weights) // 12]:
        assert name in refusal({other: value for other, value in vainf.items() if other != name}, tmp_path / "a.pth")
    torch.save({name: vainf[name] for name in weights}, tmp_path / "a.pth")
    model = load_model(tmp_path / "a.pth").model
    assert torch.equal(model.state_dict()["backbone.bn1.num_batches_tracked"], torch.tensor(0))


def test_an_integer_where_a_weight_belongs_is_refused(vainf, tmp_path):
    state = vainf | {"classifier.classifier.3.bias": torch.zeros(21, dtype=torch.int64)}
    assert "classifier.classifier.3.bias holds torch.int64" in refusal(state, tmp_path / "a.pth")


def test_half_precision_becomes_single(vainf, tmp_path):
    torch.save({name: value.half() if value.is_floating_point() else value for name, value in vainf.items()},
               tmp_path / "a.pth")  # fmt: skip
    model = load_model(tmp_path / "a.pth").model
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_other_classes_need_permission(vainf, tmp_path):
    torch.save(vainf, tmp_path / "a.pth")
    with pytest.raises(ParameterError, match="has 21.*replace_classifier=True"):
        load_model(tmp_path / "a.pth", num_classes=19)
    model, _, class_names = load_model(tmp_path / "a.pth", num_classes=19, replace_classifier=True)
    assert model.classifier.out_channels == 19
    assert class_names is None
    assert model(torch.zeros(1, 3, 33, 33)).shape == (1, 19, 33, 33)
    assert torch.equal(model.backbone.conv1.weight, vainf["backbone.conv1.weight"])
    same = load_model(tmp_path / "a.pth", num_classes=21, replace_classifier=True)
    assert torch.equal(same.model.classifier.bias, vainf["classifier.classifier.3.bias"])
    assert same.class_names[15] == "person"


@pytest.mark.parametrize("number", [0, -1, 2.5])
def test_a_number_of_classes_that_no_network_has_is_refused(number, vainf, tmp_path):
    torch.save(vainf, tmp_path / "a.pth")
    with pytest.raises(ParameterError, match=f"num_classes={number}: give a whole number from 1"):
        load_model(tmp_path / "a.pth", num_classes=number, replace_classifier=True)
    with pytest.raises(ParameterError, match=f"num_classes={number}: give a whole number from 1"):
        build_model("deeplabv3", "resnet18", num_classes=number)


def test_the_auxiliary_classifier_starts_afresh_too(tmp_path):
    state = published("torchvision", network_of("torchvision", "resnet", auxiliary_head=True), 21)
    torch.save(state, tmp_path / "a.pth")
    model = load_model(tmp_path / "a.pth", num_classes=4, replace_classifier=True).model
    assert [tuple(logits.shape) for logits in model.forward_with_auxiliary(torch.zeros(1, 3, 33, 33))] == 2 * [
        (1, 4, 33, 33)
    ]


def test_our_own_files_need_no_flags(tmp_path):
    parameters = TrainParameters(channels=16, output_stride=8, align_corners=True, norm="group")
    torch.manual_seed(0)
    model = build_network(parameters, 3)
    names = ["road", "car", "sky"]
    state = {"epoch": 4, "parameters": parameters.as_dict(), "class_names": names, "model": model.state_dict()}
    save_checkpoint(tmp_path / "best.pt", state)
    save_model(tmp_path / "model.safetensors", model, parameters, names)
    for path in (tmp_path / "best.pt", tmp_path / "model.safetensors"):
        loaded = load_model(path)
        assert weights_sha256(loaded.model.state_dict()) == weights_sha256(model.state_dict())
        assert loaded.class_names == tuple(names)
        assert loaded.parameters.align_corners
        assert loaded.parameters.norm == "group"
        assert not loaded.model.training


def test_every_reader_compares_our_checkpoints_with_their_recorded_hash(tmp_path, monkeypatch):
    parameters = TrainParameters(channels=16)
    model = build_network(parameters, 2)
    state = {"epoch": 4, "parameters": parameters.as_dict(), "class_names": ["a", "b"], "model": model.state_dict()}
    path = tmp_path / "best.pt"
    save_checkpoint(path, state)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # within the numbers of a tensor
    path.write_bytes(content)
    readers = {
        "load_model": lambda: load_model(path),
        "initial_weights": lambda: build_network(parameters, 2, initial_weights=str(path)),
        "inspect": lambda: run_command_line(monkeypatch, "inspect", path),
        "convert": lambda: run_command_line(monkeypatch, "convert", path, tmp_path / "b.safetensors"),
    }
    for read in readers.values():
        with pytest.raises(IntegrityError, match="sha256 differs"):
            read()
    path.with_name("best.pt.json").unlink()
    for read in readers.values():
        read()


@pytest.mark.parametrize("version", ["x", None, [1], torch.zeros(1), 1.5, True, 0, -3], ids=str)
def test_a_format_that_is_no_version_is_refused_in_one_line(version, tmp_path):
    network = NetworkParameters(backbone="resnet18", channels=16)
    state = {"epoch": 1, "parameters": network.as_dict(), "class_names": ["a", "b"], "format": version}
    torch.save(state | {"model": build_network(network, 2).state_dict()}, tmp_path / "a.pt")
    for read in (load_model, load_checkpoint):
        with pytest.raises(IntegrityError, match="its format is no whole number from 1 to 2"):
            read(tmp_path / "a.pt")


def test_a_newer_file_is_called_newer_whatever_else_is_unknown_in_it(tmp_path):
    network = NetworkParameters(backbone="resnet18", channels=16)
    model = build_network(network, 2)
    description = {"parameters": network.as_dict() | {"attention": True}, "class_names": ["a", "b"], "format": 99}
    torch.save({"epoch": 1, "model": model.state_dict(), **description}, tmp_path / "a.pt")
    save_weights(tmp_path / "a.safetensors", model, description)
    for name in ("a.pt", "a.safetensors"):
        with pytest.raises(NewerFormatError, match="has format 99, this version reads up to 2"):
            load_model(tmp_path / name)
    save_model(tmp_path / "a.safetensors", model, network, ["a", "b"])
    assert read_weights(tmp_path / "a.safetensors").description["format"] == 2


def test_a_format_in_a_public_file_is_no_sign_of_ours(vainf, tmp_path):
    torch.save({"state_dict": vainf, "format": "x"}, tmp_path / "a.pth")
    assert load_model(tmp_path / "a.pth").class_names[0] == "background"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["road"]}, "names 1 classes, and has weights for 3"),
        ({"parameters": {"backbone": "resnet99"}}, "resnet99"),
        ({"parameters": {"colour": 1}}, "colour"),
        ({"parameters": 3}, "lacks parameters"),
        ({"class_names": "abc"}, "lacks parameters or class_names"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(change, message, tmp_path):
    network = NetworkParameters(backbone="resnet18", channels=16)
    model = build_network(network, 3)
    state = {"epoch": 1, "parameters": network.as_dict(), "class_names": ["a", "b", "c"], "model": model.state_dict()}
    torch.save({"format": 1, **state, **change}, tmp_path / "a.pt")
    with pytest.raises(IntegrityError, match=message):
        load_model(tmp_path / "a.pt")


def test_names_that_do_not_fit_the_classes_are_not_written(tmp_path):
    network = NetworkParameters(backbone="resnet18", channels=16)
    with pytest.raises(ParameterError, match="2 names for a network of 3 classes"):
        save_model(tmp_path / "a.safetensors", build_network(network, 3), network, ["a", "b"])
    assert not (tmp_path / "a.safetensors").exists()


def test_a_backbone_alone_is_recognised_and_is_no_network(tmp_path):
    torch.save(models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    found = recognize(read_weights(tmp_path / "resnet18.pth"))
    assert (found.backbone, found.parameters) == ("resnet18", None)
    with pytest.raises(IntegrityError, match="give it as initial_weights"):
        load_model(tmp_path / "resnet18.pth")


def test_a_description_says_what_a_person_asks(vainf, tmp_path):
    score = {"best_score": np.float64(0.76), "cur_itrs": 30_000, "optimizer_state": {"state": {}, "param_groups": []}}
    torch.save({"model_state": vainf, **score}, tmp_path / "best_os16.pth")
    lines = describe(recognize(read_weights(tmp_path / "best_os16.pth")))
    assert lines["source"] == "VainF/DeepLabV3Plus-Pytorch"
    assert (lines["backbone"], lines["norm"]) == ("resnet18", "batch")
    assert lines["classes"].startswith("21 (background, aeroplane")
    assert lines["output stride"] == "16, from the file's name; the weights fit any"
    assert lines["also holds"] == "best_score=0.76, cur_itrs=30000, optimizer_state (2 entries)"
    assert re.fullmatch("[0-9a-f]{64}", lines["sha256"])
    learnt = sum(value.numel() for value in build_network(network_of("vainf_plus", "resnet"), 21).parameters())
    assert lines["parameters"].startswith(f"{learnt:,} in ")
    assert "channels=32" in lines["switches"]


FORGED = "evil\nfits           every entry\x1b[31m\u202e\x07" + "x" * 5000


def test_names_in_a_file_forge_no_output(vainf, tmp_path):
    """Neither a second line, nor a colour, nor a page: in refusals, and in what is said of a sound file."""
    network = NetworkParameters(backbone="resnet18", channels=16)
    model = build_network(network, 3)
    own = {"epoch": 1, "parameters": network.as_dict(), "class_names": [FORGED] * 3, "format": 1, FORGED: FORGED}
    torch.save(own | {"model": model.state_dict()}, tmp_path / "own.pt")
    said = list(describe(recognize(read_weights(tmp_path / "own.pt"))).values())
    parameters = network.as_dict() | {FORGED: 1}
    for number, content in enumerate(
        [
            vainf | {FORGED: torch.zeros(1)},
            vainf | {"backbone.conv1.weight": torch.zeros(*[1] * 40, 10**3)},
            {FORGED: torch.zeros(1)},
            {FORGED: 3, "a": torch.zeros(1)},
            {FORGED: torch.zeros(1).expand(9, 9)},
            own | {"parameters": parameters, "model": model.state_dict()},
            own | {"parameters": network.as_dict() | {"backbone": FORGED}, "model": model.state_dict()},
            own | {"widths": {FORGED: 1}, "model": model.state_dict()},
        ]
    ):
        said.append(refusal(content, tmp_path / f"{number}.pth"))
    np.savez(tmp_path / "a.npz", **{FORGED[:90]: np.array(["no number"])})
    with pytest.raises(IntegrityError) as refused:
        load_model(tmp_path / "a.npz")
    for line in [*said, str(refused.value)]:
        assert line.isprintable()
        assert len(line) < 700


def test_a_name_is_shown_with_escapes_and_cut():
    assert shown("backbone.conv1.weight") == "backbone.conv1.weight"
    assert shown("Straße/\u4e2d") == "Straße/\u4e2d"
    assert shown("a\nb\x1b[0m\ud800") == r"a\nb\x1b[0m\ud800"
    assert shown("x" * 80) == "x" * 80
    assert shown("x" * 81) == "x" * 77 + "..."
    assert len(shown("\x1b" * 79)) == 80


def start(tmp_path, capsys, num_classes=21, new_classifier=False, **switches):
    """Start a network from the file; return it and the line that says what was taken."""
    network = NetworkParameters(**({"backbone": "resnet18", "channels": 32} | switches))
    path = str(tmp_path / "a.pth")
    model = build_network(network, num_classes, initial_weights=path, new_classifier=new_classifier)
    return model, capsys.readouterr().out.strip()


def test_training_starts_from_a_whole_network_of_the_same_shapes(vainf, tmp_path, capsys):
    torch.save({"model_state": vainf}, tmp_path / "a.pth")
    model, line = start(tmp_path, capsys, output_stride=8)
    assert all(torch.equal(value, vainf[to_theirs(name, SOURCES["vainf_plus"].names)])
               for name, value in model.state_dict().items())  # fmt: skip
    assert line == "initial weights: all of deeplabv3plus over resnet18, from a.pth (VainF/DeepLabV3Plus-Pytorch)"
    assert model.training


@pytest.mark.parametrize("num_classes", [19, 21])
def test_a_new_classifier_is_one_that_was_asked_for(num_classes, vainf, tmp_path, capsys):
    torch.save({"model_state": vainf}, tmp_path / "a.pth")
    model, line = start(tmp_path, capsys, num_classes=num_classes, new_classifier=True, align_corners=True)
    assert torch.equal(model.decoder.fuse.conv.weight, vainf["classifier.classifier.0.weight"])
    assert model.classifier.out_channels == num_classes
    assert not torch.equal(model.classifier.weight[:19], vainf["classifier.classifier.3.weight"][:19])
    assert "but for the classifier, which is new; it was trained with align_corners=False" in line
    with pytest.raises(ParameterError, match="a.pth' has 21 classes, the data 20; give new_classifier=True"):
        start(tmp_path, capsys, num_classes=20)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: state.pop("classifier.project.0.weight"), "1 entries missing (classifier.project.0.weight)"),
        (lambda state: state.pop("classifier.classifier.3.weight"), "classifier.classifier.3.weight is no convolution"),
        (lambda state: state.pop("classifier.aspp.convs.1.0.weight"), "1 entries missing (classifier.aspp.convs.1.0"),
        (lambda state: state.pop("classifier.classifier.3.bias"), "1 entries missing (classifier.classifier.3.bias)"),
        (lambda state: state.update({"classifier.extra.weight": torch.zeros(1)}), "1 entries unknown (classifier.ext"),
        (lambda state: state.update({"backbone.extra.weight": torch.zeros(1)}), "1 entries unknown (backbone.extra"),
    ],
    ids=["no decoder", "no classifier", "no branch", "no bias", "extra head", "extra backbone"],
)
@pytest.mark.parametrize("channels", [32, 16])
def test_a_file_that_does_not_fit_its_own_network_is_no_start(channels, change, told, vainf, tmp_path, capsys):
    state = dict(vainf)
    change(state)
    torch.save({"model_state": state}, tmp_path / "a.pth")
    with pytest.raises(IntegrityError) as refused:
        start(tmp_path, capsys, channels=channels)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_training_starts_from_the_backbone_where_heads_differ(vainf, tmp_path, capsys):
    torch.save({"model_state": vainf}, tmp_path / "a.pth")
    model, line = start(tmp_path, capsys, channels=16)
    assert torch.equal(model.backbone.layer4[1].bn2.bias, vainf["backbone.layer4.1.bn2.bias"])
    assert "the backbone resnet18 alone" in line
    with pytest.raises(IntegrityError, match="holds resnet18, which does not fit the run's resnet34"):
        start(tmp_path, capsys, backbone="resnet34")
    with pytest.raises(MissingInputError):
        build_network(NetworkParameters(), 3, initial_weights=str(tmp_path / "absent.pth"))


def test_training_starts_from_our_own_safetensors(tmp_path, capsys):
    network = NetworkParameters(backbone="resnet18", channels=32)
    model = build_network(network, 2)
    save_model(tmp_path / "a.pth", model, network, ["a", "b"])  # known by what it holds, not by its suffix
    started, line = start(tmp_path, capsys, num_classes=2)
    assert weights_sha256(started.state_dict()) == weights_sha256(model.state_dict())
    assert "this project" in line


def run_command_line(monkeypatch, *words) -> int:
    from dlv3p.weights.__main__ import main

    monkeypatch.setattr("sys.argv", ["weights", *map(str, words)])
    return main()


def test_a_backbone_alone_is_inspected_to_its_last_entry(tmp_path, capsys, monkeypatch):
    torch.manual_seed(2)
    grouped = build_network(NetworkParameters(backbone="resnet50", norm="group"), 2).backbone.state_dict()
    for name, state in (
        ("resnet18", models.resnet18().state_dict()),
        ("mobilenet_v2", models.mobilenet_v2().state_dict()),
        ("resnet50", {f"module.{key}": value for key, value in grouped.items()}),
    ):
        torch.save(state, tmp_path / "a.pth")
        assert run_command_line(monkeypatch, "inspect", tmp_path / "a.pth") == 0
        printed = capsys.readouterr().out
        assert name in printed
        assert "every entry has its place and its shape" in printed
    state = models.resnet18().state_dict()
    state["layer3.0.conv9.weight"] = state.pop("layer3.0.conv2.weight")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(
        IntegrityError, match=r"does not fit resnet18.*missing \(layer3.0.conv2.*unknown \(layer3.0.conv9"
    ):
        run_command_line(monkeypatch, "inspect", tmp_path / "a.pth")


def test_the_command_inspects_converts_and_refuses(vainf, tmp_path, capsys, monkeypatch):
    def run(*words):
        return run_command_line(monkeypatch, *words)

    vainf = dict(vainf)
    torch.save({"model_state": vainf}, tmp_path / "a.pth")
    assert run("inspect", tmp_path / "a.pth") == 0
    printed = capsys.readouterr().out
    assert "VainF/DeepLabV3Plus-Pytorch" in printed
    assert "every entry has its place" in printed
    assert run("convert", tmp_path / "a.pth", tmp_path / "b.safetensors", "--output-stride", 8) == 0
    again = load_model(tmp_path / "b.safetensors")
    assert again.parameters.output_stride == 8
    assert torch.equal(again.model.classifier.bias, vainf["classifier.classifier.3.bias"])
    with pytest.raises(ParameterError, match=r"\.safetensors"):
        run("convert", tmp_path / "a.pth", tmp_path / "b.pth")
    torch.save({"strange.weight": torch.zeros(3)}, tmp_path / "c.pth")
    with pytest.raises(IntegrityError, match=r"strange\.weight.*VainF"):
        run("inspect", tmp_path / "c.pth")
    del vainf["backbone.conv1.weight"]
    torch.save(vainf, tmp_path / "d.pth")
    with pytest.raises(IntegrityError, match=r"missing \(backbone\.conv1\.weight\)"):
        run("inspect", tmp_path / "d.pth")


def test_the_stand_in_holds_the_newest_run_where_it_is_plain(workspace):
    from dlv3p.imported_run import write_stand_in
    from dlv3p.runs import checkpoint_path

    for number, (switches, taken) in enumerate(
        (({"output_stride": 8, "channels": 16}, True), ({"channels": 16, "align_corners": True}, False))
    ):
        parameters = TrainParameters(**switches)
        model = build_network(parameters, 19)
        names = [f"class {index}" for index in range(19)]
        state = {"epoch": 1, "parameters": parameters.as_dict(), "class_names": names, "model": model.state_dict()}
        save_checkpoint(checkpoint_path(str(number), "best"), state)
        (workspace / "saved" / str(number) / "metrics.csv").write_text("epoch\n")
        loaded = load_model(write_stand_in())
        same = weights_sha256(loaded.model.state_dict()) == weights_sha256(model.state_dict())
        assert same == taken
        assert loaded.parameters.output_stride == (8 if taken else 16)


def test_an_imported_run_is_a_run_for_every_notebook(city, workspace, tmp_path):
    from dlv3p.data import open_split
    from dlv3p.evaluation import evaluate
    from dlv3p.imported_run import load_saved, predictions_picture, save_run, scores_apply, write_stand_in
    from dlv3p.loading import build_recognized
    from dlv3p.runs import list_runs

    path = write_stand_in()
    found = recognize(read_weights(path))
    loaded = build_recognized(found)
    assert isinstance(loaded, LoadedModel)
    run = save_run(found, loaded, data_root=str(city))
    assert run == "stand_in_os16"
    assert list_runs() == []
    recorded = json.loads((workspace / "saved" / run / "run.json").read_text())
    assert recorded["imported"]["source"] == "VainF/DeepLabV3Plus-Pytorch"
    assert recorded["imported"]["sha256"] == describe(found)["sha256"]
    predictor = load_saved(run, device="cpu", threads=1)
    assert weights_sha256(predictor.model.state_dict()) == weights_sha256(loaded.model.state_dict())
    split = open_split(city, "val")
    assert scores_apply(predictor, split)
    assert evaluate(predictor, split, progress="none").confusion.sum() > 0
    assert predictions_picture(predictor, split, count=1).width == 1200
    (workspace / "saved" / run / "metrics.csv").write_text("epoch\n")
    with pytest.raises(ParameterError, match="was trained here"):
        save_run(found, loaded, data_root=str(city))
