"""Channels that go, what is left, and the proof that the smaller network is the dense one with those channels at 0."""

import copy
import json
import re
import shutil
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
import yaml
from support.backbone_checks import shake
from support.channel_folder import SWITCHES, write_folder
from support.tiny import tiny
from torch import nn
from torch.nn import functional

from cityscapes.errors import InputError, IntegrityError, MachineError, ParameterError
from cityscapes.workspace import run_folder
from dlv3p.compression import pruned_run as pruned_run_module
from dlv3p.compression.acceptance_report import Limits
from dlv3p.compression.channels import ChannelGroup, ChannelGroups, all_logits
from dlv3p.compression.importance import CRITERIA, choose_channels
from dlv3p.compression.pruned_run import SETTINGS, _fine_tuning, _has_start, dense_run, prune_run
from dlv3p.compression.pruning import accumulate_gradients, prune_model, recalibrate
from dlv3p.data.audit import audit
from dlv3p.evaluation.candidates import usual_pair
from dlv3p.evaluation.inference import load_run_predictor, load_saved
from dlv3p.models.anatomy import count_macs, count_parameters
from dlv3p.models.deeplab import build_network
from dlv3p.models.widths import apply_widths, widths_of
from dlv3p.parameters.choices import PRUNED_PARTS, PRUNING_CRITERIA, PRUNING_RANKINGS
from dlv3p.parameters.network import NetworkParameters
from dlv3p.parameters.notebooks import PruneParameters, RunParameters, TrainParameters
from dlv3p.runs.folders import dense_of
from dlv3p.train import train
from dlv3p.training.distillation import load_teacher
from dlv3p.weights.checkpoint import load_checkpoint, model_from_checkpoint
from dlv3p.weights.initial import build_with_weights
from dlv3p.weights.loading import load_model, save_model

CLASSES = list("abcde")
SLOW = pytest.mark.slow
NOTEBOOK = nbformat.read(Path(__file__).parents[2] / "notebooks" / "prune.ipynb", as_version=4)


def network(backbone="resnet18", **switches):
    """A small head over a backbone, with norms that hide nothing, and its parameters."""
    narrow = {"channels": 32} | ({} if switches.get("architecture") == "deeplabv3" else {"low_level_channels": 16})
    parameters = NetworkParameters(backbone=backbone, **(narrow | switches))
    torch.manual_seed(0)
    return shake(build_network(parameters, len(CLASSES))).float(), parameters


def batches(number=1):
    generator = torch.Generator().manual_seed(1)
    for _ in range(number):
        image = torch.randn(2, 3, 65, 97, generator=generator)
        yield image, torch.randint(0, len(CLASSES), (2, 65, 97), generator=generator)


@torch.no_grad()
def largest_difference(one, other):
    """Of two networks' logits, auxiliary ones included, in parts of the largest; float64."""
    image = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(2)).double()
    pairs = zip(all_logits(one.double().eval(), image), all_logits(other.double().eval(), image), strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


@torch.no_grad()
def silence_channels(model, removed, *, parts="all"):
    """A copy of `model`, as large as it is, in which the `removed` channels of its groups are always 0.

    Their filters and biases are 0, and those of the norms after them.
    """
    masked = copy.deepcopy(model).eval().requires_grad_(True)
    groups = ChannelGroups(masked, parts=parts)
    for name, channels in removed.items():
        for module, side, own, of_group in groups.groups[name].parts:
            silent = [channel for channel, place in zip(own, of_group, strict=True) if place in channels]
            for value in module.parameters(recurse=False) if side == "out" else ():
                value[silent] = 0
    return masked


def state_bytes(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("switches", "options"),
    [
        ({"auxiliary_head": True}, {"criterion": "magnitude"}),
        pytest.param(
            {"backbone": "resnet50", "architecture": "deeplabv3", "output_stride": 8}, {"criterion": "fpgm"}, marks=SLOW
        ),
        ({"separable": "normalized", "decoder_convolutions": 2}, {"criterion": "bn_scale", "ranking": "isomorphic"}),
        ({"convolution_bias": True, "concatenation": "aspp_first"}, {"criterion": "taylor", "ranking": "global"}),
        ({"norm": "frozen", "separable": "plain"}, {"criterion": "magnitude", "parts": "backbone"}),
        ({"backbone": "mobilenet_v2", "mobilenet_padding": "fixed"}, {"criterion": "taylor"}),
        pytest.param(
            {"backbone": "mobilenet_v3_large", "auxiliary_head": True},
            {"criterion": "bn_scale", "ranking": "global"},
            marks=SLOW,
        ),
        pytest.param({"backbone": "vovnet39", "pooling": "dilated"}, {"criterion": "fpgm"}, marks=SLOW),
        pytest.param({"backbone": "densenet121", "architecture": "deeplabv3"}, {"criterion": "magnitude"}, marks=SLOW),
        pytest.param({"backbone": "timm:resnet26d"}, {"criterion": "fpgm"}, marks=SLOW),
    ],
    ids=lambda value: "-".join(map(str, value.values())),
)
def test_the_smaller_network_is_the_dense_one_with_its_channels_at_zero(switches, options):
    model, parameters = network(**switches)
    before = state_bytes(model)
    pruned = prune_model(model, parameters, sparsity=0.5, round_to=8, batches=batches(), **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert count_parameters(pruned.model)["total"] < 0.8 * count_parameters(model)["total"]
    assert pruned.model.classifier.out_channels == len(CLASSES)
    masked = silence_channels(model, pruned.removed, parts=options.get("parts", "all"))
    assert largest_difference(masked, pruned.model) < 1e-12
    assert largest_difference(model, pruned.model) > 1e-3


@SLOW
def test_starlights_published_network_to_the_last_parameter():
    """What the notebook says to type, and ICT-ANS/StarLight's 19,298,707 parameters, 260.94 GMAC at 1024x2048."""
    (text,) = [cell.source for cell in NOTEBOOK.cells if "StarLight" in cell.source]
    assert "19,298,707" in text
    typed = {name: yaml.safe_load(value) for name, value in re.findall(r"-p (\w+) (\w+)", text)}
    asked = PruneParameters.from_mapping(typed)
    options = {name: getattr(asked, name) for name in SETTINGS if name != "batches"}
    parameters = NetworkParameters(backbone="resnet101", output_stride=16)
    model = build_network(parameters, 19)
    assert count_parameters(model)["total"] == 58_753_459
    pruned = prune_model(model, parameters, **options).model
    assert count_parameters(pruned)["total"] == 19_298_707
    macs = count_macs(partial(build_network, parameters, 19, widths=pruned.widths), 1024, 2048)["total"]
    assert macs == pytest.approx(260.94e9, rel=1e-4)


def test_widths_left_are_multiples_of_round_to_and_both_ends_of_a_sum_agree():
    model, parameters = network()
    pruned = prune_model(model, parameters, sparsity=0.3, round_to=16).model
    outputs = {
        name: module.out_channels
        for name, module in pruned.named_modules()
        if isinstance(module, nn.Conv2d) and name != "classifier"
    }
    assert {width % 16 for width in outputs.values()} == {0}
    assert outputs["backbone.conv1"] == outputs["backbone.layer1.1.conv2"] == 48  # 0.7 of 64 is 44.8
    assert outputs["aspp.project.conv"] == 16  # 0.7 of 32 is 22.4


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"sparsity": 0.0}, "sparsity=0.0"),
        ({"sparsity": 1.0}, "sparsity=1.0"),
        ({"sparsity": 1.5}, "sparsity=1.5"),
        ({"sparsity": float("nan")}, "sparsity=nan"),
        ({"sparsity": 0.95}, "leaves less than one of the 16 channels of decoder.low.conv; allowed are up to 0.937"),
        ({"round_to": 512}, "round_to=512: no layer gets narrower"),
        ({"criterion": "luck"}, "criterion='luck': allowed are magnitude"),
        ({"ranking": "luck"}, "ranking='luck': allowed are uniform"),
        ({"parts": "luck"}, "parts='luck': allowed are all"),
        ({"criterion": "taylor"}, "needs batches of training images"),
    ],
)
def test_what_cannot_be_pruned_so_is_told_in_one_line(options, told):
    model, parameters = network()
    with pytest.raises(ParameterError) as caught:
        prune_model(model, parameters, **options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("value", [0, 1.0, 1.2, float("nan"), -0.5])
def test_a_notebook_refuses_a_sparsity_that_is_none(value):
    with pytest.raises(ParameterError, match="sparsity=.*allowed are 0.01 to 0.99"):
        PruneParameters(sparsity=value)


def test_group_norm_is_refused_and_frozen_norms_stay_frozen():
    model, parameters = network(norm="group")
    with pytest.raises(ParameterError, match="norm='group': cannot be pruned"):
        prune_model(model, parameters)
    model, parameters = network(norm="frozen")
    norm = prune_model(model, parameters, round_to=8).model.train().backbone.bn1
    assert not norm.training
    assert not norm.weight.requires_grad
    assert norm.num_features == 32


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [
        ("timm:resnext50_32x4d", "backbone.body.layer1.0.conv2 is a convolution in 32 groups"),
        ("timm:regnety_002", "backbone.body.s1.b1.conv2.conv is a convolution in 3 groups"),
        ("timm:resnet50_gn", "backbone.body.bn1 is a GroupNorm"),
        ("timm:convnext_atto", "backbone.body.stem_1 is a LayerNorm2d"),
        ("timm:res2net50_26w_4s", "its channels cannot be traced"),
    ],
)
def test_layers_that_cannot_be_narrowed_are_named_with_what_can_be_pruned(backbone, layer):
    pytest.importorskip("timm")
    model, parameters = network(backbone)
    with pytest.raises(ParameterError) as caught:
        prune_model(model, parameters, round_to=8)
    told = str(caught.value)
    assert told.startswith(f"backbone={backbone!r}: cannot be pruned, since {layer}; ")
    assert told.endswith("can be pruned, as in resnet50, mobilenet_v2 or timm:resnet26d")


def test_without_torch_pruning_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    model, parameters = network()
    with pytest.raises(MachineError, match=r"pip install 'dlv3p\[prune\]'"):
        prune_model(model, parameters)
    parameters_cell, config_cell, *_ = [cell.source for cell in NOTEBOOK.cells if cell.cell_type == "code"]
    with pytest.raises(MachineError, match=r"pip install 'dlv3p\[prune\]'"):
        exec(f"{parameters_cell}\n{config_cell}", {})  # before a run is looked for, which may train the demo


@pytest.mark.parametrize("size", [{"height": 1, "width": 1}, {"height": 32, "width": 64}, {"height": 64}])
def test_a_size_that_no_network_takes_is_not_timed(size):
    with pytest.raises(ParameterError, match=r"height=.*: give both, 33 or more each"):
        PruneParameters(**size)


def test_the_notebooks_choices_are_those_of_the_library():
    allowed = {item.name: item.metadata.get("allowed") for item in fields(PruneParameters)}
    assert tuple(CRITERIA) == PRUNING_CRITERIA == allowed["criterion"]
    assert allowed["ranking"] == PRUNING_RANKINGS
    assert allowed["parts"] == PRUNED_PARTS


def test_criteria_are_what_their_papers_say():
    """The first group inside a block: one convolution, its norm, and what the next convolution reads of it."""
    model, _ = network()
    accumulate_gradients(model, batches())
    group = ChannelGroups(model).groups["backbone.layer1.0.conv1"]
    block = model.backbone.layer1[0]
    filters, read = block.conv1.weight.detach(), block.conv2.weight.detach()
    by_hand = {
        "magnitude": (filters.square().sum(dim=(1, 2, 3)) + read.square().sum(dim=(0, 2, 3))).sqrt(),
        "fpgm": torch.stack([(filters - one).square().sum(dim=(1, 2, 3)).sqrt().sum() for one in filters]),
        "bn_scale": block.bn1.weight.detach().abs(),
        "taylor": (filters * block.conv1.weight.grad).abs().sum(dim=(1, 2, 3)),
    }
    assert set(by_hand) == set(CRITERIA)
    for name, expected in by_hand.items():
        torch.testing.assert_close(CRITERIA[name](group), expected / expected.mean(), rtol=1e-3, atol=1e-4)


def test_all_layers_of_a_residual_sum_have_their_say():
    model, _ = network()
    groups = ChannelGroups(model)
    assert not [name for name in groups.groups if "layer1" in name and name.endswith("conv2")], "they are in the stem's"
    group = groups.groups["backbone.conv1"]
    outputs = {id(module) for module, side, *_ in group.parts if side == "out" and isinstance(module, nn.Conv2d)}
    block = model.backbone.layer1
    assert outputs == {id(model.backbone.conv1), id(block[0].conv2), id(block[1].conv2)}
    before = CRITERIA["fpgm"](group)
    block[1].conv2.weight.data[7] += 100
    after = CRITERIA["fpgm"](group)
    assert after[7] > 10 > before.max()


def groups_of(**sizes):
    """Stand-ins for groups, by name; what `_` stands behind is their pattern."""
    found = {}
    for name, size in sizes.items():
        kind = nn.Conv2d(1, 1, 1) if name.startswith("conv") else nn.BatchNorm2d(1)
        found[name] = ChannelGroup(name, size, ((kind, "out", [], []),), None)
    return found


def test_rankings_take_the_lowest_of_each_of_all_or_of_those_alike():
    groups = groups_of(conv1=8, conv2=8, other=8)
    low, high = torch.arange(8.0), torch.arange(8.0) + 8
    scores = {"conv1": low, "conv2": high, "other": high.flip(0)}
    choose = partial(choose_channels, groups, scores, sparsity=0.5)
    found = choose(ranking="uniform", round_to=1)
    assert found == {
        "conv1": [0, 1, 2, 3],
        "conv2": [0, 1, 2, 3],
        "other": [4, 5, 6, 7],
    }
    # All of conv1 is lowest, but an eighth of it is kept; the other 4 of 12 tie, and go together.
    found = choose(ranking="global", round_to=1)
    assert found == {"conv1": [0, 1, 2, 3, 4, 5, 6], "conv2": [0, 1], "other": [6, 7]}
    assert choose(ranking="isomorphic", round_to=1) == {"conv1": [0, 1, 2, 3, 4, 5, 6], "other": [4, 5, 6, 7]}
    assert choose(ranking="isomorphic", round_to=4) == {"conv1": [0, 1, 2, 3], "other": [4, 5, 6, 7]}


def test_a_pruned_file_describes_its_network_and_is_loaded_as_any_other(tmp_path):
    model, parameters = network(auxiliary_head=True)
    pruned = prune_model(model, parameters, round_to=8).model.eval()
    path = tmp_path / "pruned.safetensors"
    save_model(path, pruned, parameters, CLASSES)
    loaded = load_model(path)
    assert loaded.model.widths == pruned.widths
    assert largest_difference(copy.deepcopy(pruned), loaded.model) == 0
    again = build_with_weights(parameters, 5, initial_weights=str(path))
    assert again.widths == pruned.widths
    assert largest_difference(pruned, again) == 0


def test_fine_tuning_on_other_classes_takes_the_pruned_widths_over(tmp_path, capsys):
    model, parameters = network(auxiliary_head=True)
    pruned = prune_model(model, parameters, round_to=8).model
    path = tmp_path / "pruned.safetensors"
    save_model(path, pruned, parameters, CLASSES)
    plain = replace(parameters, auxiliary_head=False)
    with pytest.raises(ParameterError, match="has 5 classes, the data 11; give new_classifier=True"):
        build_with_weights(plain, 11, initial_weights=str(path))
    other = build_with_weights(plain, 11, initial_weights=str(path), new_classifier=True)
    assert "except the classifier, which is new" in capsys.readouterr().out
    assert other.classifier.weight.shape == (11, 16, 1, 1)
    assert torch.equal(other.aspp.project.conv.weight, pruned.aspp.project.conv.weight)
    with pytest.raises(IntegrityError, match="initial_weights=.*widths of 'backbone[.]"):
        build_with_weights(replace(plain, backbone="mobilenet_v2"), 5, initial_weights=str(path))


def test_fine_tuning_keeps_the_pruned_classifier_of_a_run_that_began_with_a_new_one():
    dense = SimpleNamespace(run="dense", checkpoint="best.pt", parameters=TrainParameters(new_classifier=True))
    assert not _fine_tuning(PruneParameters(), dense).new_classifier


@pytest.mark.parametrize(
    ("widths", "told"),
    [
        ([1], "are not a table"),
        ({"backbone.conv9": {"out_channels": 8}}, "do not match a layer"),
        ({"backbone.relu": {"out_channels": 8}}, "do not match a layer"),
        ({"backbone.conv1": 8}, "do not match a layer"),
        ({"backbone.conv1": {"weight": 8}}, "do not match a layer"),
        ({"backbone.conv1": {"out_channels": 10**9}}, "allowed are 1 to 64"),
        ({"backbone.conv1": {"out_channels": 0}}, "allowed are 1 to 64"),
        ({"backbone.conv1": {"out_channels": 8.0}}, "allowed are 1 to 64"),
        ({"backbone.conv1": {"out_channels": True}}, "allowed are 1 to 64"),
        ({"backbone.conv1": {"out_channels": "8"}}, "allowed are 1 to 64"),
        ({"backbone.conv1": {"out_channels": 32}}, "contradict each other"),
        ({"aspp.branch1.conv.depthwise": {"groups": 7}}, "do not divide them evenly"),
        ({"auxiliary.classifier": {"in_channels": 8}}, "contradict each other"),
    ],
    ids=str,
)
def test_widths_that_lie_are_refused_in_one_line(widths, told):
    parameters = NetworkParameters(channels=16, separable="plain", auxiliary_head=True)
    with torch.device("meta"):
        model = build_network(parameters, 5)
    with pytest.raises(IntegrityError, match=told) as caught:
        apply_widths(model, widths, source="file.safetensors")
    assert str(caught.value).startswith("file.safetensors: its widths")
    assert "\n" not in str(caught.value)


def test_a_hostile_pruned_file_is_refused_before_it_is_used(tmp_path):
    model, parameters = network()
    path = tmp_path / "forged.safetensors"
    for widths in ("much", {"backbone.conv1": {"out_channels": 32}}):
        model.widths = widths
        save_model(path, model, parameters, CLASSES)
        with pytest.raises(IntegrityError, match=r"forged\.safetensors"):
            load_model(path)


def test_the_widths_of_a_dense_network_are_none():
    model, parameters = network()
    assert widths_of(model, build_network(parameters, 5)) == {}


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_recalibration_averages_over_batches_and_touches_nothing_else(norm):
    model, _ = network(norm=norm)
    before, images = state_bytes(model), [image for image, _ in batches(3)]
    assert recalibrate(model, images) == 3
    with torch.no_grad():
        maps = [model.backbone.conv1(image) for image in images]
    mean = torch.stack([one.mean(dim=(0, 2, 3)) for one in maps]).mean(dim=0)
    variance = torch.stack([one.var(dim=(0, 2, 3)) for one in maps]).mean(dim=0)
    torch.testing.assert_close(model.backbone.bn1.running_mean, mean)
    torch.testing.assert_close(model.backbone.bn1.running_var, variance, rtol=1e-4, atol=1e-5)
    after = model.state_dict()
    changed = {name.rsplit(".")[-1] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    assert not any(module.training for module in model.modules())
    assert model.backbone.bn1.momentum == 0.1


def test_recalibration_without_statistics_keeps_the_old_ones():
    model, _ = network()
    before = state_bytes(model)
    assert recalibrate(model, []) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    recalibrate(model, [torch.randn(1, 3, 65, 97)])
    assert torch.equal(model.aspp.pool.bn.running_mean, before["aspp.pool.bn.running_mean"])
    assert not torch.equal(model.backbone.bn1.running_mean, before["backbone.bn1.running_mean"])


@pytest.fixture(scope="module")
def pruned_run(city, tmp_path_factory):
    """A workspace with a dense run of one epoch, and what is left of it after pruning and one epoch more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(tmp_path_factory.mktemp("pruned")))
        small = {"backbone": "resnet18", "channels": 16, "crop_height": 64, "crop_width": 64, "image_scale": 0.5}
        small |= {"epochs": 1, "batch_size": 2}
        here = {"workers": 0, "threads": 1, "device": "cpu", "progress": "none"}
        train(TrainParameters.from_mapping({"run": "tiny", "data_root": str(city), **small, **here}))
        asked = PruneParameters(batches=2, epochs=1, repeats=5, threads=1, device="cpu", progress="none")
        run = prune_run(asked)
        run.fine_tune()
        yield run


def test_the_result_is_a_run_that_describes_itself(pruned_run):
    assert pruned_run.training.run == "tiny-pruned"
    assert pruned_run.training.teacher == "tiny"
    state = load_checkpoint(run_folder("tiny-pruned") / "checkpoints" / "best.pt")
    model, _ = model_from_checkpoint(state)
    assert model.widths == pruned_run.start.widths != {}
    predictor = load_run_predictor(RunParameters(run="tiny-pruned", device="cpu", threads=1))
    shared = load_model(run_folder("tiny-pruned") / "model.safetensors").model
    assert largest_difference(shared, predictor.model) < 1e-12
    assert largest_difference(shared, copy.deepcopy(pruned_run.start)) > 0
    assert pruned_run.widths().loc["backbone.conv1"].tolist() == [64, 32]


def test_a_network_that_was_recalibrated_on_other_data_is_not_gone_on_with(pruned_run, city, tmp_path):
    record = pruned_run.folder / "pruning" / "settings.json"
    written = record.read_bytes()
    same, other = (shutil.copytree(city, tmp_path / name) for name in ("same", "other"))
    images = sorted((other / "leftImg8bit" / "train").rglob("*.png"))
    images[0].write_bytes(images[1].read_bytes())
    with pytest.raises(ParameterError, match="'tiny-pruned' was pruned and recalibrated on other data; restore"):
        prune_run(replace(pruned_run.parameters, run="tiny", data_root=str(other)))
    prune_run(replace(pruned_run.parameters, run="tiny", data_root=str(same)))
    content = json.loads(written)
    del content["data_sha256"], content["content_sha256"]
    record.write_text(json.dumps(content))  # as earlier versions wrote it
    prune_run(replace(pruned_run.parameters, run="tiny", data_root=str(other)))
    record.write_bytes(written.replace(b'"sparsity": 0.5', b'"sparsity": 0.4'))
    with pytest.raises(IntegrityError, match=r"settings\.json: was changed since it was written"):
        prune_run(pruned_run.parameters)
    record.write_bytes(written)


def test_it_is_not_pruned_again_but_gone_on_with(pruned_run):
    assert dense_run("") == "tiny"
    start = (pruned_run.folder / "pruning" / "start.safetensors").stat().st_mtime_ns
    again = prune_run(pruned_run.parameters)
    assert again.training == pruned_run.training
    assert (pruned_run.folder / "pruning" / "start.safetensors").stat().st_mtime_ns == start
    assert len(again.fine_tune().history) == 1
    record = json.loads((pruned_run.folder / "pruning" / "settings.json").read_text())
    record.pop("content_sha256", None)
    assert _has_start(pruned_run.folder, record | {"run": "renamed"}), "of the same weights"
    with pytest.raises(ParameterError, match=r"with run='tiny' \(asked for 'renamed'\), weights_sha256="):
        _has_start(pruned_run.folder, record | {"run": "renamed", "weights_sha256": "0"})
    with pytest.raises(ParameterError, match=r"'tiny-pruned' was pruned with sparsity=0.5 \(asked for 0.25\)"):
        prune_run(replace(pruned_run.parameters, sparsity=0.25))
    with pytest.raises(ParameterError, match="^pruned_run='a/b': allowed are up to 100 letters"):
        PruneParameters(pruned_run="a/b")
    with pytest.raises(ParameterError, match="would replace the dense run"):
        prune_run(replace(pruned_run.parameters, pruned_run="tiny"))


def test_another_fine_tuning_is_refused_before_it_is_tried_in_the_notebooks_words(pruned_run):
    other = replace(pruned_run.parameters, epochs=20, rate_factor=1.0, distillation=False)
    with pytest.raises(ParameterError) as caught:
        prune_run(other)
    assert str(caught.value) == (
        "pruned_run='tiny-pruned' was fine-tuned with epochs=1 (asked for 20), rate_factor=0.5 (asked for 1.0), "
        "distillation=True (asked for False); give another name (-p pruned_run NAME), or the same settings"
    )
    (advice,) = [cell.source for cell in NOTEBOOK.cells if "-p epochs 20" in cell.source]
    assert "-p rate_factor 1.0 -p pruned_run NAME" in advice


def test_what_prunes_and_teaches_is_what_was_asked_for(pruned_run, monkeypatch):
    number = pruned_run.start.backbone.bn1.num_batches_tracked
    assert number == pruned_run.parameters.batches == 2, "new statistics of the norms, not those of 3 training steps"
    splits = []

    def watched(parameters, split, number):
        splits.append(split.split)
        return original(parameters, split, number)

    original = pruned_run_module.training_batches
    monkeypatch.setattr(pruned_run_module, "training_batches", watched)
    asked = replace(pruned_run.parameters, pruned_run="alone", criterion="taylor", distillation=False, rate_factor=0.25)
    alone = prune_run(asked).training
    assert splits == ["train", "train"], "gradients and statistics"
    dense_rate = pruned_run.dense.parameters.learning_rate
    assert (alone.teacher, alone.learning_rate) == ("", dense_rate / 4)
    assert pruned_run.training.learning_rate == dense_rate / 2
    last = prune_run(replace(pruned_run.parameters, pruned_run="from_last", checkpoint="last")).training
    assert last.teacher == str(run_folder("tiny") / "checkpoints" / "last.pt"), "not the best one, which was not pruned"
    assert load_teacher(last.teacher, 19, torch.device("cpu")).widths == {}


def test_the_gate_gets_the_limits_and_the_size_that_were_asked_for(pruned_run, monkeypatch):
    def passed(reference, candidates, split, **options):
        return [reference, *candidates], split, options

    monkeypatch.setattr(pruned_run_module, "check_acceptance", passed)
    asked = {"largest_loss": 3.0, "largest_time": 0.25, "height": 40, "width": 72, "threads": 3, "repeats": 7}
    candidates, split, options = replace(pruned_run, parameters=replace(pruned_run.parameters, **asked)).compare()
    assert options["limits"] == Limits(3.0, 4.0)
    assert options["latency_size"] == (40, 72)
    assert (options["threads"], options["repeats"], options["memory"]) == (3, 7, True)
    assert (split.split, options["image_scale"]) == ("val", 0.5)
    macs = count_macs(partial(build_network, pruned_run.dense.parameters, 19), 40, 72)["total"]
    assert candidates[0].gmacs == macs / 1e9
    assert pruned_run.compare()[2]["latency_size"] == (32, 64), "the data's own at the scale of the run"


def test_an_aborted_pruning_leaves_the_dense_run_and_no_other(pruned_run):
    dense = (run_folder("tiny") / "checkpoints" / "best.pt").read_bytes()
    with pytest.raises(ParameterError, match="leaves less than one"):
        prune_run(replace(pruned_run.parameters, run="tiny", pruned_run="none", sparsity=0.99))
    assert (run_folder("tiny") / "checkpoints" / "best.pt").read_bytes() == dense
    assert not (run_folder("none") / "pruning" / "start.safetensors").exists()


def test_the_gate_sees_three_networks_of_which_two_are_smaller(pruned_run):
    report = pruned_run.compare(memory=False)
    table = report.table()
    assert list(table.index) == ["dense", "pruned", "fine-tuned"]
    assert (table["macs_ratio"].iloc[1:] < 0.5).all()
    assert table["parameters"].iloc[1] == table["parameters"].iloc[2] == count_parameters(pruned_run.start)["total"]
    assert (table["size_ratio"].iloc[1:] < 0.5).all()
    assert report.limits == Limits(2, 1 / 0.55)
    assert (report.measured["threads"], report.measured["repeats"]) == (1, 5)
    record = json.loads((pruned_run.folder / "pruning" / "settings.json").read_text())
    assert record["run"] == "tiny"
    assert record["sparsity"] == 0.5


def test_a_pruned_run_is_compared_with_the_run_that_it_was_pruned_from(pruned_run):
    """By default; where that run is gone, with itself at another size, as any other run."""
    newest = load_run_predictor(RunParameters(device="cpu", threads=1))
    assert newest.run == "tiny-pruned"
    pair = usual_pair(newest, threads=1, progress="none")
    assert [one.name for one in pair] == ["tiny", "tiny-pruned"]
    assert pair[0].made_from.checkpoint_sha256 != pair[1].made_from.checkpoint_sha256
    dense = run_folder("tiny")
    moved = dense.rename(dense.with_name("elsewhere"))
    try:
        assert dense_of("tiny-pruned") == ""
    finally:
        moved.rename(dense)
    assert dense_of("tiny") == ""
    alone = usual_pair(load_run_predictor(RunParameters(run="tiny", device="cpu", threads=1)), progress="none")
    assert [one.name for one in alone] == ["tiny", "tiny at 75% of the size"]


def test_taylor_needs_gradients_that_were_worked_out():
    model, _ = network()
    group = ChannelGroups(model).groups["backbone.layer1.0.conv1"]
    with pytest.raises(ParameterError, match="needs gradients"):
        CRITERIA["taylor"](group)
    accumulate_gradients(model, batches())
    logits = model(next(batches())[0])
    loss = functional.cross_entropy(logits, next(batches())[1])
    expected = torch.autograd.grad(loss, model.backbone.conv1.weight)[0]
    torch.testing.assert_close(model.backbone.conv1.weight.grad, expected, rtol=1e-4, atol=1e-6)


def test_networks_of_other_channels_are_pruned_for_the_same_images(workspace, tmp_path):
    root = write_folder(tmp_path / "data", count=2)
    audit(root, ["train"], progress="none")
    train(tiny(root, run="five", epochs=1, backbone="resnet18", channels=16, **SWITCHES | {"batch_size": 2}))
    asked = PruneParameters(run="five", batches=1, epochs=1, repeats=5, threads=1, device="cpu", progress="none")
    pruned = prune_run(asked)
    assert pruned.start.rule == pruned.dense.rule
    assert pruned.start.backbone.conv1.weight.shape[:2] == (32, 5)
    pruned.fine_tune()
    assert load_saved("five-pruned", device="cpu", threads=1).rule == pruned.dense.rule
    stated = (root / "data.yaml").read_text()
    (root / "data.yaml").write_text(stated.replace("value_range: [0", "value_range: [1"))
    with pytest.raises(InputError, match="run='five': takes images of 5 channels of 0 to .* are images of 5 channels"):
        prune_run(replace(asked, pruned_run="other"))
