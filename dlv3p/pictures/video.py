"""Read and write videos by ffmpeg, which the extra `video` brings: frames as they are shown, sound left out.

A video is turned as it says, and each of its frames is read once, with its time. It is written at a constant rate at
which each frame has its time, so that uneven times stay as they are by repeated frames.
"""

import logging
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, repeat, zip_longest
from pathlib import Path

import numpy as np

from cityscapes.errors import InputError, MachineError, ParameterError, reason, require
from cityscapes.files.atomic import open_atomically
from cityscapes.files.leftovers import temporary_folder

NEEDED = ("imageio_ffmpeg",)
SUFFIXES = (".mp4", ".mkv", ".mov")
"""What a video is written as: H.264 in a container of this kind."""
LONGEST_SIDE = 16_384
"""Pixels, the most that H.264 has."""
RATES = (1, 2, 5, 10, 12, 15, 20, 24000 / 1001, 24, 25, 30000 / 1001, 30, 48, 50, 60000 / 1001, 60, 90, 100, 120, 240)
"""Usual frames per second."""
TOLERANCE = 0.002
"""Seconds by which a time may differ from that of a whole frame: containers round to a millisecond."""
CUT = ("ended prematurely", "partial file")
"""What ffmpeg says of a container that breaks off; of Matroska it takes what is there for all."""
EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2"
"""The filter that adds a row or a column where a side is odd, which the usual color format cannot store."""
SOUGHT_BEFORE = 16
"""Frames by which one is sought too early: no codec stores a frame further from its place, and ffmpeg seeks by that."""


@dataclass(frozen=True)
class Video:
    """A video to read: its path, height and width as it is shown, and frames per second.

    `ticks` says how many frames at that rate each frame is shown for; `cut`, that the file ends before its container
    does.
    """

    path: Path
    size: tuple[int, int]
    rate: float
    ticks: tuple[int, ...]
    cut: bool = False

    def frames(self) -> Iterator[np.ndarray]:
        """Yield each frame once, uint8 (H,W,3); raises InputError for a video that ends damaged or holds none."""
        count = 0
        for frame in self._decoded():
            count += 1
            yield frame
        if count < len(self.ticks):
            raise InputError(
                f"{self.path}: breaks off after {count} of {len(self.ticks)} frames, which are usable; replace the "
                "file for the rest"
            )
        if self.cut:
            raise InputError(
                f"{self.path}: breaks off after {count} frames, which are usable; replace the file for the rest"
            )

    def frames_near(self, number: int) -> Iterator[np.ndarray]:
        """Yield frames to the end from shortly before the one of this number: the container's times say where it is."""
        seconds = sum(self.ticks[: max(0, number - SOUGHT_BEFORE)]) / self.rate
        return self._decoded("-ss", f"{seconds:.6f}")

    def _decoded(self, *sought: str) -> Iterator[np.ndarray]:
        stream = _open(self.path, ["-fps_mode", "passthrough"], sought)
        try:
            next(stream)
            for content in stream:
                yield np.frombuffer(content, np.uint8).reshape(*self.size, 3)
        except (OSError, RuntimeError, StopIteration, ValueError) as error:
            raise _unreadable(self.path, error) from error
        finally:
            stream.close()

    def repeated(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Repeat what was made of each frame as often as the rate asks for."""
        for frame, ticks in zip_longest(frames, self.ticks, fillvalue=1):
            if isinstance(frame, int):  # fewer frames than times
                return
            yield from repeat(frame, ticks)


def open_video(path: Path) -> Video:
    """Open a video; raises InputError for what is none, and MachineError where the extra `video` is not installed."""
    stream = _open(path, [])
    try:
        header = next(stream)
        next(stream)
    except (OSError, RuntimeError, StopIteration, ValueError) as error:
        raise _unreadable(path, error) from error
    finally:
        stream.close()
    width, height = header["size"]
    times, cut = _times(path)
    rate = find_rate(times, usual=float(header["fps"]) or 25.0)
    return Video(path, (height, width), rate, _ticks(times, rate), cut or _is_cut_avi(path))


def find_rate(times: Sequence[float], *, usual: float) -> float:
    """Return the lowest usual rate at which all times are whole frames, the video's own first; else the highest."""
    for rate in (usual, *RATES):
        places = [time * rate for time in times]
        apart = all(abs(place - round(place)) <= TOLERANCE * rate for place in places)
        if apart and all(round(later) > round(place) for place, later in pairwise(places)):
            return rate
    return max(RATES)


def _times(path: Path) -> tuple[list[float], bool]:
    """Return the seconds from the first frame to each, by the container, without decoding, and whether that is cut."""
    import imageio_ffmpeg

    words = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-map", "0:v:0", "-c", "copy"]
    read = subprocess.run([*words, "-f", "framecrc", "-"], capture_output=True, text=True, check=False)
    listed, cut = read.stdout, any(said in read.stderr for said in CUT)
    unit = re.search(r"^#tb 0: (\d+)/(\d+)", listed, re.MULTILINE)
    stamps = sorted(int(line.split(",")[2]) for line in listed.splitlines() if line.startswith("0,"))
    if not unit or not stamps:
        return [0.0], cut
    return [(stamp - stamps[0]) * int(unit[1]) / int(unit[2]) for stamp in stamps], cut


def _is_cut_avi(path: Path) -> bool:
    """Return whether an AVI is shorter than its header says, which ffmpeg does not tell."""
    with open(path, "rb") as file:
        start = file.read(12)
    return start[:4] == b"RIFF" and int.from_bytes(start[4:8], "little") + 8 > path.stat().st_size


def _ticks(times: Sequence[float], rate: float) -> tuple[int, ...]:
    return (*(max(1, round(later * rate) - round(time * rate)) for time, later in pairwise(times)), 1)


def write_video(frames: Iterable[np.ndarray], path: str | Path, *, rate: float) -> int:
    """Write frames uint8 (H,W,3) of one size as H.264, atomically, and return how many there were.

    An odd side gets one more row or column. Raises InputError for no frames and for frames of different sizes.
    """
    require("a video", NEEDED, "video")
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ParameterError(f"{path}: unknown format; end the name in {' or '.join(SUFFIXES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(".dlv3p-video", path.parent) as folder:
        made = folder / f"video{path.suffix.lower()}"
        count = _encode(frames, path, made, rate)
        with open(made, "rb") as source, open_atomically(path, needed=made.stat().st_size) as target:
            shutil.copyfileobj(source, target)
    return count


def _encode(frames: Iterable[np.ndarray], path: Path, made: Path, rate: float) -> int:
    import imageio_ffmpeg

    writer, size, count = None, None, 0
    try:
        for count, frame in enumerate(frames, start=1):
            if writer is None:
                size = frame.shape
                if max(size[:2]) > LONGEST_SIDE:
                    raise InputError(
                        f"{path}: frames of {size[1]}x{size[0]} pixels; a video has at most {LONGEST_SIDE} a side"
                    )
                how = {"fps": rate, "codec": "libx264", "macro_block_size": 1, "output_params": ["-vf", EVEN]}
                writer = imageio_ffmpeg.write_frames(str(made), size[1::-1], **how)
                writer.send(None)
            if frame.shape != size:
                raise InputError(
                    f"{path}: frame {count} has {frame.shape[1]}x{frame.shape[0]} pixels, frame 1 {size[1]}x{size[0]}; "
                    "all frames must have the same size"
                )
            writer.send(np.ascontiguousarray(frame))
    except (OSError, RuntimeError) as error:
        raise MachineError(f"{path}: ffmpeg could not write it ({reason(error)}); free space and run again") from error
    finally:
        if writer is not None:
            writer.close()
    if not count:
        raise InputError(f"{path}: no frames to write; choose at least one image")
    return count


def _open(path: Path, options: list[str], sought: Sequence[str] = ()) -> Iterator:
    require("a video", NEEDED, "video")
    import imageio_ffmpeg

    logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)  # it warns of turned videos, which are right
    return imageio_ffmpeg.read_frames(str(path), input_params=list(sought), output_params=options)


def _unreadable(path: Path, error: BaseException) -> InputError:
    return InputError(
        f"{path}: cannot be read as a video ({reason(error)[:200]}); replace the file, or convert it to MP4"
    )
