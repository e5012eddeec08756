"""Networks leave for other runtimes whole: one ONNX file for all sizes, and one graph for the compiler."""

import sys

import numpy as np
import pytest
import torch

from cityscapes.errors import MachineError
from dlv3p.deeplab import build_model
from dlv3p.export import graphs
from dlv3p.export.graphs import export_onnx

ONE_OF_A_FAMILY = ("resnet18", "vovnet39", "densenet121", "mobilenet_v2", "mobilenet_v3_large")


def build(architecture, backbone, **switches):
    torch.manual_seed(0)
    switches = {"num_classes": 19, "channels": 16, **switches}
    return build_model(architecture, backbone, **switches).eval()


def run(path, image):
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image.numpy()})[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """DeepLabV3+ and its ONNX file, alone in its folder."""
    for package in graphs.NEEDED:
        pytest.importorskip(package)
    model = build("deeplabv3plus", "resnet18", align_corners=True)
    model.train()
    path = export_onnx(model, tmp_path_factory.mktemp("onnx") / "network.onnx", height=64, width=96)
    return model, path


@pytest.mark.parametrize("size", [(1, 64, 96), (2, 97, 131), (1, 65, 33), (3, 128, 256)])
def test_the_file_gives_the_networks_logits_at_every_size(exported, size):
    model, path = exported
    image = torch.randn(size[0], 3, *size[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model.eval()(image).numpy()
    assert np.abs(run(path, image) - expected).max() <= 1e-4


def test_the_file_stands_alone_and_the_network_is_as_it_was(exported, tmp_path):
    model, path = exported
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_size > sum(parameter.nbytes for parameter in model.parameters())
    fresh = build("deeplabv3", "mobilenet_v2").train()
    fresh.backbone.eval()
    export_onnx(fresh, tmp_path / "labels.onnx", height=64, width=64, with_argmax=True)
    assert fresh.training
    assert not fresh.backbone.training
    image = torch.randn(1, 3, 97, 65, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = fresh.eval()(image).argmax(dim=1).numpy()
    labels = run(tmp_path / "labels.onnx", image)
    assert labels.dtype == np.uint8
    assert (labels != expected).mean() < 1e-3, "only classes that differ by a rounding may change places"


def test_without_the_packages_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(graphs, "find_spec", lambda name: None)
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
