"""Run and quantize networks by ONNX Runtime, and list what it really computes in 8 bits."""

import json
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cityscapes.errors import require
from cityscapes.files.atomic import write_bytes
from cityscapes.files.leftovers import temporary_folder
from dlv3p.export.calibration import CalibrationImages
from dlv3p.export.precisions import INT8, Node, without_output

NEEDED = ("onnx", "onnxruntime")
QUANTIZED = ("Conv", "Relu", "Add", "Mul", "Concat", "Resize", "Gemm", "MatMul")
"""Operators to compute in 8 bits. Not means, not the last resizing and argmax, which see the logits, and not pooling,
which takes ONNX Runtime many times as long in 8 bits (2.7 and 0.09 ms after a ResNet's stem, 128 x 256 pixels)."""
DISABLED_OPTIMIZERS = ("QDQPropagationTransformer",)
"""Disabled optimizers: this one would move pooling back into 8 bits."""
TYPES = {"float": "float32", "float16": "float16", "bfloat16": "bfloat16", "uint8": INT8, "int8": INT8}
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Cast", "ReorderInput", "ReorderOutput", "Reshape", "Transpose")
"""Nodes that only convert numbers and compute nothing."""
FUSED = "_nchwc"
"""Suffix of a node that ONNX Runtime has converted to its own layout, after the name of the result, not the node."""


class OnnxPredictor:
    """An ONNX file that ends in labels, as `open_onnx` returns it; can be pickled."""

    def __init__(self, path: Path, threads: int, session: Any) -> None:
        self.path, self.threads, self._session = path, threads, session

    def __reduce__(self) -> tuple:
        return partial(open_onnx, self.path, threads=self.threads), ()

    def __call__(self, image: Tensor) -> np.ndarray:
        """Predict an image (1,3,h,w): uint8 (1,H,W)."""
        return self._session.run(None, {"image": image.numpy()})[0]

    def nodes(self, image: Tensor) -> list[Node]:
        """Predict once more under the runtime's own profiler and return the computed nodes, named as in the file."""
        name_in_file = names_in_file(self.path)
        with temporary_folder("dlv3p-export") as folder:
            session = _session(self.path, self.threads, profile=f"{folder}/profile")
            session.run(None, {"image": image.numpy()})
            events = json.loads(Path(session.end_profiling()).read_text())
        return [
            Node(name_in_file(_name(event), kind), kind, precision)
            for event in events
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
            if (kind := event["args"]["op_name"]) not in CONVERSIONS
            if (precision := _precision(event["args"]))
        ]


def open_onnx(path: str | Path, *, threads: int) -> OnnxPredictor:
    """Open an ONNX file that ends in labels, to run on the CPU with `threads` threads."""
    require("ONNX Runtime", NEEDED, "quantize")
    return OnnxPredictor(Path(path), threads, _session(Path(path), threads))


def quantize_with_onnx_runtime(
    source: Path, path: Path, images: CalibrationImages, *, keep_float: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Quantize the ONNX file `source`, which ends in labels, to `path`; return the method, for the record.

    Weights have a scale per channel. Values and weights pass through QuantizeLinear and DequantizeLinear, which the
    runtime fuses; `keep_float` names nodes that stay in float. Weights take 7 bits where the processor has no VNNI
    instructions, since the older ones overflow on 8.
    """
    require("quantization by ONNX Runtime", NEEDED, "quantize")
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    reduce_range = not has_vnni()
    with temporary_folder("dlv3p-export") as folder, without_output():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        made = Path(folder) / "int8.onnx"
        quantize_static(
            prepared,
            made,
            _reader(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=[*keep_float, *nodes_after_logits(prepared)],
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        _copy(made, path)
    return {"method": "static, QDQ, weights per channel, ranges by minimum and maximum", "reduce_range": reduce_range}


def has_vnni() -> bool:
    """Return whether 8-bit products are summed without overflow: VNNI on x86, always elsewhere; False if not known."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags


def convert_to_float16(source: Path, path: Path, image: Tensor, *, threads: int) -> bool:
    """Write the ONNX file `source` in float16 to `path` where this processor computes convolutions in it.

    False, and no file, where the runtime would turn every number back into float32.
    """
    require("ONNX Runtime", NEEDED, "quantize")
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with temporary_folder("dlv3p-export") as folder, without_output():
        made = Path(folder) / "float16.onnx"
        onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True, op_block_list=["Resize"]), made)
        nodes = open_onnx(made, threads=threads).nodes(image)
        supported = all(node.precision == "float16" for node in nodes if "Conv" in node.kind)
        if supported:
            _copy(made, path)
    return supported


def convolutions(path: Path) -> list[str]:
    """Return the names of an ONNX file's convolutions in the order of the network: the classifier is the last."""
    return [node.name for node in _graph(path).node if node.op_type == "Conv"]


def nodes_after_logits(path: Path) -> list[str]:
    """Return the names of the nodes between the classifier and the labels."""
    graph = _graph(path)
    producers = _producers(graph)
    names, node = [], producers[graph.output[0].name]
    while node.op_type in ("Cast", "ArgMax", "Resize"):
        names.append(node.name)
        node = producers[node.input[0]]
    return names


def names_in_file(path: Path) -> Callable[[str, str], str]:
    """Return a function from ONNX Runtime's name of a node and its kind to its name in the file, where known.

    A convolution that was fused with the nodes after it is named after the result of the last of them.
    """
    producers = _producers(_graph(path))

    def name_in_file(name: str, kind: str) -> str:
        node = producers.get(name.removesuffix(FUSED)) if name.endswith(FUSED) else None
        while node is not None and node.op_type != kind:
            node = next((producers[given] for given in node.input if given in producers), None)
        return node.name if node is not None else name

    return name_in_file


def _graph(path: Path) -> Any:
    import onnx

    return onnx.load(path, load_external_data=False).graph


def _producers(graph: Any) -> dict[str, Any]:
    """Return the node that produces each result in a graph."""
    return {name: node for node in graph.node for name in node.output}


def _name(event: dict[str, Any]) -> str:
    return event["args"].get("node_name") or event["name"].removesuffix("_kernel_time")


def _precision(arguments: dict[str, Any]) -> str | None:
    """Return the precision of a node's first numeric input; None for the arithmetic of shapes."""
    if arguments["op_name"].startswith("QLinear"):  # the first input of some is a scale, which is a float
        return INT8
    types = [TYPES[kind] for given in arguments.get("input_type_shape", []) for kind in given if kind in TYPES]
    return types[0] if types and not arguments["op_name"].startswith("Shape") else None


def _session(path: Path, threads: int, profile: str = "") -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only; its warnings are about its own optimizer
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    settings = {"providers": ["CPUExecutionProvider"], "disabled_optimizers": list(DISABLED_OPTIMIZERS)}
    return onnxruntime.InferenceSession(path, options, **settings)


def _reader(images: CalibrationImages) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {"image": image}

    return Reader()


def _copy(made: Path, path: Path) -> None:
    write_bytes(path, made.read_bytes())
