"""A trained run in 8 bits: `saved/<run>-int8/`, a folder that says what it was made from and can be loaded again.

saved/<run>-int8/
  float32.onnx                the exported network, which ends in labels; the quantisers start from it
  int8-onnxruntime.onnx       by ONNX Runtime
  int8-openvino.xml .bin      by OpenVINO with NNCF
  quantization.json           source, checkpoint's sha256, calibration images, methods, versions, sha256 of each file

Only convolutions and what lies between them are quantised. What follows the logits stays in float: ties between
classes would be decided by rounding, and it is no convolution's time.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cityscapes.errors import IntegrityError, MissingInputError
from cityscapes.workspace import run_folder
from dlv3p.compression.calibration import CalibrationImages
from dlv3p.compression.onnx_runtime import OnnxPredictor, convolutions, quantize_with_onnx_runtime
from dlv3p.compression.openvino_runtime import OpenVinoPredictor, fastest_float, quantize_with_openvino
from dlv3p.export.graphs import export_onnx
from dlv3p.inference import Predictor
from dlv3p.provenance import data_fingerprint, hardware
from dlv3p.runs import write_json
from dlv3p.samples.photometric import MEAN, STD

FORMAT = 1
DESCRIPTION = "quantization.json"
FLOAT_FILE = "float32.onnx"
QUANTIZERS = {
    "onnxruntime": (quantize_with_onnx_runtime, "int8-onnxruntime.onnx"),
    "openvino": (quantize_with_openvino, "int8-openvino.xml"),
}
"""For each backend: what quantises for it, and the file that is opened."""
VERSIONS = {"onnxruntime": ("onnxruntime", "onnx"), "openvino": ("openvino", "nncf")}
EXAMPLE_SIZE = (128, 256)
"""Height and width of the image that a network is followed with; the file takes any."""


@dataclass(frozen=True)
class QuantizedRun:
    """A folder of quantised networks and its description."""

    folder: Path
    description: dict[str, Any]

    @property
    def float_path(self) -> Path:
        """The exported network, in float32."""
        return self.folder / FLOAT_FILE

    @property
    def backends(self) -> list[str]:
        """The runtimes that there is a quantised network for."""
        return list(self.description["networks"])

    def path(self, backend: str) -> Path:
        """Return the file of one backend's quantised network."""
        return self.folder / self.description["networks"][backend]["files"][0]

    def predictor(self, backend: str, *, threads: int, precision: str = "") -> OnnxPredictor | OpenVinoPredictor:
        """Open one quantised network: (1,3,h,w) normalised float32 to train ids uint8 (1,H,W).

        `precision` is that of what is not quantised, for OpenVINO: by default the processor's fastest.
        """
        if backend == "onnxruntime":
            return OnnxPredictor(self.path(backend), threads=threads)
        return OpenVinoPredictor(self.path(backend), threads=threads, precision=precision or fastest_float())


def quantize_run(
    predictor: Predictor,
    images: CalibrationImages,
    *,
    backends: Sequence[str] = tuple(QUANTIZERS),
    keep_float: str = "none",
) -> QuantizedRun:
    """Export a run and quantise it for every backend, into `saved/<run>-int8/`.

    `keep_float` is "none", or "first", "last" or "first last": convolutions that stay in float, of which the last is
    the classifier. Raises MachineError when a backend is not installed.
    """
    folder = run_folder(f"{predictor.run}-int8")
    height, width = EXAMPLE_SIZE
    scale = predictor.parameters.image_scale
    source = export_onnx(
        predictor.model, folder / FLOAT_FILE, height=height, width=width, with_argmax=True, image_scale=scale
    )
    names = convolutions(source)
    kept = tuple(names[{"first": 0, "last": -1}[place]] for place in keep_float.split() if place != "none")
    networks, written = {}, [source]
    for backend in backends:
        quantize, file = QUANTIZERS[backend]
        path = folder / file
        how = quantize(source, path, images, keep_float=kept)
        files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
        written += files
        networks[backend] = {
            "files": [one.name for one in files],
            "bytes": sum(one.stat().st_size for one in files),
            "keep_float": list(kept),
            "versions": {name: version(name) for name in VERSIONS[backend]},
            **how,
        }
    description = {
        "format": FORMAT,
        "run": predictor.run,
        "checkpoint": {"name": predictor.checkpoint.name, "sha256": _sha256(predictor.checkpoint)},
        "epoch": predictor.epoch,
        "parameters": predictor.parameters.as_dict(),
        "class_names": list(predictor.class_names),
        "input": {"name": "image", "mean": MEAN.tolist(), "standard_deviation": STD.tolist(), "image_scale": scale},
        "calibration": {
            "data_root": str(images.split.root),
            "split": images.split.split,
            "fingerprint": data_fingerprint(images.split),
            "images": images.names,
        },
        "machine": hardware(),
        "networks": networks,
        "sha256": {path.name: _sha256(path) for path in written},
    }
    write_json(folder / DESCRIPTION, description)
    return QuantizedRun(folder, description)


def load_quantized(run: str) -> QuantizedRun:
    """Open `saved/<run>-int8/`, after comparing every file with its recorded hash.

    Raises MissingInputError when `run` has not been quantised, IntegrityError when a file is not the one written.
    """
    folder = run_folder(f"{run}-int8")
    if not (folder / DESCRIPTION).is_file():
        raise MissingInputError(f"{folder}: holds no quantised run; make it with quantize.ipynb -p run {run}")
    description = json.loads((folder / DESCRIPTION).read_text())
    if description["format"] > FORMAT:
        raise IntegrityError(f"{folder}: has format {description['format']}, this version reads up to {FORMAT}")
    for name, digest in description["sha256"].items():
        if not (folder / name).is_file() or _sha256(folder / name) != digest:
            raise IntegrityError(f"{folder / name}: is not the file that was written; quantise the run again")
    return QuantizedRun(folder, description)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
