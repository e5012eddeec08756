"""A window is resized as Pillow resizes it with `box`, from no more of the image than it names."""

import numpy as np
import pytest
from PIL import Image

from dlv3p.data.augment import Augmentation
from dlv3p.data.resample import Window, resize_ids, resize_pixels

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (150, 211, 3), dtype=np.uint8)
IDS = RNG.integers(0, 19, (150, 211), dtype=np.uint8)


def windows():
    for key in range(60):
        size = [int(side) for side in np.random.default_rng(key).integers(20, 400, 2)]
        augmentation = Augmentation(*size, scale_low=0.2, scale_high=4.0)
        yield augmentation.window(150, 211, np.random.Generator(np.random.Philox(key=key)))


@pytest.mark.parametrize("window", list(windows()))
def test_pixels_and_ids_are_those_of_pillow(window):
    """In every bit where no pass order of a flat window can tell the two apart: for windows higher than the image."""
    box = (window.left, window.top, window.right, window.bottom)
    size = (window.width, window.height)
    pixels = np.asarray(Image.fromarray(PIXELS).resize(size, Image.Resampling.BILINEAR, box=box))
    ids = np.asarray(Image.fromarray(IDS).resize(size, Image.Resampling.NEAREST, box=box))
    difference = np.abs(resize_pixels(PIXELS, window).astype(int) - pixels).max()
    assert difference <= (0 if window.height >= 150 or window.width <= 150 else 1)
    out = np.full((window.height + 2, window.width + 3), 77)
    resize_ids(IDS, window, out)
    assert np.array_equal(out[:-2, :-3], ids)
    assert (out[-2:] == 77).all()
    assert (out[:, -3:] == 77).all()


@pytest.mark.parametrize("window", list(windows())[:20])
def test_a_flip_swaps_the_sides(window):
    straight, flipped = (np.zeros((window.height, window.width), np.int64) for _ in range(2))
    resize_ids(IDS, window, straight)
    resize_ids(IDS, window, flipped, flip=True)
    assert np.array_equal(flipped, straight[:, ::-1])
    assert np.array_equal(resize_pixels(PIXELS, window, flip=True), resize_pixels(PIXELS, window)[:, ::-1])


@pytest.mark.parametrize("window", list(windows())[:20])
def test_nothing_outside_the_corner_is_read(window):
    rows, columns = window.corner()
    corner = np.ascontiguousarray(PIXELS[:rows, :columns])
    assert np.array_equal(resize_pixels(corner, window), resize_pixels(PIXELS, window))


def test_a_corner_is_hardly_more_than_the_window():
    assert Window(1000, 1000, 10, 20, 110, 220, 200, 100).corner() == (222, 112)


def test_a_memory_map_will_do(tmp_path):
    np.save(tmp_path / "pixels.npy", PIXELS)
    window = next(windows())
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    assert np.array_equal(resize_pixels(mapped, window), resize_pixels(PIXELS, window))
