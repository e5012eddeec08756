"""Whatever somebody does to a run folder, the check names the file and what is wrong with it; it changes nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.tiny import tiny

from cityscapes.errors import BusyError, MissingInputError, StoppedError
from cityscapes.files.locks import lock_folder
from dlv3p.data import fingerprints as content_fingerprint
from dlv3p.data.roots import open_split
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs import provenance
from dlv3p.runs.__main__ import main
from dlv3p.runs.check import check_run
from dlv3p.runs.provenance import without_credentials
from dlv3p.runs.record import (
    COMMON_KEYS,
    DATA_KEYS,
    DETERMINISM_KEYS,
    ENVIRONMENT_KEYS,
    HASH_KEY,
    record_problems,
    write_record,
)
from dlv3p.train import train
from dlv3p.training.checkpoints import Checkpoints
from dlv3p.weights.checkpoint import load_checkpoint, model_from_checkpoint, save_checkpoint, save_weights

FILES = ("run.json", "metrics.csv", "model.safetensors", "checkpoints/last.pt", "checkpoints/best.pt")


@pytest.fixture(scope="module")
def finished(trained_once):
    """The folder of a finished run, of two epochs."""
    return trained_once[1].folder


@pytest.fixture
def folder(finished, tmp_path, monkeypatch):
    """A copy of the finished run, to tamper with."""
    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    return Path(shutil.copytree(finished, tmp_path / "saved" / "done"))


def errors(folder):
    return [(finding.kind, finding.where, finding.problem) for finding in findings(folder) if finding.is_error]


def findings(folder, **options):
    return check_run(folder, **options)[0]


def the_error(folder):
    """The only thing that is wrong, as one text."""
    found = errors(folder)
    assert len(found) == 1, found
    return ": ".join(found[0])


def edit_record(folder, change):
    """Change what run.json holds, and its hash with it, as somebody would who knows the format."""
    path = folder / "run.json"
    record = json.loads(path.read_text())
    change(record)
    write_record(path, record)


def edit_checkpoint(folder, name, change):
    """Change what a checkpoint holds, and its recorded hash with it, as somebody would who knows the format."""
    path = folder / "checkpoints" / f"{name}.pt"
    state = load_checkpoint(path)
    change(state)
    save_checkpoint(path, state)


def test_a_finished_run_is_complete_and_unchanged_and_stays_so(folder, capsys):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    assert main(["check", str(folder)]) == 0
    told = "complete and unchanged; compared names and sizes of 9 images and 0 masks of its data"
    assert capsys.readouterr().out.splitlines()[-1] == f"{folder}: {told}"
    assert before == {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("name", [*FILES, "checkpoints/best.pt.json"])
def test_a_file_that_is_gone_is_named_and_ends_with_3(folder, name, capsys):
    (folder / name).unlink()
    assert the_error(folder) == f"missing: done/{name}: does not exist"
    assert main(["check", "done"]) == 3
    assert capsys.readouterr().out.splitlines()[-1].endswith("saved/done: incomplete; errors found: 1")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 0.5], ids=["empty", "half"])
def test_a_file_that_is_cut_is_named_and_ends_with_6(folder, name, keep, capsys):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * keep)])
    assert the_error(folder).startswith(f"damaged: done/{name}: ")
    assert main(["check", "done"]) == 6
    assert capsys.readouterr().out.splitlines()[-1].endswith("saved/done: damaged; errors found: 1")


@pytest.mark.parametrize("name", FILES[2:])
def test_one_bit_is_found(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert the_error(folder).startswith(f"damaged: done/{name}: ")


RECORDS = {
    "a key less": (lambda record: record["git"].pop("remote"), "git.remote is missing"),
    "a wrong type": (lambda record: record["hardware"].update(cores="2"), "hardware.cores is '2', not a whole"),
    "no data": (lambda record: record.pop("data"), "data is missing"),
    "one split less": (lambda record: record["data"].pop("val"), "data.val is missing"),
    "a fingerprint less": (lambda record: record["data"]["val"].pop("fingerprint"), "data.val.fingerprint is missing"),
    "another seed": (lambda record: record["determinism"].update(seed=5), "determinism.seed is 5"),
    "a newer format": (lambda record: record.update(format=99), "format is 99"),
    "no parameter of ours": (lambda record: record["parameters"].update(colour="red"), "unknown parameter 'colour'"),
    "no continuations": (lambda record: record.pop("continued"), "continued is missing"),
    "half a continuation": (lambda record: record["continued"].append({"after_steps": 3}), "[0].started is missing"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), RECORDS.values(), ids=RECORDS)
def test_what_run_json_lacks_is_named(folder, change, said):
    edit_record(folder, change)
    found = errors(folder)
    assert any(said in problem for _, _, problem in found), found
    assert {(kind, where) for kind, where, _ in found} == {("damaged", "done/run.json")}


KEYS = (*COMMON_KEYS, *ENVIRONMENT_KEYS, *DETERMINISM_KEYS, *DATA_KEYS)


def test_every_key_of_run_json_is_asked_for(finished):
    record = json.loads((finished / "run.json").read_text())
    assert list(record_problems(record)) == []

    def leaves(content, path=()):
        for name, value in content.items():
            yield (*path, name)
            if isinstance(value, dict) and name != "parameters":
                yield from leaves(value, (*path, name))

    younger = {key.path.split(".")[-1] for key in KEYS if not key.required}
    paths = [path for path in leaves(record) if path[-1] not in younger]  # which other records of this version lack
    assert younger >= {HASH_KEY, "content"}
    assert len(paths) >= 45
    for *parents, name in paths:
        copy = json.loads(json.dumps(record))
        inner = copy
        for parent in parents:
            inner = inner[parent]
        del inner[name]
        assert list(record_problems(copy)), (*parents, name)
    assert {key.path for key in COMMON_KEYS} <= record.keys()


EDITED = {
    "hardware": lambda record: record["hardware"].update(cores=99),
    "versions": lambda record: record["versions"].update(torch="9.9"),
    "started": lambda record: record.update(started="2020-01-01T00:00:00+00:00"),
    "command": lambda record: record["command"].append("--more"),
    "git": lambda record: record["git"].update(changed=not record["git"]["changed"]),
    "determinism": lambda record: record["determinism"].update(threads=64),
}


@pytest.mark.parametrize("change", EDITED.values(), ids=EDITED)
def test_a_run_json_that_was_edited_is_found_out(folder, change, capsys):
    path = folder / "run.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    assert the_error(folder) == "damaged: done/run.json: was changed: its sha256 does not match"
    assert main(["check", "done"]) == 6


def test_blanks_and_the_order_of_keys_are_no_edit(folder):
    path = folder / "run.json"
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert errors(folder) == []


def test_a_run_json_of_before_has_no_hash_which_is_worth_a_note(folder, capsys):
    path = folder / "run.json"
    record = json.loads(path.read_text())
    del record[HASH_KEY]
    path.write_text(json.dumps(record))
    assert main(["check", "done"]) == 0
    assert "note: no hash: 1" in capsys.readouterr().out


@pytest.mark.parametrize("edited", [False, True])
def test_going_on_does_not_make_an_edited_run_json_look_unchanged(city, workspace, monkeypatch, edited):
    stop = {"calls": 0}

    def stop_once(run, asked):
        stop["calls"] += 1
        if stop["calls"] == 4:  # in the second epoch
            raise StoppedError("here")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "after_step", stop_once)
        with pytest.raises(StoppedError):
            train(tiny(city, run="run"))
    folder = workspace / "saved" / "run"
    assert findings(folder)  # it has still to go on
    path = folder / "run.json"
    if edited:
        path.write_text(path.read_text().replace('"cores": ', '"cores": 9'))
    train(tiny(city, run="run"))
    assert len(json.loads(path.read_text())["continued"]) == 1
    assert [where for _, where, _ in errors(folder)] == ["run/run.json"] * edited


@pytest.mark.parametrize("text", ['{"format": NaN}', '{"format": 2, "format": 2}', "[]", "[" * 100_000])
def test_json_that_others_would_not_read_is_damaged(folder, text):
    (folder / "run.json").write_text(text)
    assert the_error(folder).startswith("damaged: done/run.json: cannot be read")


def test_other_parameters_or_classes_than_those_of_run_json_are_named(folder):
    edit_record(folder, lambda record: record["parameters"].update(learning_rate=0.5))
    assert {problem for _, _, problem in errors(folder)} == {"its parameters are not those of run.json: learning_rate"}
    edit_record(
        folder, lambda record: record["parameters"].update(learning_rate=TrainParameters().learning_rate, threads=7)
    )
    assert errors(folder) == []  # threads do not say what is trained
    edit_record(folder, lambda record: record["class_names"].reverse())
    assert {problem for _, _, problem in errors(folder)} == {"its class_names are not those of run.json"}


def test_a_checkpoint_of_another_run_is_found_out(folder):
    edit_checkpoint(folder, "best", lambda state: state["model"]["classifier.bias"].add_(1))
    assert "damaged: done/model.safetensors: its weights are not those of checkpoints/best.pt" in the_error(folder)


def test_a_value_that_is_no_number_is_named(folder):
    edit_checkpoint(folder, "last", lambda state: state["model"]["classifier.bias"].fill_(torch.nan))
    assert "checkpoints/last.pt: model.classifier.bias holds a value" in the_error(folder)


def test_weights_that_do_not_fit_their_network_are_damage(folder):
    edit_checkpoint(folder, "last", lambda state: state["model"].pop("classifier.bias"))
    assert "checkpoints/last.pt: does not describe its network" in the_error(folder)


def test_other_weights_to_share_are_found_out(folder):
    state = load_checkpoint(folder / "checkpoints" / "best.pt")
    model, parameters = model_from_checkpoint(state)
    model.classifier.bias.data += 1
    metadata = {"class_names": state["class_names"], "parameters": parameters.as_dict()}
    save_weights(folder / "model.safetensors", model, metadata)
    assert "model.safetensors: its weights are not" in the_error(folder)
    model, _ = model_from_checkpoint(state)
    save_weights(folder / "model.safetensors", model, metadata | {"class_names": state["class_names"][::-1]})
    assert "model.safetensors: its class_names are not" in the_error(folder)


METRICS = {
    "another header": (lambda lines: [lines[0].replace("val_mIoU", "mIoU"), *lines[1:]], "its header is not"),
    "half a line": (lambda lines: [*lines[:-1], lines[-1][:-1]], "its last line is incomplete"),
    "an epoch less": (lambda lines: lines[:-1], "has 1 epochs, but checkpoints/last.pt has 2"),
    "an epoch twice": (lambda lines: [*lines, lines[-1]], "has 3 epochs"),
    "a better score": (lambda lines: [*lines[:-1], lines[-1].replace("2,", "2,0", 1)], "line 3 differs from"),
    "a column less": (lambda lines: [*lines[:-1], lines[-1].rsplit(",", 1)[0] + "\n"], "line 3 differs from"),
}


@pytest.mark.parametrize(("change", "said"), METRICS.values(), ids=METRICS)
def test_what_is_wrong_with_metrics_is_named(folder, change, said):
    path = folder / "metrics.csv"
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
    assert said in the_error(folder)
    assert "done/metrics.csv" in the_error(folder)


def test_a_history_with_a_gap_and_a_best_of_another_epoch_are_found_out(folder):
    edit_checkpoint(folder, "last", lambda state: state["history"][0].update(epoch=7))
    assert any("its epochs are not 1, 2, 3" in problem for _, _, problem in errors(folder))
    edit_checkpoint(folder, "last", lambda state: (state["history"][0].update(epoch=1), state.update(best_epoch=9)))
    assert any("the best of checkpoints/last.pt is 9" in problem for _, _, problem in errors(folder))


def test_a_run_that_has_still_to_go_on_is_not_complete(city, workspace, finished):
    folder = workspace / "saved" / "done"
    shutil.copytree(finished, folder)
    for change in (lambda state: state["parameters"].update(epochs=5),) * 2:
        for name in ("last", "best"):
            edit_checkpoint(folder, name, change)
    edit_record(folder, lambda record: record["parameters"].update(epochs=5))
    (folder / "model.safetensors").unlink()
    assert the_error(folder) == "missing: done/checkpoints/last.pt: 2 of 5 epochs are finished"


def test_what_a_killed_writer_leaves_is_named(folder):
    (folder / "checkpoints" / ".last.pt.123.0badcafe.tmp").write_bytes(b"half")
    assert the_error(folder).startswith("left over: done/checkpoints/.last.pt.123.0badcafe.tmp")


def test_what_is_left_in_a_linked_folder_is_named_too(folder, tmp_path):
    (folder / "checkpoints").rename(tmp_path / "large disk")
    (folder / "checkpoints").symlink_to(tmp_path / "large disk")
    assert errors(folder) == []
    (tmp_path / "large disk" / "last.pt.bad").write_bytes(b"half")
    assert the_error(folder).startswith("left over: done/checkpoints/last.pt.bad")


def test_a_variance_below_zero_is_named(folder):
    edit_checkpoint(folder, "last", lambda state: state["model"]["aspp.pool.bn.running_var"].fill_(-1))
    assert "checkpoints/last.pt: model.aspp.pool.bn.running_var holds a variance below zero" in the_error(folder)


def test_a_save_that_was_cut_between_its_two_files_is_told_as_such(folder):
    path = folder / "checkpoints" / "last.pt"
    content = path.read_bytes()
    edit_checkpoint(folder, "last", lambda state: state.update(scaler={"more": 1}))
    path.write_bytes(content)  # the record is that of the new one, the file still the old one
    assert "missing: done/checkpoints/last.pt: is older than its record" in the_error(folder)


def test_an_executed_notebook_is_looked_at_too(folder):
    path = folder / "train.ipynb"
    output = {"output_type": "error", "ename": "InputError", "evalue": "", "traceback": []}
    for cells, said in (([], None), ([{"outputs": [output]}], "a cell failed: InputError")):
        path.write_text(json.dumps({"cells": cells}))
        assert [problem for _, _, problem in errors(folder)] == [said] * bool(said)
    path.write_text("{")
    assert "train.ipynb: not a notebook" in the_error(folder)


def test_changed_data_and_code_are_notes(folder, city, tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(city, tmp_path / "copy")
    edit_record(folder, lambda record: [entry.update(root=str(copy)) for entry in record["data"].values()])
    image = next((copy / "leftImg8bit" / "val").rglob("*.png"))
    image.write_bytes(image.read_bytes() + b"\0")
    monkeypatch.setattr("dlv3p.runs.inputs.git_commit", lambda: "0123456789abcdef")
    monkeypatch.setattr("dlv3p.runs.inputs.lock_sha256", lambda: "fedcba9876543210")
    notes = {finding.kind: finding for finding in reversed(findings(folder)) if "masks" not in finding.kind}
    assert {"data changed", "code changed", "versions changed"} <= notes.keys()
    assert notes["data changed"].problem.startswith("changed since the run began: images")
    assert not any(finding.is_error for finding in notes.values())
    shutil.rmtree(copy)
    assert "data missing" in {finding.kind for finding in findings(folder)}
    assert main(["check", "done"]) == 0
    assert "note: data missing: 2" in capsys.readouterr().out


def test_masks_are_compared_too(folder, city, monkeypatch, tmp_path, finished):
    shutil.copytree(finished.parents[1] / "data", tmp_path / "data", dirs_exist_ok=True)
    assert not [finding for finding in findings(folder) if finding.kind.startswith(("data", "masks"))]
    masks = sorted((tmp_path / "data" / "generated_gt" / "val").rglob("*_labelTrainIds.png"))
    masks[0].write_bytes(masks[0].read_bytes() + b"\0")
    assert [finding.problem for finding in findings(folder) if finding.kind == "data changed"] == [
        "changed since the run began: masks"
    ]
    masks[0].unlink()
    assert "masks missing" in {finding.kind for finding in findings(folder)}


@pytest.mark.parametrize("kind", ["leftImg8bit/train/**/*.png", "leftImg8bit/val/**/*.png", "masks"])
def test_a_byte_of_the_data_is_found_by_who_asks_for_every_byte(
    folder, city, tmp_path, monkeypatch, finished, kind, capsys
):
    shutil.copytree(finished.parents[1] / "data", tmp_path / "data", dirs_exist_ok=True)
    copy = shutil.copytree(city, tmp_path / "copy")
    edit_record(folder, lambda record: [entry.update(root=str(copy)) for entry in record["data"].values()])
    assert main(["check", "done", "--data"]) == 0
    told = "; compared every byte of 9 images and 9 masks of its data"
    assert capsys.readouterr().out.splitlines()[-1].endswith(told)
    masks = (tmp_path / "data" / "generated_gt").rglob("*_labelTrainIds.png")
    path = min(masks if kind == "masks" else copy.glob(kind))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert main(["check", "done"]) == 0
    assert main(["check", "done", "--data"]) == 6
    assert "changed since the run began: content of files" in capsys.readouterr().out


def test_data_whose_content_nobody_recorded_cannot_be_compared_byte_by_byte(folder, capsys):
    edit_record(folder, lambda record: [entry.pop("content") for entry in record["data"].values()])
    assert main(["check", "done"]) == 0
    assert main(["check", "done", "--data"]) == 6
    assert "its content was not recorded" in capsys.readouterr().out


def test_files_that_are_as_they_were_are_not_read_again(city, workspace, monkeypatch):
    split, read = open_split(city, "train"), []
    digest = content_fingerprint.hashlib.file_digest
    monkeypatch.setattr(content_fingerprint, "WORTH_REMEMBERING", 0)
    monkeypatch.setattr(
        content_fingerprint.hashlib, "file_digest", lambda file, name: read.append(file.name) or digest(file, name)
    )
    first = content_fingerprint.content_fingerprint(split)
    assert len(read) == 2 * len(split)
    assert content_fingerprint.content_fingerprint(split) == first
    assert len(read) == 2 * len(split)
    mask = split.mask_path(0)
    mask.write_bytes(mask.read_bytes())
    os.utime(mask, ns=(1, 1))
    assert content_fingerprint.content_fingerprint(split) == first
    assert read[2 * len(split) :] == [str(mask)]
    assert content_fingerprint.content_fingerprint(split, remembered=False) == first
    assert len(read) == 4 * len(split) + 1
    monkeypatch.setattr(content_fingerprint, "LARGEST", 100)
    assert content_fingerprint.content_fingerprint(split) is None


def test_a_missing_run_and_one_in_training_are_refused(folder):
    with pytest.raises(MissingInputError, match="no such run folder"):
        main(["check", "another"])
    with lock_folder(folder), pytest.raises(BusyError, match=r"process \d+ on .* is training it"):
        check_run(folder)
    assert errors(folder) == []


def test_an_imported_network_needs_no_history(folder):
    """As `dlv3p.runs.imported` leaves one."""

    def strip(record):
        for name in ("data", "determinism", "continued"):
            del record[name]
        record["imported"] = {"file": "x.pth"}

    edit_record(folder, strip)
    (folder / "metrics.csv").unlink()
    for name in ("last", "best"):
        edit_checkpoint(folder, name, lambda state: [state.pop(key) for key in ("history", "optimizer", "best_epoch")])
    assert errors(folder) == []
    (folder / "model.safetensors").unlink()
    assert the_error(folder) == "missing: done/model.safetensors: does not exist"


def test_help_is_quick_because_it_loads_no_torch():
    check = (
        "import sys\nfrom dlv3p.runs.__main__ import main\ntry: main(['check', '--help'])\nexcept SystemExit: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", check + "assert 'torch' not in sys.modules"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"complete and unchanged" in done.stdout


@pytest.mark.parametrize(
    ("remote", "kept"),
    [
        ("https://me:secret@example.org:8443/a/b.git", "https://example.org:8443/a/b.git"),
        ("https://token@example.org/a.git?key=secret#x", "https://example.org/a.git"),
        ("ssh://git@example.org/a.git", "ssh://example.org/a.git"),
        ("git@example.org:a/b.git", "example.org:a/b.git"),
        ("/srv/git/a.git", "/srv/git/a.git"),
    ],
)
def test_no_credentials_of_a_remote_are_recorded(remote, kept, monkeypatch):
    assert without_credentials(remote) == kept
    monkeypatch.setattr(provenance, "_ask_git", lambda *words: remote + "\n" if words[0] == "remote" else None)
    assert provenance._git()["remote"] == kept
