"""Animations keep class colors exactly, do not flicker, and have the same bytes each time."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError, ParameterError
from cityscapes.files.images import read_image
from cityscapes.labels import IGNORE, TRAIN_ID_TO_COLOR
from dlv3p.pictures.gif import PANELS, compose_frame, write_gif


def sample(seed, size=(48, 96)):
    rng = np.random.default_rng(seed)
    smooth = np.linspace(0, 200, size[1])[None, :, None] + rng.integers(0, 56, (*size, 3))
    coarse = rng.integers(0, 19, (6, 12)).astype(np.uint8)
    return smooth.astype(np.uint8), np.kron(coarse, np.ones((8, 8), np.uint8))


def frames(count, **options):
    return [compose_frame(*sample(seed), width=320, **options) for seed in range(count)]


def read(path):
    with Image.open(path) as animation:
        for index in range(animation.n_frames):
            animation.seek(index)
            yield np.asarray(animation.convert("RGB"))


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_an_animation_has_every_frame_in_order_and_its_duration(tmp_path, suffix):
    made = frames(3)
    write_gif(iter(made), tmp_path / f"a{suffix}", seconds_per_frame=0.25)
    found = list(read(tmp_path / f"a{suffix}"))
    assert len(found) == 3
    for index, frame in enumerate(found):
        distance = [np.abs(frame.astype(int) - other).mean() for other in made]
        assert np.argmin(distance) == index
        assert distance[index] < 8
    with Image.open(tmp_path / f"a{suffix}") as animation:
        animation.load()
        assert animation.info["duration"] == 250
        assert animation.info["loop"] == 0


def test_class_colors_are_exact_in_every_frame(tmp_path):
    made = frames(20)  # more than the palette is chosen from
    write_gif(made, tmp_path / "a.gif")
    for wanted, found in zip(made, read(tmp_path / "a.gif"), strict=True):
        for color in TRAIN_ID_TO_COLOR[:19]:
            where = (wanted == color).all(axis=-1)
            assert where.any()
            assert (found[where] == color).all()


def test_pixels_that_do_not_change_do_not_flicker(tmp_path):
    image, prediction = sample(0)
    made = [compose_frame(image, np.roll(prediction, shift), width=320) for shift in range(0, 32, 8)]
    write_gif(made, tmp_path / "a.gif")
    found = list(read(tmp_path / "a.gif"))
    still = (np.stack(made) == made[0]).all(axis=(0, -1))
    assert still.mean() > 0.3
    assert all((frame[still] == found[0][still]).all() for frame in found)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_the_same_frames_give_the_same_bytes(tmp_path, suffix):
    for name in ("a", "b"):
        write_gif(frames(2), tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_single_frame_and_plain_frames_can_be_written(tmp_path):
    write_gif([np.full((4, 5, 3), 77, np.uint8)], tmp_path / "a.gif")
    assert [frame.tolist() for frame in read(tmp_path / "a.gif")] == [[[[77] * 3] * 5] * 4]


def test_no_frames_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match="no frame"):
        write_gif([], tmp_path / "a.gif")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("position", [1, 17])
def test_mixed_sizes_are_refused_and_the_old_file_stays(tmp_path, position):
    (tmp_path / "a.gif").write_bytes(b"old")
    made = [np.zeros((4, 6, 3), np.uint8)] * 18
    made[position] = np.zeros((4, 7, 3), np.uint8)
    with pytest.raises(InputError, match=f"frame {position + 1} has 7x4 pixels, frame 1 6x4"):
        write_gif(made, tmp_path / "a.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]
    assert (tmp_path / "a.gif").read_bytes() == b"old"


def test_other_suffixes_and_durations_are_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"\.gif or \.webp"):
        write_gif(frames(1), tmp_path / "a.mp4")
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ParameterError, match="seconds_per_frame"):
            write_gif(frames(1), tmp_path / "a.gif", seconds_per_frame=seconds)


def test_frames_have_the_width_asked_for_and_one_size_for_every_image():
    shapes = {frame.shape for frame in frames(3, title="3/9")}
    assert len(shapes) == 1
    assert shapes.pop()[1] == 320


@pytest.mark.parametrize("panels", list(itertools.combinations(PANELS, 2)))
def test_every_choice_of_panels_can_be_drawn(panels):
    image, prediction = sample(0)
    truth = prediction.copy()
    truth[:8] = IGNORE
    assert compose_frame(image, prediction, truth=truth, panels=panels, width=320).shape[1] == 320


def test_truth_and_errors_are_refused_where_there_is_no_truth():
    for panel in ("truth", "errors"):
        with pytest.raises(ParameterError, match=panel):
            compose_frame(*sample(0), panels=("image", panel))
    with pytest.raises(ParameterError, match="'mask' is unknown"):
        compose_frame(*sample(0), panels=("mask",))


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from dlv3p.pictures.gif import write_gif

def frames(count, height, width):
    for index in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[:, index % width :] = 80
        yield frame

count, height, width, path = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
write_gif(frames(20, height, width), path)
before = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
write_gif(frames(count, height, width), path)
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) - before)
"""
"""How many KiB the memory of a process grows when it writes `count` frames, after it has written 20."""


def growth(count: int, height: int, width: int, path: Path) -> int:
    words = [sys.executable, "-c", MEMORY, *map(str, (count, height, width, path))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)


def test_g1_frames_are_not_kept_in_memory(tmp_path):
    """Sixty frames of 1.5 MiB are 90 MiB; what is kept is the file."""
    assert growth(60, 512, 1024, tmp_path / "a.gif") < 20 * 1024
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 60


@pytest.mark.slow
def test_g1_ten_thousand_frames_fit_into_little_memory(tmp_path):
    """They are 1.5 GiB."""
    assert growth(10_000, 160, 320, tmp_path / "a.gif") < 100 * 1024
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 10_000


def test_g1_a_frame_that_cannot_be_read_is_named_and_the_old_animation_stays(tmp_path):
    def read_frames():
        for index in range(30):
            path = tmp_path / f"{index}.png"
            Image.fromarray(sample(index)[0]).save(path)
            if index == 25:
                path.write_bytes(path.read_bytes()[:200])
            yield np.asarray(read_image(path))

    (tmp_path / "a.gif").write_bytes(b"old")
    with pytest.raises(InputError, match=r"25\.png: cannot be read as an image"):
        write_gif(read_frames(), tmp_path / "a.gif")
    assert (tmp_path / "a.gif").read_bytes() == b"old"
    assert list(tmp_path.glob(".*")) == []


def test_g1_a_frame_as_large_as_images_may_be_is_written(tmp_path):
    made = np.zeros((8, 2**14, 3), np.uint8)
    made[4:] = 200
    write_gif([made], tmp_path / "a.gif")
    (found,) = read(tmp_path / "a.gif")
    assert np.array_equal(found, made)
    with pytest.raises(InputError, match="70000x2 pixels, more than the 65535 per side"):
        write_gif([np.zeros((2, 70_000, 3), np.uint8)], tmp_path / "a.gif")
    with pytest.raises(InputError, match="20000x2 pixels, more than the 16383 per side"):
        write_gif([np.zeros((2, 20_000, 3), np.uint8)], tmp_path / "a.webp")


@pytest.mark.parametrize(
    ("suffix", "asked", "stays"), [(".gif", 0.033, 0.03), (".gif", 0.001, 0.01), (".webp", 0.033, 0.033)]
)
def test_the_time_of_a_frame_is_what_the_format_can_say_and_is_told(tmp_path, suffix, asked, stays):
    path = tmp_path / f"a{suffix}"
    assert write_gif(frames(2), path, seconds_per_frame=asked) == stays
    with Image.open(path) as image:
        image.seek(1)
        image.load()
        assert image.info["duration"] == round(1000 * stays)


def test_a_palette_is_chosen_from_few_pixels_and_is_as_good(tmp_path, monkeypatch):
    quantize, sizes = Image.Image.quantize, []

    def counted(image, *arguments, **options):
        if options.get("kmeans"):
            sizes.append(image.width * image.height)
        return quantize(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "quantize", counted)
    ramps = np.stack(np.meshgrid(np.arange(300), np.arange(300)), axis=-1) * 255 // 299
    frames = [np.dstack([ramps, np.full((300, 300), 12 * number)]).astype(np.uint8) for number in range(16)]
    write_gif(frames, tmp_path / "a.gif")
    assert sizes == [39_980]  # every fourth of those that are not flat
    with Image.open(tmp_path / "a.gif") as animation:
        error = np.abs(np.asarray(animation.convert("RGB"), int) - frames[0]).mean()
    assert error < 13
