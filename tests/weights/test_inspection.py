"""What is said of a file, at the command line too, and that a file cannot forge it."""

import re

import numpy as np
import pytest
import torch
from support.public_files import network_of, refusal, run_command_line
from torchvision import models

from cityscapes.errors import IntegrityError, ParameterError
from cityscapes.files.untrusted import sanitize
from dlv3p.models.deeplab import build_network
from dlv3p.parameters.network import NetworkParameters
from dlv3p.weights.describe import describe
from dlv3p.weights.loading import load_model
from dlv3p.weights.names import to_theirs
from dlv3p.weights.reading import read_weights
from dlv3p.weights.recognition import recognize
from dlv3p.weights.sources import SOURCES


def test_a_description_says_what_a_person_asks(vainf, tmp_path):
    score = {"best_score": np.float64(0.76), "cur_itrs": 30_000, "optimizer_state": {"state": {}, "param_groups": []}}
    torch.save({"model_state": vainf, **score}, tmp_path / "best_os16.pth")
    lines = describe(recognize(read_weights(tmp_path / "best_os16.pth")))
    assert lines["source"] == "VainF/DeepLabV3Plus-Pytorch"
    assert (lines["backbone"], lines["norm"]) == ("resnet18", "batch")
    assert lines["classes"].startswith("21 (background, aeroplane")
    assert lines["output stride"] == "16, from the file's name; the weights fit any"
    assert lines["also holds"] == "best_score=0.76, cur_itrs=30000, optimizer_state (2 entries)"
    assert re.fullmatch("[0-9a-f]{64}", lines["sha256"])
    learned = sum(value.numel() for value in build_network(network_of("vainf_plus", "resnet"), 21).parameters())
    assert lines["parameters"].startswith(f"{learned:,} in ")
    assert "channels=32" in lines["switches"]


FORGED = "evil\nfits           every entry\x1b[31m\u202e\x07" + "x" * 5000


def test_names_in_a_file_forge_no_output(vainf, tmp_path):
    """Neither a second line, nor a color, nor a page: in refusals, and in what is said of a sound file."""
    network = NetworkParameters(backbone="resnet18", channels=16)
    model = build_network(network, 3)
    own = {"epoch": 1, "parameters": network.as_dict(), "class_names": [FORGED] * 3, "format": 1, FORGED: FORGED}
    torch.save(own | {"model": model.state_dict()}, tmp_path / "own.pt")
    said = list(describe(recognize(read_weights(tmp_path / "own.pt"))).values())
    parameters = network.as_dict() | {FORGED: 1}
    for number, content in enumerate(
        [
            vainf | {FORGED: torch.zeros(1)},
            vainf | {FORGED: torch.zeros(1), f"module.{FORGED}": torch.zeros(1)},
            vainf | {"backbone.conv1.weight": torch.zeros(*[1] * 40, 10**3)},
            {FORGED: torch.zeros(1)},
            {FORGED: 3, "a": torch.zeros(1)},
            {FORGED: torch.zeros(1).expand(9, 9)},
            own | {"parameters": parameters, "model": model.state_dict()},
            own | {"parameters": network.as_dict() | {"backbone": FORGED}, "model": model.state_dict()},
            own | {"widths": {FORGED: 1}, "model": model.state_dict()},
        ]
    ):
        said.append(refusal(content, tmp_path / f"{number}.pth"))
    np.savez(tmp_path / "a.npz", **{FORGED[:90]: np.array(["no number"])})
    with pytest.raises(IntegrityError) as refused:
        load_model(tmp_path / "a.npz")
    for line in [*said, str(refused.value)]:
        assert line.isprintable()
        assert len(line) < 700


def test_a_name_is_shown_with_escapes_and_cut():
    assert sanitize("backbone.conv1.weight") == "backbone.conv1.weight"
    assert sanitize("Straße/\u4e2d") == "Straße/\u4e2d"
    assert sanitize("a\nb\x1b[0m\ud800") == r"a\nb\x1b[0m\ud800"
    assert sanitize("x" * 80) == "x" * 80
    assert sanitize("x" * 81) == "x" * 77 + "..."
    assert len(sanitize("\x1b" * 79)) == 80


def test_a_backbone_alone_is_inspected_to_its_last_entry(tmp_path, capsys, monkeypatch):
    torch.manual_seed(2)
    grouped = build_network(NetworkParameters(backbone="resnet50", norm="group"), 2).backbone.state_dict()
    wrapped = {f"module.{key}": value for key, value in grouped.items()}
    for name, state in (
        ("resnet18", models.resnet18().state_dict()),
        ("mobilenet_v2", models.mobilenet_v2().state_dict()),
        ("resnet50", wrapped),
    ):
        torch.save(state, tmp_path / "a.pth")
        assert run_command_line(monkeypatch, "inspect", tmp_path / "a.pth") == 0
        printed = capsys.readouterr().out
        assert name in printed
        assert "every entry matches in name and shape" in printed
        assert ("standardized or not, which the file does not show" in printed) == (state.keys() == wrapped.keys())
    state = models.resnet18().state_dict()
    state["layer2.0.bn1.running_var"][5] = -1
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(IntegrityError, match=r"1 of its tensors are variances below zero, the first layer2.0.bn1.runn"):
        run_command_line(monkeypatch, "inspect", tmp_path / "a.pth")
    state = models.resnet18().state_dict()
    state["layer3.0.conv9.weight"] = state.pop("layer3.0.conv2.weight")
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(
        IntegrityError, match=r"does not fit resnet18.*missing \(layer3.0.conv2.*unknown \(layer3.0.conv9"
    ):
        run_command_line(monkeypatch, "inspect", tmp_path / "a.pth")


def test_the_command_inspects_converts_and_refuses(vainf, tmp_path, capsys, monkeypatch):
    def run(*words):
        return run_command_line(monkeypatch, *words)

    torch.save({"model_state": vainf}, tmp_path / "a.pth")
    assert run("inspect", tmp_path / "a.pth") == 0
    printed = capsys.readouterr().out
    assert "VainF/DeepLabV3Plus-Pytorch" in printed
    assert "every entry matches" in printed
    assert run("convert", tmp_path / "a.pth", tmp_path / "b.safetensors", "--output-stride", 8) == 0
    again = load_model(tmp_path / "b.safetensors")
    assert again.parameters.output_stride == 8
    assert torch.equal(again.model.classifier.bias, vainf["classifier.classifier.3.bias"])
    with pytest.raises(ParameterError, match=r"\.safetensors"):
        run("convert", tmp_path / "a.pth", tmp_path / "b.pth")
    with pytest.raises(ParameterError, match=r"b\.safetensors: is the file to convert"):
        run("convert", tmp_path / "b.safetensors", tmp_path / "b.safetensors")
    torch.save({"strange.weight": torch.zeros(3)}, tmp_path / "c.pth")
    with pytest.raises(IntegrityError, match=r"strange\.weight.*VainF"):
        run("inspect", tmp_path / "c.pth")
    short = {name: value for name, value in vainf.items() if name != "backbone.conv1.weight"}
    torch.save(short, tmp_path / "d.pth")
    with pytest.raises(IntegrityError, match=r"missing \(backbone\.conv1\.weight\)"):
        run("inspect", tmp_path / "d.pth")


def over(kind: str, state: dict, beginning: str) -> dict:
    """The head of a file over another backbone, by the names and shapes with which that begins."""
    backbones = {
        "HRNet": {
            "conv1.weight": (64, 3, 3, 3),
            "conv2.weight": (64, 64, 3, 3),
            "layer1.0.conv1.weight": (64, 64, 1, 1),
            "transition1.0.0.weight": (32, 256, 3, 3),
            "stage2.0.branches.0.0.conv1.weight": (32, 32, 3, 3),
        },
        "Xception": {"conv1.weight": (32, 3, 3, 3), "block12.rep.1.conv1.weight": (728, 1, 3, 3)},
    }
    head = {name: value for name, value in state.items() if not name.startswith("backbone.")} if beginning else {}
    return head | {f"{beginning}{name}": torch.zeros(shape) for name, shape in backbones[kind].items()}


@pytest.mark.parametrize("kind", ["HRNet", "Xception"])
@pytest.mark.parametrize("wrapper", ["", "module."])
def test_a_backbone_of_vainf_that_is_not_supported_is_refused_by_its_name(vainf, tmp_path, kind, wrapper):
    state = {f"{wrapper}{name}": value for name, value in over(kind, vainf, "backbone.").items()}
    message = refusal({"model_state": state}, tmp_path / "a.pth")
    assert f"its backbone is {kind}, which is not supported here; of VainF/DeepLabV3Plus-Pytorch, files over" in message
    assert "resnet152" not in message


def test_imagenet_weights_of_hrnet_are_not_taken_for_those_of_a_resnet(tmp_path):
    message = refusal({"state_dict": over("HRNet", {}, "")}, tmp_path / "a.pth")
    assert "its backbone is HRNet" in message


@pytest.mark.parametrize(
    ("key", "norm", "standardized", "said", "other"),
    [
        ("chenxi116", "group", False, "standardized, as its source", "never"),
        ("chenxi116", "batch", True, "not standardized, as its source", "always"),
        ("vainf_plus", "group", True, "not standardized, since the code of its source never does that", "always"),
    ],
)
def test_what_no_name_shows_of_standardized_weights_is_said_and_can_be_corrected(
    tmp_path, capsys, monkeypatch, key, norm, standardized, said, other
):
    network = network_of(key, "resnet", norm=norm, weight_standardization="always" if standardized else "never")
    torch.manual_seed(7)
    model = build_network(network, 21).eval()
    names = SOURCES[key].names
    torch.save({to_theirs(name, names): value for name, value in model.state_dict().items()}, tmp_path / "a.pth")
    image = torch.randn(1, 3, 65, 65)
    assert run_command_line(monkeypatch, "inspect", tmp_path / "a.pth") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("weights")]
    assert line.split(maxsplit=1)[1].startswith(said)
    assert line.endswith(f"--weight-standardization {other}")
    options = ("--weight-standardization", other)
    assert run_command_line(monkeypatch, "convert", tmp_path / "a.pth", tmp_path / "b.safetensors", *options) == 0
    capsys.readouterr()
    with torch.inference_mode():
        expected = model(image)
        assert torch.equal(load_model(tmp_path / "b.safetensors").model(image), expected)
        corrected = load_model(tmp_path / "a.pth", weight_standardization=other)
        assert torch.equal(corrected.model(image), expected)
        assert not torch.allclose(load_model(tmp_path / "a.pth").model(image), expected)
    assert run_command_line(monkeypatch, "inspect", tmp_path / "a.pth", *options) == 0
    assert f"{'standardized' if standardized else 'not standardized'}, as asked for;" in capsys.readouterr().out
