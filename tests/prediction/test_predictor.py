"""One image at a time, from Python: what goes in, what comes out, and in which runtime."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cityscapes.errors import InputError, IntegrityError, MissingInputError, ParameterError
from cityscapes.files.checksums import record_path, write_recorded
from dlv3p.evaluation.inference import load_saved
from dlv3p.export.__main__ import main as export
from dlv3p.parameters.protocols import Protocol
from dlv3p.prediction.networks import LabelsFile, exported_sha256
from dlv3p.prediction.predictor import load_predictor
from dlv3p.runs.folders import QUANTIZED, write_json

pytestmark = pytest.mark.usefixtures("trained")


def test_a_path_an_image_and_an_array_give_the_same_labels(predictor, photos: Path) -> None:
    image = Image.open(photos / "a.png")
    labels = predictor(photos / "a.png")
    assert (labels.shape, labels.dtype) == ((64, 96), np.uint8)
    assert len(np.unique(labels)) > 1
    for same in (str(photos / "a.png"), image, np.asarray(image), image.convert("RGBA"), np.asarray(image).copy()):
        assert np.array_equal(predictor(same), labels)
    assert np.array_equal(labels, load_saved("done", device="cpu", threads=1)(image))


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)]
)
def test_another_array_is_refused_in_one_line(predictor, array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"allowed is uint8 of 0 to 255: \(H,W,3\) RGB"):
        predictor(array)


@pytest.mark.parametrize("scales", [(1.0,), (0.75, 1.25)])
def test_the_confidence_is_the_probability_of_the_label(predictor, picture: Image.Image, scales) -> None:
    several = replace(predictor, protocol=Protocol(scales=scales, flip=len(scales) > 1))
    labels, sure = several.with_confidence(picture)
    assert np.array_equal(labels, several(picture))
    assert (sure.shape, sure.dtype) == ((64, 96), np.uint8)
    assert sure.min() >= 255 / 19 - 1
    if len(scales) == 1:
        size = (48, 32)
        from torch import inference_mode
        from torch.nn.functional import interpolate

        from dlv3p.data.augment import normalize

        with inference_mode():
            logits = predictor.network.logits(normalize(picture.resize(size, Image.Resampling.BILINEAR))[None])
            expected = interpolate(logits, (64, 96), mode="bilinear").softmax(1).amax(1)[0]
        assert np.abs(255 * expected.numpy() - sure).max() <= 1


def test_a_batch_gives_each_image_its_own_labels(predictor, picture: Image.Image) -> None:
    turned = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    found = predictor.predict([picture, turned])
    for image, one in zip((picture, turned), found, strict=True):
        assert (one.labels == predictor(image)).mean() > 0.999
        assert one.confidence is None
    assert not np.array_equal(found[0].labels, found[1].labels)
    mixed = predictor.predict([picture, picture.crop((0, 0, 80, 50))], confidence=True)
    assert [one.labels.shape for one in mixed] == [one.confidence.shape for one in mixed] == [(64, 96), (50, 80)]
    assert np.array_equal(mixed[0].labels, predictor(picture))


def test_a_weights_file_predicts_what_its_run_does(predictor, trained, picture: Image.Image) -> None:
    loaded = load_predictor(trained.folder / "model.safetensors", device="cpu", threads=1)
    assert loaded.class_names == predictor.class_names
    assert np.array_equal(loaded(picture), predictor(picture))


@pytest.mark.parametrize("runtime", ["folded", "onnxruntime", "openvino"])
def test_another_runtime_agrees_in_nearly_every_pixel(predictor, city, runtime: str) -> None:
    if runtime != "folded":
        pytest.importorskip(runtime)
    other = load_predictor("done", device="cpu", threads=1, runtime=runtime)
    assert other.runtime == runtime
    images = sorted((city / "leftImg8bit").rglob("*.png"))
    same = [(predictor(path) == other(path)).mean() for path in images]
    assert np.mean(same) >= 0.999


def test_the_fastest_runtime_has_a_name(picture: Image.Image, predictor) -> None:
    fastest = load_predictor("done", device="cpu", threads=1, runtime="fastest")
    assert fastest.runtime in ("exact", "folded", "onnxruntime", "openvino")
    assert (fastest(picture) == predictor(picture)).mean() >= 0.999


def test_an_exported_file_predicts_without_its_run(predictor, picture: Image.Image, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "network.onnx"
    export(["--run", "done", "--output", str(path)])
    exported = load_predictor(path, threads=1)
    assert isinstance(exported.network, LabelsFile)
    assert (exported.runtime, exported.class_names) == ("onnxruntime", predictor.class_names)
    assert (exported(picture) == predictor(picture)).mean() >= 0.999
    # Beside the files of a quantized run, it still is described by itself.
    others = {"sha256": {"model.onnx": "0"}, "run": "other-int8", "class_names": ["a"], "input": {"image_scale": 0.5}}
    write_json(tmp_path / QUANTIZED, others)
    assert load_predictor(path, threads=1).class_names == predictor.class_names
    with pytest.raises(ParameterError, match="ends in labels, which several views cannot be summed from"):
        load_predictor(path, threads=1, protocol=Protocol(flip=True))
    with pytest.raises(ParameterError, match="network.onnx is run by onnxruntime or openvino"):
        load_predictor(path, threads=1, runtime="folded")


def test_an_exported_file_is_not_run_on_the_cpu_where_a_gpu_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"device='cuda': .*network.onnx runs on the CPU; take auto or cpu"):
        load_predictor(tmp_path / "network.onnx", device="cuda")


def test_an_exported_file_that_was_changed_is_refused(trained, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "network.onnx"
    export(["--run", "done", "--output", str(path)])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="network.onnx: its bytes are not those that were written"):
        load_predictor(path, threads=1)


def test_a_network_of_openvino_is_known_by_both_of_its_files(tmp_path: Path) -> None:
    path, weights = tmp_path / "network.xml", tmp_path / "network.bin"
    path.write_bytes(b"<net/>")
    with pytest.raises(MissingInputError, match="network.bin: no such file, which belongs to network.xml"):
        exported_sha256(path)
    found = set()
    for content in (b"first", b"second"):
        weights.write_bytes(content)
        found.add(exported_sha256(path))
    assert len(found) == 2
    (tmp_path / "quantization.json").write_text('{"sha256": {"network.bin": "0"}}')
    with pytest.raises(IntegrityError, match="network.bin: is not the file that was written; quantize the run again"):
        exported_sha256(path)


def test_an_exported_network_without_a_record_is_called_unchecked(tmp_path: Path, capsys) -> None:
    path = tmp_path / "network.onnx"
    write_recorded(path, b"network")
    exported_sha256(path)
    assert capsys.readouterr().err == ""
    record_path(path).unlink()
    exported_sha256(path)
    said = f"note: {path}: has no checksum, as files of earlier versions, so its bits are unchecked\n"
    assert capsys.readouterr().err == said


def test_an_opened_picture_of_16_bits_is_scaled_not_cut(predictor, picture: Image.Image) -> None:
    gray = np.asarray(picture.convert("L"))
    deep = Image.fromarray(gray.astype(np.uint16) * 257)
    assert np.array_equal(predictor(deep), predictor(gray))
    with pytest.raises(InputError, match="image: has mode F, whose range is unknown"):
        predictor(Image.fromarray(gray.astype(np.float32)))


def test_a_tiff_of_32_bits_is_refused_not_taken_for_16(predictor, picture: Image.Image, tmp_path: Path) -> None:
    Image.fromarray(np.asarray(picture.convert("L")).astype(np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a.tif: has 32 bits a pixel, whose range is unknown; scale it to 8 or 16"):
        predictor(tmp_path / "a.tif")


def test_what_is_no_network_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ParameterError, match="network.pt2: a file of torch.export is for programs in torch, and cannot"
    ):
        load_predictor(tmp_path / "network.pt2")
    with pytest.raises(MissingInputError, match="no such exported file; write one with: dlv3p export"):
        load_predictor(tmp_path / "gone.onnx")
    with pytest.raises(MissingInputError, match="no such weights file"):
        load_predictor(tmp_path / "gone.pth")
    with pytest.raises(MissingInputError, match="did you mean 'done'"):
        load_predictor("don")
    with pytest.raises(ParameterError, match="allowed are exact, folded, fastest, onnxruntime, openvino"):
        load_predictor("done", runtime="tensorrt")
    with pytest.raises(ParameterError, match="sees the center only"):
        load_predictor("done", protocol=Protocol(center_crop=64))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"threads": 0}, "threads=0: allowed are 1 to 256"),
        ({"memory_gib": -1.0}, "memory_gib=-1.0: allowed are 1.25 to"),
        ({"tile": 0}, "tile=0: allowed are 256 to 8192"),
        ({"tile_overlap": 600}, "tile_overlap=600: allowed are 32 to 512, half a tile"),
        ({"checkpoint": "beste"}, "checkpoint='beste': allowed are best, last"),
        ({"protocol": "whole"}, r"protocol='whole': allowed are whole_image, .*, or a Protocol"),
        ({"protocol": [0.5, 1.0]}, r"protocol=\[0.5, 1.0\]: allowed are"),
        ({"protocol": Protocol(scales=(1.0, 40.0))}, "scales='1.0 40.0': give different numbers from 0.1 to 4.0"),
        ({"protocol": Protocol(scales=())}, "scales='': give different numbers"),
    ],
)
def test_python_takes_what_the_command_takes_and_nothing_else(given: dict, said: str, monkeypatch) -> None:
    monkeypatch.setattr("dlv3p.prediction.predictor.open_network", lambda *_, **__: pytest.fail("is not refused"))
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    with pytest.raises(ParameterError, match=said):
        load_predictor("done", **given)


def test_a_published_protocol_is_taken_by_its_name() -> None:
    loaded = load_predictor("done", device="cpu", threads=1, protocol="three_scales_flip")
    assert loaded.protocol == Protocol(scales=(0.75, 1.0, 1.25), flip=True)


def test_a_batch_is_a_list_of_opened_images(predictor, photos: Path, picture: Image.Image) -> None:
    for images, said in (
        ([photos / "a.png"], r"one is a PosixPath; give what as_image\(image, predictor.rule\) returns"),
        ([picture, np.asarray(picture)], "one is a ndarray; give what as_image"),
        ([picture.convert("L")], "one is of mode L; give what as_image"),
        (picture, "is one image; give a list of them, or call the predictor"),
        (str(photos / "a.png"), "is one image"),
    ):
        with pytest.raises(InputError, match=said):
            predictor.predict(images)


def test_a_file_that_is_too_large_is_refused_before_it_is_decoded(predictor, photos: Path, monkeypatch) -> None:
    small = replace(predictor, limit=replace(predictor.limit, gib=0.1))
    monkeypatch.setattr("dlv3p.prediction.predictor.read_image", None)
    for call in (small, small.with_confidence):
        with pytest.raises(InputError, match="96 x 64 pixels take .* more than memory_gib=0.1"):
            call(str(photos / "a.png"))
