"""A video in: ids and a row of each frame, and the video under its class colors with as many frames."""

import csv
import hashlib
import io
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError
from cityscapes.files.channels import PixelRule
from dlv3p.parameters.notebooks import PredictParameters
from dlv3p.pictures import video
from dlv3p.pictures.video import Video, open_video, write_video
from dlv3p.pictures.visualize import overlay
from dlv3p.prediction import jobs
from dlv3p.prediction.browser import Browser
from dlv3p.prediction.results import Outputs
from dlv3p.prediction.sources import find_images
from dlv3p.prediction.videos import predict_video, read_frame

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="videos need the extra video")
pytestmark = pytest.mark.usefixtures("trained")


@pytest.fixture
def drive(tmp_path: Path, picture: Image.Image) -> Path:
    """A video of five frames, of which the third repeats the second."""
    frames = [np.asarray(picture.rotate(turn)) for turn in (0, 5, 5, 10, 15)]
    write_video(frames, tmp_path / "drive.mkv", rate=5)
    return tmp_path / "drive.mkv"


def predict(predictor, drive: Path, output: Path):
    """Predict without showing progress."""
    return predict_video(predictor, find_images(drive), output, Outputs("train", colors=False), progress="none")


def test_each_frame_is_predicted_and_the_video_has_as_many(predictor, drive: Path, tmp_path: Path) -> None:
    found = predict(predictor, drive, tmp_path / "out")
    assert (len(found.done), found.made, found.problems) == (5, 5, ())
    written = open_video(tmp_path / "out" / "overlay.mp4")
    assert (written.rate, written.size, len(list(written.frames()))) == (5, (64, 96), 5)
    for number, frame in enumerate(open_video(drive).frames()):
        ids = np.array(Image.open(tmp_path / "out" / "ids" / f"frame_{number:06d}.png"))
        assert np.array_equal(ids, predictor(frame))
    with open(found.table, newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == list(found.done)


def test_an_interrupted_video_ends_in_the_same_files(predictor, drive: Path, tmp_path: Path, interrupted) -> None:
    predict(predictor, drive, tmp_path / "at once")
    with interrupted(), pytest.raises(KeyboardInterrupt):
        predict(predictor, drive, tmp_path / "out")
    assert not (tmp_path / "out" / "overlay.mp4").exists()
    assert predict(predictor, drive, tmp_path / "out").made == 3
    for path in (tmp_path / "at once").rglob("*.*"):
        if path.suffix in (".png", ".mp4"):
            assert path.read_bytes() == (tmp_path / "out" / path.relative_to(tmp_path / "at once")).read_bytes()


def test_a_video_that_breaks_off_keeps_what_came_before(predictor, drive: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(video, "_times", lambda path: ([number / 5 for number in range(8)], False))
    found = predict(predictor, drive, tmp_path / "some")
    monkeypatch.undo()
    assert (len(found.done), found.made) == (5, 5)
    assert re.search(r"drive\.mkv: breaks off after 5 of 8 frames", found.problems[0])
    assert len(list(open_video(tmp_path / "some" / "overlay.mp4").frames())) == 5


def test_a_network_of_other_channels_refuses_a_video_in_words(drive: Path, tmp_path: Path) -> None:
    gray = SimpleNamespace(rule=PixelRule(1, (0.0, 4095.0), (1000.0,), (500.0,)))
    with pytest.raises(InputError, match="drive.mkv: its frames are RGB, and the network takes 1 channels"):
        predict(gray, drive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_first_frame_that_cannot_be_predicted_says_why(predictor, drive: Path, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_, **__) -> None:
        raise InputError("frame: too large")

    monkeypatch.setattr(type(predictor), "predict", refuse)
    with pytest.raises(InputError, match="frame: too large"):
        predict(predictor, drive, tmp_path / "out")


def test_what_is_no_video_is_refused_before_anything_is_written(predictor, drive: Path, tmp_path: Path) -> None:
    drive.write_bytes(drive.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read as a video"):
        predict(predictor, drive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def painted(tmp_path: Path) -> Path:
    """A video of 48 frames, turned, at uneven times, with few key frames, whose sound begins before its pictures.

    Frame k has the gray 5 * k; the lower half is black, which shows that it was turned.
    """
    grays = [np.full((64, 96, 3), 5 * number, np.uint8) for number in range(48)]
    for frame in grays:
        frame[32:] = 0
    write_video(grays, tmp_path / "even.mp4", rate=10)
    uneven = "-vf settb=1/1000,setpts=if(gt(N\\,20)\\,PTS+3/TB\\,PTS)+0.02*mod(N\\,3)/TB -enc_time_base 1:1000 -g 12"
    sound = "-itsoffset 1.5 -i even.mp4 -f lavfi -i sine=d=3 -map 0 -map 1 -fps_mode passthrough"
    for words in (f"{sound} {uneven} uneven.mp4", "-display_rotation 90 -i uneven.mp4 -c copy turned.mp4"):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", *words.split()]
        subprocess.run(command, check=True, cwd=tmp_path)
    return tmp_path / "turned.mp4"


def number_of(picture: np.ndarray) -> int:
    """The number of a painted frame, by the gray of its left half, which was the upper one."""
    assert picture.shape == (96, 64, 3)
    return round(picture[:, 4:28].mean() / 5)


def test_a_frame_is_sought_by_its_number_and_is_that_frame(painted: Path, monkeypatch) -> None:
    opened = open_video(painted)
    every = list(opened.frames())
    assert [number_of(frame) for frame in every] == list(range(48))
    assert len(set(opened.ticks)) > 2
    shown = {number: hashlib.sha256(frame).hexdigest() for number, frame in enumerate(every)}
    monkeypatch.setattr(Video, "frames", lambda self: iter(()))  # which reads from the start
    for number in (47, 0, *range(18, 40, 2), 21):
        assert np.array_equal(read_frame(opened, number, shown[number]), every[number])
    assert number_of(next(opened.frames_near(47))) > 10, "what is decoded begins near it"


def test_a_frame_that_is_not_where_its_time_says_is_found_from_the_start(painted: Path) -> None:
    opened = open_video(painted)
    early = replace(opened, ticks=(1000, *opened.ticks[1:]))
    third = list(opened.frames())[3]
    assert np.array_equal(read_frame(early, 3, hashlib.sha256(third).hexdigest()), third)
    with pytest.raises(InputError, match=r"turned\.mp4: frame 3 is not the one that was predicted; predict the video"):
        read_frame(opened, 3, "0" * 64)


def test_the_browser_over_a_video_shows_each_frame_under_its_own_ids(
    predictor, painted: Path, tmp_path: Path, monkeypatch
) -> None:
    opened = []
    monkeypatch.setattr(jobs, "Browser", lambda *given: opened.append(Browser(*given)) or opened[0])
    given = {"images": str(painted), "output": str(tmp_path / "out"), "batch_size": 2, "confidence": True}
    parameters = PredictParameters(**given, threads=1, device="cpu", progress="none")
    assert jobs.browse(predictor, jobs.predict_with(predictor, parameters), parameters) is opened[0].box
    (browser,), frames = opened, list(open_video(painted).frames())
    assert browser.title.value == "frame_000000  (1 of 48)"
    for number in (21, 20, 47, 3):
        browser.step(number - browser.index)
        expected = overlay(frames[number], predictor(frames[number]), alpha=0.5, colors=predictor.colors)
        assert np.array_equal(Image.open(io.BytesIO(browser.picture.value)), expected)
    browser.opacity.value = 0.0
    assert number_of(np.array(Image.open(io.BytesIO(browser.picture.value)))) == 3
