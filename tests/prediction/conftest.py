"""Fixtures of the tests that predict any images: the tiny run's predictor, and a folder of pictures of all kinds."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlv3p.prediction.predictor import ImagePredictor, load_predictor
from dlv3p.prediction.results import Results


@pytest.fixture(scope="module")
def predictor(trained) -> ImagePredictor:
    """The best network of the tiny run, which sees images at half their size."""
    return load_predictor("done", device="cpu", threads=1)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager]:
    """Within a block, Ctrl-C comes as the third result is made; after it, results are made as usual."""
    make, made = Results.make, []

    def make_two(self, *arguments, **options) -> dict[str, str]:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(arguments[0].name)
        return make(self, *arguments, **options)

    @contextmanager
    def block() -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(Results, "make", make_two)
            yield

    return block


@pytest.fixture
def picture() -> Image.Image:
    """A picture of soft patches, 96 x 64 pixels."""
    patches = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    return Image.fromarray(patches).resize((96, 64), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path: Path, picture: Image.Image) -> Path:
    """A folder of three pictures, one of them further below."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "below/a.png"):
        picture.save(folder / name)
    return folder
