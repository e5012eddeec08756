"""Recipes match their sources: the parameters of a training whose counts, steps, and claims are consistent."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from support.published_recipes import (
    COMMON,
    GMACS,
    OWN_CHOICES,
    PARAMETERS,
    PUBLISHED_SETTINGS,
    STEPS,
    UNLIKE,
    YOR_PARAMETERS,
)

from dlv3p.data.roots import open_split
from dlv3p.evaluation.comparison import published_scores
from dlv3p.evaluation.published_figures import Figure, choose, published_figures
from dlv3p.models.anatomy import count_macs
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.network import NetworkParameters
from dlv3p.parameters.protocols import PUBLISHED
from dlv3p.parameters.training import TrainParameters
from dlv3p.train import train

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FOLDER = NOTEBOOKS / "recipes"
RECIPES = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
PARTS = ["Source", "Claim", "Protocol", "Differs", "Cost", "Run"]
IMAGES = {("cityscapes", "train"): 2975, ("voc", "train"): 1464, ("voc", "train_aug"): 10582}
CLASSES = {"cityscapes": 19, "voc": 21}

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
        r"([\d,]+) steps of (\d+) crops, ([\d,]+) in all, ([\d.]+) GMACs a crop forward: ([\d,]+) PMACs",
        header(name)["Cost"],
    )
    assert int(told[1].replace(",", "")) == steps(name)
    assert int(told[2]) == p.batch_size
    assert int(told[3].replace(",", "")) == steps(name) * p.batch_size
    whole = 3 * float(told[4]) * 1e9 * steps(name) * p.batch_size / 1e15
    assert int(told[5].replace(",", "")) == pytest.approx(whole, abs=0.6, rel=2e-3)
    assert header(name)["Cost"].endswith(("Not run.", "(Counted before pruning.)"))


@every_recipe
def test_the_settings_are_the_published_ones_or_the_header_says_why_not(name):
    p, own = parameters(name), OWN_CHOICES.get(name, {})
    ours = p.as_dict() | {"crop": (p.crop_height, p.crop_width)}
    fitting = max((end for end in PUBLISHED_SETTINGS if name.endswith(end)), key=len)
    published = COMMON | PUBLISHED_SETTINGS[fitting]
    wanted = published | {setting: value for setting, (value, _) in own.items()}
    assert {setting: ours[setting] for setting in wanted} == wanted
    for setting, (value, words) in own.items():
        assert value != published[setting], "a choice of our own that is the source's"
        assert words in header(name)["Differs"]


@pytest.mark.parametrize("suffix", UNLIKE)
def test_a_header_says_what_no_parameter_can(suffix):
    for name in (name for name in RECIPES if name.endswith(suffix)):
        assert [words for words in UNLIKE[suffix] if words not in header(name)["Differs"]] == []


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


@pytest.mark.parametrize("backbone", YOR_PARAMETERS)
@pytest.mark.parametrize("stride", [8, 16])
def test_yor_networks_have_as_many_parameters_as_published(backbone, stride):
    described = network(f"cityscapes_deeplabv3plus_resnet50_os{stride}_yor", backbone=backbone)
    assert count(described, 20) == YOR_PARAMETERS[backbone]


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


def table_rows() -> list[tuple[str, str, list[str]]]:
    """All rows of the README's tables: the section's heading, the command line below it, and the cells."""
    rows = []
    for section in (FOLDER / "README.md").read_text().split("\n## ")[1:]:
        heading, command, *_ = (line for line in section.splitlines() if line)
        lines = [line for line in section.splitlines() if line.startswith("| [")]
        rows += [(heading, command, [cell.strip() for cell in line.strip("|").split("|")]) for line in lines]
    return rows


def test_the_tables_list_all_recipes_with_their_claims_and_costs():
    told = {re.match(r"\[(\S+)\]\((\S+)\)", cells[0]).groups() for _, _, cells in table_rows()}
    assert told == {(name, f"{name}.yaml") for name in RECIPES}
    for _, _, (link, _, claim, crops, macs) in table_rows():
        parts = header(re.match(r"\[(\S+)\]", link)[1])
        numbers = re.findall(r"\d+\.\d+", claim)
        assert all(number in parts["Claim"] for number in numbers)
        assert numbers or parts["Claim"].startswith(("none", "more than 76"))
        assert f", {crops} in all, " in parts["Cost"]
        assert f": {macs} PMACs" in parts["Cost"]


@every_recipe
def test_a_recipe_stands_in_the_tables_of_its_protocols(name):
    """Each table has one protocol, and gives the command that scores under it."""
    sections = [(heading, command) for heading, command, cells in table_rows() if cells[0].startswith(f"[{name}]")]
    named = [heading.split("`")[1] for heading, _ in sections if heading.startswith("`")]
    told = re.split(r"[:,] ", header(name)["Protocol"])[0]
    assert named == ([told] if told in {*PUBLISHED, "test_server"} else [])
    assert ("own count" in header(name)["Protocol"]) == any(heading.startswith("Its own") for heading, _ in sections)
    for heading, command in sections:
        protocol = re.search(r"`papermill evaluate.ipynb -p run mine -p protocol (\w+)`", command)
        assert (protocol[1] in PUBLISHED) if protocol else ("save_predictions.ipynb" in command)
        if protocol and heading.startswith("`"):
            assert heading.startswith(f"`{protocol[1]}`")


def test_no_published_score_stands_under_another_protocol_than_in_the_notebooks():
    seen, scores = 0, published_scores()
    for heading, _, (_, source, claim, *_) in table_rows():
        for number in re.findall(r"\d+\.\d+", claim):
            same = [
                row.protocol
                for row in scores
                if row.mean_iou == round(float(number) / 100, 4) and row.source.split("/")[0].split()[0] in source
            ]
            assert all(heading.startswith(f"`{protocol}`") for protocol in same), (heading, number)
            seen += bool(same)
    assert seen > 15


BY_WORDS = {
    "`test_server`": "the official server, single scale",
    "Padded to 1025 x 2049": "whole images padded to 1025 x 2049, single scale",
    "Its own count": "its own count of whole images: void pixels count against a class",
}
"""The protocols of the tables that have no name of ours, as the published figures tell them."""


def published(name: str) -> list[Figure]:
    """The published mIoU of a recipe as it stands, without those of another's weights, stem, or best epoch."""
    figures = choose(published_figures(), recipe=name, metric="mIoU", changes="", part="")
    figures = [one for one in figures if one.details != "torchvision's stem" and "best of" not in one.variant]
    return [one for one in figures if one.data != "Cityscapes train" and one.table != "compression" or one.details]


def test_the_tables_claim_what_is_published_no_more_and_no_less():
    for heading, _, (link, _, claim, *_) in table_rows():
        name, title = re.match(r"\[(\S+)\]", link)[1], heading.split(":")[0]
        protocol = BY_WORDS.get(title, title.strip("`"))
        numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", claim)}
        assert numbers == {round(one.value, 2) for one in published(name) if one.protocol == protocol}, (name, heading)


@every_recipe
def test_a_header_claims_all_that_is_published(name):
    claim = header(name)["Claim"]
    assert all(f"{one.value:.2f}".rstrip("0").rstrip(".") in claim for one in published(name)), claim


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
