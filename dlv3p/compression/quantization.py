"""Quantize a trained run to 8 bits: `saved/<run>-int8/`, a folder that names its source and can be loaded again.

saved/<run>-int8/
  float32.onnx                the exported network, which ends in labels; the quantizers start from it
  int8-onnxruntime.onnx       by ONNX Runtime
  int8-openvino.xml .bin      by OpenVINO with NNCF
  quantization.json           source, checkpoint's sha256, calibration images, methods, versions, sha256 of each file;
                              `keep_float`: layers requested in float; `float_convolutions`: those that are

Only convolutions and the layers between them are quantized. What follows the logits stays in float: rounding would
decide ties between classes, and it costs little time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cityscapes.errors import IntegrityError, MissingInputError, NewerFormatError, ParameterError, require
from cityscapes.files.channels import refuse_other_rule
from cityscapes.files.checksums import file_sha256, read_json
from cityscapes.files.leftovers import remove_leftovers
from cityscapes.files.locks import lock_folder
from cityscapes.workspace import run_folder
from dlv3p.data.augment import MEAN, STD
from dlv3p.data.classes import stated_colors
from dlv3p.data.fingerprints import ContentHash, data_fingerprint
from dlv3p.evaluation.evaluate import refuse_other_classes
from dlv3p.evaluation.inference import Predictor
from dlv3p.export import onnx_runtime, openvino_runtime
from dlv3p.export.calibration import CalibrationImages
from dlv3p.export.graphs import NEEDED as NEEDED_TO_EXPORT
from dlv3p.export.graphs import export_onnx, metadata_of
from dlv3p.export.onnx_runtime import OnnxPredictor, convolutions, open_onnx, quantize_with_onnx_runtime
from dlv3p.export.openvino_runtime import OpenVinoPredictor, fastest_float, open_openvino, quantize_with_openvino
from dlv3p.export.precisions import INT8
from dlv3p.runs.folders import QUANTIZED, write_json
from dlv3p.runs.provenance import hardware
from dlv3p.runtime.devices import QUANTIZING_ADVICE, explain_out_of_memory

FORMAT = 1
FLOAT_FILE = "float32.onnx"
QUANTIZERS = {
    "onnxruntime": (quantize_with_onnx_runtime, "int8-onnxruntime.onnx"),
    "openvino": (quantize_with_openvino, "int8-openvino.xml"),
}
"""By backend: its quantizer, and the file to open."""
NEEDED = {"onnxruntime": onnx_runtime.NEEDED, "openvino": openvino_runtime.NEEDED}
VERSIONS = {"onnxruntime": ("onnxruntime", "onnx"), "openvino": ("openvino", "nncf")}
OF_A_RUN = ("run.json", "checkpoints", "metrics.csv")
"""What only the folder of a run has, which is never written into."""
EXAMPLE_SIZE = (128, 256)
"""Height and width of the image that a network is traced with; the file takes any size."""


@dataclass(frozen=True)
class QuantizedRun:
    """A folder of quantized networks and its description."""

    folder: Path
    description: dict[str, Any]

    @property
    def float_path(self) -> Path:
        """The exported network, in float32."""
        return self.folder / FLOAT_FILE

    @property
    def backends(self) -> list[str]:
        """The runtimes with a quantized network."""
        return list(self.description["networks"])

    def path(self, backend: str) -> Path:
        """Return the file of one backend's quantized network."""
        return self.folder / self.description["networks"][backend]["files"][0]

    def predictor(self, backend: str, *, threads: int, precision: str = "") -> OnnxPredictor | OpenVinoPredictor:
        """Open one quantized network: (1,3,h,w) normalized float32 to train ids uint8 (1,H,W).

        `precision`, for OpenVINO, is that of the layers that are not quantized: by default the processor's fastest.
        """
        return _open(backend, self.path(backend), threads=threads, precision=precision)


def require_backends(backends: Sequence[str]) -> None:
    """Raise MachineError when a package is missing that quantization for one of `backends` needs."""
    for backend in backends:
        require(f"quantization for {backend}", [*NEEDED_TO_EXPORT, *NEEDED[backend]], "quantize")


@explain_out_of_memory(QUANTIZING_ADVICE)
def quantize_run(
    predictor: Predictor,
    images: CalibrationImages,
    *,
    backends: Sequence[str] = tuple(QUANTIZERS),
    keep_float: str = "none",
) -> QuantizedRun:
    """Export a run and quantize it for every backend, into `saved/<run>-int8/`.

    `keep_float` is "none", or "first", "last" or "first last": convolutions that stay in float, of which the last is
    the classifier. Raises MachineError when a backend is not installed, ParameterError where a run is in that folder,
    and BusyError while another process writes there.
    """
    require_backends(backends)
    refuse_other_classes(predictor, images.split)
    refuse_other_rule(predictor.rule, images.split.pixel_rule, f"run={predictor.run!r}")
    folder = run_folder(f"{predictor.run}-int8")
    if foreign := [name for name in OF_A_RUN if (folder / name).exists()]:
        raise ParameterError(
            f"run={predictor.run!r}: its quantized networks belong into {folder}, which holds a run ({foreign[0]}); "
            "move that run to another name"
        )
    with lock_folder(folder):
        remove_leftovers(folder)
        return _quantize_into(folder, predictor, images, backends=backends, keep_float=keep_float)


def _quantize_into(
    folder: Path, predictor: Predictor, images: CalibrationImages, *, backends: Sequence[str], keep_float: str
) -> QuantizedRun:
    height, width = EXAMPLE_SIZE
    scale = predictor.parameters.image_scale
    source = export_onnx(
        predictor.model,
        folder / FLOAT_FILE,
        height=height,
        width=width,
        with_argmax=True,
        image_scale=scale,
        metadata=metadata_of(predictor),
    )
    names = convolutions(source)
    kept = tuple(names[{"first": 0, "last": -1}[place]] for place in keep_float.split() if place != "none")
    networks = {backend: _quantize(backend, source, images, kept) for backend in backends}
    written = [source, *(folder / name for network in networks.values() for name in network["files"])]
    description = {
        "format": FORMAT,
        "run": predictor.run,
        "checkpoint": {"name": predictor.checkpoint.name, "sha256": predictor.weights_sha256},
        "epoch": predictor.epoch,
        "parameters": predictor.parameters.as_dict(),
        "class_names": list(predictor.class_names),
        **stated_colors(predictor.own_colors),
        **_input(predictor),
        "calibration": {
            "data_root": str(images.split.root),
            "split": images.split.split,
            "fingerprint": data_fingerprint(images.split),
            "image_contents_sha256": _contents(images),
            "images": images.names,
        },
        "machine": hardware(),
        "networks": networks,
        "sha256": {path.name: file_sha256(path) for path in written},
    }
    write_json(folder / QUANTIZED, description)
    return QuantizedRun(folder, description)


def _input(predictor: Predictor) -> dict[str, Any]:
    """Describe how an image becomes the network's input; of other images than RGB, by their rule."""
    shared = {"name": "image", "image_scale": predictor.parameters.image_scale}
    if predictor.rule:
        return {"input": shared, "pixels": predictor.rule.as_dict()}
    return {"input": shared | {"mean": MEAN.tolist(), "standard_deviation": STD.tolist()}}


def _contents(images: CalibrationImages) -> str:
    hashed = ContentHash()
    for index in images.indices:
        hashed.add(images.split, index)
    return hashed.images


def load_quantized(run: str) -> QuantizedRun:
    """Open `saved/<run>-int8/`, after comparing every file with its recorded hash.

    Raises MissingInputError when `run` has not been quantized, IntegrityError when the description or a file was
    changed, NewerFormatError when a later version of this suite wrote it.
    """
    folder = run_folder(f"{run}-int8")
    if not (folder / QUANTIZED).is_file():
        raise MissingInputError(f"{folder}: does not hold a quantized run; create it with quantize.ipynb -p run {run}")
    description = _read_description(folder / QUANTIZED)
    for name, digest in description["sha256"].items():
        if not (folder / name).is_file() or file_sha256(folder / name) != digest:
            raise IntegrityError(f"{folder / name}: is not the file that was written; quantize the run again")
    return QuantizedRun(folder, description)


def _read_description(path: Path) -> dict[str, Any]:
    damaged = IntegrityError(f"{path}: does not describe a quantized run, or is damaged; quantize the run again")
    try:
        description = read_json(path)
        newer = description["format"] > FORMAT
        whole = newer or _is_whole(description["networks"], description["sha256"])
    except IntegrityError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError):
        raise damaged from None
    if newer:
        raise NewerFormatError(
            f"{path}: has format {description['format']}, this version reads up to {FORMAT}; update the suite"
        )
    if not whole:
        raise damaged
    return description


def _is_whole(networks: dict[str, Any], sha256: dict[str, str]) -> bool:
    """Return whether there is a network, and a hash for the file of each one."""
    hashes = dict(sha256)
    return bool(networks) and all(network["files"][0] in hashes for network in networks.values())


def _quantize(backend: str, source: Path, images: CalibrationImages, kept: tuple[str, ...]) -> dict[str, Any]:
    """Quantize an exported network for one backend, beside it, and return its record."""
    quantize, file = QUANTIZERS[backend]
    path = source.with_name(file)
    how = quantize(source, path, images, keep_float=kept)
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    image = torch.from_numpy(next(iter(images)))
    nodes = _open(backend, path, threads=torch.get_num_threads()).nodes(image)
    return {
        "files": [one.name for one in files],
        "bytes": sum(one.stat().st_size for one in files),
        "keep_float": list(kept),
        "float_convolutions": [node.name for node in nodes if "Conv" in node.kind and node.precision != INT8],
        "versions": {name: version(name) for name in VERSIONS[backend]},
        **how,
    }


def _open(backend: str, path: Path, *, threads: int, precision: str = "") -> OnnxPredictor | OpenVinoPredictor:
    if backend == "onnxruntime":
        return open_onnx(path, threads=threads)
    return open_openvino(path, threads=threads, precision=precision or fastest_float())
