"""The networks: published parameter counts, any size, a batch of one, and features that agree across strides."""

import pytest
import torch
from torchvision.models import resnet18

from cityscapes.errors import IntegrityError, MachineError, MissingInputError
from dlv3p.aspp import ASPP
from dlv3p.backbones.features import BackboneOptions
from dlv3p.backbones.resnet import ResNetBackbone
from dlv3p.config import ARCHITECTURES
from dlv3p.deeplab import build_model

NETWORKS = [(architecture, backbone) for architecture in ARCHITECTURES for backbone in ("resnet18", "resnet50")]


def test_configuration_and_builders_know_the_same_names():
    from dlv3p import deeplab

    assert set(ARCHITECTURES) == set(deeplab.ARCHITECTURES)


@pytest.mark.parametrize(
    ("architecture", "backbone", "num_classes", "published"),
    [
        ("deeplabv3", "resnet50", 21, 39_638_869),
        ("deeplabv3", "resnet101", 21, 58_630_997),
        ("deeplabv3plus", "resnet50", 21, 39_761_845),
        ("deeplabv3plus", "resnet101", 19, 58_753_459),
    ],
)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_parameters_are_as_many_as_published(architecture, backbone, num_classes, published, output_stride):
    with torch.device("meta"):
        model = build_model(architecture, backbone, output_stride=output_stride, num_classes=num_classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


@pytest.mark.parametrize(("architecture", "backbone"), NETWORKS)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_logits_have_the_size_of_any_image_and_train_with_a_batch_of_one(architecture, backbone, output_stride):
    model = build_model(architecture, backbone, output_stride=output_stride, num_classes=5, channels=16)
    logits = model(torch.randn(1, 3, 65, 97))
    assert logits.shape == (1, 5, 65, 97)
    logits.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(("architecture", "backbone"), NETWORKS)
def test_a_batch_gives_what_its_images_give_one_by_one(architecture, backbone):
    model = build_model(architecture, backbone, output_stride=16, num_classes=5, channels=16).eval()
    images = torch.randn(3, 3, 64, 96)
    with torch.inference_mode():
        singly = torch.cat([model(image[None]) for image in images])
        assert torch.allclose(model(images), singly, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (70, 41)])
@pytest.mark.parametrize(("output_stride", "every"), [(8, 4), (16, 2)])
def test_dense_features_taken_at_the_stride_are_those_of_the_strided_network(name, height, width, output_stride, every):
    torch.manual_seed(0)
    strided = ResNetBackbone(name, BackboneOptions(output_stride=32)).double().eval()
    dense = ResNetBackbone(name, BackboneOptions(output_stride=output_stride)).double().eval()
    dense.load_state_dict(strided.state_dict())
    image = torch.randn(1, 3, height, width, dtype=torch.float64)
    with torch.inference_mode():
        expected, found = strided(image), dense(image)
    assert torch.equal(expected.low_level, found.low_level)
    assert torch.allclose(found.high_level[..., ::every, ::every], expected.high_level, rtol=1e-9, atol=1e-9)


def test_output_stride_sets_the_size_of_the_features():
    image = torch.randn(1, 3, 64, 128)
    for output_stride in (8, 16, 32):
        features = ResNetBackbone("resnet18", BackboneOptions(output_stride=output_stride)).eval()(image)
        assert features.high_level.shape[-2:] == (64 // output_stride, 128 // output_stride)
        assert features.low_level.shape[-2:] == (16, 32)


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [6, 12, 18]), (8, [12, 24, 36])])
def test_atrous_rates_follow_from_the_output_stride(output_stride, rates):
    model = build_model("deeplabv3", "resnet18", output_stride=output_stride, num_classes=2, channels=8)
    branches = (model.aspp.branch1, model.aspp.branch2, model.aspp.branch3)
    assert [branch.conv.dilation[0] for branch in branches] == rates


def test_image_pooling_sees_the_whole_image():
    aspp = ASPP(4, 8, atrous_rates=(1, 1, 1), dropout=0.0).eval()
    features = torch.zeros(1, 4, 32, 32)
    before = aspp(features)[0, :, 0, 0]
    features[..., 31, 31] = 1000
    assert not torch.equal(aspp(features)[0, :, 0, 0], before)


def test_initial_weights_come_from_a_torchvision_file(tmp_path):
    state = resnet18().state_dict()
    torch.save(state, tmp_path / "resnet18.pth")
    source = str(tmp_path / "resnet18.pth")
    model = build_model(
        "deeplabv3plus", "resnet18", output_stride=16, num_classes=3, channels=8, initial_weights=source
    )
    assert torch.equal(model.backbone.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])


def test_initial_weights_of_another_backbone_are_refused(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    source = str(tmp_path / "resnet18.pth")
    with pytest.raises(IntegrityError, match="not a torchvision resnet50"):
        build_model("deeplabv3", "resnet50", output_stride=16, num_classes=3, channels=8, initial_weights=source)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 truncated"])
def test_a_damaged_weights_file_is_told_in_one_line(tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    source = str(tmp_path / "weights.pth")
    with pytest.raises(IntegrityError) as refusal:
        build_model("deeplabv3", "resnet18", output_stride=16, num_classes=3, channels=8, initial_weights=source)
    assert "\n" not in str(refusal.value)


def test_a_missing_weights_file_names_what_is_allowed():
    with pytest.raises(MissingInputError, match=r"'random', 'imagenet' or a path"):
        build_model("deeplabv3", "resnet18", output_stride=16, num_classes=3, initial_weights="imagnet")


def test_no_network_names_the_file_and_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(MachineError) as refusal:
        build_model("deeplabv3", "resnet18", output_stride=16, num_classes=3, initial_weights="imagenet")
    message = str(refusal.value)
    assert "resnet18-f37072fd.pth" in message
    assert str(tmp_path) in message
    assert "\n" not in message


def test_imagenet_weights_are_taken_from_the_cache_without_a_network(monkeypatch, tmp_path):
    import hashlib

    state = resnet18().state_dict()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / "resnet18-f37072fd.pth")
    assert hashlib.sha256((folder / "resnet18-f37072fd.pth").read_bytes()).hexdigest()[:8] != "f37072fd"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = build_model(
        "deeplabv3", "resnet18", output_stride=16, num_classes=3, channels=8, initial_weights="imagenet"
    )
    assert torch.equal(model.backbone.conv1.weight, state["conv1.weight"])
