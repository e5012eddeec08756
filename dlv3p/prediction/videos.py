"""Predict a video: ids of each frame, a row of the table for each, and the video under its class colors, without sound.

Frames are predicted as images are, and a killed call is resumed in the same way; a repeated frame is not predicted
again. The video is written when all its frames are predicted, at the times of the original.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from cityscapes.errors import InputError
from cityscapes.files.leftovers import remove_leftovers
from cityscapes.files.locks import lock_folder
from cityscapes.freed_memory import keep_freed_memory
from dlv3p.pictures.video import Video, open_video, write_video
from dlv3p.pictures.visualize import overlay
from dlv3p.prediction.pipeline import TABLE_SECONDS
from dlv3p.prediction.predictor import ImagePredictor, Prediction
from dlv3p.prediction.results import (
    OVERLAY_ALPHA,
    Outputs,
    Predictions,
    Results,
    check_output,
    open_results,
    say_others,
)
from dlv3p.prediction.sources import ImageFile, Source
from dlv3p.runtime.progress import track

OVERLAY = "overlay.mp4"
"""The video under its class colors."""


@keep_freed_memory()
def predict_video(
    predictor: ImagePredictor,
    source: Source,
    output: str | Path,
    outputs: Outputs | None = None,
    *,
    progress: str = "auto",
) -> Predictions:
    """Predict the frames of a video into the folder `output`, and write `overlay.mp4` there, if overlays are wanted.

    Raises InputError for what is not a video; one that ends damaged is named in `problems`, what came before is done.
    """
    output, outputs = Path(output), outputs or Outputs()
    if predictor.rule is not None:
        raise InputError(f"{source.video}: its frames are RGB, and the network takes {predictor.rule}; give it images")
    video = open_video(source.video)
    check_output(output)
    with lock_folder(output):
        remove_leftovers(output, locked=True)
        results = open_results(output, predictor, replace(outputs, overlays=False), batch_size=1)
        described = {"source": source.title, "rate": video.rate, "size": list(video.size)}
        results.save_record(described)
        frames = _Frames(predictor, results, video)
        drawn = track(frames, title=f"predict {source.title}", mode=progress, unit="frames")
        try:
            if outputs.overlays:
                write_video(video.repeated(drawn), output / OVERLAY, rate=video.rate)
            else:
                for _ in drawn:
                    pass
        finally:
            results.save_table(frames.names)
        if not outputs.overlays and (frames.made or results.others(frames.names)):
            (output / OVERLAY).unlink(missing_ok=True)  # which an earlier call made of other frames
        results.save_record({**described, "count": len(frames.names)}, frames.problems)
        say_others(results, frames.names)
    return Predictions(output, tuple(frames.names), frames.made, tuple(frames.problems))


def read_frame(video: Video, number: int, sha256: str) -> Image.Image:
    """Return the frame of a video whose pixels have this hash, so that it is the one that was predicted.

    It is sought near the time of its number, and from the start where times are not what they seem. Raises InputError
    where the video has no such frame any more.
    """
    for frames in (video.frames_near(number), video.frames()):
        with suppress(InputError):  # a time behind the end, or what comes behind the frame is damaged
            for pixels in frames:
                if hashlib.sha256(pixels).hexdigest() == sha256:
                    return Image.fromarray(pixels)
    raise InputError(f"{video.path}: frame {number} is not the one that was predicted; predict the video again")


class _Frames:
    """The frames of a video under their class colors, which predicts them on the way."""

    def __init__(self, predictor: ImagePredictor, results: Results, video: Video) -> None:
        self.predictor, self.results, self.video = predictor, results, video
        self.names: list[str] = []
        self.problems: list[str] = []
        self.made, self._saved = 0, time.monotonic()

    def __iter__(self) -> Iterator[np.ndarray]:
        last = ("", None)
        try:
            for pixels in self.video.frames():
                sha256 = hashlib.sha256(pixels).hexdigest()
                labels = self._labels(pixels, sha256, known=last[1] if last[0] == sha256 else None)
                last = (sha256, labels)
                yield overlay(pixels, labels.labels, alpha=OVERLAY_ALPHA, colors=self.predictor.colors)
        except InputError as error:
            if not self.names:
                raise
            self.problems.append(str(error))

    def _labels(self, pixels: np.ndarray, sha256: str, *, known: Prediction | None) -> Prediction:
        frame = ImageFile(self.video.path, f"frame_{len(self.names):06d}")
        if self.results.is_done(frame, sha256):
            self.names.append(frame.name)
            return self.results.read(frame)
        began, image = time.perf_counter(), Image.fromarray(pixels)
        asked = self.results.outputs.confidence
        found = known or self.predictor.predict([image], confidence=asked)[0]
        seconds = time.perf_counter() - began
        self.results.write(frame, image, found, sha256=sha256, seconds=seconds, note="")
        self.names.append(frame.name)
        self.made += 1
        if time.monotonic() - self._saved > TABLE_SECONDS:
            self.results.save_table(self.names)
            self._saved = time.monotonic()
        return found
