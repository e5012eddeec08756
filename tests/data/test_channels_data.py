"""Images of other channels and values than RGB: measured, audited, trained, exported and predicted as they are."""

import json
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from support.channel_folder import COLORS, SIDE, SWITCHES, write_folder
from support.tiny import tiny

from cityscapes.errors import InputError
from cityscapes.files.channels import ChannelImage, PixelRule
from cityscapes.files.images import inspect_picture, read_image
from cityscapes.files.png_chunks import SIGNATURE, chunk
from dlv3p.data.audit import audit
from dlv3p.data.augment import Augmentation, blur_crop, normalize
from dlv3p.data.decoded_cache import DecodedCache, open_image
from dlv3p.data.resample import Window, resize_pixels
from dlv3p.data.roots import open_split
from dlv3p.data.write_shards import write_shards
from dlv3p.evaluation.evaluate import evaluate
from dlv3p.evaluation.inference import load_saved
from dlv3p.evaluation.metrics import confusion_matrix
from dlv3p.export.__main__ import main as export
from dlv3p.models.deeplab import build_model, build_network
from dlv3p.models.inputs import adapt_filters, first_convolution, input_channels, take_channels
from dlv3p.parameters.training import TrainParameters
from dlv3p.prediction.memory import bytes_of_held_pixel
from dlv3p.prediction.predict import predict_images
from dlv3p.prediction.predictor import load_predictor
from dlv3p.prediction.results import Outputs
from dlv3p.prediction.sources import find_images
from dlv3p.train import train
from dlv3p.training import trial
from dlv3p.training.cost import estimate_cost
from dlv3p.training.memory import predict_disk_bytes


def example_labels(network: Path, image: Path) -> np.ndarray:
    """Return the labels that the example, which is not this package, predicts; an AssertionError is what it says."""
    example, labels = Path(__file__).parents[2] / "examples" / "run_exported.py", network.with_suffix(".png")
    words = [sys.executable, "-I", example, network, image, labels]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.array(Image.open(labels))


def wide_png(values: np.ndarray) -> bytes:
    """Return a PNG of 16 bits, uint16 (H,W,n) of two to four channels, which Pillow does not write."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return SIGNATURE + b"".join(parts)


def test_five_channels_are_audited_trained_exported_and_predicted(workspace: Path, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data")
    with pytest.raises(InputError, match=r"data.yaml: lacks value_range, mean, deviation; audit_data.ipynb measures"):
        open_split(root, "train")
    report = audit(root, ["train", "val"], progress="none")
    assert report.errors == ()
    assert report.splits[0].modes == {"5 channels": 4}
    stated = (root / "data.yaml").read_text()
    assert stated.startswith("mask_suffix: _mask\nchannels: 5\nvalue_range: [")
    audit(root, ["train", "val"], progress="none")
    assert (root / "data.yaml").read_text() == stated

    parameters = tiny(root, run="five", epochs=30, validate_every=30, **SWITCHES)
    train(parameters)

    predictor = load_predictor("five", device="cpu", threads=1)
    assert predictor.rule == open_split(root, "train").pixel_rule
    source = root / "images" / "val"
    found = predict_images(predictor, find_images(source), tmp_path / "out", Outputs(), progress="none")
    assert found.problems == ()
    again = predict_images(predictor, find_images(source), tmp_path / "out", Outputs(), progress="none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PixelRule, "key", "of another version, which made other pixels")
        other = predict_images(predictor, find_images(source), tmp_path / "out", Outputs(), progress="none")
    assert (again.made, other.made) == (0, found.made)
    labels = np.array(Image.open(tmp_path / "out" / "ids" / "0.png"))
    truth = open_split(root, "val").mask(0)
    assert (labels == truth).mean() > 0.8
    assert np.array_equal(predictor(tifffile.imread(source / "0.tif")), labels)
    assert Image.open(tmp_path / "out" / "overlays" / "0.jpg").size == (SIDE, SIDE)
    with pytest.raises(InputError, match="image: has 3 channels, and data.yaml says channels: 5"):
        predictor(np.zeros((SIDE, SIDE, 3), np.uint8))
    rule = replace(predictor.rule, value_range=(0.0, 9.0))
    for other in (Image.new("RGB", (SIDE, SIDE)), ChannelImage(np.zeros((SIDE, SIDE, 5), np.float32), rule)):
        for predict in (predictor.network.predict, predictor.network.whole_logits):  # as find_label_errors does
            with pytest.raises(InputError, match="takes images of 5 channels of 0 to .*, and given are images of"):
                predict(other)

    export(["--run", "five", "--output", str(tmp_path / "five.onnx")])
    exported = load_predictor(tmp_path / "five.onnx", threads=1)
    assert (exported(source / "0.tif") == labels).mean() > 0.999
    assert exported.colors.tolist() == predictor.colors.tolist() == COLORS
    planes = np.moveaxis(tifffile.imread(source / "0.tif"), 2, 0)
    tifffile.imwrite(tmp_path / "planes.tif", planes, photometric="minisblack", planarconfig="separate")
    for image in (source / "0.tif", tmp_path / "planes.tif"):
        assert (example_labels(tmp_path / "five.onnx", image) == exported(image)).mean() > 0.999
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "colors.png")
    with pytest.raises(AssertionError, match=r"colors.png: has 3 channels, and the network takes 5"):
        example_labels(tmp_path / "five.onnx", tmp_path / "colors.png")
    (tmp_path / "wide.png").write_bytes(wide_png(np.zeros((SIDE, SIDE, 3), np.uint16)))
    with pytest.raises(AssertionError, match=r"wide.png: its values are not read here as they are stored; store it"):
        example_labels(tmp_path / "five.onnx", tmp_path / "wide.png")

    (root / "data.yaml").write_text(stated.replace("value_range: [0", "value_range: [1"))
    with pytest.raises(InputError, match="takes images of 5 channels of 0 to .* restore the data.yaml of the training"):
        train(TrainParameters.from_mapping({**parameters.as_dict(), "epochs": 30}))


def test_gray_of_16_bits_is_audited_trained_evaluated_exported_and_predicted(workspace: Path, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", channels=1, count=8)
    report = audit(root, ["train", "val"], progress="none")
    assert report.findings == ()
    assert report.splits[0].modes == {"1 channels": 8}
    train(tiny(root, run="gray", epochs=10, validate_every=10, **SWITCHES))

    split = open_split(root, "val")
    evaluation = evaluate(load_saved("gray", device="cpu", threads=1), split, progress="none")
    assert evaluation.scores.mean_iou > 0.6
    predictor = load_predictor("gray", device="cpu", threads=1)
    found = predict_images(
        predictor, find_images(root / "images" / "val"), tmp_path / "out", Outputs(), progress="none"
    )
    assert (found.made, found.problems) == (8, ())
    labels = np.array(Image.open(tmp_path / "out" / "ids" / "0.png"))
    counts = confusion_matrix(torch.from_numpy(split.mask(0)), torch.from_numpy(labels), 2)
    assert np.array_equal(counts, evaluation.counts.confusions()[0])
    opened = Image.open(root / "images" / "val" / "0.png")
    assert np.array_equal(predictor(opened), labels)
    assert np.array_equal(predictor(np.asarray(opened)), labels)
    shown = np.asarray(Image.open(tmp_path / "out" / "overlays" / "0.jpg")).astype(int)
    assert shown[split.mask(0) == 1].mean() > shown[split.mask(0) == 0].mean()

    Image.new("L", (SIDE, SIDE), 200).save(tmp_path / "eight bits.png")
    found = predict_images(
        predictor, find_images(tmp_path / "eight bits.png"), tmp_path / "dark", Outputs(), progress="none"
    )
    assert "its values span 0 of the deviation in data.yaml" in found.table.read_text()

    export(["--run", "gray", "--output", str(tmp_path / "gray.onnx")])
    assert (load_predictor(tmp_path / "gray.onnx", threads=1)(opened) == labels).mean() > 0.999
    assert (example_labels(tmp_path / "gray.onnx", root / "images" / "val" / "0.png") == labels).mean() > 0.999


NARROW = "channel in a part of its range"


@pytest.mark.parametrize(
    ("stated", "kind", "problem", "is_error"),
    [
        ("value_range: [0, 15]", NARROW, "deviates by [0-9.]+% of value_range; 100% are at", True),
        ("value_range: [0, 4000]", NARROW, "deviates by [0-9.]+% of value_range; [6-9].% are", False),
        ("value_range: [0, 4000000000000]", NARROW, "deviates by 0.00% of value_range", True),
        ("value_range: [0, 800000]", NARROW, "deviates by [1-3].[0-9]+% of value_range", False),
        ("mean: [0.25]", "", "", False),
        (
            "mean: [0.25]\ndeviation: [0.2]",
            "channel that is not normalized",
            "a network sees a mean of [0-9.e+]+",
            True,
        ),
    ],
)
def test_an_audit_finds_values_that_are_lost_between_the_file_and_the_network(
    tmp_path: Path, stated: str, kind: str, problem: str, is_error: bool
) -> None:
    root = write_folder(tmp_path / "data", channels=1, count=2)
    with (root / "data.yaml").open("a") as file:
        file.write(f"{stated}\n")
    report = audit(root, ["train"], progress="none")
    found = [finding for finding in report.findings if finding.where == "channel 0"]
    assert [(finding.kind, finding.is_error) for finding in found] == ([(kind, is_error)] if kind else [])
    assert all(re.match(problem, finding.problem) for finding in found)


def test_what_a_training_costs_is_estimated_for_the_channels_of_its_data(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_folder(tmp_path / "data", count=2)
    audit(root, ["train"], progress="none")
    rule = open_split(root, "train").pixel_rule
    parameters = tiny(root, batch_size=2)
    requests = []

    def try_here(_: str, request: str, content: bytes) -> SimpleNamespace:
        requests.append(request)
        trial.run_request(json.loads(request))
        return SimpleNamespace(returncode=0, stdout=b'{"seconds": 1.0, "mib": 900.0}\n')

    monkeypatch.setattr(trial, "run_module", try_here)
    monkeypatch.setattr(trial, "TIMED_STEPS", 0)
    assert estimate_cost(parameters).steps == 2
    assert json.loads(requests[0])["pixels"] == rule.as_dict()
    with torch.device("meta"):
        networks = [build_network(parameters, 2, rule=one) for one in (rule, None)]
    more, fewer = (first_convolution(network)[1].weight.numel() for network in networks)
    grown = predict_disk_bytes(parameters, 2, rule) - predict_disk_bytes(parameters, 2)
    assert grown == 5 * 4 * (more - fewer)


RULE = PixelRule(2, (0.0, 4095.0), (1000.0, 2000.0), (500.0, 100.0))


def test_values_are_stretched_clipped_and_normalized_by_the_rule() -> None:
    image = RULE.image(np.array([[[0, 4095], [5000, 2000]]], np.uint16), "a")
    assert image.pixels.tolist() == [[[0, 1], [1, np.float32(2000 / 4095)]]]
    values = normalize(image).numpy()
    assert values.shape == (2, 1, 2)
    assert values[0].ravel() == pytest.approx([-2.0, 6.19])
    assert values[1].ravel() == pytest.approx([20.95, 0], abs=1e-4)


def test_what_only_the_low_byte_tells_reaches_the_network(tmp_path: Path) -> None:
    values = np.full((8, 8), 0x8000, np.uint16)
    values[:, 4:] += 1
    rule = PixelRule(1, (0.0, 65535.0), (30000.0,), (500.0,))
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        seen = normalize(read_image(tmp_path / name, rule=rule)).numpy()[0]
        assert seen[:, 4:] - seen[:, :4] == pytest.approx(1 / 500, abs=2e-5)
    doubled = normalize(read_image(tmp_path / "a.tif", rule=rule), image_scale=2.0).numpy()[0]
    assert sorted(np.rint((doubled[5] * 500 + 30000 - 0x8000) * 4)) == [0] * 7 + [1, 3] + [4] * 7


def test_a_class_that_only_the_low_byte_tells_is_learned(workspace: Path, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", channels=1, count=8)
    for path in root.glob("images/*/*.png"):
        values = np.asarray(Image.open(path)) // 256 + 30000  # 30000 to 30250 of 65535
        Image.fromarray(values.astype(np.uint16)).save(path)
    inputs = []
    for low, high, jitter in ((0, 65535, 0.0), (30000, 30255, 0.3)):
        (root / "data.yaml").write_text(f"mask_suffix: _mask\nchannels: 1\nvalue_range: [{low}, {high}]\n")
        report = audit(root, ["train"], progress="none")
        assert [finding.kind for finding in report.findings] == [NARROW] * (high == 65535)
        assert report.errors == ()
        inputs.append(normalize(open_split(root, "train").image(0)).numpy())
        train(tiny(root, run=f"to{high}", epochs=10, validate_every=10, color_jitter=jitter, **SWITCHES))
        network = load_saved(f"to{high}", device="cpu", threads=1)
        assert evaluate(network, open_split(root, "val"), progress="none").scores.mean_iou > 0.6
    assert inputs[1] == pytest.approx(inputs[0], abs=1e-3)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colors_of_16_bits_in_a_png_keep_all_of_them(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(4).integers(0, 2**16, (7, 9, channels), np.uint16)
    path = tmp_path / "a.png"
    path.write_bytes(wide_png(values))
    rule = PixelRule(channels, (0.0, 65535.0), (0.0,) * channels, (1.0,) * channels)
    assert np.array_equal(normalize(read_image(path, rule=rule)).numpy().transpose(1, 2, 0), values)
    assert inspect_picture(path, any_channels=True)[1] == ()


def test_what_pillow_does_for_rgb_is_done_for_every_channel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    rgb = Image.fromarray(pixels)
    image = PixelRule(3, (0.0, 255.0), (0.0,) * 3, (1.0,) * 3).image(pixels, "a")
    assert np.array_equal(np.asarray(image.convert("RGB")), pixels)
    for method in Image.Transpose:
        assert np.array_equal(np.asarray(image.transpose(method).convert("RGB")), np.asarray(rgb.transpose(method)))
    assert np.array_equal(np.asarray(image.crop((3, 4, 20, 30)).convert("RGB")), np.asarray(rgb.crop((3, 4, 20, 30))))
    reduced = np.asarray(rgb.resize((20, 11), Image.Resampling.BILINEAR))
    assert np.asarray(image.resize((20, 11))) * 255 == pytest.approx(reduced, abs=1)  # two roundings of half a level


@pytest.mark.parametrize("box", [(3.0, 2.0, 33.5, 27.0), (10.2, 11.7, 40.0, 30.0), (0.0, 0.0, 40.0, 30.0)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_window_of_floats_is_resized_as_one_of_colors(box: tuple[float, ...], flip: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    shares, window = pixels / np.float32(255), Window(30, 40, *box, 19, 23)
    resized = resize_pixels(shares, window, flip=flip)
    assert resized * 255 == pytest.approx(resize_pixels(pixels, window, flip=flip), abs=1)
    rows, columns = window.corner()
    assert np.array_equal(resize_pixels(shares[:rows, :columns], window, flip=flip), resized)


def test_floats_are_blurred_by_a_gaussian() -> None:
    dot = np.zeros((21, 21, 2), np.float32)
    dot[10, 10] = 1
    blurred = blur_crop(dot, 2.0)
    assert blurred[10, 12] / blurred[10, 10] == pytest.approx(np.exp(-0.5), rel=1e-5)
    assert blurred.sum() == pytest.approx(2, rel=1e-5)
    assert blur_crop(np.full((5, 6, 1), 0.3, np.float32), 1.5) == pytest.approx(0.3)
    assert np.array_equal(blur_crop(dot, 0.0), dot)


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_a_crop_of_a_rule_is_the_image_that_the_network_sees_later(jitter: float) -> None:
    image = RULE.image(np.random.default_rng(1).integers(0, 4096, (16, 16, 2)), "a")
    augmentation = Augmentation(16, 16, scale_low=1.0, scale_high=1.0, rule=RULE, color_jitter=jitter)
    crop, _ = augmentation(image, np.zeros((16, 16), np.uint8), np.random.default_rng(3))
    expected = normalize(image)
    either = [torch.allclose(crop, one, atol=1e-5) for one in (expected, expected.flip(2))]
    assert any(either) == (jitter == 0)


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_adapted_filters_respond_to_equal_channels_as_rgb_does(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, gray = torch.randn(8, 3, 7, 7, generator=generator), torch.randn(1, 1, 32, 32, generator=generator)
    expected = torch.conv2d(gray.expand(1, 3, -1, -1), weight)
    found = torch.conv2d(gray.expand(1, channels, -1, -1), adapt_filters(weight, channels))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backbone", ["resnet18", "vovnet39", "densenet121", "mobilenet_v2", "mobilenet_v3_large"])
def test_every_family_takes_other_channels(backbone: str) -> None:
    model = build_model("deeplabv3plus", backbone, num_classes=2, channels=8).eval()
    take_channels(model.backbone, 2)
    assert input_channels(model) == 2
    assert model(torch.zeros(1, 2, 64, 64)).shape == (1, 2, 64, 64)


def test_shards_and_the_decoded_cache_hold_the_same_values(workspace: Path, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", channels=2, count=2)
    audit(root, ["train"], progress="none")
    split = open_split(root, "train")
    write_shards(split, tmp_path / "shards")
    sharded = open_split(tmp_path / "shards", "train")
    assert sharded.pixel_rule == split.pixel_rule
    expected = np.asarray(split.image(1))
    assert len(np.unique(expected)) > 1000
    assert np.array_equal(np.asarray(sharded.image(1)), expected)
    for one in (split, sharded):
        cache = DecodedCache(one)
        for _ in range(2):
            assert np.array_equal(cache.open(1).corner(SIDE, SIDE), expected)


def test_the_decoded_cache_serves_no_values_of_another_rule(workspace: Path, tmp_path: Path) -> None:
    root = write_folder(tmp_path, channels=2, count=1)
    stated = (root / "data.yaml").read_text()
    shares = []
    for high in (4095, 2000):
        (root / "data.yaml").write_text(f"{stated}value_range: [0, {high}]\nmean: [0, 0]\ndeviation: [1, 1]\n")
        split = open_split(root, "train")
        shares.append(np.asarray(split.image(0)))
        assert np.array_equal(DecodedCache(split).open(0).corner(SIDE, SIDE), shares[-1])
    assert not np.array_equal(*shares)


def test_a_crop_of_a_png_follows_the_rule_too(tmp_path: Path) -> None:
    root = write_folder(tmp_path, channels=3, count=1)
    path = root / "images" / "train" / "0.tif"
    Image.new("RGB", (SIDE, SIDE), (50, 100, 200)).save(path.with_suffix(".png"))
    path.unlink()
    with (root / "data.yaml").open("a") as file:
        file.write("value_range: [0, 100]\nmean: [0, 0, 0]\ndeviation: [1, 1, 1]\n")
    assert open_image(open_split(root, "train"), 0).corner(1, 1)[0, 0].tolist() == [0.5, 1, 1]


@pytest.mark.parametrize("values", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("layout", ["contig", "separate", "pages"])
def test_tiffs_of_every_layout_give_their_values(tmp_path: Path, values: str, layout: str) -> None:
    stored = np.random.default_rng(2).integers(0, 200, (6, 9, 5)).astype(values)
    content = stored if layout == "contig" else np.moveaxis(stored, -1, 0)
    options = {} if layout == "pages" else {"planarconfig": layout}
    tifffile.imwrite(tmp_path / "a.tif", content, photometric="minisblack", **options)
    image = read_image(tmp_path / "a.tif", rule=PixelRule(5, (0.0, 255.0), (0.0,) * 5, (1.0,) * 5))
    assert np.array_equal(image.pixels, (stored / 255).astype(np.float32))


def test_gray_of_16_bits_keeps_its_range(tmp_path: Path) -> None:
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    rule = PixelRule(1, (0.0, 4095.0), (0.0,), (1.0,))
    for name in ("a.png", "a.tif"):
        Image.fromarray(stored).save(tmp_path / name)
        assert np.array_equal(read_image(tmp_path / name, rule=rule).pixels[..., 0], (stored / 4095).astype(np.float32))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("channels: 0\n", "data.yaml: channels: 0; give a whole number from 1 to 64"),
        ("chanels: 4\n", "data.yaml: chanels: not known; allowed are mask_suffix, channels"),
        ("mean: [1]\n", "data.yaml: mean: given without channels"),
        ("channels: 1\nvalue_range: [9, 3]\nmean: [1]\ndeviation: [1]\n", r"value_range: \[9, 3\]; give the lowest"),
        ("channels: 2\nvalue_range: [0, 3]\nmean: [1]\ndeviation: [1, 1]\n", r"mean: \[1\]; give a list of 2 numbers"),
        ("channels: 1\nvalue_range: [0, 3]\nmean: [1]\ndeviation: [0]\n", "deviation: 0; give numbers above 0"),
        ("channels: 4\nvalue_range: [0, 3]\nmean: [1,1,1,1]\ndeviation: [1,1,1,1]\n", "has 5 channels, and data.yaml"),
        ("mask_suffix: 3\n", "mask_suffix: 3; give what a mask's name has behind its image's"),
        ("[1]\n", "^/.*data.yaml: allowed are lines of mask_suffix"),
        ("channels: 1\nchannels: 2\n", "^/[^ ]*/data.yaml: duplicate key 'channels'; keep one of them"),
    ],
)
def test_a_file_that_states_nonsense_is_refused_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    root = write_folder(tmp_path, count=1)
    (root / "data.yaml").write_text("mask_suffix: _mask\n" * text.startswith("channels: 4") + text)
    with pytest.raises(InputError, match=complaint) as caught:
        open_split(root, "train").image(0)
    assert "\n" not in str(caught.value)


def test_the_file_of_another_tool_changes_nothing(tmp_path: Path) -> None:
    root = write_folder(tmp_path, count=1)
    (root / "data.yaml").write_text("names: [ground, object]\nnc: 2\n")
    with pytest.raises(InputError, match="holds 1 .tif files, the first 0.tif, which are not read"):
        open_split(root, "train")


def test_an_image_of_nan_is_named_when_values_are_measured(tmp_path: Path) -> None:
    root = write_folder(tmp_path, channels=1, count=1)
    path = root / "images" / "train" / "0.tif"
    Image.fromarray(np.full((SIDE, SIDE), np.nan, np.float32)).save(path)
    path.with_suffix(".png").unlink()
    with pytest.raises(InputError, match="0.tif: holds nan or infinity"):
        audit(root, ["train"], progress="none")
    assert "mean" not in (root / "data.yaml").read_text()


def test_colors_of_16_bits_in_a_png_and_damaged_tiffs_are_refused(tmp_path: Path) -> None:
    rule = PixelRule(5, (0.0, 255.0), (0.0,) * 5, (1.0,) * 5)
    write_folder(tmp_path, count=1)
    path = tmp_path / "images" / "train" / "0.tif"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="0.tif: cannot be read as a TIFF"):
        read_image(path, rule=rule)


def test_the_record_of_an_export_states_the_rule(tmp_path: Path) -> None:
    assert json.loads(json.dumps(RULE.as_dict())) == RULE.as_dict()


def test_an_image_of_channels_takes_no_more_memory_than_is_predicted(tmp_path: Path) -> None:
    rule = PixelRule(5, (0.0, 65535.0), (0.0,) * 5, (1.0,) * 5)
    values = np.zeros((600, 800, 5), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig")
    tracemalloc.start()
    normalize(read_image(tmp_path / "a.tif", rule=rule))
    taken = tracemalloc.get_traced_memory()[1] / (600 * 800)
    tracemalloc.stop()
    assert bytes_of_held_pixel(None) < taken < bytes_of_held_pixel(rule)
