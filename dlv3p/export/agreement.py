"""Compare an exported file with its network on one image before the file is handed over."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cityscapes.errors import IntegrityError, missing_packages
from dlv3p.evaluation.inference import Predictor
from dlv3p.export.onnx_runtime import NEEDED, open_onnx
from dlv3p.export.torch_runtime import TorchPredictor, open_program
from dlv3p.models.inputs import input_channels

SMALLEST_AGREEMENT = 0.999
"""Share of the pixels that must get the same class; in the others, two best classes may differ by rounding."""
SIZE = (97, 161)
"""Height and width of the image, as the network sees it: not the size that it was traced with."""


def check_export(predictor: Predictor, path: Path) -> float | None:
    """Return the share of pixels of one image for which the file at `path` and the network predict the same class.

    None where ONNX Runtime is not installed, which is not needed to write a file. Raises IntegrityError, and deletes
    the file, when they disagree.
    """
    if path.suffix == ".onnx" and missing_packages(NEEDED):
        return None
    threads = torch.get_num_threads()
    exported = open_onnx(path, threads=threads) if path.suffix == ".onnx" else open_program(path)
    network = TorchPredictor(predictor.model, image_scale=predictor.parameters.image_scale)
    image = probe(input_channels(predictor.model))
    agreement = share_of_same(np.asarray(network(image)), np.asarray(exported(image)))
    if agreement < SMALLEST_AGREEMENT:
        path.unlink()
        raise IntegrityError(
            f"{path}: agreed with the network in {agreement:.2%} of the pixels of an image, less than "
            f"{SMALLEST_AGREEMENT:.2%}, and was deleted; try the other format, or another version of torch"
        )
    return agreement


def probe(channels: int = 3) -> Tensor:
    """Return the image by which networks are compared, normalized, float32 (1,n,h,w): large patches, as in pictures."""
    coarse = torch.randn(1, channels, 6, 10, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")


def share_of_same(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the share of pixels that have the same class, 0 to 1; 0 for masks of different shapes."""
    return float((expected == found).mean()) if expected.shape == found.shape else 0.0
