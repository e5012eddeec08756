"""Videos by ffmpeg: as many frames as there were, turned as the file says, each at its time."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from cityscapes.errors import InputError, MachineError, ParameterError
from dlv3p.pictures import video
from dlv3p.pictures.gif import write_animation
from dlv3p.pictures.video import find_rate, open_video, write_video

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="videos need the extra video")


def frames(count: int, size: tuple[int, int] = (66, 98)) -> list[np.ndarray]:
    """Frames that get brighter by 20 levels each."""
    return [np.full((*size, 3), 20 * number, np.uint8) for number in range(count)]


def levels(path: Path) -> list[int]:
    """The brightness of each frame of a file, in steps of 20."""
    return [round(frame.mean() / 20) for frame in open_video(path).frames()]


def ffmpeg(*words: object) -> None:
    """Run ffmpeg on files."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, words)]
    subprocess.run(command, check=True)


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """A video of eight frames, ten a second."""
    assert write_video(frames(8), tmp_path / "drive.mp4", rate=10) == 8
    return tmp_path / "drive.mp4"


def test_a_video_comes_back_with_its_frames_rate_and_size(drive: Path) -> None:
    opened = open_video(drive)
    assert (opened.rate, opened.size) == (10, (66, 98))
    assert levels(drive) == list(range(8))
    assert [path.name for path in drive.parent.iterdir()] == ["drive.mp4"]


def test_an_odd_side_gets_one_more_pixel(tmp_path: Path) -> None:
    write_video(frames(2, (65, 97)), tmp_path / "odd.mp4", rate=25)
    assert open_video(tmp_path / "odd.mp4").size == (66, 98)


def test_a_turned_video_is_turned(drive: Path, tmp_path: Path) -> None:
    ffmpeg("-display_rotation", "90", "-i", drive, "-c", "copy", tmp_path / "turned.mp4")
    assert open_video(tmp_path / "turned.mp4").size == (98, 66)
    assert next(open_video(tmp_path / "turned.mp4").frames()).shape == (98, 66, 3)


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "copy"), ("avi", "mpeg4")])
def test_a_container_that_breaks_off_is_told_although_its_frames_are_whole(tmp_path, suffix, codec) -> None:
    noise, path = np.random.default_rng(0), tmp_path / f"whole.{suffix}"
    write_video((noise.integers(0, 256, (48, 64, 3)).astype(np.uint8) for _ in range(8)), tmp_path / "a.mp4", rate=10)
    ffmpeg("-i", tmp_path / "a.mp4", "-c:v", codec, path)
    assert len(levels(path)) == 8
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 5])
    shown = open_video(cut).frames()
    with pytest.raises(
        InputError, match=rf"cut\.{suffix}: breaks off after \d.* frames, which are usable; replace the"
    ):
        list(shown)


def test_uneven_times_stay_by_repeated_frames(drive: Path, tmp_path: Path) -> None:
    uneven = ("-vf", "select='lt(n,4)',setpts='if(gt(N,1),PTS+0.3/TB,PTS)'", "-fps_mode", "vfr")
    ffmpeg("-i", drive, *uneven, tmp_path / "uneven.mp4")
    opened = open_video(tmp_path / "uneven.mp4")
    assert (opened.rate, opened.ticks) == (10, (1, 4, 1, 1))
    assert levels(tmp_path / "uneven.mp4") == [0, 1, 2, 3]
    write_video(opened.repeated(opened.frames()), tmp_path / "even.mp4", rate=opened.rate)
    assert levels(tmp_path / "even.mp4") == [0, 1, 1, 1, 1, 2, 3]


@pytest.mark.parametrize("rate", [5, 24000 / 1001, 25, 30])
def test_times_that_a_container_rounds_are_even(rate: float) -> None:
    times = [round(number / rate, 3) for number in range(100)]
    assert find_rate(times, usual=17.0) == pytest.approx(rate)


def test_what_is_no_video_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "none.mp4").write_bytes(b"x" * 1000)
    with pytest.raises(InputError, match=r"none\.mp4: cannot be read as a video .*convert it to MP4"):
        open_video(tmp_path / "none.mp4")
    with pytest.raises(InputError, match="no frames to write"):
        write_video([], tmp_path / "empty.mp4", rate=10)
    with pytest.raises(InputError, match="frame 2 has 20x10 pixels, frame 1 98x66"):
        write_video([*frames(1), *frames(1, (10, 20))], tmp_path / "two.mp4", rate=10)
    with pytest.raises(ParameterError, match=r"end the name in \.mp4"):
        write_video(frames(1), tmp_path / "two.wmv", rate=10)
    assert [path.name for path in tmp_path.iterdir()] == ["none.mp4"]


def test_without_the_extra_it_says_what_to_install(drive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "NEEDED", ("no_such_package",))
    with pytest.raises(MachineError, match=r"a video needs no_such_package; install with: pip"):
        open_video(drive)


def test_an_animation_may_be_a_video(tmp_path: Path) -> None:
    write_animation(frames(4), tmp_path / "drive.mp4", seconds_per_frame=0.5)
    assert open_video(tmp_path / "drive.mp4").rate == 2
    assert levels(tmp_path / "drive.mp4") == [0, 1, 2, 3]
