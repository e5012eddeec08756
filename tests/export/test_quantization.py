"""Eight bits: from train images only, in folders that describe themselves, with every fallback to float in the open."""

import json
import pickle
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.channel_folder import COLORS, SWITCHES, write_folder
from support.tiny import tiny

from cityscapes import errors
from cityscapes.errors import (
    BusyError,
    InputError,
    IntegrityError,
    MachineError,
    MissingInputError,
    NewerFormatError,
    ParameterError,
)
from cityscapes.files.atomic import write_bytes
from cityscapes.files.checksums import file_sha256
from cityscapes.files.locks import lock_folder
from cityscapes.labels import CLASS_NAMES
from cityscapes.workspace import run_folder
from dlv3p.compression import quantization
from dlv3p.compression.acceptance import check_acceptance
from dlv3p.compression.quantization import QUANTIZED, QUANTIZERS, load_quantized, quantize_run
from dlv3p.compression.variants import (
    EXPORT_LIMITS,
    TITLES,
    check_ready,
    collect_exports,
    collect_variants,
    gains,
    load_reference,
)
from dlv3p.data.audit import audit
from dlv3p.data.augment import normalize
from dlv3p.data.roots import open_split, open_training
from dlv3p.evaluation.inference import load_run_predictor, load_saved
from dlv3p.export import onnx_runtime
from dlv3p.export.calibration import choose_calibration_images
from dlv3p.export.onnx_runtime import convert_to_float16, convolutions, open_onnx, quantize_with_onnx_runtime
from dlv3p.export.openvino_runtime import OpenVinoPredictor
from dlv3p.export.precisions import INT8, Node, count_precisions, float_nodes
from dlv3p.export.torch_runtime import TorchPredictor
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.notebooks import QuantizeParameters, RunParameters, TrainParameters
from dlv3p.parameters.training import TrainingDataParameters
from dlv3p.prediction.predictor import load_predictor
from dlv3p.runs.folders import checkpoint_path
from dlv3p.train import train
from dlv3p.weights.checkpoint import save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
BACKENDS = ("onnxruntime", "openvino")
SIZES = [(64, 128), (97, 131), (65, 40)]


def trained(city, run, **switches):
    """A run that nobody trained, whose norms know the city's images, in the workspace."""
    network = {"backbone": "resnet18", "channels": 8, "low_level_channels": 8}
    parameters = TrainParameters(data_root=str(city), **network | switches)
    torch.manual_seed(0)
    model = build_network(parameters, 19)
    split = open_split(city, "train")
    images = torch.stack([normalize(split.image(index)) for index in range(len(split))])
    with torch.no_grad():
        for _ in range(20):
            model.train()(images)
    state = {"epoch": 1, "model": model.state_dict(), "parameters": parameters.as_dict()}
    save_checkpoint(checkpoint_path(run, "best"), {**state, "class_names": list(CLASS_NAMES)})
    return load_run_predictor(RunParameters(run=run, threads=1, device="cpu"))


@pytest.fixture(scope="module")
def predictor(city, tmp_path_factory):
    """A run in a workspace of its own, in which the other runs of this module lie as well."""
    for package in ("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"):
        pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(tmp_path_factory.mktemp("workspace")))
        yield trained(city, "tiny")


@pytest.fixture(scope="module")
def splits(city, predictor):
    """Both splits of the city; their masks go to the workspace of the run."""
    return open_training(TrainingDataParameters(data_root=str(city)))


@pytest.fixture(scope="module")
def quantized(predictor, splits):
    return quantize_run(predictor, choose_calibration_images(splits[0], 4), keep_float="first")


@pytest.fixture(scope="module")
def image(splits):
    return normalize(splits[1].image(0))[None]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_eight_bits_predict_labels_of_any_size_much_like_torch(predictor, quantized, splits, backend, size):
    batch = normalize(splits[1].image(1).resize(size[::-1]))[None]
    expected = TorchPredictor(predictor.model)(batch).numpy()
    labels = np.asarray(quantized.predictor(backend, threads=1)(batch))
    assert (labels.dtype, labels.shape) == (np.uint8, (1, *size))
    assert (labels == expected).mean() > 0.75, "an untrained network is unsure everywhere"
    assert len(np.unique(labels)) > 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_convolutions_but_those_that_were_kept_are_computed_in_eight_bits(quantized, image, backend):
    nodes = quantized.predictor(backend, threads=1, precision="float32").nodes(image)
    first, *others = convolutions(quantized.float_path)
    assert quantized.description["networks"][backend]["keep_float"] == [first]
    assert quantized.description["networks"][backend]["float_convolutions"] == [first]
    found = [node for node in nodes if "Conv" in node.kind]
    assert len(found) == 1 + len(others) == 29
    assert [node.precision for node in found].count("float32") == 1
    assert [node.precision for node in found].count(INT8) == 28
    listed = float_nodes(nodes)
    assert list(listed["name"][listed["kind"].str.contains("Conv")]) == [first], "by its name in the file"
    assert set(listed["precision"]) <= {"float32"}
    assert listed["kind"].isin(["Resize", "Interpolate"]).any(), "the last resizing is not quantized"


@pytest.mark.slow
def test_whatever_openvino_computes_in_float_is_listed_and_recorded(predictor, splits, image):
    """Activations by tables, group norms and their conversions are not convolutions, and no less in float."""
    other = trained(splits[0].root, "lopsided", backbone="mobilenet_v3_large", norm="group", separable="normalized")
    made = quantize_run(other, choose_calibration_images(splits[0], 1), backends=["openvino"], keep_float="first last")
    listed = float_nodes(made.predictor("openvino", threads=1, precision="float32").nodes(image))
    kinds = listed["kind"].value_counts()
    assert {"Math", "FakeQuantize", "MVN", "Interpolate", "TopK"} <= set(kinds.index)
    assert (kinds["Math"], kinds["Eltwise"]) == (8, 8), "every squeeze and excitation, and what it scales"
    recorded = made.description["networks"]["openvino"]
    assert recorded["float_convolutions"] == list(listed["name"][listed["kind"] == "Convolution"])
    names = convolutions(made.float_path)
    assert recorded["keep_float"] == [names[0], names[-1]]
    assert set(recorded["keep_float"]) <= set(recorded["float_convolutions"]) <= set(names)


def test_nodes_of_a_kind_or_precision_that_nobody_thought_of_are_listed():
    class Told:
        def __init__(self, text):
            self.text = text

        def astype(self, kind):
            return kind(self.text)

    class Runtime:
        def __init__(self, name, kind, precision):
            self.name, self.kind, self.precision = name, kind, precision

        def get_friendly_name(self):
            return self.name

        def get_rt_info(self):
            return {"layerType": Told(self.kind), "runtimePrecision": Told(self.precision)}

        def inputs(self):
            return []

        def get_runtime_model(self):
            return self

        def get_ordered_ops(self):
            kinds = [("Const", "f32"), ("Novelty", "f32"), ("Convolution", "f8e4m3"), ("Novelty", "i64"), ("MVN", "u8")]
            return [Runtime(f"node {number}", *one) for number, one in enumerate(kinds)]

    predict = object.__new__(OpenVinoPredictor)
    predict._compiled = Runtime("", "", "")
    listed = float_nodes(predict.nodes(None))
    assert list(listed["name"]) == ["node 1", "node 2"]
    assert list(listed["precision"]) == ["float32", "f8e4m3"]


def test_nodes_are_counted_by_precision_with_a_column_for_each():
    nodes = [Node("a", "Conv", INT8), Node("b", "Conv", INT8), Node("c", "TopK", "float32")]
    counts = count_precisions({"one": nodes, "two": nodes[:1]})
    assert counts.loc["one"].to_dict() == {INT8: 2, "float32": 1}
    assert counts.loc["two"].to_dict() == {INT8: 1, "float32": 0}
    assert list(float_nodes(nodes)["name"]) == ["c"]


def test_the_folder_says_what_it_was_made_from_and_is_checked_before_it_is_used(predictor, quantized, image):
    loaded = load_quantized("tiny")
    content = json.loads((loaded.folder / "quantization.json").read_text())
    recorded = json.loads(predictor.checkpoint.with_name("best.pt.json").read_text())
    assert content["checkpoint"]["sha256"] == recorded["sha256"]
    assert content["calibration"]["split"] == "train"
    assert len(content["calibration"]["images"]) == 4
    assert TrainParameters.from_mapping(content["parameters"]) == predictor.parameters
    assert set(content["networks"]["openvino"]["versions"]) == {"openvino", "nncf"}
    assert loaded.backends == list(BACKENDS)
    assert loaded.path("onnxruntime").stat().st_size < loaded.float_path.stat().st_size / 3
    same = loaded.predictor("onnxruntime", threads=1)(image)
    assert np.array_equal(same, quantized.predictor("onnxruntime", threads=1)(image))
    weights = loaded.path("openvino").with_suffix(".bin")
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="int8-openvino.bin: is not the file that was written"):
        load_quantized("tiny")
    weights.write_bytes(kept)
    with pytest.raises(MissingInputError, match="does not hold a quantized run; .*-p run other"):
        load_quantized("other")


@pytest.mark.parametrize(
    "content",
    ['{"format": 1, "netwo', "[]", "{}", "1", '{"format": "x"}', '{"format": 1, "networks": {}, "sha256": {}}',
     '{"format": 1, "networks": {"openvino": {"files": ["a"]}}, "sha256": ["a"]}',
     '{"format": 1, "networks": {"openvino": {"files": ["a"]}}, "sha256": {"b": "0"}}', b"\xff\xfe"],
)  # fmt: skip
def test_a_damaged_description_is_refused_in_one_line(workspace, content):
    folder = workspace / "saved" / "tiny-int8"
    folder.mkdir(parents=True)
    (folder / QUANTIZED).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(IntegrityError, match="tiny-int8/quantization.json: does not describe .* again") as refusal:
        load_quantized("tiny")
    assert "\n" not in str(refusal.value)
    assert not isinstance(refusal.value, NewerFormatError)


def test_a_description_of_a_later_version_is_called_that(workspace):
    folder = workspace / "saved" / "tiny-int8"
    folder.mkdir(parents=True)
    (folder / QUANTIZED).write_text('{"format": 2, "content": "of another kind"}')
    with pytest.raises(NewerFormatError, match="has format 2, this version reads up to 1; update the suite"):
        load_quantized("tiny")


def test_a_quantized_folder_that_is_given_as_a_run_is_called_what_it_is(workspace):
    folder = workspace / "saved" / "tiny-int8"
    folder.mkdir(parents=True)
    (folder / QUANTIZED).write_text("{}")
    with pytest.raises(MissingInputError, match=r"holds quantized networks, not a run; give 'tiny'.*load_quantized"):
        load_run_predictor(RunParameters(run="tiny-int8"))


def test_a_run_that_sees_other_images_or_classes_is_no_reference(predictor, quantized, image):
    def asked(**changes):
        return replace(predictor, **{"run": "other", **changes})

    halved = asked(parameters=replace(predictor.parameters, image_scale=0.5))
    renamed = asked(class_names=[*CLASS_NAMES[:-1], "kite"])
    for reference, difference in ((halved, r"image_scale than 'tiny' \(0.5, not 1\)"), (renamed, "class names than")):
        with pytest.raises(ParameterError, match=f"compared_with='other': has another {difference}") as refusal:
            collect_variants(predictor, quantized, image, threads=1, compared_with=reference)
        assert "\n" not in str(refusal.value)


def test_what_is_missing_is_missed_before_any_work(predictor, monkeypatch):
    with pytest.raises(MissingInputError, match="compared_with='nope': no such run"):
        check_ready(QuantizeParameters(compared_with="nope"))
    with pytest.raises(MissingInputError, match="compared_with='nope': no such run"):
        load_reference(QuantizeParameters(compared_with="nope"), predictor)
    check_ready(QuantizeParameters(compared_with="tiny"))
    assert load_reference(QuantizeParameters(compared_with="tiny"), predictor).run == "tiny"
    assert load_reference(QuantizeParameters(), predictor) is None
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "openvino" else object())
    check_ready(QuantizeParameters(backends="onnxruntime"))
    missing = r"needs openvino; .*dlv3p\[quantize\]"
    with pytest.raises(MachineError, match=missing):
        check_ready(QuantizeParameters())
    with pytest.raises(MachineError, match=missing):
        quantize_run(predictor, images=None)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_predictor_survives_the_way_into_another_process(quantized, image, backend):
    predict = quantized.predictor(backend, threads=1)
    assert np.array_equal(pickle.loads(pickle.dumps(predict))(image), predict(image))


def test_the_rows_of_the_gate_are_honest_about_their_precision(predictor, quantized, splits, image):
    rows = collect_variants(predictor, quantized, image, threads=1, compared_with=replace(predictor, run="dense"))
    assert rows.reference.title == "PyTorch float32, dense", "what the run was made from"
    assert np.array_equal(rows.reference.predict(image), rows.candidates[0].predict(image))
    titles = [one.title for one in rows.candidates] + list(rows.absent)
    assert titles[0] == "PyTorch float32", "its own network is compared with that, too"
    runtimes = [f"{runtime} {precision}" for runtime in TITLES.values() for precision in ("float32", "float16", "int8")]
    assert {"PyTorch bfloat16", "OpenVINO bfloat16", *runtimes} <= set(titles)
    (plain,) = [one for one in rows.candidates if one.title == "OpenVINO float32"]
    assert {node.precision for node in plain.predict.nodes(image)} == {"float32"}, "not bfloat16 in disguise"
    assert {one.gmacs for one in rows.candidates} == {rows.reference.gmacs}
    assert set(rows.nodes(image)) >= {"ONNX Runtime int8", "OpenVINO int8"}
    report = check_acceptance(
        rows.reference, rows.candidates, splits[1], absent=rows.absent, threads=1, warmup=0, repeats=3, memory=False,
        progress="none",
    )  # fmt: skip
    table = report.table()
    assert table.loc["ONNX Runtime float32", "agreement"] > 0.999
    assert abs(table.loc["ONNX Runtime float32", "change"]) < 0.05
    gained = gains(report, quantized.backends)
    ratio = report.speedup("OpenVINO int8", over="OpenVINO float32").times
    assert gained.loc["OpenVINO", "times its own float32"] == ratio
    assert gained.loc["ONNX Runtime", "size"] < 1 / 3


@pytest.mark.parametrize("file", ["float32.onnx", "int8-onnxruntime.onnx", "float16.onnx"])
def test_the_onnx_files_say_how_images_are_prepared_and_what_the_classes_are(quantized, image, file):
    onnx = pytest.importorskip("onnx")
    path = quantized.folder / file
    if file == "float16.onnx" and not convert_to_float16(quantized.float_path, path, image, threads=1):
        pytest.skip("this processor computes no float16")
    told = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    names = ("run", "image_scale", "mean", "standard_deviation", "class_names", "output_stride")
    assert [json.loads(told[name]) for name in names] == [
        "tiny", 1.0, pytest.approx([0.485, 0.456, 0.406]), pytest.approx([0.229, 0.224, 0.225]), list(CLASS_NAMES), 16
    ]  # fmt: skip


def test_both_exports_pass_the_gate_without_having_to_be_faster(predictor, quantized, splits):
    rows = collect_exports(predictor, quantized, (64, 128), threads=1)
    options = {"threads": 1, "warmup": 0, "repeats": 3, "memory": False, "progress": "none"}
    report = check_acceptance(rows.reference, rows.candidates, splits[1], limits=EXPORT_LIMITS, **options)
    assert report.passed
    assert (report.table()["agreement"] > 0.999).all()
    again = pickle.loads(pickle.dumps(rows.candidates[1].predict))
    batch = torch.randn(1, 3, 97, 65, generator=torch.Generator().manual_seed(0))
    assert again(batch).shape == (1, 97, 65)


def test_a_network_that_torch_cannot_store_has_the_other_export(predictor, quantized, monkeypatch):
    def refuse(*arguments, **options):
        raise ParameterError("torch.export cannot store this network; export it as .onnx")

    monkeypatch.setattr("dlv3p.compression.variants.export_program", refuse)
    rows = collect_exports(predictor, quantized, (64, 128), threads=1)
    assert [one.title for one in rows.candidates] == ["ONNX file"]
    assert rows.absent == {"torch.export file": "not possible: torch cannot store this network"}


def test_torchs_row_predicts_what_the_suite_predicts(predictor, splits):
    picture = splits[1].image(2)
    predict = TorchPredictor(predictor.model)
    assert np.array_equal(predict(normalize(picture)[None])[0], predictor(picture))
    halved = replace(predictor, parameters=replace(predictor.parameters, image_scale=0.5))
    predict = TorchPredictor(predictor.model, image_scale=0.5)
    assert np.array_equal(predict(normalize(picture, image_scale=0.5)[None])[0], halved(picture))


def test_weights_take_seven_bits_only_where_eight_would_overflow(quantized, splits, image, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")

    def largest(path):
        arrays = [onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer]
        return max(int(np.abs(one.astype(int)).max()) for one in arrays if one.dtype == np.int8 and one.ndim == 4)

    if onnx_runtime.has_vnni():
        assert largest(quantized.path("onnxruntime")) == 127
    monkeypatch.setattr(onnx_runtime, "has_vnni", lambda: False)
    images = choose_calibration_images(splits[0], 2)
    how = quantize_with_onnx_runtime(quantized.float_path, tmp_path / "seven.onnx", images)
    assert how["reduce_range"]
    assert largest(tmp_path / "seven.onnx") <= 64
    assert open_onnx(tmp_path / "seven.onnx", threads=1)(image).shape == (1, 64, 128)


class Pictures:
    """A split of plain pictures, each of one level of gray."""

    root, split = "here", "train"

    def __init__(self, levels):
        self.levels = levels

    def __len__(self):
        return len(self.levels)

    def image(self, index):
        return Image.new("RGB", (8, 4), (self.levels[index],) * 3)

    def name(self, index):
        return f"image{index}"


def test_calibration_takes_different_images_spread_over_the_split():
    images = choose_calibration_images(Pictures(range(100)), 5, image_scale=0.5)
    assert images.names == ["image0", "image25", "image50", "image74", "image99"]
    first, *_, last = images
    assert first.shape == (1, 3, 2, 4)
    assert np.allclose(last[0, :, 0, 0], (99 / 255 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225])
    assert len(list(images)) == len(list(images)) == 5, "a second pass reads them again"
    assert len(choose_calibration_images(Pictures(range(3)), 50)) == 3


def test_calibration_without_images_or_with_one_image_many_times_is_refused_in_one_line(city):
    with pytest.raises(InputError, match="the train split has no images to calibrate with"):
        choose_calibration_images(Pictures([]), 5)
    with pytest.raises(InputError, match="the 5 images .* are all the same"):
        choose_calibration_images(Pictures([7] * 20), 5)
    with pytest.raises(InputError, match="share"):
        open_training(TrainingDataParameters(data_root=str(city), train_split="val"))


def test_an_environment_without_a_backend_is_one_line(tmp_path):
    """C2 for real: the packages of this environment, all but one, in a folder of links."""
    installed = Path(sysconfig.get_paths()["purelib"])
    for entry in installed.iterdir():
        if not entry.name.lower().startswith("onnxruntime"):
            (tmp_path / entry.name).symlink_to(entry)
    lines = [
        f"import sys; sys.path += [{str(Path(__file__).parents[2])!r}, {str(tmp_path)!r}]",
        "from cityscapes.errors import run_command",
        "from dlv3p.compression.quantization import require_backends",
        "run_command(lambda: require_backends(['onnxruntime']))",
    ]
    # Without site, nothing but the path says what is installed.
    words = [sys.executable, "-S", "-c", "\n".join(lines)]
    done = subprocess.run(words, cwd=tmp_path.parent, capture_output=True, text=True, check=False)
    message = "error: quantization for onnxruntime needs onnxruntime; install with: pip install 'dlv3p[quantize]'\n"
    assert (done.returncode, done.stderr) == (4, message)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_that_is_not_installed_is_one_line(predictor, quantized, splits, monkeypatch, backend):
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name in ("nncf", "onnxruntime") else object())
    with pytest.raises(MachineError, match=r"needs (nncf|onnxruntime); .*dlv3p\[quantize\]") as refusal:
        quantized.predictor(backend, threads=1)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "wrong",
    [{"backends": "tensorrt"}, {"backends": ""}, {"backends": "openvino openvino"}, {"height": 64}, {"device": "cuda"},
     {"height": 20, "width": 64}, {"calibration_images": 0}, {"keep_float": "middle"}],
)  # fmt: skip
def test_wrong_parameters_stop_in_one_line(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        QuantizeParameters.from_mapping(wrong)


def test_quantizing_writes_into_no_folder_that_holds_a_run(predictor, splits):
    images = choose_calibration_images(splits[0], 1)
    trained(splits[0].root, "named-int8")
    folder = checkpoint_path("named-int8", "best").parents[1]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ParameterError, match=r"named-int8, which holds a run \(checkpoints\)"):
        quantize_run(replace(predictor, run="named"), images)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_two_quantizations_of_one_run_do_not_mix(predictor, splits):
    images = choose_calibration_images(splits[0], 1)
    with lock_folder(run_folder("busy-int8")), pytest.raises(BusyError, match="is writing here"):
        quantize_run(replace(predictor, run="busy"), images)
    assert [path.name for path in run_folder("busy-int8").iterdir()] == [".lock"]


def test_what_was_quantized_is_named_by_the_bytes_that_were_read(predictor, splits, monkeypatch):
    read = predictor.weights_sha256
    path = checkpoint_path("moved", "best")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another checkpoint, which a training saved meanwhile")
    networks = {"onnxruntime": {"files": [QUANTIZERS["onnxruntime"][1]]}}
    monkeypatch.setattr(quantization, "_quantize", lambda *arguments: networks["onnxruntime"])
    monkeypatch.setattr(quantization, "export_onnx", lambda model, path, **options: write_bytes(path, b"") or path)
    monkeypatch.setattr(quantization, "convolutions", lambda path: ["only"])
    write_bytes(run_folder("moved-int8") / QUANTIZERS["onnxruntime"][1], b"")
    moved = replace(predictor, run="moved", checkpoint=path)
    made = quantize_run(moved, choose_calibration_images(splits[0], 1), backends=["onnxruntime"])
    assert made.description["checkpoint"]["sha256"] == read != file_sha256(path)


def test_a_network_of_other_channels_is_quantized_and_opened_by_their_rule_and_colors(workspace, tmp_path):
    root = write_folder(tmp_path / "data", count=2)
    audit(root, ["train"], progress="none")
    train(tiny(root, run="five", epochs=1, **SWITCHES | {"batch_size": 2}))
    predictor, split = load_saved("five", device="cpu", threads=1), open_split(root, "train")
    images = choose_calibration_images(split, 2)
    quantized = quantize_run(predictor, images, backends=("onnxruntime",))
    opened = load_predictor(quantized.path("onnxruntime"), threads=1)
    assert opened.rule == predictor.rule
    assert quantized.description["colors"] == opened.colors.tolist() == COLORS
    path = split.image_path(0)
    assert (opened(path) == load_predictor("five", device="cpu", threads=1)(path)).mean() > 0.9
    stated = (root / "data.yaml").read_text()
    (root / "data.yaml").write_text(stated.replace("value_range: [0", "value_range: [1"))
    other = choose_calibration_images(open_split(root, "train"), 2)
    with pytest.raises(InputError, match="run='five': takes images of 5 channels of 0 to .* are images of 5 channels"):
        quantize_run(predictor, other, backends=())
