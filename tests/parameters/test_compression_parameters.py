"""Every parameter of quantization and of the acceptance check takes effect: seen where it ends, not where it is given.

OpenVINO stays out of this process; what needs it is in test_quantization.py.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from support.untrained_runs import untrained_run

from dlv3p.compression.acceptance import Variant, check_acceptance
from dlv3p.compression.quantization import quantize_run
from dlv3p.compression.variants import collect_variants
from dlv3p.data.roots import open_split
from dlv3p.export.calibration import choose_calibration_images
from dlv3p.export.onnx_runtime import OnnxPredictor, convert_to_float16, open_onnx
from dlv3p.export.precisions import Node
from dlv3p.export.torch_runtime import TorchPredictor

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Masks:
    """A split of three images of 40 x 80 pixels, all of class 0."""

    root, split, num_classes = "here", "val", 2

    def __len__(self):
        return 3

    def group(self, index):
        return ""

    def image(self, index):
        return Image.new("RGB", (80, 40))

    def pair(self, index):
        return self.image(index), np.zeros((40, 80), np.uint8)


@pytest.fixture
def watched_gate():
    """Pass the gate with one network, and return the sizes that it saw, in their order, and torch's threads then."""
    before, seen = torch.get_num_threads(), []

    def predict(image):
        seen.append((tuple(image.shape[2:]), torch.get_num_threads()))
        return np.zeros((1, 40, 80), np.uint8)

    def pass_it(**options):
        seen.clear()
        check_acceptance(
            Variant("dense", predict), [], Masks(), warmup=0, repeats=3, memory=False, progress="none", **options
        )
        return [size for size, _ in seen], {threads for _, threads in seen}

    yield pass_it
    torch.set_num_threads(before)


def test_the_gate_scores_at_the_scale_of_the_run_and_times_at_the_size_asked_for(watched_gate):
    sizes, _ = watched_gate(image_scale=0.5)
    assert set(sizes) == {(20, 40)}
    sizes, _ = watched_gate(image_scale=0.5, latency_size=(33, 65))
    assert sizes[:3] == [(20, 40)] * 3, "three images are scored"
    assert set(sizes[3:]) == {(33, 65)}


@pytest.mark.parametrize("threads", [1, 3])
def test_the_gate_sets_the_threads_of_torch(watched_gate, threads):
    assert watched_gate(threads=threads)[1] == {threads}


class OneLayer(torch.nn.Module):
    """A network of one convolution, which keeps the types that it has computed in."""

    align_corners = False

    def __init__(self):
        super().__init__()
        self.layer, self.types = torch.nn.Conv2d(3, 2, 1), []

    def logits_at_stride(self, image):
        logits = self.layer(image)
        self.types.append(logits.dtype)
        return logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_computes_in_the_type_asked_for(dtype):
    model = OneLayer()
    TorchPredictor(model, dtype=dtype)(torch.zeros(1, 3, 8, 8))
    assert model.types == [dtype]


@pytest.fixture
def compiled(monkeypatch):
    """The functions that were handed to torch.compile, which takes a minute; each runs as it is."""
    functions = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: functions.append(function) or function)
    return functions


def test_torch_compiles_only_where_that_was_asked_for(compiled):
    model = OneLayer()
    TorchPredictor(model)
    assert compiled == []
    TorchPredictor(model, compiled=True)(torch.zeros(1, 3, 8, 8))
    assert compiled == [model.logits_at_stride]
    assert model.types == [torch.float32]


@pytest.fixture(scope="module")
def predictor(city, tmp_path_factory):
    """An untrained run that sees its images halved, in a workspace of its own."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(tmp_path_factory.mktemp("workspace")))
        network = {"backbone": "resnet18", "channels": 8, "low_level_channels": 8}
        yield untrained_run("halved", data_root=str(city), image_scale=0.5, **network)


@pytest.fixture(scope="module")
def quantized(predictor, city):
    images = choose_calibration_images(open_split(city, "train"), 2, image_scale=0.5)
    return quantize_run(predictor, images, backends=["onnxruntime"], keep_float="last")


@pytest.fixture
def image():
    return torch.randn(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))


def test_the_last_convolution_is_the_one_that_stays_in_float(quantized):
    import onnx

    nodes = onnx.load(quantized.float_path).graph.node
    last = [node.name for node in nodes if node.op_type == "Conv"][-1]
    assert quantized.description["networks"]["onnxruntime"]["keep_float"] == [last]
    graph = onnx.load(quantized.path("onnxruntime")).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    in_float = [
        node.name for node in graph.node if node.op_type == "Conv" and makers.get(node.input[1]) != "DequantizeLinear"
    ]
    assert in_float == [last]


def test_an_exported_run_answers_at_the_size_before_its_images_were_resized(quantized, image):
    for path in (quantized.float_path, quantized.path("onnxruntime")):
        assert open_onnx(path, threads=1)(image).shape == (1, 64, 128)


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_float16_is_a_row_only_where_every_convolution_is_computed_in_it(
    quantized, image, tmp_path, monkeypatch, precision
):
    nodes = [Node("first", "Conv", "float16"), Node("second", "FusedConv", precision), Node("top", "TopK", "float32")]
    monkeypatch.setattr(OnnxPredictor, "nodes", lambda self, image: nodes)
    path = tmp_path / "half.onnx"
    supported = precision == "float16"
    assert convert_to_float16(quantized.float_path, path, image, threads=1) is supported
    assert path.is_file() is supported


def test_the_rows_of_torch_are_what_their_titles_say(predictor, quantized, image, compiled):
    types = []
    handle = predictor.model.backbone.conv1.register_forward_hook(lambda *given: types.append(given[-1].dtype))
    plain = collect_variants(predictor, quantized, image, threads=1)
    assert compiled == []
    assert "PyTorch compiled float32" not in [one.title for one in plain.candidates]
    rows = collect_variants(predictor, quantized, image, threads=1, with_compile=True)
    assert len(compiled) == 1
    torch_rows = {one.title: one.predict for one in [rows.reference, *rows.candidates] if "PyTorch" in one.title}
    assert list(torch_rows) == ["PyTorch float32", "PyTorch bfloat16", "PyTorch compiled float32"]
    types.clear()
    for predict in torch_rows.values():
        assert predict(image).shape == (1, 64, 128)
    handle.remove()
    assert types == [torch.float32, torch.bfloat16, torch.float32]
