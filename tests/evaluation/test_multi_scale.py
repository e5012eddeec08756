"""What several views of an image add up to: as in a slow reference, on known networks, and within bounded memory."""

import weakref
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cityscapes.errors import DivergedError
from dlv3p.data.augment import normalize
from dlv3p.evaluation.inference import Predictor
from dlv3p.evaluation.multi_scale import multi_scale_sum, multi_scale_views
from dlv3p.parameters.protocols import PUBLISHED, WHOLE_IMAGE, Protocol
from dlv3p.parameters.training import TrainParameters

CPU = torch.device("cpu")
CLASSES = 7
SLIDING = Protocol(window_height=56, window_width=84, overlap=13)


def a_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth random colors, so that a network sees different things in different places."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


class Small(nn.Module):
    """Two convolutions, never trained, that say different things about different pixels at a quarter of the size."""

    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        generator = torch.Generator().manual_seed(3)
        self.first = torch.randn(12, 3, 7, 7, generator=generator) / 7
        self.second = torch.randn(CLASSES, 12, 3, 3, generator=generator) / 4

    def logits_at_stride(self, image):
        features = functional.conv2d(image, self.first, stride=4, padding=3).relu()
        return functional.conv2d(features, self.second, padding=1)


def predictor_of(model):
    return Predictor("none", Path("none"), 0, model, TrainParameters(), [f"class {i}" for i in range(CLASSES)], CPU)


@pytest.fixture(params=[False, True], ids=["pixel centers", "corners aligned"])
def predictor(request):
    return predictor_of(Small(request.param))


def starts(length, window, overlap):
    found = [0]
    while found[-1] + window < length:
        found.append(min(found[-1] + window - overlap, length - window))
    return found


def slow_sum(network, image, protocol, size, align_corners):
    """The same by the book: logits at the view's full size, mean over windows, resized, softmax, all views kept."""
    views = []
    for scale in protocol.scales:
        width, height = (max(1, round(side * scale)) for side in image.size)
        straight = normalize(image.resize((width, height), Image.Resampling.BILINEAR))[None]
        tall, wide = min(protocol.window_height or height, height), min(protocol.window_width or width, width)
        for batch in (straight, straight.flip(3))[: 1 + protocol.flip]:
            total, count = torch.zeros(1, CLASSES, height, width), torch.zeros(1, 1, height, width)
            for top in starts(height, tall, protocol.overlap):
                for left in starts(width, wide, protocol.overlap):
                    place = np.s_[:, :, top : top + tall, left : left + wide]
                    logits = network(batch[place])
                    total[place] += functional.interpolate(
                        logits, (tall, wide), mode="bilinear", align_corners=align_corners
                    )
                    count[place] += 1
            logits = functional.interpolate(total / count, size, mode="bilinear", align_corners=False)
            views.append(logits.softmax(1) if batch is straight else logits.softmax(1).flip(3))
    return sum(views)[0]


def sum_of(predictor, image, protocol):
    size = image.size[::-1]
    views = multi_scale_views(*size, protocol)
    align = predictor.model.align_corners
    with torch.inference_mode():
        return multi_scale_sum(predictor.model.logits_at_stride, image, views, size, align_corners=align, device=CPU)


def test_the_pictures_and_the_network_are_worth_a_test(predictor):
    labels = predictor(a_picture(150, 90))
    shares = np.bincount(labels.ravel(), minlength=CLASSES) / labels.size
    assert (shares > 0.02).sum() >= 4


@pytest.mark.parametrize("image_scale", [1.0, 0.5])
def test_a_single_scale_is_the_plain_prediction_to_the_bit(predictor, image_scale):
    predictor = replace(predictor, parameters=TrainParameters(image_scale=image_scale))
    image = a_picture(151, 90)
    with torch.inference_mode():
        batch = normalize(image, image_scale=image_scale)[None].contiguous(memory_format=torch.channels_last)
        logits = predictor.model.logits_at_stride(batch)
        align = predictor.model.align_corners
        full = functional.interpolate(logits, (90, 151), mode="bilinear", align_corners=align)
        expected = full.argmax(dim=1)[0]
    for protocol in (WHOLE_IMAGE, Protocol((1.0,)), Protocol(window_height=90, window_width=151)):
        assert torch.equal(predictor.predict(image, protocol).long(), expected)


@pytest.mark.parametrize(
    "protocol",
    [Protocol(flip=True), SLIDING, replace(SLIDING, flip=True), replace(SLIDING, overlap=0, flip=True)],
    ids=lambda protocol: protocol.name,
)
def test_flip_and_windows_add_up_as_in_a_slow_reference(predictor, protocol):
    image = a_picture(151, 90)
    with torch.inference_mode():
        expected = slow_sum(predictor.model.logits_at_stride, image, protocol, (90, 151), predictor.model.align_corners)
    total = sum_of(predictor, image, protocol)
    if not protocol.flip:  # a single view is told by its logits
        total = total.softmax(dim=0)
    assert torch.allclose(total, expected, atol=2e-4)
    assert torch.equal(predictor.predict(image, protocol), total.argmax(dim=0).to(torch.uint8))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("windows", [False, True])
def test_several_scales_add_up_as_in_a_slow_reference(predictor, flip, windows):
    """Resizing logits once, as here, or twice, as the reference does, moves a probability a little at edges only."""
    image, protocol = (
        a_picture(151, 90),
        replace(SLIDING if windows else WHOLE_IMAGE, scales=(0.5, 1.0, 1.75), flip=flip),
    )
    with torch.inference_mode():
        expected = slow_sum(predictor.model.logits_at_stride, image, protocol, (90, 151), predictor.model.align_corners)
    total = sum_of(predictor, image, protocol)
    assert torch.allclose(total.sum(dim=0), torch.tensor(3.0 * (1 + flip)), atol=1e-4)
    assert (total - expected).abs().mean() < 0.01
    assert (predictor.predict(image, protocol).long() != expected.argmax(dim=0)).float().mean() < 0.01


def test_several_scales_are_each_resized_once_from_the_networks_logits(predictor):
    if predictor.model.align_corners:
        pytest.skip("torch aligns the corners of image and logits, which are not those of the resized image")
    image, scales = a_picture(151, 90), (0.5, 1.0, 1.5)
    expected = 0
    with torch.inference_mode():
        for scale in scales:
            logits = predictor.model.logits_at_stride(normalize(image, image_scale=scale)[None])
            expected += functional.interpolate(logits, (90, 151), mode="bilinear").softmax(1)[0]
    assert torch.allclose(sum_of(predictor, image, Protocol(scales)), expected, atol=2e-4)


def test_windows_that_cover_the_image_change_nothing_at_any_scale(predictor):
    image, scales = a_picture(97, 65), (0.5, 1.0, 1.25)
    whole = Protocol(scales, flip=True)
    covering = replace(whole, window_height=500, window_width=500, overlap=100)
    assert torch.equal(sum_of(predictor, image, covering), sum_of(predictor, image, whole))
    assert torch.equal(predictor.predict(image, covering), predictor.predict(image, whole))


@pytest.mark.parametrize(
    "protocol", [Protocol((0.75, 1.0), flip=True), replace(SLIDING, scales=(0.75, 1.0), flip=True)]
)
def test_with_flip_a_mirrored_image_has_the_mirrored_prediction(predictor, protocol):
    image = a_picture(131, 77)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    straight, other = sum_of(predictor, image, protocol), sum_of(predictor, mirrored, protocol)
    assert torch.allclose(other.flip(2), straight, atol=1e-3)
    assert (sum_of(predictor, mirrored, replace(protocol, flip=False)).flip(2) - straight / 2).abs().mean() > 1e-3


def test_a_symmetric_image_has_a_symmetric_prediction(predictor):
    half = np.asarray(a_picture(70, 80))
    image = Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1))
    labels = predictor(image, Protocol((0.75, 1.0, 1.25), flip=True))
    assert (labels != labels[:, ::-1]).mean() < 1e-3


EVERY = [*(protocol for protocol in PUBLISHED.values() if not protocol.center_crop), SLIDING, Protocol((0.5,))]


@pytest.mark.parametrize("protocol", EVERY, ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("size", [(61, 43), (33, 120)])
def test_a_prediction_never_leaves_the_images_size(predictor, protocol, size):
    small = replace(protocol, long_side=protocol.long_side // 8, padded=protocol.padded // 8)
    for image_scale in (1.0, 0.5):
        run = replace(predictor, parameters=TrainParameters(image_scale=image_scale))
        labels = run(a_picture(*size), small)
        assert labels.shape == size[::-1]
        assert labels.dtype == np.uint8


COLORS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250], [240, 240, 10]], np.uint8)


class NearestColor(nn.Module):
    """Logits that say which of four colors a pixel has, or a square of `stride` pixels on average."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride, self.align_corners = stride, False
        self.targets = torch.stack([normalize(Image.new("RGB", (1, 1), tuple(color)))[:, 0, 0] for color in COLORS])

    def logits_at_stride(self, image):
        if self.stride > 1:
            image = functional.avg_pool2d(image, self.stride, ceil_mode=True, count_include_pad=False)
        return -(image[:, None] - self.targets[None, :, :, None, None]).square().sum(dim=2)


def reading(stride):
    return predictor_of(NearestColor(stride))


@pytest.mark.parametrize("protocol", EVERY, ids=lambda protocol: protocol.name)
def test_every_view_is_laid_where_it_belongs(protocol):
    """A network that reads colors must give the picture back, but for pixels at the edges between two colors."""
    protocol = replace(protocol, long_side=protocol.long_side // 3, padded=protocol.padded // 3)
    rows, columns = np.arange(125)[:, None] // 24, np.arange(166) // 25
    truth = ((3 * rows + columns) % 4).astype(np.uint8)
    edges = np.zeros(truth.shape, bool)
    for axis, shift in product((0, 1), (-3, -2, -1, 1, 2, 3)):
        edges |= np.roll(truth, shift, axis) != truth
    for stride in (1, 4):
        labels = reading(stride)(Image.fromarray(COLORS[truth]), protocol)
        assert (labels != truth)[~edges].mean() < (1e-4 if stride == 1 else 0.02)


def test_windows_of_a_network_that_sees_single_pixels_are_the_whole_image():
    single = reading(1)
    image = a_picture(151, 90)
    for protocol in (SLIDING, replace(SLIDING, overlap=0), replace(SLIDING, window_height=33, overlap=32)):
        assert np.array_equal(single(image, protocol), single(image))


def test_padding_is_the_mean_color_and_is_cut_off_again(predictor):
    seen = []

    def network(batch):
        seen.append(batch.clone())
        return predictor.model.logits_at_stride(batch)

    image, protocol = a_picture(100, 60), Protocol(padded=113)
    views, align = multi_scale_views(60, 100, protocol), predictor.model.align_corners
    total = multi_scale_sum(network, image, views, (60, 100), align_corners=align, device=CPU)
    logits = predictor.model.logits_at_stride(seen[0])
    full = functional.interpolate(logits, (113, 113), mode="bilinear", align_corners=align)
    assert seen[0].shape == (1, 3, 113, 113)
    assert (seen[0][:, :, 60:] == 0).all()
    assert (seen[0][:, :, :, 100:] == 0).all()
    assert torch.allclose(total, full[0, :, :60, :100], atol=2e-4)


def test_a_view_that_is_nan_is_refused():
    class Broken(NearestColor):
        def logits_at_stride(self, image):
            return super().logits_at_stride(image) * (float("nan") if image.shape[3] == 64 else 1)

    broken = replace(reading(1), model=Broken(1))
    broken(a_picture(128, 64), Protocol((1.0, 1.25)))
    with pytest.raises(DivergedError, match="not finite"):
        broken(a_picture(128, 64), Protocol((0.5, 1.0)))


class LiveBytes(TorchDispatchMode):
    """Keeps count of the bytes that tensors hold, and of the most they held at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.known = 0, 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    size = storage.nbytes()
                    self.known[storage._cdata] = weakref.finalize(storage, self.forget, storage._cdata, size)
                    self.now += size
                    self.peak = max(self.peak, self.now)
        return result

    def forget(self, key: int, size: int) -> None:
        self.now -= size
        del self.known[key]


def peak_of(predictor, image, protocol):
    with torch.inference_mode(), LiveBytes() as live:
        predictor.predict(image, protocol)
    return live.peak


@pytest.mark.parametrize("windows", [False, True])
def test_memory_does_not_grow_with_the_number_of_views(windows):
    """The largest scale alone decides; one sum of the image's size comes on top of it, two where there are windows."""
    many = reading(4)
    image = a_picture(512, 256)
    base = replace(SLIDING, window_height=200, window_width=200) if windows else WHOLE_IMAGE
    one_sum = len(COLORS) * 256 * 512 * 4
    few = peak_of(many, image, replace(base, scales=(1.0, 1.25)))
    more = peak_of(many, image, replace(base, scales=(0.5, 0.7, 0.9, 1.0, 1.25), flip=True))
    alone = peak_of(many, image, Protocol((1.25,)))
    assert one_sum < few
    assert more <= few + 3 * 320 * 640 * 4 + 1024  # a mirrored copy of one input
    assert few < alone + (2 if windows else 1) * one_sum + one_sum
