"""Load any network, and predict single images by it: a path, a PIL image or an array becomes an array of train ids.

    predictor = load_predictor("demo")
    labels = predictor("street.jpg")

The network is a run's, a weights file's of any known kind, or an exported file's. Images keep their size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cityscapes.errors import InputError, ParameterError
from cityscapes.files.channels import ChannelImage, PixelRule, refuse_other_rule
from cityscapes.files.images import PICTURE_FORMATS, as_rgb, inspect_picture, read_image
from cityscapes.files.untrusted import given_path
from dlv3p.data.augment import normalize
from dlv3p.evaluation.inference import Predictor, refuse_other_weights
from dlv3p.evaluation.multi_scale import View, multi_scale_sum, multi_scale_views, read_scores, resize, view_batch
from dlv3p.models.upsampling import upsample_argmax
from dlv3p.parameters.choices import EXACT
from dlv3p.parameters.notebooks import PredictParameters, RenderGifParameters
from dlv3p.parameters.protocols import PUBLISHED, WHOLE_IMAGE, Protocol, parse_scales
from dlv3p.prediction.memory import MemoryLimit, bytes_of_held_pixel, bytes_of_image_pixel
from dlv3p.prediction.networks import LabelsFile, open_network, with_runtime
from dlv3p.prediction.sources import problem_of
from dlv3p.prediction.tiles import Box, Tiling, blend
from dlv3p.runtime.devices import LAYOUT, SCORING_ADVICE, explain_out_of_memory

Size = tuple[int, int]
"""Height and width in pixels."""


class Prediction(NamedTuple):
    """Train ids, uint8 (H,W), and if asked for the softmax of the winner, uint8 (H,W), 255 for 1."""

    labels: np.ndarray
    confidence: np.ndarray | None = None


@dataclass(frozen=True)
class ImagePredictor:
    """A network that predicts images of any size, large ones in tiles; see `load_predictor`."""

    network: Predictor | LabelsFile
    runtime: str
    protocol: Protocol
    limit: MemoryLimit

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their train ids."""
        return tuple(self.network.class_names)

    @property
    def colors(self) -> np.ndarray:
        """The color of each class, uint8 (C,3)."""
        return self.network.colors

    @property
    def rule(self) -> PixelRule | None:
        """How images become the network's input where it was trained on others than RGB."""
        return self.network.rule

    def __call__(self, image: str | Path | Image.Image | np.ndarray) -> np.ndarray:
        """Predict one image, a path, a PIL image, or an array uint8 (H,W,3) or (H,W): train ids, uint8 (H,W).

        For a network of other channels an array holds stored values, (H,W) or (H,W,n), of any kind of number. Raises
        InputError for an image that cannot be read.
        """
        return self.predict([self.opened(image)])[0].labels

    def with_confidence(self, image: str | Path | Image.Image | np.ndarray) -> Prediction:
        """Predict one image, and how sure the network is of each pixel."""
        return self.predict([self.opened(image, confidence=True)], confidence=True)[0]

    def opened(
        self, image: str | Path | Image.Image | np.ndarray, *, confidence: bool = False
    ) -> Image.Image | ChannelImage:
        """Return an image as `as_image` does; a file that is too large is refused before its pixels take memory."""
        if isinstance(image, str | Path):
            header, _ = inspect_picture(given_path(image), any_channels=self.rule is not None)
            try:
                self.needs_tiles(header.size[::-1], confidence)
            except InputError as error:
                raise InputError(problem_of(image, error)) from error
        return as_image(image, self.rule)

    @explain_out_of_memory(SCORING_ADVICE)
    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image], *, confidence: bool = False) -> list[Prediction]:
        """Predict images as `as_image` returns them, those of one size as one batch where all of it is seen at once.

        Raises InputError for anything else, which `as_image` makes one of these.
        """
        for image in _as_returned(images):
            refuse_other_rule(self.rule, getattr(image, "rule", None), str(self.network.checkpoint))
        if len({image.size for image in images}) == 1 and self.sees_whole(images[0].size[::-1], confidence):
            return self._predict_batch(images, confidence)
        if len(images) > 1:
            return [found for image in images for found in self.predict([image], confidence=confidence)]
        return [self._predict_one(image, confidence) for image in images]

    def sees_whole(self, size: Size, confidence: bool = False) -> bool:
        """Return whether an image is predicted by one look of the network at all of it; raises as `needs_tiles`."""
        if isinstance(self.network, LabelsFile) or self.needs_tiles(size, confidence):
            return False
        views = multi_scale_views(*size, self.protocol, image_scale=self.network.parameters.image_scale)
        return len(views) == 1 and views[0].whole

    def needs_tiles(self, size: Size, confidence: bool = False) -> bool:
        """Return whether an image is too large to be predicted whole within the limit of memory.

        Raises InputError, before memory is spent, for one that is too large even in tiles.
        """
        return self.limit.needs_tiles(size, len(self.class_names), self.protocol, confidence=confidence)

    def _predict_batch(self, images: Sequence[Image.Image], confidence: bool) -> list[Prediction]:
        net, size = self.network, images[0].size[::-1]
        (view,) = multi_scale_views(*size, self.protocol, image_scale=net.parameters.image_scale)
        batch = torch.stack([normalize(resize(image, view.width, view.height)) for image in images])
        logits = net.logits(batch.to(net.device, memory_format=LAYOUT))
        labels = upsample_argmax(logits, size, align_corners=net.model.align_corners).cpu().numpy()
        if not confidence:
            return [Prediction(ids) for ids in labels]
        sure = [confidence_of(one, view, size, align_corners=net.model.align_corners) for one in logits.float()]
        return [Prediction(*pair) for pair in zip(labels, sure, strict=True)]

    def _predict_one(self, image: Image.Image, confidence: bool) -> Prediction:
        size = image.size[::-1]
        if self.needs_tiles(size, confidence):
            return self._predict_in_tiles(image, confidence)
        if isinstance(self.network, LabelsFile):
            return Prediction(self.network.labels(image))
        scores, working = self._scores(image)
        labels = upsample_argmax(scores[None], size)[0].cpu().numpy()
        if not confidence:
            return Prediction(labels)
        return Prediction(labels, confidence_of(scores, _whole(working), size, summed=self._sums))

    def _predict_in_tiles(self, image: Image.Image, confidence: bool) -> Prediction:
        tiling = Tiling(image.height, image.width, self.limit.tile, self.limit.overlap)
        labels = np.empty((image.height, image.width), np.uint8)
        sure = np.empty_like(labels) if confidence else None
        for rows, columns, scores in blend(lambda box: self._scores_of_tile(image, box), tiling):
            labels[rows, columns] = scores.argmax(dim=0).byte().cpu().numpy()
            if sure is not None:
                sure[rows, columns] = _winner(scores, summed=self._sums).cpu().numpy()
        return Prediction(labels, sure)

    def _scores_of_tile(self, image: Image.Image, box: Box) -> Tensor:
        """Return the scores of a tile at its pixels, float32 (C,h,w): of a file that ends in labels, their votes."""
        (top, bottom), (left, right) = box
        tile = image.crop((left, top, right, bottom))
        if isinstance(self.network, LabelsFile):
            labels = torch.from_numpy(self.network.labels(tile)).long()
            return functional.one_hot(labels, len(self.class_names)).permute(2, 0, 1).float()
        scores, _ = self._scores(tile, as_logits=True)
        align = self._single and self.network.model.align_corners
        size = (bottom - top, right - left)
        return functional.interpolate(scores[None], size=size, mode="bilinear", align_corners=align)[0]

    def _scores(self, image: Image.Image, *, as_logits: bool = False) -> tuple[Tensor, Size]:
        """Return the summed scores of all views (C,h,w), and their size; `as_logits` allows those of one whole view."""
        net, protocol = self.network, self.protocol
        scale, size = net.parameters.image_scale, (image.height, image.width)
        views = multi_scale_views(*size, protocol, image_scale=scale)
        if as_logits and self._single:
            return net.logits(view_batch(image, views[0], net.device))[0].float(), size
        working = size if protocol.long_side else tuple(max(1, round(side * scale)) for side in size)
        how = {"align_corners": net.model.align_corners, "device": net.device}
        return multi_scale_sum(net.logits, image, views, working, **how), working

    @property
    def _sums(self) -> bool:
        """Whether the scores are sums of probabilities, not logits."""
        return len(self.protocol.scales) > 1 or self.protocol.flip

    @property
    def _single(self) -> bool:
        protocol = self.protocol
        return not (self._sums or protocol.window_height or protocol.padded)


def load_predictor(
    source: str | Path = "",
    *,
    checkpoint: str = "best",
    runtime: str = EXACT,
    device: str = "auto",
    threads: int = 2,
    protocol: Protocol | str = WHOLE_IMAGE,
    memory_gib: float = 4.0,
    tile: int = 1024,
    tile_overlap: int = 128,
) -> ImagePredictor:
    """Load a network: a run by its name ("" is the newest), a weights file of any known kind, or an exported file.

    `runtime` is exact (torch, the same pixels on every call), onnxruntime, openvino, or fastest, which times them.
    `protocol` says scales, flips and windows: `Protocol(scales=(0.75, 1.0, 1.25), flip=True)`, or a published one by
    its name. An image that would take the process beyond `memory_gib` is predicted in tiles of `tile` pixels, see
    `tiles.py`. Raises ParameterError for what `dlv3p predict` does not take either.
    """
    PredictParameters(  # whose ranges hold in Python as well
        checkpoint=checkpoint,
        runtime=runtime,
        device=device,
        threads=threads,
        memory_gib=memory_gib,
        tile=tile,
        tile_overlap=tile_overlap,
    )
    if isinstance(protocol, str):
        protocol = PUBLISHED.get(protocol, protocol)
    if not isinstance(protocol, Protocol):
        names = ", ".join(PUBLISHED)
        raise ParameterError(f"protocol={protocol!r}: allowed are {names}, or a Protocol, as Protocol(flip=True)")
    protocol = replace(protocol, scales=parse_scales(" ".join(map(str, np.ravel(protocol.scales)))))
    torch.set_num_threads(threads)
    if protocol.center_crop:
        raise ParameterError(f"protocol={protocol.name!r}: sees the center only, and every pixel is to be predicted")
    network = open_network(source, checkpoint=checkpoint, runtime=runtime, device=device, threads=threads)
    limit = limit_of(network, MemoryLimit(memory_gib, tile, tile_overlap))
    if isinstance(network, LabelsFile):
        if protocol != WHOLE_IMAGE:
            raise ParameterError(f"{network.checkpoint}: ends in labels, which several views cannot be summed from; "
                                 "give the run or its weights, or protocol='whole_image'")  # fmt: skip
        return ImagePredictor(network, network.runtime, protocol, limit)
    network, runtime = with_runtime(network, runtime, threads=threads)
    return ImagePredictor(network, runtime, protocol, limit)


def predictor_of(parameters: PredictParameters | RenderGifParameters) -> ImagePredictor:
    """Load the network that the parameters name; an animation is of whole images by the exact runtime."""
    how = {}
    if isinstance(parameters, PredictParameters):
        how = {"runtime": parameters.runtime, "protocol": parameters.chosen_protocol()}
    return load_predictor(
        parameters.weights or parameters.run,
        checkpoint=parameters.checkpoint,
        device=parameters.device,
        threads=parameters.threads,
        memory_gib=parameters.memory_gib,
        tile=parameters.tile,
        tile_overlap=parameters.tile_overlap,
        **how,
    )


def limit_of(network: Predictor | LabelsFile, limit: MemoryLimit) -> MemoryLimit:
    """Return a limit of memory for what a network takes; nothing can be traced in a file that ends in labels."""
    limit = replace(limit, held_bytes=bytes_of_held_pixel(network.rule))
    if isinstance(network, LabelsFile):
        return limit
    return limit.of_network(bytes_of_image_pixel(network.model), network.parameters.image_scale)


class PredictorFile(NamedTuple):
    """What it takes to load a predictor again in a process that sees the same folders, with the same pixels."""

    run: str
    checkpoint: Path
    weights_sha256: str
    runtime: str
    device: str
    threads: int
    protocol: Protocol
    limit: MemoryLimit


def file_of(predictor: ImagePredictor) -> PredictorFile:
    """Return from what a predictor can be loaded again."""
    network = predictor.network
    device = "cpu" if isinstance(network, LabelsFile) else network.device.type
    file = network.run, network.checkpoint.absolute(), network.weights_sha256, predictor.runtime, device
    return PredictorFile(*file, torch.get_num_threads(), predictor.protocol, predictor.limit)


@lru_cache(maxsize=1)
def load_again(file: PredictorFile) -> ImagePredictor:
    """Load a predictor in a worker, once; raises IntegrityError where the file holds other weights now."""
    how = {"runtime": file.runtime, "device": file.device, "threads": file.threads}
    torch.set_num_threads(file.threads)
    network = open_network(file.checkpoint, checkpoint="", **how)
    refuse_other_weights(file.checkpoint, network.weights_sha256, file.weights_sha256)
    if isinstance(network, Predictor):
        network, _ = with_runtime(replace(network, run=file.run), file.runtime, threads=file.threads)
    return ImagePredictor(network, file.runtime, file.protocol, file.limit)


def as_image(image: str | Path | Image.Image | np.ndarray, rule: PixelRule | None = None) -> Image.Image | ChannelImage:
    """Return an image as RGB: of a path, a PIL image, or an array uint8 (H,W,3), (H,W,4) or (H,W); alpha is ignored.

    Of a path, EXIF turns the image; a PIL image stays as its pixels lie, so that labels lie over them. With a `rule`,
    stored values become its channels.
    """
    if isinstance(image, str | Path):
        return read_image(given_path(image), formats=PICTURE_FORMATS, most_pixels=2**40, rule=rule)
    if rule is not None:
        return image if isinstance(image, ChannelImage) else rule.image(np.asarray(image), "image")
    if isinstance(image, Image.Image):
        return as_rgb(image)
    pixels = np.asarray(image)
    channels = pixels.shape[2:] if pixels.ndim == 3 else (1,) if pixels.ndim == 2 else ()
    if pixels.dtype != np.uint8 or channels not in ((1,), (3,), (4,)) or not pixels.size:
        raise InputError(
            f"image: an array {pixels.dtype} {pixels.shape}; allowed is uint8 of 0 to 255: (H,W,3) RGB, (H,W,4) RGBA, "
            "or (H,W) gray"
        )
    pixels = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
    return Image.fromarray(np.ascontiguousarray(pixels[..., :3] if pixels.ndim == 3 else pixels)).convert("RGB")


def _as_returned(images: Sequence[Image.Image | ChannelImage]) -> Sequence[Image.Image | ChannelImage]:
    """Return the images; raises InputError for one alone, and for those that `as_image` has not seen."""
    if isinstance(images, str | Path | Image.Image | ChannelImage | np.ndarray):
        raise InputError("images: is one image; give a list of them, or call the predictor, as in predictor(image)")
    for image in images:
        if not isinstance(image, ChannelImage) and getattr(image, "mode", "") != "RGB":
            kind = f"of mode {image.mode}" if isinstance(image, Image.Image) else f"a {type(image).__name__}"
            raise InputError(f"images: one is {kind}; give what as_image(image, predictor.rule) returns of it")
    return images


def confidence_of(
    scores: Tensor, view: View, size: Size, *, align_corners: bool = False, summed: bool = False
) -> np.ndarray:
    """Return the probability of the best class of each pixel of an image of `size`, uint8 (H,W), 255 for 1."""
    sure = np.empty(size, np.uint8)
    for rows, columns, values in read_scores(scores, (0, 0, view.height, view.width), view, size, align_corners):
        sure[rows, columns] = _winner(values, summed=summed).cpu().numpy()
    return sure


def _winner(scores: Tensor, *, summed: bool) -> Tensor:
    best = scores.amax(dim=0) / scores.sum(dim=0) if summed else (scores - scores.logsumexp(dim=0)).amax(dim=0).exp()
    return (255 * best).round().byte()


def _whole(size: Size) -> View:
    return View(*size, size, flipped=False, windows=((0, 0, *size),))
