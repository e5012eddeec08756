"""Weights files into our networks: to the last entry, or refused with a list; and as runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.public_files import network_of, published, refusal
from torchvision import models

from cityscapes.errors import IntegrityError, ParameterError
from dlv3p.models.deeplab import build_model, build_network
from dlv3p.parameters.network import NetworkParameters
from dlv3p.parameters.notebooks import TrainParameters
from dlv3p.weights.checkpoint import save_checkpoint
from dlv3p.weights.checksums import weights_sha256
from dlv3p.weights.describe import describe
from dlv3p.weights.initial import build_with_weights
from dlv3p.weights.loading import LoadedModel, load_model, save_model
from dlv3p.weights.reading import read_weights
from dlv3p.weights.recognition import recognize

BACKBONE_FILES = sorted((Path(__file__).parents[2] / "dlv3p" / "models" / "backbones").glob("[a-z]*.py"))


@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        ([f"dlv3p.models.backbones.{path.stem}" for path in BACKBONE_FILES], "dlv3p.weights"),
        (["dlv3p.weights.recognition"], "dlv3p.data.voc"),
    ],
    ids=["backbones", "recognition"],
)
def test_imports_point_one_way(imported, absent):
    code = f"import sys, {', '.join(imported)}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("stride", [5, 0, "8"])
def test_an_output_stride_that_no_network_has_is_no_fault_of_the_file(stride, tmp_path):
    network = NetworkParameters(backbone="resnet18", channels=8)
    save_model(tmp_path / "own.safetensors", build_network(network, 2), network, ["a", "b"])
    torch.save(published("yor", network_of("yor", "resnet"), 20), tmp_path / "a.pth")
    for name in ("own.safetensors", "a.pth"):
        with pytest.raises(ParameterError, match=f"output_stride={stride!r}: allowed are 8, 16, 32$"):
            load_model(tmp_path / name, output_stride=stride)


def test_weights_that_half_precision_made_infinite_are_refused(vainf, tmp_path):
    variance = vainf["backbone.bn1.running_var"].clone()
    variance[3] = 70000.0
    state = {name: value.half() for name, value in (vainf | {"backbone.bn1.running_var": variance}).items()}
    message = refusal(state, tmp_path / "a.pth")
    assert "1 of its tensors hold nan or infinity, the first backbone.bn1.running_var; take" in message


@pytest.mark.parametrize(("value", "refused"), [(-1e-7, True), (-5.0, True), (0.0, False)])
def test_a_variance_below_zero_is_refused_under_its_name_in_the_file(vainf, tmp_path, value, refused):
    variance = vainf["classifier.project.1.running_var"].clone()
    variance[0] = value  # of a channel that is always the same it is zero
    state = {f"module.{name}": entry for name, entry in vainf.items()}
    state["module.classifier.project.1.running_var"] = variance
    if refused:
        said = "1 of its tensors are variances below zero, the first module.classifier.project.1.running_var; take"
        assert said in refusal(state, tmp_path / "a.pth")
    else:
        torch.save(state, tmp_path / "a.pth")
        load_model(tmp_path / "a.pth")


def test_what_a_file_lacks_and_has_beyond_is_listed_under_its_own_names(vainf, tmp_path):
    state = dict(vainf)
    del state["backbone.layer4.1.conv2.weight"]
    state["backbone.layer1.0.conv1.weight"] = torch.zeros(64, 64, 5, 5)
    state |= {f"extra.{number}.weight": torch.zeros(1) for number in range(12)}
    message = refusal(state, tmp_path / "a.pth")
    assert "1 entry missing (backbone.layer4.1.conv2.weight)" in message
    assert "backbone.layer1.0.conv1.weight (64, 64, 5, 5) for (64, 64, 3, 3)" in message
    assert "12 entries unknown (extra.0.weight, " in message
    assert "extra.9.weight, ...)" in message
    assert "extra.10.weight" not in message


@pytest.mark.parametrize("extra", ["evil", "optimizer.step", "classifier.extra.weight", "evil.num_batches_tracked"])
def test_what_stands_beside_a_wrapped_network_is_unknown_and_called_as_in_the_file(extra, vainf, tmp_path):
    state = {f"module.{name}": value for name, value in vainf.items()} | {extra: torch.zeros(1)}
    assert f"1 entry unknown ({extra})" in refusal(state, tmp_path / "a.pth")


def test_an_entry_that_stands_there_twice_is_refused(vainf, tmp_path):
    state = vainf | {"module.backbone.conv1.weight": torch.zeros(64, 3, 7, 7)}
    assert "duplicate entry backbone.conv1.weight" in refusal(state, tmp_path / "a.pth")
    state = vainf | {"backbone..conv1.weight": torch.zeros(64, 3, 7, 7)}
    assert "1 entry unknown (backbone..conv1.weight)" in refusal(state, tmp_path / "a.pth")


def test_a_count_of_batches_has_the_shape_of_a_number_or_is_absent(vainf, tmp_path):
    name = "backbone.bn1.num_batches_tracked"
    message = refusal(vainf | {name: torch.zeros(5, dtype=torch.int64)}, tmp_path / "a.pth")
    assert f"1 entry of another shape ({name} (5,) for ())" in message
    state = models.resnet18().state_dict() | {"bn1.num_batches_tracked": torch.zeros(5, dtype=torch.int64)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(IntegrityError, match="of another shape .bn1.num_batches_tracked .5,. for "):
        build_with_weights(
            NetworkParameters(backbone="resnet18", channels=8), 2, initial_weights=str(tmp_path / "a.pth")
        )


def test_every_single_missing_entry_is_noticed_but_for_counts_of_batches(vainf, tmp_path):
    weights = [name for name in vainf if not name.endswith("num_batches_tracked")]
    for name in weights[:: len(weights) // 12]:
        assert name in refusal({other: value for other, value in vainf.items() if other != name}, tmp_path / "a.pth")
    torch.save({name: vainf[name] for name in weights}, tmp_path / "a.pth")
    model = load_model(tmp_path / "a.pth").model
    assert torch.equal(model.state_dict()["backbone.bn1.num_batches_tracked"], torch.tensor(0))


def test_an_integer_where_a_weight_belongs_is_refused(vainf, tmp_path):
    state = vainf | {"classifier.classifier.3.bias": torch.zeros(21, dtype=torch.int64)}
    assert "classifier.classifier.3.bias holds torch.int64" in refusal(state, tmp_path / "a.pth")


def test_half_precision_becomes_single(vainf, tmp_path):
    torch.save({name: value.half() if value.is_floating_point() else value for name, value in vainf.items()},
               tmp_path / "a.pth")  # fmt: skip
    model = load_model(tmp_path / "a.pth").model
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_other_classes_need_permission(vainf, tmp_path):
    torch.save(vainf, tmp_path / "a.pth")
    with pytest.raises(ParameterError, match="has 21.*replace_classifier=True"):
        load_model(tmp_path / "a.pth", num_classes=19)
    model, _, class_names = load_model(tmp_path / "a.pth", num_classes=19, replace_classifier=True)
    assert model.classifier.out_channels == 19
    assert class_names is None
    assert model(torch.zeros(1, 3, 33, 33)).shape == (1, 19, 33, 33)
    assert torch.equal(model.backbone.conv1.weight, vainf["backbone.conv1.weight"])
    same = load_model(tmp_path / "a.pth", num_classes=21, replace_classifier=True)
    assert torch.equal(same.model.classifier.bias, vainf["classifier.classifier.3.bias"])
    assert same.class_names[15] == "person"


@pytest.mark.parametrize("number", [0, -1, 2.5])
def test_a_number_of_classes_that_no_network_has_is_refused(number, vainf, tmp_path):
    torch.save(vainf, tmp_path / "a.pth")
    with pytest.raises(ParameterError, match=f"num_classes={number}: give a whole number from 1"):
        load_model(tmp_path / "a.pth", num_classes=number, replace_classifier=True)
    with pytest.raises(ParameterError, match=f"num_classes={number}: give a whole number from 1"):
        build_model("deeplabv3", "resnet18", num_classes=number)


def test_the_auxiliary_classifier_starts_afresh_too(tmp_path):
    state = published("torchvision", network_of("torchvision", "resnet", auxiliary_head=True), 21)
    torch.save(state, tmp_path / "a.pth")
    model = load_model(tmp_path / "a.pth", num_classes=4, replace_classifier=True).model
    assert [tuple(logits.shape) for logits in model.forward_with_auxiliary(torch.zeros(1, 3, 33, 33))] == 2 * [
        (1, 4, 33, 33)
    ]


def test_a_backbone_alone_is_recognized_and_is_no_network(tmp_path):
    torch.save(models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    found = recognize(read_weights(tmp_path / "resnet18.pth"))
    assert (found.backbone, found.parameters) == ("resnet18", None)
    with pytest.raises(IntegrityError, match="give it as initial_weights"):
        load_model(tmp_path / "resnet18.pth")


def test_the_stand_in_holds_the_newest_run_where_it_is_plain(workspace):
    from dlv3p.runs.folders import checkpoint_path
    from dlv3p.runs.imported import write_stand_in

    for number, (switches, taken) in enumerate(
        (({"output_stride": 8, "channels": 16}, True), ({"channels": 16, "align_corners": True}, False))
    ):
        parameters = TrainParameters(backbone="resnet18", **switches)
        model = build_network(parameters, 19)
        names = [f"class {index}" for index in range(19)]
        state = {"epoch": 1, "parameters": parameters.as_dict(), "class_names": names, "model": model.state_dict()}
        save_checkpoint(checkpoint_path(str(number), "best"), state)
        (workspace / "saved" / str(number) / "metrics.csv").write_text("epoch\n")
        loaded = load_model(write_stand_in())
        same = weights_sha256(loaded.model.state_dict()) == weights_sha256(model.state_dict())
        assert same == taken
        assert loaded.parameters.output_stride == (8 if taken else 16)


def test_an_imported_run_is_a_run_for_every_notebook(city, workspace, tmp_path):
    from dlv3p.data.roots import open_split
    from dlv3p.evaluation.evaluate import evaluate, scores_apply
    from dlv3p.evaluation.inference import load_saved
    from dlv3p.pictures.gallery import predictions_picture
    from dlv3p.runs.folders import list_runs
    from dlv3p.runs.imported import save_run, write_stand_in
    from dlv3p.weights.loading import build_recognized

    path = write_stand_in()
    found = recognize(read_weights(path))
    loaded = build_recognized(found)
    assert isinstance(loaded, LoadedModel)
    run = save_run(found, loaded, data_root=str(city))
    assert run == "stand_in_os16"
    assert list_runs() == []
    recorded = json.loads((workspace / "saved" / run / "run.json").read_text())
    assert recorded["imported"]["source"] == "VainF/DeepLabV3Plus-Pytorch"
    assert recorded["imported"]["sha256"] == describe(found)["sha256"]
    predictor = load_saved(run, device="cpu", threads=1)
    assert weights_sha256(predictor.model.state_dict()) == weights_sha256(loaded.model.state_dict())
    split = open_split(city, "val")
    assert scores_apply(predictor, split)
    assert evaluate(predictor, split, progress="none").confusion.sum() > 0
    assert predictions_picture(predictor, split, count=1).width == 1200
    (workspace / "saved" / run / "metrics.csv").write_text("epoch\n")
    with pytest.raises(ParameterError, match="was trained here"):
        save_run(found, loaded, data_root=str(city))
