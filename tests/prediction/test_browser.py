"""The widgets over a folder of predictions: what each control changes in the picture."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.labels import TRAIN_ID_TO_COLOR
from dlv3p.prediction.browser import Browser, draw, plain
from dlv3p.prediction.predict import predict_images
from dlv3p.prediction.predictor import Prediction
from dlv3p.prediction.results import Outputs, open_results
from dlv3p.prediction.sources import find_images

pytestmark = pytest.mark.usefixtures("trained")


def shown(browser: Browser) -> np.ndarray:
    """The picture as it is shown."""
    return np.array(Image.open(io.BytesIO(browser.picture.value)))


@pytest.fixture
def browser(predictor, photos: Path, tmp_path: Path) -> Browser:
    """The browser over the predictions of three pictures, of which the second differs."""
    Image.open(photos / "b.jpg").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(photos / "b.jpg")
    source, outputs = find_images(photos), Outputs(confidence=True)
    predict_images(predictor, source, tmp_path / "out", outputs, progress="none")
    results = open_results(tmp_path / "out", predictor, outputs, batch_size=1)
    return Browser(results, source.images, lambda index: Image.open(source.images[index].path))


def test_only_shown_classes_are_drawn_as_much_as_asked() -> None:
    image, labels = np.full((1, 2, 3), 100, np.uint8), np.array([[0, 8]], np.uint8)
    full = draw(image, Prediction(labels), TRAIN_ID_TO_COLOR, shown=[0], opacity=1.0)
    assert full.tolist() == [[TRAIN_ID_TO_COLOR[0].tolist(), [100, 100, 100]]]
    assert np.array_equal(draw(image, Prediction(labels), TRAIN_ID_TO_COLOR, shown=[0, 8], opacity=0.0), image)
    sure = np.array([[255, 0]], np.uint8)
    assert draw(image, Prediction(labels, sure), TRAIN_ID_TO_COLOR, shown=[], opacity=1.0).tolist() == [
        [[100, 100, 100], [0, 0, 0]]
    ]


def test_each_class_has_its_color_beside_its_name_and_the_title_a_line_of_its_own(browser: Browser) -> None:
    assert [box.layout.border_left for box in browser.classes[:2]] == ["8px solid #804080", "8px solid #f423e8"]
    assert browser.title in browser.box.children


def test_every_control_changes_the_picture(browser: Browser, predictor, photos: Path) -> None:
    before = shown(browser)
    assert before.shape == (64, 96, 3)
    browser.opacity.value = 0.0
    assert np.array_equal(shown(browser), np.array(Image.open(photos / "a.png")))
    browser.opacity.value = 0.5
    assert np.array_equal(shown(browser), before)
    present = int(np.bincount(predictor(photos / "a.png").ravel()).argmax())
    browser.classes[present].value = False
    assert not np.array_equal(shown(browser), before)
    browser.classes[present].value = True
    browser.confidence.value = True
    assert shown(browser).mean() < before.mean()
    browser.confidence.value = False
    browser.step(1)
    assert browser.title.value == "b  (2 of 3)"
    assert not np.array_equal(shown(browser), before)
    browser.step(-2)
    assert browser.title.value == "below/a  (3 of 3)"


def test_a_name_is_no_formula(browser: Browser) -> None:
    """JupyterLab shows what is between two `$` as one, and `\\$` as `$`."""
    assert [plain(name) for name in ("a $5 to $6", "in $", "sky")] == [r"a \$5 to \$6", "in $", "sky"]
    assert [box.description for box in browser.classes] == [*map(plain, browser.results.predictor.class_names)]
