"""Recipes are what their sources publish: parameters of a training, whose counts, steps and claims hold together."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml

from dlv3p.data import open_split
from dlv3p.deeplab import build_network
from dlv3p.macs import count_macs
from dlv3p.network import NetworkParameters
from dlv3p.train import train
from dlv3p.training_parameters import TrainParameters

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
FOLDER = NOTEBOOKS / "recipes"
RECIPES = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
PARTS = ["Source", "Claim", "Protocol", "Differs", "Cost", "Run"]
IMAGES = {("cityscapes", "train"): 2975, ("voc", "train"): 1464, ("voc", "train_aug"): 10582}
CLASSES = {"cityscapes": 19, "voc": 21}

PARAMETERS = {  # as published
    "voc_deeplabv3_mobilenet_v2_os16_vainf": 5_113_877,
    "voc_deeplabv3_resnet50_os16_vainf": 39_638_869,
    "voc_deeplabv3_resnet101_os16_vainf": 58_630_997,
    "voc_deeplabv3plus_mobilenet_v2_os16_vainf": 5_225_717,
    "voc_deeplabv3plus_resnet50_os16_vainf": 39_761_845,
    "voc_deeplabv3plus_resnet101_os16_vainf": 58_753_973,
    "cityscapes_deeplabv3plus_resnet101_os16_vainf": 58_753_459,
    "cityscapes_deeplabv3plus_resnet101_os16_pruned_starlight": 58_753_459,  # before it is pruned
    "voc_deeplabv3_resnet101_os16_chenxi": 58_040_661,
    "voc_deeplabv3_resnet101_os16_gn_ws_chenxi": 58_040_661,
    "voc_deeplabv3_resnet50_os16_stigma": 39_048_533,
    "voc_deeplabv3_densenet161_os16_stigma": 43_200_341,
    "voc_deeplabv3_densenet201_os16_stigma": 32_683_157,
    "voc_deeplabv3_vovnet39_os16_stigma": 29_513_621,
    "voc_deeplabv3_vovnet57_os16_stigma": 43_553_621,
    "voc_deeplabv3_resnet101_os16_mindspore_s16": 58_040_661,
    "voc_deeplabv3_resnet101_os8_mindspore_s8_r1": 58_040_661,
    "voc_deeplabv3_resnet101_os8_mindspore_s8_r2": 58_040_661,
    "voc_deeplabv3_resnet101_os16_deepspark": 58_040_661,
}
YOR = {"resnet50": 39_804_436, "resnet101": 58_796_564, "resnet152": 74_440_212}

GMACS = {  # of an image of 513 x 513, as published
    "voc_deeplabv3_resnet101_os16_vainf": 71.70,
    "voc_deeplabv3plus_mobilenet_v2_os16_vainf": 16.82,
    "voc_deeplabv3_resnet101_os16_chenxi": 71.06,
    "voc_deeplabv3_densenet161_os16_stigma": 64.35,
    "voc_deeplabv3_vovnet57_os16_stigma": 68.17,
}

STEPS = {  # what the sources' epochs and batches come to
    "vainf": 30_000,
    "starlight": 30_000,
    "stigma": 50 * 661,
    "mindspore_s16": 300 * 41,
    "s8_r1": 800 * 82,
    "s8_r2": 300 * 11,
    "deepspark": 200 * 45,
    "yor": 30 * 371,
    "40k_mmseg": 40_000,
    "80k_mmseg": 80_000,
    "90k_detectron2": 90_000,
    "voc_deeplabv3_resnet101_os16_chenxi": 50 * 661,
    "gn_ws_chenxi": 50 * 661,
    "cityscapes_deeplabv3_resnet101_os16_chenxi": 480 * 148,
}

every_recipe = pytest.mark.parametrize("name", RECIPES)


@cache
def parameters(name: str) -> TrainParameters:
    return TrainParameters.from_mapping(yaml.safe_load(RECIPES[name].read_text(encoding="utf-8")))


@cache
def header(name: str) -> dict[str, str]:
    """The header's parts, each in one line."""
    text = " ".join(line[1:].strip() for line in RECIPES[name].read_text().splitlines() if line.startswith("#"))
    found = re.split(rf"\b({'|'.join(PARTS)}): +", text)
    return dict(zip(found[1::2], map(str.strip, found[2::2]), strict=True))


def network(name: str, **changes: object) -> NetworkParameters:
    values = parameters(name).as_dict() | changes
    return NetworkParameters(**{field: values[field] for field in NetworkParameters.__dataclass_fields__})


def data(name: str) -> str:
    return name.split("_")[0]


def steps(name: str) -> int:
    p = parameters(name)
    return p.steps or p.epochs * (IMAGES[data(name), p.train_split] // p.batch_size)


def count(described: NetworkParameters, classes: int) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in build_network(described, classes).parameters())


@every_recipe
def test_a_header_says_source_claim_protocol_and_cost(name):
    parts = header(name)
    assert list(parts) == [part for part in PARTS if part in parts]
    assert set(PARTS) - set(parts) <= {"Differs"}
    assert all(len(text) > 5 for text in parts.values())
    assert re.search(r"\d\d(\.\d+)?\b.* mIoU|^none|^more than", parts["Claim"])
    assert parts["Run"].endswith(f" -f recipes/{name}.yaml")


@every_recipe
def test_the_name_tells_what_is_trained(name):
    p = parameters(name)
    assert name.startswith(f"{data(name)}_{p.architecture}_{p.backbone}_os{p.output_stride}")
    assert p.data_root == {"cityscapes": "$CITYSCAPES_DATASET", "voc": "~/voc"}[data(name)]
    assert p.class_weights == "none"
    assert not p.chunked_loss


@every_recipe
def test_the_cost_is_that_of_the_parameters(name):
    p = parameters(name)
    told = re.match(
        r"([\d,]+) steps of (\d+) crops, ([\d.]+) GMACs a crop forward: ([\d,]+) PMACs", header(name)["Cost"]
    )
    assert int(told[1].replace(",", "")) == steps(name)
    assert int(told[2]) == p.batch_size
    whole = 3 * float(told[3]) * 1e9 * steps(name) * p.batch_size / 1e15
    assert int(told[4].replace(",", "")) == pytest.approx(whole, abs=0.6, rel=2e-3)
    assert header(name)["Cost"].endswith(("Not run.", "(Counted before pruning.)"))


@pytest.mark.parametrize("suffix", STEPS)
def test_as_many_steps_as_the_source(suffix):
    named = [name for name in RECIPES if name.endswith(suffix)]
    assert named
    assert {steps(name) for name in named} == {STEPS[suffix]}


def test_every_source_is_held_to_its_steps():
    ours = {name for name in RECIPES if name.endswith(("resnet50_os8", "resnet50_os16"))}
    assert {name for name in RECIPES if name.endswith(tuple(STEPS))} == set(RECIPES) - ours


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_network_has_as_many_parameters_as_published(name):
    assert count(network(name), CLASSES[data(name)]) == PARAMETERS[name]


@pytest.mark.parametrize("backbone", YOR)
@pytest.mark.parametrize("stride", [8, 16])
def test_yor_networks_have_as_many_parameters_as_published(backbone, stride):
    described = network(f"cityscapes_deeplabv3plus_resnet50_os{stride}_yor", backbone=backbone)
    assert count(described, 20) == YOR[backbone]


@pytest.mark.parametrize("name", GMACS)
def test_the_network_costs_as_much_as_published(name):
    p = parameters(name)
    assert (p.crop_height, p.crop_width) == (513, 513)
    macs = count_macs(lambda: build_network(network(name), 21), 513, 513)["total"]
    assert macs / 1e9 == pytest.approx(GMACS[name], abs=0.02)
    assert f"{macs / 1e9:.1f} GMACs" in header(name)["Cost"]


def test_the_stages_start_where_the_one_before_ends():
    (first,), (second,), (third,) = (
        [parameters(name) for name in RECIPES if name.endswith(stage)] for stage in ("spore_s16", "s8_r1", "s8_r2")
    )
    assert second.initial_weights == f"../saved/{first.run}/model.safetensors"
    assert third.initial_weights == f"../saved/{second.run}/model.safetensors"
    for stage in (first, second, third):
        assert stage.batch_size // stage.accumulation == {16: 32, 8: 16}[stage.output_stride]


def test_the_table_lists_all_recipes_with_their_claims():
    rows = re.findall(
        r"^\| \[(\S+)\]\((\S+)\) \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", (FOLDER / "README.md").read_text(), re.M
    )
    assert sorted(name for name, *_ in rows) == sorted(RECIPES)
    for name, file, _, claim in rows:
        assert file == f"{name}.yaml"
        numbers = re.findall(r"\d+\.\d+", claim)
        assert all(number in header(name)["Claim"] for number in numbers)
        assert numbers or header(name)["Claim"].startswith(("none", "more than 76"))


def test_a_recipe_of_steps_ends_with_all_its_epochs_done(city, workspace, capsys):
    """The last cell of the notebook, for a run of four steps, three of which are an epoch."""
    config = TrainParameters(
        data_root=str(city), backbone="mobilenet_v2", channels=8, crop_height=64, crop_width=64, batch_size=2,
        steps=4, workers=0, threads=1, device="cpu", progress="none", band="none",
    )  # fmt: skip
    result = train(config)
    cell = json.loads((NOTEBOOKS / "train.ipynb").read_text())["cells"][-1]
    exec("".join(cell["source"]), {"result": result, "config": config, "training": open_split(city, "train")})
    assert len(result.history) == 2 != config.epochs
    assert "epochs done: True" in capsys.readouterr().out
