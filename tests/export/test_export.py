"""Networks leave for other runtimes whole: one file for all sizes, and one graph for the compiler."""

import copy
import sys

import numpy as np
import pytest
import torch

from cityscapes import errors
from cityscapes.errors import MachineError, ParameterError
from dlv3p.export import graphs
from dlv3p.export.graphs import export_onnx, export_program, full_size
from dlv3p.models.deeplab import build_model

SLOW = pytest.mark.slow
ONE_OF_A_FAMILY = (
    "resnet18",
    *(pytest.param(name, marks=SLOW) for name in ("vovnet39", "densenet121", "mobilenet_v2", "mobilenet_v3_large")),
)


def build(architecture, backbone, **switches):
    torch.manual_seed(0)
    switches = {"num_classes": 19, "channels": 16, **switches}
    return build_model(architecture, backbone, **switches).eval()


def run(path, image):
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image.numpy()})[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """DeepLabV3+ in training with a backbone in evaluation, as its export left it, and its ONNX file in a folder."""
    for package in graphs.NEEDED:
        pytest.importorskip(package)
    model = build("deeplabv3plus", "resnet18", align_corners=True)
    model.train().backbone.eval()
    path = export_onnx(model, tmp_path_factory.mktemp("onnx") / "network.onnx", height=64, width=96)
    return model, path


@pytest.mark.parametrize("size", [(1, 64, 96), (2, 97, 131), (1, 65, 33), (3, 128, 256)])
def test_the_file_gives_the_networks_logits_at_every_size(exported, size):
    model, path = exported
    image = torch.randn(size[0], 3, *size[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = copy.deepcopy(model).eval()(image).numpy()
    assert np.abs(run(path, image) - expected).max() <= 1e-4


OF_EVERY_FAMILY = [
    ("deeplabv3plus", "resnet18", {"norm": "group"}),
    ("deeplabv3plus", "mobilenet_v2", {"mobilenet_padding": "fixed"}),
    ("deeplabv3", "mobilenet_v3_large", {}),
    ("deeplabv3", "timm:regnety_002", {}),
    ("deeplabv3", "vovnet39", {}),
    ("deeplabv3plus", "vovnet39", {"output_stride": 8, "pooling": "dilated"}),
    ("deeplabv3", "densenet121", {}),
    ("deeplabv3plus", "densenet121", {"output_stride": 8, "pooling": "dilated"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "backbone", "switches"), OF_EVERY_FAMILY)
def test_the_file_of_every_family_gives_its_logits_at_odd_sizes(architecture, backbone, switches, tmp_path):
    """To a ten-thousandth of what the logits spread by, as those of a fresh network may all be near 1e-8."""
    for package in (*graphs.NEEDED, *(["timm"] if backbone.startswith("timm:") else [])):
        pytest.importorskip(package)
    model = build(architecture, backbone, **switches)
    path = export_onnx(model, tmp_path / "network.onnx", height=64, width=96)
    for size in ((2, 97, 131), (1, 65, 51), (1, 78, 74)):
        image = torch.randn(size[0], 3, *size[1:], generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = model(image).numpy()
        assert np.abs(run(path, image) - expected).max() <= 1e-4 * expected.std()


def test_the_file_stands_alone_and_the_network_is_as_it_was(exported):
    model, path = exported
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_size > sum(parameter.nbytes for parameter in model.parameters())
    assert model.training
    assert not model.backbone.training


@pytest.mark.parametrize("backbone", ["resnet18", pytest.param("mobilenet_v2", marks=SLOW)])
def test_a_file_that_ends_in_labels_gives_the_networks_classes(tmp_path, backbone):
    for package in graphs.NEEDED:
        pytest.importorskip(package)
    model = build("deeplabv3", backbone).train()
    model.backbone.eval()
    export_onnx(model, tmp_path / "labels.onnx", height=64, width=64, with_argmax=True)
    assert model.training
    assert not model.backbone.training
    image = torch.randn(1, 3, 97, 65, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model.eval()(image).argmax(dim=1).numpy()
    labels = run(tmp_path / "labels.onnx", image)
    assert labels.dtype == np.uint8
    assert (labels != expected).mean() < 1e-3, "only classes that differ by a rounding may change places"


@pytest.fixture(scope="module", params=["resnet18", pytest.param("mobilenet_v2", marks=SLOW)])
def program(request, tmp_path_factory):
    """A network in training, as its export left it, and its program of torch.export."""
    model = build("deeplabv3", request.param).train()
    path = tmp_path_factory.mktemp("program") / "network.pt2"
    return model, export_program(model, path, height=64, width=96, image_scale=0.5)


@pytest.mark.parametrize("size", [(1, 64, 96), (2, 97, 131), (1, 65, 40)])
def test_a_program_of_torch_export_gives_labels_at_every_size_and_at_the_images_own(program, size):
    model, path = program
    assert model.training
    module, model = torch.export.load(path).module(), copy.deepcopy(model).eval()
    image = torch.randn(size[0], 3, *size[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels, logits = module(image), model.logits_at_stride(image)
        expected = model.upsample(logits, (2 * size[1], 2 * size[2])).argmax(dim=1)
    assert labels.dtype == torch.uint8
    assert labels.shape == expected.shape
    assert (labels != expected).float().mean() < 1e-3


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25, 0.75, 0.4, 1.5, 2.0])
def test_the_full_size_is_that_before_scaling_to_a_pixel(scale):
    for length in (1024, 720, 97, 33):
        restored, _ = full_size((round(length * scale), 64), scale)
        assert abs(restored - length) <= 0.5 / scale + 0.5
        if length * scale == int(length * scale):
            assert restored == length


def test_without_the_packages_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"needs onnx and onnxscript; .*dlv3p\[export\]") as refusal:
        export_onnx(build("deeplabv3", "resnet18"), tmp_path / "x.onnx", height=64, width=64)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="torch.compile follows new versions of Python late")
@pytest.mark.parametrize("backbone", ONE_OF_A_FAMILY)
@pytest.mark.parametrize("architecture", ["deeplabv3", "deeplabv3plus"])
def test_the_compiler_gets_one_graph(architecture, backbone):
    model, image = build(architecture, backbone), torch.randn(1, 3, 33, 49)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(image), model(image))


def test_training_compiles_into_one_graph_as_well():
    model, image = build("deeplabv3plus", "resnet18").train(), torch.randn(2, 3, 33, 49)
    torch._dynamo.reset()
    torch.compile(model, fullgraph=True, backend="aot_eager")(image).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_network_that_torch_cannot_store_is_one_line(tmp_path):
    pytest.importorskip("timm", reason="the network is one of timm's")
    model = build("deeplabv3plus", "timm:test_resnet.r160_in1k", channels=8)
    with pytest.raises(
        ParameterError, match=r"a\.pt2: torch\.export cannot store this network \(.+\); export it as \.onnx"
    ):
        export_program(model, tmp_path / "a.pt2", height=64, width=96)
    assert list(tmp_path.iterdir()) == []
