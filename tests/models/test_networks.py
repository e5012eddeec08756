"""Whole networks: published counts, any size, a batch of one, all switches from one set, old runs and weights files."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from support.backbone_checks import ACTIVATIONS, EVERY_BACKBONE, SLOW, calls_of_activations
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import resnet18

from cityscapes.errors import IntegrityError, MachineError, MissingInputError, ParameterError
from dlv3p.models import deeplab
from dlv3p.models.anatomy import count_macs, count_parameters
from dlv3p.models.deeplab import build_model, build_network
from dlv3p.parameters.network import ARCHITECTURES, NetworkParameters
from dlv3p.parameters.shared_fields import SMALLEST_IMAGE
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import refuse_other_parameters
from dlv3p.weights.checkpoint import model_from_checkpoint
from dlv3p.weights.checksums import weights_sha256
from dlv3p.weights.initial import build_with_weights

NETWORKS = [(architecture, backbone) for architecture in ARCHITECTURES for backbone in ("resnet18", "resnet50")]

VAINF_MOBILENET = {"mobilenet_padding": "fixed"}
CHENXI = {"head_convolution": False, "align_corners": True, "aspp_dropout": 0.0}
STIGMA = CHENXI | {"norm_epsilon": 3e-4}
YOR = {"convolution_bias": True, "low_level_channels": 64, "concatenation": "aspp_first", "align_corners": True}
SEPARABLE = {"separable": "plain"}
AUXILIARY = {"auxiliary_head": True}

PUBLISHED = [
    ("deeplabv3", "mobilenet_v2", 21, VAINF_MOBILENET, 5_113_877),
    ("deeplabv3plus", "mobilenet_v2", 21, VAINF_MOBILENET, 5_225_717),
    ("deeplabv3plus", "mobilenet_v2", 21, VAINF_MOBILENET | SEPARABLE, 2_648_421),
    ("deeplabv3", "resnet50", 21, {}, 39_638_869),
    ("deeplabv3", "resnet101", 21, {}, 58_630_997),
    ("deeplabv3plus", "resnet50", 21, {}, 39_761_845),
    ("deeplabv3plus", "resnet101", 21, {}, 58_753_973),
    ("deeplabv3plus", "resnet101", 19, {}, 58_753_459),
    ("deeplabv3", "resnet50", 21, AUXILIARY, 42_004_074),
    ("deeplabv3", "resnet101", 21, AUXILIARY, 60_996_202),
    ("deeplabv3", "mobilenet_v3_large", 21, AUXILIARY, 11_029_328),
    ("deeplabv3", "resnet50", 21, CHENXI, 39_048_533),
    ("deeplabv3", "resnet101", 21, CHENXI, 58_040_661),
    ("deeplabv3", "resnet101", 21, CHENXI | {"norm": "group"}, 58_040_661),
    ("deeplabv3", "densenet201", 21, STIGMA, 32_683_157),
    ("deeplabv3", "densenet161", 21, STIGMA, 43_200_341),
    ("deeplabv3", "vovnet39", 21, STIGMA, 29_513_621),
    ("deeplabv3", "vovnet57", 21, STIGMA, 43_553_621),
    ("deeplabv3plus", "resnet50", 20, YOR, 39_804_436),
    ("deeplabv3plus", "resnet101", 20, YOR, 58_796_564),
    ("deeplabv3plus", "resnet152", 20, YOR, 74_440_212),
]


@pytest.mark.parametrize(("architecture", "backbone", "num_classes", "switches", "published"), PUBLISHED)
@pytest.mark.parametrize("output_stride", [pytest.param(8, marks=SLOW), 16])
def test_parameters_are_as_many_as_published(architecture, backbone, num_classes, switches, published, output_stride):
    with torch.device("meta"):
        model = build_model(architecture, backbone, output_stride=output_stride, num_classes=num_classes, **switches)
    assert count_parameters(model)["total"] == published


@pytest.mark.parametrize(
    ("architecture", "backbone", "switches", "at_513", "full_16", "full_8"),
    [
        ("deeplabv3", "mobilenet_v2", VAINF_MOBILENET, 5.84, 45.9, 168.6),
        ("deeplabv3plus", "mobilenet_v2", VAINF_MOBILENET, 16.82, 133.6, 241.7),
        ("deeplabv3", "resnet50", {}, 51.08, 387.2, 1308.6),
        pytest.param("deeplabv3", "resnet101", {}, 71.70, 542.4, 1929.2, marks=SLOW),
        ("deeplabv3plus", "resnet50", {}, 62.38, 476.4, 1383.2),
        pytest.param("deeplabv3plus", "resnet101", {}, 83.01, 631.6, 2003.8, marks=SLOW),
        ("deeplabv3", "resnet50", CHENXI, 50.44, None, None),
        pytest.param("deeplabv3", "resnet101", CHENXI, 71.06, None, None, marks=SLOW),
        pytest.param("deeplabv3", "resnet101", CHENXI | {"norm": "group"}, 71.06, None, None, marks=SLOW),
        ("deeplabv3", "densenet201", STIGMA, 42.23, None, None),
        pytest.param("deeplabv3", "densenet161", STIGMA, 64.35, None, None, marks=SLOW),
        ("deeplabv3", "vovnet39", STIGMA, 53.80, None, None),
        pytest.param("deeplabv3", "vovnet57", STIGMA, 68.17, None, None, marks=SLOW),
        ("deeplabv3plus", "resnet50", YOR, None, 481.8, 1388.6),
    ],
)
def test_macs_are_the_published_ones(architecture, backbone, switches, at_513, full_16, full_8):
    """At 513x513 with the 21 classes of VOC, at 1024x2048 with the 19 of Cityscapes (20 for yoR-rihsihS)."""
    cityscapes = 20 if switches is YOR else 19
    for published, num_classes, output_stride, height, width, tolerance in (
        (at_513, 21, 16, 513, 513, 0.001),
        (full_16, cityscapes, 16, 1024, 2048, 0.005),
        (full_8, cityscapes, 8, 1024, 2048, 0.005),
    ):
        if published is not None:
            options = {"num_classes": num_classes, "output_stride": output_stride} | switches
            macs = count_macs(partial(build_model, architecture, backbone, **options), height, width)["total"]
            assert macs / 1e9 == pytest.approx(published, rel=tolerance)


def test_parameters_and_builders_know_the_same_names():
    assert set(ARCHITECTURES) == set(deeplab.ARCHITECTURES)


@pytest.mark.parametrize(("architecture", "backbone"), NETWORKS)
@pytest.mark.parametrize("output_stride", [8, *(pytest.param(stride, marks=SLOW) for stride in (16, 32))])
def test_logits_have_the_size_of_any_image_and_train_with_a_batch_of_one(architecture, backbone, output_stride):
    model = build_model(architecture, backbone, output_stride=output_stride, num_classes=5, channels=16)
    logits = model(torch.randn(1, 3, 65, 97))
    assert logits.shape == (1, 5, 65, 97)
    logits.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("output_stride", [pytest.param(8, marks=SLOW), 16])
@pytest.mark.parametrize("backbone", ["vovnet39", "densenet121"])
def test_dilated_pooling_lays_features_over_the_whole_image_and_trains_on_the_smallest_crop(backbone, output_stride):
    switches = {"output_stride": output_stride, "num_classes": 5, "channels": 8, "pooling": "dilated"}
    with torch.device("meta"):
        features = build_model("deeplabv3", backbone, **switches).backbone(torch.empty(2, 3, 1024, 2048))
    assert features.high_level.shape[2:] == (1024 // output_stride, 2048 // output_stride)
    model = build_model("deeplabv3plus", backbone, **switches).train()
    model(torch.randn(1, 3, SMALLEST_IMAGE, SMALLEST_IMAGE)).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(("architecture", "backbone"), NETWORKS)
def test_a_batch_gives_what_its_images_give_one_by_one(architecture, backbone):
    model = build_model(architecture, backbone, output_stride=16, num_classes=5, channels=16).eval()
    images = torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        singly = torch.cat([model(image[None]) for image in images])
        assert torch.allclose(model(images), singly, atol=1e-4)


class CountActivations(TorchDispatchMode):
    """Count the activations that are computed, whoever asks for them."""

    NAMES = ("relu", "hardtanh", "hardswish", "hardsigmoid", "silu", "sigmoid")
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.__name__.split(".")[0].rstrip("_") in self.NAMES
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("architecture", "switches"),
    [("deeplabv3", {}), ("deeplabv3plus", {"separable": "normalized", "decoder_convolutions": 2})],
)
@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_every_activation_is_a_module_that_is_called_once(architecture, backbone, switches):
    with torch.device("meta"):
        model = build_model(architecture, backbone, output_stride=8, num_classes=5, **switches)
    with CountActivations() as computed:
        calls = calls_of_activations(model)
    assert set(calls) == {1}
    assert computed.count == len(calls) == sum(isinstance(module, ACTIVATIONS) for module in model.modules())


def test_a_seed_gives_the_weights_that_it_always_gave():
    torch.manual_seed(0)
    state = build_network(TrainParameters(backbone="resnet18", channels=128), 19).state_dict()
    assert weights_sha256(state)[:12] == "2a21d0f2f5b3"
    assert torch.rand(1).item() == pytest.approx(0.984863, abs=1e-6)


def test_a_record_without_a_parameter_means_its_first_default_not_todays():
    younger = ("class_uniform", "average_decay", "warmup_steps")
    old = TrainParameters(**TrainParameters.FORMER_DEFAULTS)
    recorded = {name: value for name, value in old.as_dict().items() if name not in younger}
    names = ["road", "car"]
    weights = build_network(old, len(names)).state_dict()
    _, found = model_from_checkpoint({"parameters": recorded, "class_names": names, "model": weights})
    assert found == old
    refuse_other_parameters("old", recorded, old)
    with pytest.raises(ParameterError, match="class_uniform=0.0 .asked for 0.5"):
        refuse_other_parameters("old", recorded, replace(old, class_uniform=0.5))


def test_a_checkpoint_from_before_the_switches_means_what_it_meant():
    young = set(NetworkParameters().as_dict()) - {"architecture", "backbone", "output_stride", "channels"}
    parameters = {name: value for name, value in TrainParameters().as_dict().items() if name not in young}
    names = ["road", "car"]
    weights = build_network(TrainParameters(), len(names)).state_dict()
    model, found = model_from_checkpoint({"parameters": parameters, "class_names": names, "model": weights})
    assert found == TrainParameters()
    refuse_other_parameters("old", parameters, TrainParameters())  # and its run may go on
    with pytest.raises(ParameterError, match="norm='batch' .asked for 'group'"):
        refuse_other_parameters("old", parameters, TrainParameters(norm="group"))
    assert weights_sha256(model.state_dict()) == weights_sha256(weights)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"multi_grid": "1 2 x"}, "multi_grid='1 2 x': give whole numbers"),
        ({"multi_grid": ""}, "multi_grid=''"),
        ({"atrous_rates": "6, 12"}, "atrous_rates='6, 12': give whole numbers"),
        ({"atrous_rates": "0"}, "from 1 to 512"),
        ({"norm": "group", "convolution_bias": True}, "convolution_bias=True"),
        ({"backbone": "resnet51"}, "did you mean resnet50"),
        ({"head_convolution": False}, "head_convolution=False: deeplabv3plus allows True; change it"),
        ({"architecture": "deeplabv3", "low_level_channels": 64}, "low_level_channels=64: deeplabv3 allows 48"),
        ({"architecture": "deeplabv3", "decoder_convolutions": 2}, "decoder_convolutions=2: deeplabv3 allows 1"),
        ({"architecture": "deeplabv3", "concatenation": "aspp_first"}, "choose another architecture"),
        ({"low_level_chanels": 48}, "did you mean 'low_level_channels'"),
    ],
)
def test_a_switch_that_cannot_be_is_told_in_one_line(values, words):
    with pytest.raises(ParameterError) as refusal:
        NetworkParameters.from_mapping(values)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_initial_weights_come_from_a_torchvision_file(tmp_path):
    state = resnet18().state_dict()
    torch.save(state, tmp_path / "resnet18.pth")
    source = str(tmp_path / "resnet18.pth")
    model = build_with_weights(
        NetworkParameters(architecture="deeplabv3plus", backbone="resnet18", channels=8), 3, initial_weights=source
    )
    assert torch.equal(model.backbone.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


def test_initial_weights_of_another_backbone_are_refused(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    source = str(tmp_path / "resnet18.pth")
    with pytest.raises(IntegrityError, match="not a torchvision resnet50"):
        build_with_weights(
            NetworkParameters(architecture="deeplabv3", backbone="resnet50", channels=8), 3, initial_weights=source
        )


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
def test_a_damaged_weights_file_is_told_in_one_line(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    source = str(tmp_path / "weights.pth")
    with pytest.raises(IntegrityError) as refusal:
        build_with_weights(
            NetworkParameters(architecture="deeplabv3", backbone="resnet18", channels=8), 3, initial_weights=source
        )
    assert "\n" not in str(refusal.value)


def test_a_missing_weights_file_names_what_is_allowed():
    with pytest.raises(MissingInputError, match=r"'random', 'imagenet' or a path"):
        build_with_weights(
            NetworkParameters(architecture="deeplabv3", backbone="resnet18"), 3, initial_weights="imagnet"
        )


def test_no_network_names_the_file_and_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(MachineError) as refusal:
        build_with_weights(
            NetworkParameters(architecture="deeplabv3", backbone="resnet18"), 3, initial_weights="imagenet"
        )
    message = str(refusal.value)
    assert "resnet18-f37072fd.pth" in message
    assert str(tmp_path) in message
    assert "\n" not in message


def test_imagenet_weights_are_taken_from_the_cache_without_a_network(monkeypatch, tmp_path):
    state = resnet18().state_dict()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / "resnet18-f37072fd.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = build_with_weights(
        NetworkParameters(architecture="deeplabv3plus", backbone="resnet18", channels=8), 3, initial_weights="imagenet"
    )
    assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])
