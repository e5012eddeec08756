"""Predict what a notebook's or a command's parameters ask for, choose where its results go, and show them."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from cityscapes.dataset import Split
from cityscapes.errors import InputError, ParameterError, UserError
from cityscapes.files.atomic import check_writable
from cityscapes.files.channels import ChannelImage
from cityscapes.files.untrusted import given_path
from cityscapes.findings import refuse_problems
from cityscapes.parallel import worker_processes_beside
from cityscapes.workspace import output_folder
from dlv3p.data.roots import open_for_viewing, open_images, open_split, resolve_data_root
from dlv3p.evaluation.benchmarks import data_name
from dlv3p.evaluation.evaluate import refuse_other_classes, scores_apply
from dlv3p.evaluation.results import checkpoint_words, result_path, short_hash, split_word
from dlv3p.parameters.choices import FASTEST
from dlv3p.parameters.notebooks import ExplorePredictionsParameters, PredictParameters, RenderGifParameters
from dlv3p.parameters.protocols import WHOLE_IMAGE
from dlv3p.pictures.gallery import choose_frames, is_labeled
from dlv3p.pictures.gif import compose_frame
from dlv3p.pictures.video import open_video
from dlv3p.prediction.browser import Browser, letterbox, shrink
from dlv3p.prediction.predict import predict_images
from dlv3p.prediction.predictor import ImagePredictor, as_image, load_predictor, predictor_of
from dlv3p.prediction.results import Outputs, Predictions, Results, open_results, recorded_runtime
from dlv3p.prediction.sources import ImageFile, Source, find_images, name_results, problem_of, problem_of_file
from dlv3p.prediction.videos import predict_video, read_frame
from dlv3p.runtime.progress import track
from dlv3p.runtime.widgets import plain_label

if TYPE_CHECKING:
    import ipywidgets


def predict(parameters: PredictParameters) -> Predictions:
    """Load the network, find the images, and predict them; the images are looked for first, which is quick."""
    _find(parameters, _asked(parameters))
    return predict_with(predictor_of(parameters), parameters)


def predict_with(predictor: ImagePredictor, parameters: PredictParameters) -> Predictions:
    """Predict what the parameters name with a loaded network; what the fastest runtime began, the same one resumes."""
    p, outputs = parameters, _outputs(parameters)
    source = _find(p, _asked(p))
    output = _asked(p) or output_folder(predictor.network.run) / f"predict_{source.title}"
    source = find_images(p.images, output=output)  # without what lies there from an earlier call
    if source.left_out:
        print(f"{p.images}: files of other types are left out: {source.left_out}", flush=True)
    predictor = _as_recorded(predictor, p, output)
    if source.video:
        return predict_video(predictor, source, output, outputs, progress=p.progress)
    with worker_processes_beside(p.workers) as executor:
        options = {"batch_size": p.batch_size, "progress": p.progress, "executor": executor}
        return predict_images(predictor, source, output, outputs, **options)


def first_image(source: Source, predictor: ImagePredictor) -> Image.Image | ChannelImage:
    """Return the first image of a source that can be predicted, RGB; of a video, its first frame.

    Raises what is wrong with the first one where none can.
    """
    if source.video:
        return Image.fromarray(next(open_video(source.video).frames()))
    for file in source.images:
        with suppress(UserError):
            return predictor.opened(file.path)
    return predictor.opened(source.images[0].path)


def browse(predictor: ImagePredictor, predictions: Predictions, parameters: PredictParameters) -> "ipywidgets.Widget":
    """Return the widgets that show the finished images of a folder, or the frames of a video."""
    source, done = find_images(parameters.images, output=predictions.folder), set(predictions.done)
    images = [image for image in source.images if image.name in done]
    if source.video:
        images = [ImageFile(source.video, name) for name in predictions.done]
    if not images:
        return plain_label("no image was predicted")
    predictor, outputs = _as_recorded(predictor, parameters, predictions.folder), _outputs(parameters)
    batch_size = 1 if source.video else parameters.batch_size
    results = open_results(predictions.folder, predictor, outputs, batch_size=batch_size)
    read = _reader_of_frames(source.video, results, images) if source.video else _reader_of_files(results, images)
    return Browser(results, images, read).box


def _reader_of_files(results: Results, images: Sequence[ImageFile]) -> Callable[[int], Image.Image | ChannelImage]:
    return lambda index: as_image(images[index].path, results.predictor.rule)


def _reader_of_frames(path: Path, results: Results, frames: Sequence[ImageFile]) -> Callable[[int], Image.Image]:
    video = open_video(path)
    return lambda index: read_frame(video, index, results.rows[frames[index].name]["sha256"])


def predict_split(run: str, config: ExplorePredictionsParameters) -> Path:
    """Predict the images of a split by a run, with confidence, and return the folder; what is finished is kept."""
    split = open_split(resolve_data_root(config.data_root), config.split)
    paths = [split.image_path(index) for index in range(len(split))]
    images = name_results(paths, Path(os.path.commonpath([path.parent for path in paths])))
    predictor = load_predictor(run, device=config.device, threads=config.threads)
    folder = output_folder(run) / f"predict_{split_word(config.split)}"
    outputs = Outputs(colors=False, overlays=False, confidence=True)
    return predict_images(predictor, Source(config.split, images), folder, outputs, progress=config.progress).folder


_LIKE_A_DRIVE = re.compile(r"_([A-Za-z-]+|\d{6})$|^predict_")
"""What the name of a split has in common with a city or sequence of another split, or with images of no split."""


def drive_word(parameters: RenderGifParameters) -> str:
    """Return what stands for a drive in names of files: split, city and sequence, so that no two drives share it."""
    p = parameters
    split = split_word(p.split, also=_LIKE_A_DRIVE)
    return "_".join([split, *(split_word(word) for word in (p.city, p.sequence) if word)])


SHARPEST = 2
"""Times the width of an animation, the longer side at which an image that takes tiles is drawn, to save memory."""


class Drive(NamedTuple):
    """An animation to write: its file, the names of its frames, and the frames themselves, uint8 (h,w,3).

    A frame that cannot be drawn is left out: while the others are drawn, `problems` receives a line for it.
    """

    path: Path
    names: tuple[str, ...]
    frames: Iterator[np.ndarray]
    problems: list[str]

    def refuse_problems(self) -> None:
        """Raise ProblemsError if frames were left out, so that the exit status says so; the animation stays."""
        refuse_problems(self.path, f"lacks {len(self.problems)} of {len(self.names)} frames", self.problems)


class Shot(NamedTuple):
    """What a frame is drawn of; `read` returns the image, and where there is one the truth, train ids (H,W)."""

    name: str
    where: str
    read: Callable[[], tuple[Image.Image | ChannelImage, np.ndarray | None]]


def drive_of(predictor: ImagePredictor, parameters: RenderGifParameters) -> Drive:
    """Choose the frames of an animation: those of a split, or with `images` any others, a video's too.

    Raises MachineError where the animation could not be written.
    """
    check_writable(output_folder(predictor.network.run))
    return (_drive_of_images if parameters.images else _drive_of_split)(predictor, parameters)


def _drive_of_split(predictor: ImagePredictor, parameters: RenderGifParameters) -> Drive:
    """Show the truth where there is one; of a split with other classes than the network's there is none."""
    p, network = parameters, predictor.network
    root = resolve_data_root(p.data_root or network.parameters.data_root)
    split = (open_images if p.split == "test" else open_for_viewing)(root, p.split)
    indices = choose_frames(split, city=p.city, sequence=p.sequence, count=p.frames)
    if alike := scores_apply(network, split):
        refuse_other_classes(network, split)
    else:
        print(f"{split.root}: has other classes than {network.run!r}, whose names and colors are shown")
    truths = alike and p.show_truth and all(is_labeled(split, index) for index in indices)
    names = tuple(split.name(index) for index in indices)

    def read(index: int) -> tuple[Image.Image | ChannelImage, np.ndarray | None]:
        return split.image(index), split.mask(index) if truths else None

    shots = [
        Shot(name, str(split.image_path(index)), partial(read, index))
        for name, index in zip(names, indices, strict=True)
    ]
    footer = f"{network.name} · {data_name(split)} · {WHOLE_IMAGE.name}"
    path = result_path(network, split, f"{drive_word(p)}.{p.animation}", usual=split.split)
    return _drive(path, predictor, shots, p, footer=footer, classes=split if alike else predictor)


def _drive_of_images(predictor: ImagePredictor, parameters: RenderGifParameters) -> Drive:
    p, network, source = parameters, predictor.network, find_images(parameters.images)
    if source.video:
        video = open_video(source.video)
        stream = video.frames()
        shots = [
            Shot(f"frame {number}", str(source.video), lambda: (Image.fromarray(next(stream)), None))
            for number in range(min(len(video.ticks) + video.cut, p.frames))  # the one after a cut says so
        ]
    else:
        images = source.images[: p.frames]
        shots = [Shot(image.name, str(image.path), partial(_opened, predictor, image.path)) for image in images]
    footer = f"{network.name} · {source.title} · {WHOLE_IMAGE.name}"
    title = f"{source.title}-{short_hash(os.path.realpath(p.images))}"  # two folders may have one name
    words = "_".join(["predict", title, *checkpoint_words(network)])
    path = output_folder(network.run) / f"{words}.{p.animation}"
    return _drive(path, predictor, shots, p, footer=footer, classes=predictor)


def _opened(predictor: ImagePredictor, path: Path) -> tuple[Image.Image | ChannelImage, None]:
    try:
        return predictor.opened(path), None
    except InputError as error:
        raise InputError(problem_of_file(path, error)) from error


def _drive(
    path: Path,
    predictor: ImagePredictor,
    shots: Sequence[Shot],
    parameters: RenderGifParameters,
    *,
    footer: str,
    classes: ImagePredictor | Split,
) -> Drive:
    problems: list[str] = []
    frames = _composed(predictor, shots, parameters, problems=problems, footer=footer, classes=classes)
    return Drive(path, tuple(shot.name for shot in shots), frames, problems)


def _composed(
    predictor: ImagePredictor,
    shots: Sequence[Shot],
    parameters: RenderGifParameters,
    *,
    problems: list[str],
    footer: str,
    classes: ImagePredictor | Split,
) -> Iterator[np.ndarray]:
    """Yield the frames, in the names and colors of `classes`; all images at the size of the first, within borders.

    What is wrong with the others is said and noted in `problems`; where nothing can be drawn, ProblemsError is raised.
    """
    shape = None
    for name, where, read in track(shots, title="render", mode=parameters.progress):
        try:
            image, truth = read()
            tiles = predictor.needs_tiles(image.size[::-1])
        except StopIteration:  # of a video that breaks off, which the frame before has said
            break
        except (UserError, OSError) as error:
            problems.append(problem_of(where, error))
            print(f"not drawn: {problems[-1]}", flush=True)
            continue
        longest = SHARPEST * parameters.width if tiles else max(image.size)
        maps = [predictor(image), *([] if truth is None else [truth])]
        pixels, labels, *truths = shrink(image, *maps, longest=longest)
        shape = shape or labels.shape
        if labels.shape != shape:  # an animation has frames of one size
            pixels, labels, *truths = letterbox(shape, pixels, labels, *truths)
        yield compose_frame(
            pixels,
            labels,
            truth=truths[0] if truths else None,
            width=parameters.width,
            alpha=parameters.alpha,
            class_names=classes.class_names,
            colors=classes.colors,
            title=name,
            footer=f"{footer} in tiles of {parameters.tile}" if tiles else footer,
            name_classes=parameters.name_classes,
        )
    if shape is None:
        refuse_problems(parameters.images or parameters.split, "no frame can be drawn", problems)


def _as_recorded(predictor: ImagePredictor, parameters: PredictParameters, output: Path) -> ImagePredictor:
    """Return the predictor in the runtime that was the fastest when the results in `output` were begun."""
    recorded = recorded_runtime(output)
    if parameters.runtime != FASTEST or recorded in (None, predictor.runtime):
        return predictor
    return predictor_of(replace(parameters, runtime=recorded))


def _find(parameters: PredictParameters, output: Path | None) -> Source:
    """Find the images; raises ParameterError for workers that a video cannot have."""
    source = find_images(parameters.images, output=output)
    if source.video and parameters.workers > 1:
        raise ParameterError(
            f"workers={parameters.workers}: {source.video} is a video, whose frames one process predicts one after "
            "another; leave workers at 1"
        )
    return source


def _asked(parameters: PredictParameters) -> Path | None:
    return given_path(parameters.output) if parameters.output else None


def _outputs(parameters: PredictParameters) -> Outputs:
    return Outputs(parameters.ids, parameters.colors, parameters.overlays, parameters.confidence)
