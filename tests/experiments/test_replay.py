"""A replay says "identical", or names what differs: each recorded field, tampered with, is named."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from support.exactness import outcome

from cityscapes.errors import InputError, IntegrityError, MissingInputError
from dlv3p.experiments import replay as replaying
from dlv3p.experiments.differences import KINDS, compare_records, name_altered_fields
from dlv3p.experiments.replay import NotIdenticalError, main, replay
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.record import read_record, write_record
from dlv3p.train import train

NOT_COMPARED = ("format", "sha256", "run", "started", "command", "git.branch", "git.remote", "continued")
"""What may be another without making another run."""


@pytest.fixture
def record(trained) -> dict:
    return read_record(trained.folder / "run.json")


def leaves(content: dict, inside: str = "") -> dict[str, object]:
    found = {}
    for name, value in content.items():
        found |= leaves(value, f"{inside}{name}.") if isinstance(value, dict) else {f"{inside}{name}": value}
    return found


def test_each_recorded_field_that_is_tampered_with_is_named_alone(record):
    named = name_altered_fields(record)
    assert (named["altered"] == named["named"]).all()
    left_out = {field for field in set(leaves(record)) - set(named["altered"]) if not field.endswith(".root")}
    assert left_out == {*NOT_COMPARED, "parameters.run", "parameters.train_list"}  # whose images `data` identifies
    assert set(named["kind"]) == set(KINDS)


def test_likely_causes_come_first_and_a_resumption_elsewhere_counts(record):
    now = json.loads(json.dumps(record))
    now["versions"]["torch"], now["git"]["commit"] = "0.1", "f" * 40
    other = {**json.loads(json.dumps(record)), "after_steps": 7}
    other["hardware"]["processor"] = "another"
    found = compare_records({**record, "continued": [other]}, now)
    assert [one.field for one in found] == ["git.commit", "hardware.processor", "versions.torch"]
    assert str(found[1]).startswith("hardware: hardware.processor was another (since step 7), is ")


def test_a_run_is_executed_again_to_the_same_bits_and_is_left_as_it_was(trained, capsys, monkeypatch, tmp_path):
    before = outcome(trained.folder)
    monkeypatch.chdir(tmp_path)
    assert main(["saved/done", "--quiet"]) == 0
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert verdict.startswith(
        "done: identical: weights of the best epoch, weights of the last epoch, metrics of 2 epochs"
    )
    assert verdict.endswith("; not compared: evaluation, masks, zip, animation (none there)")
    assert outcome(trained.folder) == before


def test_what_comes_after_a_training_is_not_advised_for_its_copy(tmp_path, capsys):
    said = "epoch 1/1\nsaved/done\n\nWhat to do next:\npapermill evaluate.ipynb -p run done\n"
    replaying._execute([sys.executable, "-c", f"print({said!r})"], tmp_path / "done", tmp_path, quiet=False)
    assert capsys.readouterr().out == "epoch 1/1\n"


def altered_copy(trained, name: str, **parameters: object) -> Path:
    """A copy of the run whose record claims other parameters, with a hash that fits."""
    folder = shutil.copytree(trained.folder, trained.folder.with_name(name))
    record = read_record(folder / "run.json")
    record["parameters"] |= parameters
    record["determinism"] |= {name: value for name, value in parameters.items() if name == "seed"}
    write_record(folder / "run.json", record)
    return folder


def test_another_seed_is_not_identical_and_is_the_first_thing_that_differs(trained, monkeypatch):
    def train_here(record, folder, workspace, *, quiet):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DLV3P_WORKSPACE", str(workspace))
            return train(TrainParameters.from_mapping(record["parameters"])).folder

    monkeypatch.setattr(sys.modules["dlv3p.experiments.replay"], "_train", train_here)
    altered_copy(trained, "claimed", seed=1)
    told = r"^claimed: not identical \(weights of the best epoch: not the same bits\); the first thing that differs: "
    with pytest.raises(NotIdenticalError, match=told + r"seed: parameters.seed was 1, is 0"):
        main(["claimed", "--quiet"])
    shutil.rmtree(trained.folder.with_name("claimed"))


def test_a_record_that_was_edited_is_refused(trained):
    folder = shutil.copytree(trained.folder, trained.folder.with_name("edited"))
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"threads": 1', '"threads": 2', 1))
    with pytest.raises(IntegrityError, match="run.json"):
        replay("edited")


def test_what_cannot_be_replayed_says_why(trained):
    with pytest.raises(MissingInputError, match="run='none': no such run"):
        replay("none")
    folder = shutil.copytree(trained.folder, trained.folder.with_name("half"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="run='half': is not finished, epoch 2 of 2; finish it first"):
        replay("half")
    write_record(folder / "run.json", read_record(folder / "run.json") | {"imported": {"file": "a.pt"}})
    with pytest.raises(InputError, match="was imported from a file, so there is no training to replay"):
        replay("half")
