"""A video in: ids and a row of each frame, and the video under its class colors with as many frames."""

import csv
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError
from cityscapes.files.channels import PixelRule
from dlv3p.pictures import video
from dlv3p.pictures.video import open_video, write_video
from dlv3p.prediction.results import Outputs
from dlv3p.prediction.sources import find_images
from dlv3p.prediction.videos import predict_video

pytest.importorskip("imageio_ffmpeg", reason="videos need the extra video")
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
