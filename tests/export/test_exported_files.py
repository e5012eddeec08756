"""An exported file says how it is used, and is compared with its network before it is handed over."""

import contextlib
import hashlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.untrained_runs import untrained_run

from cityscapes import errors
from cityscapes.errors import IntegrityError, MachineError
from cityscapes.files.atomic import write_bytes
from cityscapes.files.images import read_image
from cityscapes.labels import CLASS_NAMES
from dlv3p.export import agreement
from dlv3p.export.__main__ import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_exported.py"
AS_IT_IS = (EXAMPLE,)
OUT_OF_REACH = "sys.modules |= dict.fromkeys(('dlv3p', 'cityscapes', 'torch'))"
WITHOUT_US = ("-c", f"import runpy, sys; {OUT_OF_REACH}; runpy.run_path(sys.argv.pop(1))", EXAMPLE)


def export_in_a_process(path):
    """Give the command a run and `path`, and return what became of it."""
    words = [sys.executable, "-m", "dlv3p.export", "--run", "tiny", "--output", path]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def export(path):
    """Export the run by the command in this process, and return what it says."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(sys, "argv", ["export", "--run", "tiny", "--output", str(path)])
        assert main() == 0
    return said.getvalue()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run at half scale, its ONNX file, and what the command said."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(folder))
        predictor = untrained_run("tiny", backbone="resnet18", channels=16, image_scale=0.5)
        yield predictor, folder / "network.onnx", export(folder / "network.onnx")


def test_the_command_compares_the_file_with_the_network(exported, monkeypatch):
    _, path, said = exported
    assert "network.onnx: " in said
    assert "compared with the network on one image: 100.00% same pixels" in said
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    monkeypatch.setattr("dlv3p.export.graphs.export_onnx", lambda model, output, **options: path)
    assert "not compared with the network, which needs onnxruntime" in export(path)


def test_a_file_that_tells_other_classes_is_refused_and_taken_away(exported, tmp_path, monkeypatch):
    predictor, path, _ = exported
    copy = Path(shutil.copy(path, tmp_path / "network.onnx"))
    assert agreement.check_export(predictor, copy) >= 0.999

    def open_shifted(path, *, threads, open_onnx=agreement.open_onnx):
        predict = open_onnx(path, threads=threads)
        return lambda image: np.roll(predict(image), 8, axis=2)

    monkeypatch.setattr(agreement, "open_onnx", open_shifted)
    with pytest.raises(
        IntegrityError, match="network.onnx: agreed with the network in .* less than 99.90%, and was deleted"
    ) as refusal:
        agreement.check_export(predictor, copy)
    assert "\n" not in str(refusal.value)
    assert not copy.exists()


def test_a_program_of_torch_export_is_compared_as_well(exported, tmp_path, monkeypatch):
    predictor, _, _ = exported
    (tmp_path / "network.pt2").touch()
    monkeypatch.setattr(agreement, "open_program", lambda path: lambda image: np.zeros((1, 1, 1), np.uint8))
    with pytest.raises(IntegrityError, match="network.pt2: agreed with the network in 0.00% of the pixels"):
        agreement.check_export(predictor, tmp_path / "network.pt2")


def test_the_file_says_how_images_are_prepared_and_what_the_classes_are(exported):
    onnx = pytest.importorskip("onnx")
    told = {entry.key: json.loads(entry.value) for entry in onnx.load(exported[1]).metadata_props}
    assert (told["run"], told["image_scale"], told["output_stride"]) == ("tiny", 0.5, 16)
    assert told["class_names"] == list(CLASS_NAMES)
    assert told["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert told["standard_deviation"] == pytest.approx([0.229, 0.224, 0.225])


@pytest.mark.parametrize(("example", "size"), [(WITHOUT_US, (160, 96)), (WITHOUT_US, (134, 98)), (AS_IT_IS, (134, 98))])
def test_the_example_runs_an_export_without_this_package_and_gives_our_labels(exported, example, size, tmp_path):
    """It reads all that it needs from the file."""
    predictor, path, _ = exported
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    image.save(tmp_path / "image.png")
    words = [sys.executable, "-I", *example, path, "image.png", "labels.png"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labels, expected = np.array(Image.open(tmp_path / "labels.png")), predictor(image)
    assert len(np.unique(expected)) > 1
    assert labels.shape == expected.shape == size[::-1]
    assert (labels != expected).mean() < 1e-3, "only classes that differ by a rounding may change places"


@pytest.mark.parametrize("record", ["network.onnx.json", "quantization.json"])
def test_the_example_refuses_a_network_that_is_not_the_one_of_its_record(exported, record, tmp_path):
    content = bytearray(exported[1].read_bytes())
    (tmp_path / "network.onnx").write_bytes(content)
    Image.new("RGB", (96, 64), (90, 120, 60)).save(tmp_path / "image.png")
    sha256 = hashlib.sha256(content).hexdigest()
    recorded = {"sha256": {"network.onnx": sha256} if record == "quantization.json" else sha256}
    (tmp_path / record).write_text(json.dumps(recorded))
    words = [sys.executable, "-I", *AS_IT_IS, "network.onnx", "image.png", "labels.png"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "labels.png").unlink()

    content[len(content) // 2] ^= 1
    (tmp_path / "network.onnx").write_bytes(content)
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("network.onnx: its bytes are not those that were written (sha256 differs)")
    assert not (tmp_path / "labels.png").exists()


@pytest.mark.parametrize("name", ["turned.jpg", "deep.png", "cmyk.jpg", "cmyk without adobe.jpg"])
def test_the_example_makes_the_pixels_of_training_of_a_stored_image(exported, name, tmp_path):
    predictor, path, _ = exported
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((134, 98), Image.Resampling.BILINEAR)
    exif = Image.Exif()
    exif[0x0112] = 6
    if name == "deep.png":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 250 + 99).save(tmp_path / name)
    else:
        image.convert("CMYK" if "cmyk" in name else "RGB").save(tmp_path / name, quality=95, exif=exif)
    if "without" in name:
        content = (tmp_path / name).read_bytes()
        start = content.index(b"\xff\xee")
        end = start + 2 + int.from_bytes(content[start + 2 : start + 4])
        (tmp_path / name).write_bytes(content[:start] + content[end:])
    words = [sys.executable, "-I", *AS_IT_IS, path, name, "labels.png"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labels, expected = np.array(Image.open(tmp_path / "labels.png")), predictor(read_image(tmp_path / name))
    assert labels.shape == expected.shape == ((98, 134) if name == "deep.png" else (134, 98))
    assert len(np.unique(expected)) > 1
    assert (labels != expected).mean() < 1e-3, "only classes that differ by a rounding may change places"


def test_the_example_is_short_and_the_command_refuses_other_formats_in_one_line(tmp_path):
    code = EXAMPLE.read_text().split('"""', maxsplit=2)[2]
    assert len(code.strip().splitlines()) <= 58
    refused = export_in_a_process(tmp_path / "network.pb")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --output")
    assert ".onnx and .pt2" in refused.stderr


def test_the_example_without_arguments_says_how_it_is_used():
    pytest.importorskip("onnxruntime")
    done = subprocess.run([sys.executable, "-I", EXAMPLE], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "usage: python run_exported.py network.onnx image.png labels.png\n"


@pytest.mark.parametrize(("network", "image"), [("half.onnx", "no.png"), ("no.onnx", "no.png")])
def test_the_example_says_in_one_line_what_it_cannot_read(tmp_path, network, image):
    pytest.importorskip("onnxruntime")
    (tmp_path / "half.onnx").write_bytes(b"half")
    words = [sys.executable, "-I", EXAMPLE, network, image, "labels.png"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{network} {image} labels.png: ")
    assert not (tmp_path / "labels.png").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, which takes no files")
def test_a_folder_that_takes_no_files_is_one_line_without_names_of_our_own():
    with pytest.raises(MachineError, match="^/proc/x.onnx: .*; choose another") as refusal:
        write_bytes("/proc/x.onnx", b"")
    assert ".tmp" not in str(refusal.value)
