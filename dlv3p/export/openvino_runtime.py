"""Run networks by OpenVINO, quantize them by NNCF, and list what is really computed in 8 bits."""

import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from cityscapes.errors import MachineError, require
from cityscapes.files.atomic import write_bytes
from cityscapes.files.leftovers import temporary_folder
from dlv3p.export.calibration import CalibrationImages
from dlv3p.export.precisions import INT8, Node, without_output

NEEDED = ("openvino", "nncf")
PRECISIONS = {"float32": ("f32", "FP32"), "bfloat16": ("bf16", "BF16"), "float16": ("f16", "FP16")}
"""By precision of the layers that are not quantized: the runtime's hint, and its name of the processor's capability."""
TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "u8": INT8, "i8": INT8}
"""The runtime's names of precisions; one that is not here is reported by its own name."""
COUNTS = ("i16", "u16", "i32", "u32", "i64", "u64", "boolean")
"""The types of shapes and indices."""
MOVING = ("Const", "Input", "Output", "Reorder", "Reshape", "ShapeOf", "StridedSlice", "Transpose")
"""Kinds of nodes that move numbers or handle shapes. All others are reported, so that no unexpected kind is silently
left out."""


class OpenVinoPredictor:
    """A file that ends in labels, as `open_openvino` returns it; can be pickled."""

    def __init__(self, path: Path, threads: int, precision: str, compiled: Any) -> None:
        self.path, self.threads, self.precision, self._compiled = path, threads, precision, compiled
        self._request = compiled.create_infer_request()

    def __reduce__(self) -> tuple:
        return partial(open_openvino, self.path, threads=self.threads, precision=self.precision), ()

    def __call__(self, image: Tensor) -> np.ndarray:
        """Predict an image (1,3,h,w): uint8 (1,H,W)."""
        return self._request.infer({0: image.numpy()}, share_inputs=True)[0]

    def nodes(self, image: Tensor) -> list[Node]:
        """Return the computed nodes, from the graph that the runtime executes."""
        found = []
        for node in self._compiled.get_runtime_model().get_ordered_ops():
            kind, precision = _runtime_info(node, "layerType"), _precision(node)
            if kind not in MOVING and precision not in COUNTS:
                # A node that an addition was split from still has its name in the file.
                name = node.get_friendly_name().removesuffix("/WithoutBiases")
                found.append(Node(name, kind, TYPES.get(precision, precision)))
        return found


def open_openvino(path: str | Path, *, threads: int, precision: str = "float32") -> OpenVinoPredictor:
    """Open a file that ends in labels (.onnx, or .xml with its .bin), to run on the CPU by OpenVINO.

    `precision` is that of all layers that are not quantized. It is always set: by default the runtime takes bfloat16
    where the processor has it, and a "float32" would not be one. Raises MachineError where the processor lacks it.
    """
    hint, ability = PRECISIONS[precision]
    core = import_openvino().Core()
    if ability not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise MachineError(f"OpenVINO: this processor does not compute in {precision}; take float32")
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    return OpenVinoPredictor(Path(path), threads, precision, core.compile_model(path, "CPU", options))


def fastest_float() -> str:
    """Return the CPU's fastest precision for layers that are not quantized: bfloat16 where it has it, else float32."""
    abilities = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bfloat16" if PRECISIONS["bfloat16"][1] in abilities else "float32"


def quantize_with_openvino(
    source: Path, path: Path, images: CalibrationImages, *, keep_float: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Quantize the ONNX file `source`, which ends in labels, by NNCF to `path` (.xml, with a .bin beside it).

    `keep_float` names convolutions that stay in float. Returns the method, for the record.
    """
    openvino = import_openvino()
    with without_output():
        import nncf

        model = openvino.convert_model(source)
        names = [
            node.get_friendly_name()
            for node in model.get_ordered_ops()
            if node.get_friendly_name().split("/")[0] in keep_float and "Convolution" in node.get_type_name()
        ]
        quantized = nncf.quantize(
            model,
            nncf.Dataset(images),
            subset_size=len(images),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=names) if names else None,
        )
    with temporary_folder("dlv3p-export") as folder:
        made = Path(folder) / path.name
        openvino.save_model(quantized, made, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):  # the .xml last: it is the file that is opened
            write_bytes(path.with_suffix(suffix), made.with_suffix(suffix).read_bytes())
    return {"method": "static, NNCF, weights per channel and symmetric, bias correction", "preset": "mixed"}


def import_openvino() -> ModuleType:
    """Import openvino without its telemetry; raises MachineError when the extra `quantize` is not installed."""
    require("OpenVINO", NEEDED, "quantize")
    # It sends telemetry when imported, unless that package is absent, as it is made to look here.
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino


def _runtime_info(node: Any, name: str) -> str:
    return node.get_rt_info()[name].astype(str)


def _precision(node: Any) -> str:
    """Return the runtime's name of a node's precision; an 8-bit sum or product with a float input counts as float."""
    if _runtime_info(node, "layerType") == "Eltwise":
        sources = [given.get_source_output().get_node() for given in node.inputs()]
        taken = {
            _runtime_info(one, "outputPrecisions") for one in sources if _runtime_info(one, "layerType") != "Const"
        }
        for precision in ("f32", "bf16", "f16"):
            if precision in taken:
                return precision
    return _runtime_info(node, "runtimePrecision")
