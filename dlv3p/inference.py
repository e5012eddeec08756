"""From a run to label maps of whole images, at the images' own size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cityscapes.errors import DivergedError
from dlv3p.checkpoint import load_checkpoint, model_from_checkpoint
from dlv3p.config import RunParameters
from dlv3p.devices import LAYOUT, choose_device
from dlv3p.runs import checkpoint_path, find_run
from dlv3p.samples.transforms import normalize
from dlv3p.training_parameters import TrainParameters
from dlv3p.upsampling import upsample_argmax


@dataclass(frozen=True)
class Predictor:
    """A trained network that takes RGB images of any size and returns train ids of the same size."""

    run: str
    checkpoint: Path
    epoch: int
    model: nn.Module
    parameters: TrainParameters
    class_names: Sequence[str]
    device: torch.device

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Predict one image: uint8 (H,W) train ids."""
        return self.predict(image).cpu().numpy()

    @torch.inference_mode()
    def predict(self, image: Image.Image) -> Tensor:
        """Predict one image: uint8 (H,W) train ids on the predictor's device; raises DivergedError for nan logits."""
        batch = normalize(image, image_scale=self.parameters.image_scale)[None]
        batch = batch.to(self.device, memory_format=LAYOUT)
        logits = self.model.logits_at_stride(batch)
        if not torch.isfinite(logits).all():
            raise DivergedError(f"{self.checkpoint}: the network's output is not finite; use another checkpoint")
        size = (image.height, image.width)
        return upsample_argmax(logits, size, align_corners=self.model.align_corners)[0]


def load_predictor(parameters: RunParameters) -> Predictor:
    """Load the network that a notebook's parameters name: `run` ("" is the newest) and `checkpoint`."""
    torch.set_num_threads(parameters.threads)
    run = find_run(parameters.run)
    path = checkpoint_path(run, parameters.checkpoint)
    state = load_checkpoint(path)
    model, trained_with = model_from_checkpoint(state)
    device = choose_device(parameters.device)
    return Predictor(
        run, path, state["epoch"], model.to(device, memory_format=LAYOUT), trained_with, state["class_names"], device
    )
