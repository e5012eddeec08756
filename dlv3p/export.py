"""A network for other runtimes: one ONNX file that takes images of any number and size."""

import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from cityscapes.atomic import write_bytes
from cityscapes.errors import MachineError

NEEDED = ("onnx", "onnxscript")


class Labels(nn.Module):
    """A network that ends in labels: image (N,3,H,W) to uint8 (N,H,W), for at most 256 classes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image).argmax(dim=1).to(torch.uint8)


def export_onnx(model: nn.Module, path: str | Path, *, height: int, width: int, with_argmax: bool = False) -> Path:
    """Write `model` in evaluation mode to `path`, weights included, and return the path.

    The file's input is `image`, normalised, float32 (N,3,H,W) of any N, H and W; its output is `logits` (N,C,H,W), or
    `labels`, uint8 (N,H,W), with `with_argmax`. `height` and `width`, in pixels, are those of the image that the
    network is followed with, larger than 32; take a usual size. Raises MachineError without the packages of the extra
    `export`, or when the disk is full.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise MachineError(f"export to ONNX needs {' and '.join(missing)}; install with: pip install 'dlv3p[export]'")
    was_training = {name: module.training for name, module in model.named_modules()}
    # A batch of one would be taken for a constant.
    image = torch.zeros(2, 3, height, width, device=next(model.parameters()).device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            program = torch.onnx.export(
                (Labels(model) if with_argmax else model).eval(),
                (image,),
                dynamo=True,
                verbose=False,
                input_names=["image"],
                output_names=["labels" if with_argmax else "logits"],
                dynamic_shapes=({0: "batch", 2: "height", 3: "width"},),
            )
    finally:
        for name, module in model.named_modules():
            module.training = was_training[name]
    write_bytes(path, program.model_proto.SerializeToString())
    return Path(path)
