"""Collect the variants of a quantized run to compare: torch's, each runtime's own in float, and those in 8 bits.

A network in 8 bits is compared with two others: torch, the starting point, and the same runtime in float32, which
isolates the gain of the 8 bits.
"""

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cityscapes.errors import MachineError, ParameterError
from dlv3p.compression.acceptance import Variant, size_on_disk
from dlv3p.compression.acceptance_report import AcceptanceReport, Limits
from dlv3p.compression.quantization import QuantizedRun, require_backends
from dlv3p.evaluation.inference import Predictor, load_run_predictor
from dlv3p.export.agreement import SMALLEST_AGREEMENT
from dlv3p.export.graphs import export_program
from dlv3p.export.onnx_runtime import convert_to_float16, open_onnx
from dlv3p.export.openvino_runtime import PRECISIONS, fastest_float, open_openvino
from dlv3p.export.precisions import Node
from dlv3p.export.torch_runtime import TorchPredictor, open_program
from dlv3p.models.anatomy import count_macs, count_parameters
from dlv3p.parameters.notebooks import QuantizeParameters
from dlv3p.runs.folders import find_run

PROGRAM_FILE = "float32.pt2"

TORCH_FLOAT32 = "PyTorch float32"

EXPORT_LIMITS = Limits(largest_loss=0.05, smallest_speedup=0, smallest_agreement=SMALLEST_AGREEMENT)
"""An export is the same network: it must predict the same, and need not be faster."""

TITLES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass
class Variants:
    """The reference, the candidates, and the reasons why others are not available here, by title."""

    reference: Variant
    candidates: list[Variant] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def nodes(self, image: Tensor) -> dict[str, list[Node]]:
        """Return the computed nodes of each network in 8 bits, with their precisions, by title."""
        return {one.title: one.predict.nodes(image) for one in self.candidates if "int8" in one.title}


def torch_variant(title: str, predictor: Predictor, size: tuple[int, int], **options: object) -> Variant:
    """Return a run's network as torch computes it, with its MACs for an image of `size` (height, width) in pixels.

    `options` are those of `TorchPredictor`. The size on disk is that of the weights alone.
    """
    model = predictor.model
    predict = TorchPredictor(model, image_scale=predictor.parameters.image_scale, **options)
    weights = sum(value.nbytes for value in model.state_dict().values())
    macs = count_macs(lambda: copy.deepcopy(model).to("meta"), *size)["total"] / 1e9
    return Variant(title, predict, weights, macs, count_parameters(model)["total"], predict.device)


def check_ready(parameters: QuantizeParameters) -> None:
    """Check early what would fail after minutes: the packages of the backends, and the run to compare with."""
    require_backends(parameters.backends.split())
    if parameters.compared_with:
        find_run(parameters.compared_with, parameter="compared_with")


def load_reference(parameters: QuantizeParameters, predictor: Predictor) -> Predictor | None:
    """Load the run that `compared_with` names, None for ""; raises the errors of `find_run` and `check_comparable`."""
    if not parameters.compared_with:
        return None
    reference = load_run_predictor(
        replace(parameters, run=find_run(parameters.compared_with, parameter="compared_with"))
    )
    check_comparable(predictor, reference)
    return reference


def check_comparable(predictor: Predictor, reference: Predictor) -> None:
    """Raise ParameterError when two runs differ in image scale or classes, so that their scores cannot be compared."""
    facts = {
        "image_scale": (reference.parameters.image_scale, predictor.parameters.image_scale),
        "class names": (list(reference.class_names), list(predictor.class_names)),
    }
    for what, (theirs, own) in facts.items():
        if theirs != own:
            detail = f" ({theirs:g}, not {own:g})" if isinstance(own, float) else ""
            raise ParameterError(
                f"compared_with={reference.run!r}: has another {what} than {predictor.run!r}{detail}; give a run with "
                'the same, or "" for the run itself'
            )


def collect_variants(
    predictor: Predictor,
    quantized: QuantizedRun,
    image: Tensor,
    *,
    threads: int,
    with_compile: bool = False,
    compared_with: Predictor | None = None,
) -> Variants:
    """Collect all variants; MACs are counted at the size of `image`, (1,3,h,w). `threads` are every runtime's.

    The reference is torch's float32 network of `compared_with`, by default that of the run itself. With the run that a
    pruned one came from, the report shows the gain and cost of pruning and 8 bits together. Raises ParameterError for a
    reference with another image scale or other classes.
    """
    size = (image.shape[2], image.shape[3])
    own = torch_variant(TORCH_FLOAT32, predictor, size)
    variants = Variants(own)
    if compared_with:
        check_comparable(predictor, compared_with)
        variants = Variants(torch_variant(f"{TORCH_FLOAT32}, {compared_with.run}", compared_with, size), [own])
    scale = {"image_scale": predictor.parameters.image_scale}

    def add(title: str, predict: object, path: Path | None = None, device: str | torch.device = "cpu") -> None:
        bytes_on_disk = size_on_disk(path) if path else own.size_bytes
        if path and path.suffix == ".xml":
            bytes_on_disk += size_on_disk(path.with_suffix(".bin"))
        variants.candidates.append(Variant(title, predict, bytes_on_disk, own.gmacs, own.parameters, device))

    add("PyTorch bfloat16", TorchPredictor(predictor.model, dtype=torch.bfloat16, **scale), device=own.device)
    if with_compile:
        add("PyTorch compiled float32", TorchPredictor(predictor.model, compiled=True, **scale), device=own.device)
    source = quantized.float_path
    if "onnxruntime" in quantized.backends:
        add("ONNX Runtime float32", open_onnx(source, threads=threads), source)
        half = source.with_name("float16.onnx")
        if convert_to_float16(source, half, image, threads=threads):
            add("ONNX Runtime float16", open_onnx(half, threads=threads), half)
        else:
            variants.absent["ONNX Runtime float16"] = "not supported here: it computes in float32"
        add("ONNX Runtime int8", quantized.predictor("onnxruntime", threads=threads), quantized.path("onnxruntime"))
    if "openvino" in quantized.backends:
        for precision in PRECISIONS:
            try:
                predict = open_openvino(source, threads=threads, precision=precision)
            except MachineError:
                variants.absent[f"OpenVINO {precision}"] = "not supported here: the processor lacks it"
                continue
            add(f"OpenVINO {precision}", predict, source)
        path = quantized.path("openvino")
        for precision in dict.fromkeys((fastest_float(), "float32")):
            title = "OpenVINO int8" if precision == fastest_float() else f"OpenVINO int8 and {precision}"
            add(title, quantized.predictor("openvino", threads=threads, precision=precision), path)
    return variants


def collect_exports(predictor: Predictor, quantized: QuantizedRun, size: tuple[int, int], *, threads: int) -> Variants:
    """Collect the variants to compare after an export: torch, the ONNX file, and a torch.export file written now.

    `size` is (height, width) in pixels. A network that torch cannot store, as some of timm, has no torch.export file.
    """
    source, program = quantized.float_path, quantized.folder / PROGRAM_FILE
    onnx = Variant("ONNX file", open_onnx(source, threads=threads), size_on_disk(source))
    variants = Variants(torch_variant(TORCH_FLOAT32, predictor, size), [onnx])
    scale = predictor.parameters.image_scale
    try:
        export_program(predictor.model, program, height=size[0], width=size[1], image_scale=scale)
    except ParameterError:
        variants.absent["torch.export file"] = "not possible: torch cannot store this network"
    else:
        variants.candidates.append(Variant("torch.export file", open_program(program), size_on_disk(program)))
    return variants


def gains(report: AcceptanceReport, backends: list[str]) -> pd.DataFrame:
    """Return the gain and cost of 8 bits in each runtime: speed-up over torch and over its own float32, points lost."""
    table = report.table()
    rows = {}
    for backend in backends:
        title, plain = f"{TITLES[backend]} int8", f"{TITLES[backend]} float32"
        rows[TITLES[backend]] = {
            "times PyTorch float32": report.speedup(title).times,
            "times its own float32": report.speedup(title, over=plain).times,
            "points of mIoU": table.loc[title, "change"],
            "size": table.loc[title, "size_ratio"],
        }
    return pd.DataFrame(rows).T.rename_axis("runtime")
