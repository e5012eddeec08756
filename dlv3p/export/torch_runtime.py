"""Run networks by torch itself, through the interface of the other runtimes."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dlv3p.export.graphs import full_size
from dlv3p.models.upsampling import upsample_argmax
from dlv3p.runtime.devices import LAYOUT


class TorchPredictor:
    """A network of this suite that predicts train ids uint8 (1,H,W) on the host for a normalized image (1,3,h,w).

    It predicts as `dlv3p.evaluation.inference` does. Other types than float32 run under autocast. `image_scale` is the
    factor that the image was resized by. `compiled` uses torch.compile. Can be pickled.
    """

    def __init__(
        self, model: nn.Module, *, image_scale: float = 1.0, dtype: torch.dtype = torch.float32, compiled: bool = False
    ) -> None:
        self.model = model.eval()
        self.image_scale, self.dtype, self.compiled = image_scale, dtype, compiled
        self.device = next(model.parameters()).device
        # As a function: a compiled module would be a second one that shares the weights, and cannot be pickled.
        self._logits = torch.compile(model.logits_at_stride) if compiled else model.logits_at_stride

    def __reduce__(self) -> tuple:
        return _restore, (self.model, self.image_scale, self.dtype, self.compiled)

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """Predict one image."""
        image = image.to(self.device, memory_format=LAYOUT)
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            logits = self._logits(image)
        size = full_size(image.shape[2:], self.image_scale)
        return upsample_argmax(logits.float(), size, align_corners=self.model.align_corners).cpu()


class ProgramPredictor:
    """A file of torch.export that ends in labels, as `open_program` returns it; can be pickled."""

    def __init__(self, path: Path, module: nn.Module) -> None:
        self.path, self._module = path, module

    def __reduce__(self) -> tuple:
        return open_program, (self.path,)

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """Predict an image (1,3,h,w): uint8 (1,H,W)."""
        return self._module(image)


def open_program(path: str | Path) -> ProgramPredictor:
    """Open a file of torch.export that ends in labels."""
    return ProgramPredictor(Path(path), torch.export.load(path).module())


def _restore(model: nn.Module, image_scale: float, dtype: torch.dtype, compiled: bool) -> TorchPredictor:
    return TorchPredictor(model, image_scale=image_scale, dtype=dtype, compiled=compiled)
