"""`dlv3p runs list` says how far every run is, from anywhere; remove and rename touch runs and nothing else."""

import csv
import errno
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from support.terminal import in_terminal
from support.tiny import tiny

from cityscapes.errors import BusyError, IntegrityError, MachineError, MissingInputError, ParameterError
from cityscapes.files.checksums import write_recorded
from cityscapes.files.leftovers import temporary_folder
from cityscapes.files.locks import lock_folder
from dlv3p.jupyter.executed_copy import add_header
from dlv3p.parameters.notebooks import EvaluateParameters
from dlv3p.runs.__main__ import main
from dlv3p.runs.check import check_run
from dlv3p.runs.listing import COLUMNS, format_runs, read_state, remove_run, rename_run
from dlv3p.runs.record import add_to_record, read_record
from dlv3p.train import train

DLV3P = str(Path(sys.executable).with_name("dlv3p"))


@pytest.fixture
def runs(trained_once, tmp_path, monkeypatch) -> Path:
    """A folder saved/ with a finished run, "done", and one that was stopped after its first epoch, "half"."""
    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    saved = tmp_path / "saved"
    shutil.copytree(trained_once[1].folder, saved / "done")
    shutil.copytree(trained_once[1].folder, saved / "half")
    (saved / "half" / "model.safetensors").unlink()
    metrics = saved / "half" / "metrics.csv"
    write_recorded(metrics, "".join(metrics.read_text().splitlines(keepends=True)[:2]).encode())
    record = read_record(saved / "half" / "run.json")
    changed = {"seed": 7, "learning_rate": 0.01, "threads": 2}
    add_to_record(saved / "half" / "run.json", record, run="half", parameters=record["parameters"] | changed)
    return saved


def listed(capsys) -> dict[str, dict[str, str]]:
    """The table that the command prints, by run and column; columns are at least two spaces apart."""
    assert main(["list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    starts = [head.index(name) for name in COLUMNS]
    cells = [[line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for line in lines]
    return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in cells}


def test_a_temporary_folder_of_another_command_is_no_run(runs, capsys):
    """While the cost of a training is measured, there is one beside the runs."""
    with temporary_folder("dlv3p-trial", runs):
        assert listed(capsys).keys() == {"done", "half"}


def test_the_table_has_state_epochs_score_data_and_what_differs(runs, capsys):
    done, half = (listed(capsys)[name] for name in ("done", "half"))
    assert (done["state"], done["epoch"], done["left"]) == ("finished", "2/2", "-")
    assert (half["state"], half["epoch"]) == ("stopped", "1/2")
    scores = [float(row["val_mIoU"]) for row in csv.DictReader((runs / "done" / "metrics.csv").open())]
    assert done["val mIoU"] == f"{max(scores):.3f}"
    assert half["val mIoU"] == f"{scores[0]:.3f}"
    assert half["data"].endswith("city0")
    assert half["differs in"] == "learning_rate=0.01, seed=7"  # not the threads, which change no result
    assert done["differs in"] == f"learning_rate={tiny().learning_rate}, seed=0"


def test_a_run_that_was_stopped_within_its_first_epoch_is_stopped(runs, capsys):
    metrics = runs / "half" / "metrics.csv"
    metrics.unlink()
    metrics.with_name("metrics.csv.json").unlink()
    assert (listed(capsys)["half"]["state"], listed(capsys)["half"]["epoch"]) == ("stopped", "0/2")
    shutil.rmtree(runs / "half" / "checkpoints")
    assert listed(capsys)["half"]["state"] == "not started"


def test_what_most_runs_share_is_not_repeated_in_each_line(runs, capsys):
    for name in ("third", "fourth"):
        shutil.copytree(runs / "done", runs / name)
    shown = listed(capsys)
    assert shown["half"]["differs in"] == "learning_rate=0.01, seed=7"
    assert {shown[name]["differs in"] for name in ("done", "third", "fourth")} == {"-"}


def test_a_run_in_progress_is_seen_from_another_process_with_the_time_left(runs):
    with lock_folder(runs / "half"):
        status, shown = in_terminal(DLV3P, "runs", "list", "half")
        state = read_state("half")
    assert status == 0, shown
    assert "training" in shown
    assert state.seconds_left == pytest.approx(
        float(next(csv.DictReader((runs / "half" / "metrics.csv").open()))["seconds"])
    )
    assert read_state("half").state == "stopped"


def test_damaged_new_and_foreign_folders_are_listed_as_what_they_are(runs, capsys):
    (runs / "new").mkdir()
    shutil.copytree(runs / "done", runs / "torn")
    (runs / "torn" / "run.json").write_text("{")
    shutil.copytree(runs / "done", runs / "no_csv")
    (runs / "no_csv" / "metrics.csv").write_text("epoch,seconds\n1,x\n")
    (runs / "q-int8").mkdir()
    (runs / "q-int8" / "quantization.json").write_text("{}")
    table = listed(capsys)
    states = {run: table[run]["state"] for run in ("new", "torn", "no_csv", "q-int8")}
    assert states == {"new": "not started", "torn": "damaged", "no_csv": "damaged", "q-int8": "8 bits"}


def test_without_a_run_the_list_says_how_to_make_one(workspace, capsys):
    assert main(["list"]) == 0
    assert "no run yet; train.ipynb" in capsys.readouterr().out


def test_listing_needs_no_torch(runs):
    code = "import sys\nfrom dlv3p.runs.__main__ import main\nmain(['list'])\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_remove_asks_in_a_terminal_and_deletes_only_after_a_yes(runs):
    (runs.parent / "outputs" / "half").mkdir(parents=True)
    bash = f"echo n | script -qec '{DLV3P} runs remove half' /dev/null"
    if not shutil.which("script"):
        pytest.skip("needs script(1), to type into a terminal")
    shown = subprocess.run(["bash", "-c", bash], capture_output=True, text=True, check=False).stdout
    assert "Remove " in shown
    assert "[y/N]" in shown
    assert "half: kept" in shown
    assert (runs / "half").is_dir()
    subprocess.run(["bash", "-c", bash.replace("echo n", "echo y")], capture_output=True, check=True)
    assert not (runs / "half").exists()
    assert (runs / "done").is_dir()
    assert (runs.parent / "outputs" / "half").is_dir()


def test_remove_without_a_terminal_needs_yes(runs, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(ParameterError, match="give --yes to remove it"):
        main(["remove", "half"])
    (runs.parent / "outputs" / "half").mkdir(parents=True)
    assert main(["remove", "half", "--yes", "--outputs"]) == 0
    assert not (runs / "half").exists()
    assert not (runs.parent / "outputs" / "half").exists()
    assert capsys.readouterr().out.count(": removed\n") == 2


def test_results_that_are_being_written_are_not_removed(runs):
    folder = runs.parent / "outputs" / "half" / "predict_photos"
    with (
        lock_folder(folder),
        pytest.raises(BusyError, match="predict_photos: .* is writing here; .* --outputs"),
    ):
        remove_run("half", outputs=True)
    assert (runs / "half").is_dir()
    remove_run("half", outputs=True)
    assert not folder.exists()


def test_an_edited_record_or_table_is_damage_and_no_score(runs, capsys):
    path = runs / "half" / "metrics.csv"
    path.write_text(path.read_text().replace("0.", "0.9"))
    assert read_state("half").state == "damaged"
    record = runs / "done" / "run.json"
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 1'))
    assert read_state("done").state == "damaged"


@pytest.mark.parametrize("name", ["", ".", "..", "../saved", "/etc", "done/checkpoints", "nosuch"])
def test_nothing_but_a_run_is_removed_or_renamed(runs, name):
    before = sorted(runs.parent.rglob("*"))
    for change in (lambda: remove_run(name), lambda: rename_run(name, "other")):
        with pytest.raises((ParameterError, MissingInputError)):
            change()
    assert sorted(runs.parent.rglob("*")) == before


def test_a_folder_without_a_run_is_left_as_it_is(runs):
    (runs / "mine").mkdir()
    (runs / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(MissingInputError, match="holds no run"):
        remove_run("mine")
    assert (runs / "mine" / "notes.txt").read_text() == "keep"


def test_a_run_whose_record_cannot_be_read_is_not_renamed_by_half(runs):
    (runs / "half" / "run.json").write_text("{")
    with pytest.raises(IntegrityError, match=r"half/run.json: cannot be read \(not valid JSON at line 1"):
        rename_run("half", "other")
    assert (runs / "half").is_dir()
    assert not (runs / "other").exists()


def test_a_folder_here_is_not_taken_for_the_run_of_its_name(runs, tmp_path, monkeypatch, capsys):
    (tmp_path / "here" / "done").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert main(["check", "done"]) == 0
    assert f"{runs / 'done'}: complete and unchanged" in capsys.readouterr().out


def test_a_run_in_progress_is_neither_removed_nor_renamed(runs):
    with lock_folder(runs / "half"):
        for change in (lambda: remove_run("half"), lambda: rename_run("half", "other")):
            with pytest.raises(BusyError, match="run='half'"):
                change()
    assert (runs / "half" / "run.json").is_file()


def test_a_renamed_run_is_complete_and_goes_on_under_its_new_name(runs, city, capsys):
    (runs.parent / "outputs" / "done").mkdir(parents=True)
    (runs.parent / "outputs" / "done" / "evaluation.json").write_text("{}")
    assert main(["rename", "done", "better"]) == 0
    assert "give run='better'" in capsys.readouterr().out
    assert not (runs / "done").exists()
    assert (runs.parent / "outputs" / "better" / "evaluation.json").is_file()
    assert json.loads((runs / "better" / "run.json").read_text())["run"] == "better"
    assert [finding for finding in check_run(runs / "better")[0] if finding.is_error] == []
    result = train(tiny(city, run="better", image_scale=0.5))
    assert (result.run, len(result.history)) == ("better", 2)


def interrupted(runs: Path, monkeypatch, moved: str) -> None:
    """Begin to rename "done" to "better", and end before the folder `moved`/done moves."""
    rename = Path.rename

    def refuse(path: Path, new: Path) -> Path:
        if path.parent.name == moved:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, new)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(
            MachineError, match=rf"{moved}/done: cannot be renamed to better \(.*cross-device.*same again"
        ):
            rename_run("done", "better")


@pytest.mark.parametrize("moved", ["outputs", "saved"])
def test_an_interrupted_rename_goes_on_and_no_other_begins_before(runs, monkeypatch, moved):
    outputs = runs.parent / "outputs"
    (outputs / "done").mkdir(parents=True)
    (outputs / "done" / "evaluation.json").write_text("{}")
    interrupted(runs, monkeypatch, moved)
    if moved == "saved":
        with pytest.raises(ParameterError, match="first: dlv3p runs rename done better"):
            rename_run("done", "third")
    rename_run("done", "better")
    assert (outputs / "better" / "evaluation.json").is_file()
    assert (runs / "better" / "model.safetensors").is_file()
    assert not (runs / "done").exists()
    assert not (outputs / "done").exists()


def test_the_links_of_executed_notebooks_lead_to_the_renamed_run(runs):
    (runs.parent / "outputs" / "done").mkdir(parents=True)
    copies = (runs.parent / "outputs" / "done" / "evaluate.ipynb", runs / "done" / "train.ipynb")
    for copy in (*copies, *copies):  # the second time, each is beside the other
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title")])
        notebook.metadata["papermill"] = {"input_path": copy.name}
        add_header(notebook, EvaluateParameters(run="done"), copy)
        nbformat.write(notebook, copy)
    rename_run("done", "better")
    found = {}
    for copy in (runs.parent / "outputs" / "better" / "evaluate.ipynb", runs / "better" / "train.ipynb"):
        for title, target in re.findall(r"\[([^][]*)\]\(([^)]*)\)", copy.read_text()):
            found[copy.stem, title] = (copy.parent / target).resolve()
    assert found == {
        ("evaluate", "train"): runs / "better" / "train.ipynb",
        ("evaluate", "saved/better/"): runs / "better",
        ("train", "evaluate"): runs.parent / "outputs" / "better" / "evaluate.ipynb",
        ("train", "saved/better/"): runs / "better",
    }


def test_results_of_another_run_are_in_the_way_of_a_rename_also_of_one_that_goes_on(runs, monkeypatch):
    outputs = runs.parent / "outputs"
    (outputs / "done").mkdir(parents=True)
    interrupted(runs, monkeypatch, "outputs")
    (outputs / "better").mkdir()
    for taken in (outputs / "better", runs / "better"):
        taken.mkdir(exist_ok=True)
        with pytest.raises(ParameterError, match=f"{taken}: exists already"):
            rename_run("done", "better")
        taken.rmdir()
    assert (runs / "done" / "run.json").is_file()


def test_quantized_networks_are_renamed_with_their_run_and_not_alone(runs, monkeypatch):
    (runs / "done-int8").mkdir()
    (runs / "done-int8" / "quantization.json").write_text("{}")
    with pytest.raises(ParameterError, match="renamed together with their run"):
        rename_run("done-int8", "other")
    with lock_folder(runs / "done-int8"), pytest.raises(BusyError):
        rename_run("done", "better")
    assert json.loads((runs / "done" / "run.json").read_text())["run"] != "better"
    assert [folder.name for folder in rename_run("done", "better")] == ["better-int8", "better"]
    assert (runs / "better-int8" / "quantization.json").is_file()


def test_results_without_a_record_are_not_renamed_since_nothing_would_remember_it(runs):
    (runs / "done" / "run.json").unlink()
    (runs.parent / "outputs" / "done").mkdir(parents=True)
    with pytest.raises(MissingInputError, match=r"done/run.json: does not exist, .*restore it first"):
        rename_run("done", "better")
    (runs.parent / "outputs" / "done").rmdir()
    assert rename_run("done", "better") == [runs / "better"]


@pytest.mark.parametrize("name", ["half", "", "a/b", "trained_demo"])
def test_a_run_is_not_renamed_to_what_is_taken_or_no_name(runs, name):
    with pytest.raises(ParameterError):
        rename_run("done", name)
    assert (runs / "done" / "run.json").is_file()


def test_the_lines_of_the_table_end_without_spaces(runs):
    lines = format_runs([read_state("done"), read_state("half")])
    assert len(lines) == 3
    assert all(line == line.rstrip() for line in lines)
