"""Predict label maps from a run, at the images' own size, by any evaluation protocol."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cityscapes.errors import DivergedError, InputError, IntegrityError
from cityscapes.files.channels import PixelRule, refuse_other_rule
from cityscapes.files.locks import holder_of
from dlv3p.data.classes import class_colors
from dlv3p.evaluation.multi_scale import View, multi_scale_sum, multi_scale_views, read_scores, view_batch
from dlv3p.models.upsampling import upsample_argmax
from dlv3p.parameters.network import NetworkParameters
from dlv3p.parameters.notebooks import RunParameters
from dlv3p.parameters.protocols import WHOLE_IMAGE, Protocol
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.folders import checkpoint_path, find_run
from dlv3p.runs.loading import read_run_checkpoint
from dlv3p.runtime.devices import LAYOUT, LOADING_ADVICE, SCORING_ADVICE, choose_device, explain_out_of_memory
from dlv3p.weights.checkpoint import model_from_checkpoint, stated_of
from dlv3p.weights.checksums import described_sha256

TOO_SMALL = re.compile("Output size is too small|Kernel size can't be greater than actual input size")
"""What torch says of an image of which a network's poolings leave nothing."""


@dataclass(frozen=True)
class Predictor:
    """A trained network that predicts train ids for RGB images of any size, at that size.

    `weights_sha256` is the hash of the very bytes that the network was read from: a training may have written another
    checkpoint since. `meaning` is what turned stored masks into the classes of its training, None where it is not
    known. `original_sha256` is the `network_sha256` of the network that `model` runs in another way, "" for itself.
    """

    run: str
    checkpoint: Path
    epoch: int
    model: nn.Module
    parameters: TrainParameters
    class_names: Sequence[str]
    device: torch.device
    weights_sha256: str = ""
    meaning: str | None = None
    original_sha256: str = ""

    @cached_property
    def network_sha256(self) -> str:
        """One hash of the weights and of all that says what they compute; equal for a training that is repeated.

        The file has another one each time, since it also holds the seconds of its epochs and the place of its data.
        """
        if self.original_sha256:
            return self.original_sha256
        switches = {item.name: getattr(self.parameters, item.name) for item in fields(NetworkParameters)}
        scale, names = self.parameters.image_scale, list(self.class_names)
        described = {**switches, "image_scale": scale, "class_names": names, **stated_of(self.model)}
        return described_sha256(described, self.model.state_dict())

    @property
    def name(self) -> str:
        """The run and the epoch of its checkpoint, where there is one, as the small print of pictures tells them."""
        return f"{self.run}, epoch {self.epoch}" if self.epoch else self.run

    def __call__(self, image: Image.Image, protocol: Protocol = WHOLE_IMAGE) -> np.ndarray:
        """Predict one image: uint8 (H,W) train ids."""
        return self.predict(image, protocol).cpu().numpy()

    @explain_out_of_memory(SCORING_ADVICE)
    @torch.inference_mode()
    def predict(self, image: Image.Image, protocol: Protocol = WHOLE_IMAGE) -> Tensor:
        """Predict one image: uint8 (H,W) train ids on the predictor's device; raises DivergedError for nan logits.

        Several views are summed at the network's working size: the image's times the run's `image_scale`.
        """
        self._refuse_other_pixels(image)
        scale, align_corners = self.parameters.image_scale, self.model.align_corners
        size = (image.height, image.width)
        views = multi_scale_views(*size, protocol, image_scale=scale)
        if len(views) == 1 and views[0].whole:
            logits = self.logits(view_batch(image, views[0], self.device))
            return upsample_argmax(logits, size, align_corners=align_corners)[0]
        working = size if protocol.long_side else tuple(max(1, round(side * scale)) for side in size)
        total = multi_scale_sum(self.logits, image, views, working, align_corners=align_corners, device=self.device)
        return upsample_argmax(total[None], size)[0]

    def whole_logits(self, image: Image.Image) -> Tensor:
        """Return the logits of a whole image at the network's stride: float32 (C,h,w); errors as for `predict`."""
        self._refuse_other_pixels(image)
        with torch.inference_mode():
            return self.logits(view_batch(image, self._whole(image), self.device))[0].float()

    def pixel_logits(self, logits: Tensor, image: Image.Image) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
        """Yield some rows of an image at a time, and the logits of their pixels, (N, C), from `whole_logits`."""
        view, size = self._whole(image), (image.height, image.width)
        box = (0, 0, view.height, view.width)
        for rows, columns, values in read_scores(logits, box, view, size, self.model.align_corners):
            yield (rows, columns), values.flatten(1).T.cpu().numpy()

    def _refuse_other_pixels(self, image: Image.Image) -> None:
        refuse_other_rule(self.rule, getattr(image, "rule", None), str(self.checkpoint))

    def _whole(self, image: Image.Image) -> View:
        scale = self.parameters.image_scale
        return multi_scale_views(image.height, image.width, WHOLE_IMAGE, image_scale=scale)[0]

    @property
    def rule(self) -> PixelRule | None:
        """How images become the network's input; None for RGB, as of a network that says nothing of it."""
        return getattr(self.model, "rule", None)

    @property
    def own_colors(self) -> np.ndarray | None:
        """The colors that the training's data gave the classes, uint8 (C,3); None where their names say them."""
        return getattr(self.model, "colors", None)

    @property
    def colors(self) -> np.ndarray:
        """The color of each class, uint8 (C,3)."""
        return class_colors(self.class_names, self.own_colors)

    def logits(self, batch: Tensor) -> Tensor:
        """Return the network's logits (N,C,h',w') for a normalized batch (N,3,h,w) on the predictor's device.

        Raises InputError for images that are too small, and DivergedError for nan.
        """
        try:
            logits = self.model.logits_at_stride(batch)
        except RuntimeError as error:
            if not TOO_SMALL.search(str(error)):
                raise
            height, width = batch.shape[2:]
            raise InputError(
                f"{self.checkpoint}: {width}x{height} pixels are too few for this network; give images of at least 33 "
                "pixels a side"
            ) from error
        if not torch.isfinite(logits).all():
            raise DivergedError(f"{self.checkpoint}: the network's output is not finite; use another checkpoint")
        return logits


@explain_out_of_memory(LOADING_ADVICE)
def load_run_predictor(parameters: RunParameters) -> Predictor:
    """Load the network that a notebook's parameters name by `run` ("" is the newest) and `checkpoint`."""
    run = find_run(parameters.run)
    path = checkpoint_path(run, parameters.checkpoint)
    predictor = read_predictor(run, path, device=parameters.device, threads=parameters.threads)
    if holder := holder_of(path.parents[1]):
        print(
            f"run={run!r}: {holder} is training it; this is its {path.stem} network so far, of epoch {predictor.epoch}"
        )
    return predictor


def read_predictor(run: str, checkpoint: Path, *, device: str, threads: int) -> Predictor:
    """Read the network of a run from the file of a checkpoint, wherever the run's folder lies."""
    torch.set_num_threads(threads)
    state = read_run_checkpoint(checkpoint)
    model, trained_with = model_from_checkpoint(state)
    chosen = choose_device(device)
    model, names = model.to(chosen, memory_format=LAYOUT), state["class_names"]
    return Predictor(
        run, checkpoint, state["epoch"], model, trained_with, names, chosen, state["sha256"], state.get("meaning")
    )


def refuse_other_weights(path: Path, found: str, loaded: str) -> None:
    """Raise IntegrityError where a worker has `found` other weights in a file than were `loaded`, both as sha256."""
    if found != loaded:
        raise IntegrityError(
            f"{path}: is another checkpoint than the one that was loaded (a training goes on, or the folders are not "
            "the same here); load it again"
        )


def load_saved(run: str, *, device: str, threads: int) -> Predictor:
    """Load the best network of a run folder by its name."""
    return load_run_predictor(RunParameters(run=run, device=device, threads=threads))
