"""Export a network as an ONNX or torch.export file, for images of any number and size.

The file describes itself: how images are prepared, and what the labels mean.
"""

import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cityscapes.errors import ParameterError, require
from cityscapes.files.atomic import write_bytes
from dlv3p.data.augment import MEAN, STD
from dlv3p.data.classes import stated_colors
from dlv3p.models.inputs import input_channels
from dlv3p.runtime.devices import EXPORT_ADVICE, explain_out_of_memory

if TYPE_CHECKING:
    from dlv3p.evaluation.inference import Predictor

NEEDED = ("onnx", "onnxscript")
LARGEST_DENOMINATOR = 100


class Labels(nn.Module):
    """A network that ends in labels: image (N,3,h,w) to uint8 (N,H,W), for at most 256 classes.

    H and W are the image's size before it was resized by `image_scale`, as `full_size` says.
    """

    def __init__(self, model: nn.Module, image_scale: float = 1.0) -> None:
        super().__init__()
        self.model, self.image_scale = model, image_scale

    def forward(self, image: Tensor) -> Tensor:
        logits = self.model.logits_at_stride(image)
        size = full_size(image.shape[2:], self.image_scale)
        return self.model.upsample(logits, size).argmax(dim=1).to(torch.uint8)


def full_size(size: Sequence[int], image_scale: float) -> tuple[int, int]:
    """Return height and width before an image was resized by `image_scale`: exact where that divides evenly.

    Integer arithmetic only, so that an exporter can trace it for any size.
    """
    scale = Fraction(image_scale).limit_denominator(LARGEST_DENOMINATOR)
    height, width = ((2 * length * scale.denominator + scale.numerator) // (2 * scale.numerator) for length in size)
    return height, width


@explain_out_of_memory(EXPORT_ADVICE)
def export_onnx(
    model: nn.Module,
    path: str | Path,
    *,
    height: int,
    width: int,
    with_argmax: bool = False,
    image_scale: float = 1.0,
    fixed_batch: bool = False,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write `model` in evaluation mode to `path`, weights included, and return the path.

    The file's input is `image`, normalized, float32 (N,3,H,W) of any N, H and W; its output is `logits` (N,C,H,W), or
    `labels`, uint8 (N,H,W), with `with_argmax`, at the size before `image_scale`. `fixed_batch` sets N to 1. `height`
    and `width`, in pixels, are those of the image that the network is traced with, larger than 32; take a usual size.
    `metadata` is stored in it. Raises MachineError without the packages of the extra `export`, or on a full disk.
    """
    require("export to ONNX", NEEDED, "export")
    with _evaluating(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        program = torch.onnx.export(
            (Labels(model, image_scale) if with_argmax else model).eval(),
            (_example(model, height, width, fixed_batch),),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            output_names=["labels" if with_argmax else "logits"],
            dynamic_shapes=({2: "height", 3: "width"} | ({} if fixed_batch else {0: "batch"}),),
        )
    content = program.model_proto
    for name, value in metadata.items():
        content.metadata_props.add(key=name, value=value)
    write_bytes(path, content.SerializeToString())
    return Path(path)


@explain_out_of_memory(EXPORT_ADVICE)
def export_program(model: nn.Module, path: str | Path, *, height: int, width: int, image_scale: float = 1.0) -> Path:
    """Write `model` as an ExportedProgram of torch.export that ends in labels, and return the path (usually .pt2).

    It runs by `torch.export.load(path).module()(image)`, with torch and without this package; image and labels, sizes
    and errors as for `export_onnx`. Raises ParameterError for a network that torch cannot store, as some of timm.
    """
    any_size = torch.export.Dim.DYNAMIC
    with _evaluating(model), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns about itself
        program = torch.export.export(
            Labels(model, image_scale).eval(),
            (_example(model, height, width, fixed_batch=False),),
            dynamic_shapes=({0: any_size, 2: any_size, 3: any_size},),
        )
        content = io.BytesIO()
        try:
            torch.export.save(program, content)
        except RuntimeError as error:
            why = str(error).splitlines()[0][:200]
            raise ParameterError(
                f"{path}: torch.export cannot store this network ({why}); export it as .onnx"
            ) from error
    write_bytes(path, content.getvalue())
    return Path(path)


def metadata_of(predictor: "Predictor") -> dict[str, str]:
    """Return the metadata of an exported file, each entry as JSON.

    An image is resized by `image_scale`, scaled to 0 to 1, reduced by `mean` and divided by `standard_deviation`; label
    n is `class_names[n]`, shown in `colors[n]` where its data gave it a color. Of a network of other images than RGB,
    `pixels` is their rule in place of `mean` and `standard_deviation`.
    """
    parameters = predictor.parameters
    rule = predictor.rule
    content = {
        "run": predictor.run,
        "image_scale": parameters.image_scale,
        "mean": MEAN.tolist(),
        "standard_deviation": STD.tolist(),
        "class_names": list(predictor.class_names),
        "output_stride": parameters.output_stride,
        **stated_colors(predictor.own_colors),
    }
    if rule:
        del content["mean"], content["standard_deviation"]
        content["pixels"] = rule.as_dict()
    return {name: json.dumps(value) for name, value in content.items()}


def _example(model: nn.Module, height: int, width: int, fixed_batch: bool) -> Tensor:
    # A batch of one would become a constant.
    shape = (1 if fixed_batch else 2, input_channels(model), height, width)
    return torch.zeros(shape, device=next(model.parameters()).device)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` into evaluation mode for the block, and restore the mode of each module after it."""
    was_training = {name: module.training for name, module in model.named_modules()}
    model.eval()
    try:
        yield
    finally:
        for name, module in model.named_modules():
            module.training = was_training[name]
