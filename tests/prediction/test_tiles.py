"""Large images in tiles: weights that add up, no seams, and a limit of memory that is predicted and kept."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cityscapes.errors import InputError
from dlv3p.parameters.protocols import WHOLE_IMAGE, Protocol
from dlv3p.prediction.memory import MemoryLimit
from dlv3p.prediction.predict import predict_images
from dlv3p.prediction.sources import find_images
from dlv3p.prediction.tiles import ALIGNED, Tiling, blend, fade, spread

SIDE, OVERLAP = 96, 32


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5000), st.integers(64, 1024), st.integers(1, 32))
def test_tiles_cover_a_side_and_overlap_enough(length: int, side: int, overlap: int) -> None:
    spans = spread(length, side, overlap)
    assert (spans[0][0], spans[-1][1]) == (0, length)
    assert all(start % ALIGNED == 0 for start, _ in spans)
    assert all(end - start < side + ALIGNED for start, end in spans)
    assert all(before[1] - after[0] >= overlap for before, after in zip(spans, spans[1:], strict=False))


def test_a_tile_fades_at_its_edges_but_not_at_the_images() -> None:
    first, last = fade((0, 8), 12, 4), fade((4, 12), 12, 4)
    assert first.tolist() == [1, 1, 1, 1, 0.875, 0.625, 0.375, 0.125]
    assert np.array_equal(first[4:] + last[:4], np.ones(4))


@pytest.mark.parametrize("size", [(300, 250), (97, 400), (96, 96), (129, 40)])
def test_where_the_tiles_agree_so_does_the_blend(size: tuple[int, int]) -> None:
    scores = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    times = torch.zeros(size)
    found = torch.full_like(scores, float("nan"))
    for rows, columns, piece in blend(
        lambda box: scores[:, slice(*box[0]), slice(*box[1])].clone(), Tiling(*size, SIDE, OVERLAP)
    ):
        found[:, rows, columns] = piece
        times[rows, columns] += 1
    assert torch.equal(times, torch.ones(size)), "each pixel comes once"
    assert (found - scores).abs().max() < 1e-5


def test_scores_of_tiles_that_differ_fade_without_a_jump() -> None:
    """Each tile says its own number: hard borders would jump by 1 or 2, fading over 32 pixels moves in steps."""
    tiling = Tiling(200, 200, SIDE, OVERLAP)
    numbers = {
        (rows[0], columns[0]): i + j for i, rows in enumerate(tiling.rows) for j, columns in enumerate(tiling.columns)
    }
    image = torch.empty(1, 200, 200)
    for rows, columns, piece in blend(
        lambda box: torch.full((1, *(b - a for a, b in box)), float(numbers[box[0][0], box[1][0]])), tiling
    ):
        image[:, rows, columns] = piece
    assert float(image.max()) == pytest.approx(max(numbers.values()))
    assert image.diff(dim=1).abs().max() <= 2 / OVERLAP
    assert image.diff(dim=2).abs().max() <= 2 / OVERLAP


@pytest.mark.usefixtures("trained")
def test_a_network_in_tiles_shows_no_seams(predictor, city, monkeypatch) -> None:
    frame = Image.open(sorted((city / "leftImg8bit").rglob("*.png"))[0]).convert("RGB")
    image = frame.resize((768, 512), Image.Resampling.BICUBIC)
    tiled = replace(predictor, limit=replace(predictor.limit, tile=256, overlap=64))
    monkeypatch.setattr(MemoryLimit, "needs_tiles", lambda *size, **options: False)
    whole, sure = predictor.with_confidence(image)
    monkeypatch.setattr(MemoryLimit, "needs_tiles", lambda *size, **options: True)
    labels, also_sure = tiled.with_confidence(image)
    assert (labels == whole).mean() > 0.9
    assert np.abs(sure.astype(int) - also_sure).mean() < 13
    tiling = Tiling(512, 768, 256, 64)
    for axis, spans in enumerate((tiling.rows, tiling.columns)):
        changes = (np.diff(labels.astype(int), axis=axis) != 0).mean(axis=1 - axis)
        seams = {edge - 1 for span in spans for edge in span if 0 < edge < labels.shape[axis]}
        assert len(seams) >= 2
        others = np.delete(changes, sorted(seams))
        assert changes[sorted(seams)].mean() <= others.mean() + 2 * others.std()


def test_the_limit_decides_by_the_image_alone_and_refuses_before_it_is_spent() -> None:
    limit = MemoryLimit(2.0, 512, 64, pixel_bytes=250.0)
    assert not limit.needs_tiles((1024, 1024), 19, WHOLE_IMAGE)
    assert limit.needs_tiles((4000, 4000), 19, WHOLE_IMAGE)
    assert limit.needs_tiles((1024, 2048), 19, Protocol(scales=(1.0, 2.0)))
    with pytest.raises(InputError, match=r"30000 x 30000 pixels take .* GiB in tiles of 512, more than memory_gib=2;"):
        limit.needs_tiles((30000, 30000), 19, WHOLE_IMAGE)


@pytest.mark.usefixtures("trained")
def test_freed_memory_is_kept_unless_an_image_comes_near_the_limit(predictor, picture, tmp_path, monkeypatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr("dlv3p.prediction.pipeline.return_freed_memory", lambda: called.append(True))
    picture.save(tmp_path / "a.png")
    predict_images(predictor, find_images(tmp_path / "a.png"), tmp_path / "whole", progress="none")
    assert not called
    monkeypatch.setattr(MemoryLimit, "needs_tiles", lambda *size, **options: True)
    predict_images(predictor, find_images(tmp_path / "a.png"), tmp_path / "tiles", progress="none")
    assert called


LARGE = """
import sys
from pathlib import Path
from dlv3p.prediction.predict import predict_images
from dlv3p.prediction.predictor import load_predictor
from dlv3p.prediction.sources import find_images
from dlv3p.prediction.results import Outputs
image, output, gib, tile = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
predictor = load_predictor("done", device="cpu", threads=1, memory_gib=gib, tile=tile, tile_overlap=64)
found = predict_images(predictor, find_images(image), output, Outputs(confidence=True), progress="none")
assert not found.problems, found.problems
height, width = (int(side) for side in sys.argv[5].split("x"))
assert predictor.needs_tiles((height, width), True)
print(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20)
"""


def peak_gib(folder: Path, side: int, gib: float, tile: int) -> float:
    """Predict a square image of `side` pixels in a process of its own, and return its peak of resident memory.

    That of `getrusage` would be the peak of the process that started it, where that is higher.
    """
    from cityscapes.files.png_write import encode_png

    pattern = np.random.default_rng(0).integers(0, 256, (side // 100, side // 100), np.uint8)
    gray = np.repeat(np.repeat(pattern, 100, axis=0), 100, axis=1)
    (folder / "large.png").write_bytes(encode_png(gray))
    words = [sys.executable, "-c", LARGE, folder / "large.png", folder / "out", gib, tile, f"{side}x{side}"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert Image.open(folder / "out" / "ids" / "large.png").size == (side, side)
    return float(done.stdout.split()[-1])


@pytest.mark.usefixtures("trained")
def test_an_image_of_4000_pixels_a_side_keeps_within_its_memory(tmp_path: Path) -> None:
    assert peak_gib(tmp_path, 4000, 1.75, 512) < 1.75


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_an_image_of_20000_pixels_a_side_keeps_within_its_memory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert peak_gib(tmp_path, 20000, 7.0, 1024) < 7.0
