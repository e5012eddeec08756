"""Predict what a notebook's or a command's parameters ask for, choose where its results go, and show them."""

from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from cityscapes.workspace import output_folder
from dlv3p.parameters.notebooks import PredictParameters
from dlv3p.pictures.video import open_video
from dlv3p.prediction.browser import Browser
from dlv3p.prediction.predict import Predictions, predict_images
from dlv3p.prediction.predictor import ImagePredictor, as_image, load_predictor
from dlv3p.prediction.results import Outputs, open_results
from dlv3p.prediction.sources import Source, find_images
from dlv3p.prediction.videos import OVERLAY, predict_video

if TYPE_CHECKING:
    import ipywidgets


def predict(parameters: PredictParameters) -> Predictions:
    """Load the network, find the images, and predict them; the images are looked for first, which is quick."""
    find_images(parameters.images, output=_asked(parameters))
    return predict_with(predictor_of(parameters), parameters)


def predictor_of(parameters: PredictParameters) -> ImagePredictor:
    """Load the network that the parameters name."""
    return load_predictor(
        parameters.weights or parameters.run,
        checkpoint=parameters.checkpoint,
        runtime=parameters.runtime,
        device=parameters.device,
        threads=parameters.threads,
        protocol=parameters.chosen_protocol(),
        memory_gib=parameters.memory_gib,
        tile=parameters.tile,
        tile_overlap=parameters.tile_overlap,
    )


def predict_with(predictor: ImagePredictor, parameters: PredictParameters) -> Predictions:
    """Predict what the parameters name with a loaded network."""
    asked, p, outputs = _asked(parameters), parameters, _outputs(parameters)
    source = find_images(p.images, output=asked)
    output = asked or output_folder(predictor.network.run) / f"predict_{source.title}"
    if source.video:
        return predict_video(predictor, source, output, outputs, progress=p.progress)
    return predict_images(predictor, source, output, outputs, batch_size=p.batch_size, progress=p.progress)


def first_image(source: Source) -> Image.Image:
    """Return the first image of a source, RGB; of a video, its first frame."""
    if source.video:
        return Image.fromarray(next(open_video(source.video).frames()))
    return as_image(source.images[0].path)


def browse(predictor: ImagePredictor, predictions: Predictions, parameters: PredictParameters) -> "ipywidgets.Widget":
    """Return the widgets that show the finished images of a folder; for a video, where it is."""
    import ipywidgets

    source = find_images(parameters.images, output=predictions.folder)
    done = set(predictions.done)
    images = [image for image in source.images if image.name in done]
    if not images:
        return ipywidgets.Label(f"{predictions.folder / OVERLAY}" if source.video else "no image was predicted")
    outputs = _outputs(parameters)
    return Browser(open_results(predictions.folder, predictor, outputs, batch_size=parameters.batch_size), images).box


def _asked(parameters: PredictParameters) -> Path | None:
    return Path(parameters.output).expanduser() if parameters.output else None


def _outputs(parameters: PredictParameters) -> Outputs:
    return Outputs(parameters.ids, parameters.colors, parameters.overlays, parameters.confidence)
