"""Open what predicts: a run by its name, a weights file of any known kind, or an exported file; and choose its runtime.

Of a network of ours only the logits at the stride are handed over to another runtime. Images, views, tiles, upsampling
and the choice of the class stay the same code, so that labels differ only where two classes are nearly equal.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cityscapes.errors import (
    IntegrityError,
    MissingInputError,
    ParameterError,
    is_out_of_memory,
    missing_packages,
    require,
)
from cityscapes.files.channels import PixelRule
from cityscapes.files.checksums import (
    call_unchecked,
    check_recorded,
    file_sha256,
    read_json,
    record_path,
    write_recorded,
)
from cityscapes.files.leftovers import temporary_folder
from cityscapes.files.untrusted import given_path
from cityscapes.workspace import output_folder
from dlv3p.data.augment import normalize
from dlv3p.data.classes import class_colors, read_own_colors
from dlv3p.evaluation.inference import Predictor, load_run_predictor
from dlv3p.export import graphs, onnx_runtime, openvino_runtime
from dlv3p.export.agreement import SMALLEST_AGREEMENT, probe, share_of_same
from dlv3p.export.graphs import export_onnx
from dlv3p.export.onnx_runtime import open_onnx
from dlv3p.export.openvino_runtime import open_openvino
from dlv3p.models.folding import fold_norms
from dlv3p.models.inputs import input_channels
from dlv3p.parameters.choices import BACKENDS, EXACT, FASTEST, FOLDED
from dlv3p.parameters.notebooks import RunParameters
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import QUANTIZED, list_runs
from dlv3p.runs.trained import install_trained_run
from dlv3p.runtime.devices import LAYOUT, LOADING_ADVICE, choose_device, explain_out_of_memory
from dlv3p.weights.checkpoint import rule_of
from dlv3p.weights.loading import build_recognized, drop_void
from dlv3p.weights.reading import read_weights
from dlv3p.weights.recognition import recognize

TORCH_EXPORT = ".pt2"
EXPORTED = {".onnx": "onnxruntime", ".xml": "openvino"}
"""By suffix: the runtime that opens an exported file, unless another one is asked for."""
NEEDED = {"onnxruntime": onnx_runtime.NEEDED, "openvino": openvino_runtime.NEEDED}
EXAMPLE_SIZE = {"height": 128, "width": 256}
"""Pixels of the image that a network is traced with; the file takes any size."""
TIMED_SIZE, ROUNDS = (256, 512), 3
"""Height and width of the image by which the fastest runtime is found, and how often each predicts it."""
WEIGHTS = (".pt", ".pth", ".safetensors", ".npz", ".bin", ".ckpt")


@dataclass(frozen=True)
class LabelsFile:
    """An exported file that ends in labels: what it was made from, and the function that runs it.

    It says what a `Predictor` says; of `parameters` only the `image_scale` is known.
    """

    run: str
    checkpoint: Path
    epoch: int
    class_names: tuple[str, ...]
    parameters: TrainParameters
    weights_sha256: str
    runtime: str
    predict: Callable[[Tensor], Any]
    rule: PixelRule | None = None
    own_colors: np.ndarray | None = None
    meaning: str | None = None

    @property
    def name(self) -> str:
        """What it was made from, as the small print of pictures tells it."""
        return self.run

    @property
    def network_sha256(self) -> str:
        """What stands for the network in stamps: an exported file is not taken apart."""
        return self.weights_sha256

    @property
    def colors(self) -> np.ndarray:
        """The color of each class, uint8 (C,3)."""
        return class_colors(self.class_names, self.own_colors)

    def labels(self, image: Image.Image) -> np.ndarray:
        """Predict an RGB image: uint8 (H,W) train ids."""
        found = np.asarray(self.predict(normalize(image, image_scale=self.parameters.image_scale)[None]))
        if found.dtype != np.uint8 or found.ndim != 3:
            raise IntegrityError(f"{self.checkpoint}: does not end in labels; export it with: dlv3p export")
        if found[0].shape == (image.height, image.width):
            return found[0]
        return np.asarray(Image.fromarray(found[0]).resize(image.size, Image.Resampling.NEAREST))


def open_network(
    source: str | Path, *, checkpoint: str, runtime: str, device: str, threads: int
) -> Predictor | LabelsFile:
    """Open a network by torch, or an exported file by its own runtime.

    Without any run, "" is the stored one. Raises MissingInputError for what is not there.
    """
    path = given_path(source) if source else None
    if path is not None and path.suffix.lower() in EXPORTED:
        return _open_exported(path, runtime, device, threads)
    if path is not None and path.suffix.lower() == TORCH_EXPORT:
        raise ParameterError(
            f"{path}: a file of torch.export is for programs in torch, and cannot be predicted with; give the run, its "
            "weights, or the file that dlv3p export --output network.onnx writes"
        )
    if path is not None and (path.suffix.lower() in WEIGHTS or path.is_file()):
        return _open_weights(path, device)
    run = str(source)
    if not run and not list_runs():
        run = install_trained_run()
        print("no run yet: this predicts with the trained run that comes with the suite", flush=True)
    return load_run_predictor(RunParameters(run=run, checkpoint=checkpoint, device=device, threads=threads))


@explain_out_of_memory(LOADING_ADVICE)
def _open_weights(path: Path, device: str) -> Predictor:
    sha256 = file_sha256(path) if path.is_file() else ""
    found = recognize(read_weights(path))
    loaded = drop_void(build_recognized(found))
    scale = (found.file.description or {}).get("parameters", {}).get("image_scale", 1.0)
    parameters = TrainParameters(**{**loaded.parameters.as_dict(), "image_scale": scale})
    names = loaded.class_names or tuple(f"class {index}" for index in range(loaded.model.classifier.out_channels))
    where = choose_device(device)
    model = loaded.model.to(where, memory_format=LAYOUT)
    if file_sha256(path) != sha256:  # a training may save in between
        raise IntegrityError(f"{path}: was written while it was read; run again")
    return Predictor(path.stem, path, 0, model, parameters, names, where, sha256)


def _open_exported(path: Path, runtime: str, device: str, threads: int) -> LabelsFile:
    if device == "cuda":
        raise ParameterError(f"device={device!r}: {path} runs on the CPU; take auto or cpu, or give the run itself")
    usual = EXPORTED[path.suffix.lower()]
    chosen = usual if runtime in (EXACT, FASTEST) else runtime
    if chosen == FOLDED:
        raise ParameterError(f"runtime={runtime!r}: folds the norms of a run; {path} is run by {' or '.join(BACKENDS)}")
    if chosen == "onnxruntime" and usual != chosen:
        raise ParameterError(f"runtime={runtime!r}: {path} is a file of OpenVINO; allowed are {usual} and {FASTEST}")
    if not path.is_file():
        raise MissingInputError(f"{path}: no such exported file; write one with: dlv3p export --output {path.name}")
    weights_sha256 = exported_sha256(path)
    description = _description(path, usual)
    torch.set_num_threads(threads)
    try:
        opened = open_onnx if chosen == "onnxruntime" else open_openvino
        predict = opened(path, threads=threads)
    except Exception as error:
        module = type(error).__module__  # ONNX Runtime has classes of its own
        damaged = isinstance(error, RuntimeError) or module.startswith("onnxruntime")
        if damaged and not is_out_of_memory(error):
            raise IntegrityError(f"{path}: cannot be opened by {chosen}; export it again") from error
        raise
    if exported_sha256(path) != weights_sha256:  # an export may write in between
        raise IntegrityError(f"{path}: was written while it was read; run again")
    names = tuple(description["class_names"])
    parameters = TrainParameters(image_scale=float(description["image_scale"]))
    run = f"{description.get('run') or path.stem}-{path.stem}"
    rule, colors = rule_of(description), read_own_colors(description.get("colors"), names, str(path))
    return LabelsFile(run, path, 0, names, parameters, weights_sha256, chosen, predict, rule, colors)


def exported_sha256(path: Path) -> str:
    """Return the sha256 of an exported file, for OpenVINO that of its two files; compare them with what was recorded.

    Raises IntegrityError where one was changed since a quantized run or `dlv3p export` wrote it.
    """
    files = [path, *[path.with_suffix(".bin")] * (path.suffix.lower() == ".xml")]
    if missing := [file for file in files if not file.is_file()]:
        raise MissingInputError(f"{missing[0]}: no such file, which belongs to {path.name}; export it again")
    digests = {file.name: file_sha256(file) for file in files}
    record = path.with_name(QUANTIZED)
    recorded = read_json(record).get("sha256", {}) if record.is_file() else {}
    for name, digest in digests.items():
        check_recorded(path.with_name(name), digest)
        if recorded.get(name, digest) != digest:
            raise IntegrityError(f"{path.with_name(name)}: is not the file that was written; quantize the run again")
        if name not in recorded and not record_path(path.with_name(name)).is_file():
            call_unchecked(path.with_name(name))
    return digests[path.name] if len(files) == 1 else hashlib.sha256("".join(digests.values()).encode()).hexdigest()


def _description(path: Path, usual: str) -> dict[str, Any]:
    """Return run, class names and image scale of an exported file, from itself or from a quantized run's record."""
    record = path.with_name(QUANTIZED)
    content = read_json(record) if record.is_file() else {}
    if path.name in content.get("sha256", {}):  # else it was laid beside the run's own files
        return {**content, "image_scale": content["input"]["image_scale"]}
    found = _onnx_metadata(path) if usual == "onnxruntime" else {}
    if "class_names" not in found:
        raise IntegrityError(
            f"{path}: does not say what its classes are; take a file of `dlv3p export`, or of notebooks/quantize.ipynb"
        )
    return {"image_scale": 1.0, **found}


def _onnx_metadata(path: Path) -> dict[str, Any]:
    require("an ONNX file", onnx_runtime.NEEDED, "export")
    import onnx

    try:
        properties = onnx.load(path, load_external_data=False).metadata_props
    except MemoryError:
        raise
    except Exception as error:  # protobuf's errors, which depend on its version
        raise IntegrityError(f"{path}: cannot be read as an ONNX file; export it again") from error
    known = ("run", "class_names", "image_scale", "pixels", "colors")
    return {entry.key: json.loads(entry.value) for entry in properties if entry.key in known}


class AtStride(nn.Module):
    """A network that ends in its logits at the output stride."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model.logits_at_stride(image)


@dataclass(frozen=True)
class ExportedNetwork:
    """A network in another runtime, with what a `Predictor` asks of its model."""

    run: Callable[[Tensor], object]
    align_corners: bool
    rule: PixelRule | None = None
    colors: np.ndarray | None = None

    def logits_at_stride(self, batch: Tensor) -> Tensor:
        """Return the logits of normalized images (N,3,h,w)."""
        return torch.from_numpy(self.run(batch.contiguous(memory_format=torch.contiguous_format)))


def with_runtime(predictor: Predictor, runtime: str, *, threads: int) -> tuple[Predictor, str]:
    """Return a predictor whose network runs by `runtime`, and the name of that runtime, which may be the fastest.

    Raises MachineError where its packages are missing, or for a GPU, which only torch uses here.
    """
    if runtime == EXACT or (runtime == FASTEST and predictor.device.type != "cpu"):
        return predictor, EXACT
    if runtime == FOLDED:
        return _folded(predictor), FOLDED
    if predictor.device.type != "cpu":
        raise ParameterError(
            f"runtime={runtime!r}: runs on the CPU here; use device='cpu', or runtime={EXACT!r} or {FOLDED!r}"
        )
    if runtime != FASTEST:
        return _handed_over(predictor, runtime, threads), runtime
    here = [name for name in BACKENDS if not missing_packages((*NEEDED[name], *graphs.NEEDED))]
    candidates = {EXACT: predictor, FOLDED: _folded(predictor)}
    candidates |= {name: _handed_over(predictor, name, threads) for name in here}
    seconds = {name: _seconds(candidate) for name, candidate in candidates.items()}
    best = min(seconds, key=seconds.get)
    return candidates[best], best


def _folded(predictor: Predictor) -> Predictor:
    network = fold_norms(predictor.model).to(memory_format=LAYOUT)
    _check_agreement(predictor, network.logits_at_stride)
    return replace(predictor, model=network, original_sha256=predictor.network_sha256)


def _handed_over(predictor: Predictor, runtime: str, threads: int) -> Predictor:
    require(f"runtime={runtime!r}", NEEDED[runtime], "quantize")
    require(f"runtime={runtime!r}", graphs.NEEDED, "export")
    path = _exported(predictor)
    opened = open_onnx if runtime == "onnxruntime" else open_openvino
    stated = {"rule": predictor.rule, "colors": predictor.own_colors}
    network = ExportedNetwork(opened(path, threads=threads), predictor.model.align_corners, **stated)
    return replace(predictor, model=network, original_sha256=predictor.network_sha256)


def _exported(predictor: Predictor) -> Path:
    """Return the network's file, which is written once for the same weights, and compared with torch before it is."""
    name = f"{predictor.weights_sha256[:16]}-torch-{torch.__version__.split('+')[0]}.onnx"
    path = output_folder(predictor.run) / "exported" / name
    if path.is_file() and record_path(path).is_file():
        check_recorded(path, file_sha256(path))
        return path
    with temporary_folder("dlv3p-prediction") as folder:
        made = export_onnx(AtStride(predictor.model), Path(folder) / name, **EXAMPLE_SIZE)
        if not missing_packages(onnx_runtime.NEEDED):
            exported = open_onnx(made, threads=torch.get_num_threads())
            _check_agreement(predictor, ExportedNetwork(exported, predictor.model.align_corners).logits_at_stride)
        write_recorded(path, made.read_bytes())
    return path


@torch.inference_mode()
def _check_agreement(predictor: Predictor, logits_at_stride: Callable[[Tensor], Tensor]) -> None:
    """Raise IntegrityError where logits of an image lead to other classes than the network's in too many pixels."""
    image = probe(input_channels(predictor.model)).to(predictor.device, memory_format=LAYOUT)
    expected = predictor.logits(image).cpu().numpy()
    found = np.asarray(logits_at_stride(image).cpu())
    agreement = share_of_same(expected.argmax(1), found.argmax(1)) if expected.shape == found.shape else 0.0
    if agreement < SMALLEST_AGREEMENT:
        raise IntegrityError(
            f"runtime: another way to run the network agreed with it in {agreement:.2%} of an image's pixels, less "
            f"than {SMALLEST_AGREEMENT:.2%}; use runtime='exact'"
        )


@torch.inference_mode()
def _seconds(predictor: Predictor) -> float:
    image = torch.zeros(1, predictor.rule.channels if predictor.rule else 3, *TIMED_SIZE).to(memory_format=LAYOUT)
    predictor.logits(image)
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        predictor.logits(image)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
