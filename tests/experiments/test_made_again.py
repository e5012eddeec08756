"""What notebooks made of a run is made again and compared byte by byte, and what was tampered with is named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from cityscapes.files.checksums import file_sha256
from cityscapes.workspace import NOTEBOOKS, output_folder
from dlv3p.experiments.made_again import PRODUCTS, make_again, read_makings
from dlv3p.experiments.replay import NotIdenticalError, main
from dlv3p.jupyter.executed_copy import seal, what_is_used
from dlv3p.parameters.notebooks import EvaluateParameters, RenderGifParameters
from dlv3p.runs.folders import write_json

FILES = {
    "evaluation": "evaluation.json",
    "masks": "predictions/val-best-0123abcd/city/a_labelIds.png",
    "zip": "submission_val.zip",
    "animation": "val.gif",
}


def write_files(workspace: Path) -> Path:
    """What the notebooks make, in short: a file of each kind; the JSON names the workspace and a checkpoint."""
    folder = workspace / "outputs" / "done"
    checkpoint = file_sha256(workspace / "saved" / "done" / "checkpoints" / "best.pt")
    for name in FILES.values():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".json":
            made_from = {"checkpoint_sha256": checkpoint}
            write_json(path, {"data_root": f"{workspace}/data/demo_city", "mIoU": 0.5, "made_from": made_from})
        else:
            path.write_bytes(name.encode())
    return folder


def executed(name: str, kind: type, parameters: dict, copy: Path, **facts: object) -> Path:
    """An executed notebook as papermill leaves it, sealed as the engine does."""
    ended = {"end_time": "2026-01-01T00:00:00", "exception": None, "input_path": f"notebooks/{name}.ipynb"}
    notebook = nbformat.v4.new_notebook(metadata={"dlv3p": {"parameters": kind.__name__}})
    notebook.metadata["papermill"] = {"parameters": parameters, **ended, **facts}
    seal(notebook, what_is_used(kind.from_mapping(parameters)))
    copy.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, copy)
    return copy


@pytest.fixture
def compared(trained, tmp_path):
    """A function that compares the files of the run, as they are now, with those that are made again."""
    folder, there = write_files(trained.folder.parents[1]), tmp_path / "there"
    (there / "saved" / "done" / "checkpoints").mkdir(parents=True)
    (there / "saved" / "done" / "checkpoints" / "best.pt").write_bytes(b"the same weights, trained at another time")
    executed("render_gif", RenderGifParameters, {"run": "done"}, folder / "render_gif.ipynb")
    yield folder, lambda: make_again("done", there, lambda words: write_files(there))
    shutil.rmtree(folder)


def test_what_is_made_again_is_identical_wherever_the_workspace_is_and_whenever_it_was_trained(compared):
    _, compare = compared
    assert compare() == (dict.fromkeys(PRODUCTS, ""), {})


@pytest.mark.parametrize("kind", FILES)
def test_one_file_that_is_tampered_with_is_named_alone(compared, kind):
    folder, compare = compared
    path = folder / FILES[kind]
    path.write_bytes(path.read_bytes().replace(b"5", b"6") + b" ")
    assert compare().results == {**dict.fromkeys(PRODUCTS, ""), kind: f"{path}: not the same bytes"}


def test_a_mask_that_is_missing_or_that_nothing_makes_is_named(compared):
    folder, compare = compared
    mask = folder / FILES["masks"]
    other = shutil.copy(mask, mask.with_name("b_labelIds.png"))
    assert compare().results["masks"] == f"{other} is not made again"
    mask.unlink()
    assert compare().results["masks"] == f"{mask} is missing"


def test_what_no_notebook_accounts_for_is_not_compared_and_says_so(compared):
    folder, compare = compared
    (folder / "submission_val.zip").unlink()
    copy = folder / "render_gif.ipynb"
    copy.write_text(copy.read_text().replace("2026-01", "2026-02"))
    results, left_out = compare()
    assert results == {}
    assert left_out["zip"] == "none there"
    assert left_out["animation"] == f"no unchanged executed notebook says how {folder / 'val.gif'} was made"


def test_only_what_came_to_its_end_over_the_network_counts_each_once_and_in_order(compared, city):
    folder, _ = compared
    given = {"run": "done", "data_root": str(city)}
    executed("evaluate", EvaluateParameters, given, folder / "evaluate.ipynb", end_time="2026-01-03T00:00:00")
    executed("evaluate", EvaluateParameters, given, folder.with_name("demo") / "4_evaluate.ipynb")
    executed("render_gif", RenderGifParameters, {"width": 480}, folder / "wide.ipynb", end_time="2026-01-02T00:00:00")
    executed("render_gif", RenderGifParameters, {"run": "done", "width": 240}, folder / "a.ipynb", exception=True)
    executed("render_gif", RenderGifParameters, {"run": "other"}, folder / "b.ipynb")
    executed("mine", RenderGifParameters, {"run": "done", "width": 240}, folder / "c.ipynb")
    found = [(making.notebook.stem, making.parameters.run, making.given) for making in read_makings("done")]
    usual = {"run": "done", "progress": "none"}
    assert found == [
        ("render_gif", "done", usual),
        ("render_gif", "done", usual | {"width": 480}),
        ("evaluate", "done", usual | {"data_root": str(city)}),
    ]
    shutil.rmtree(folder.with_name("demo"))


@pytest.mark.slow
def test_a_replay_makes_masks_zip_animation_and_evaluation_again_to_the_same_bytes(trained, capsys):
    for name, words in {"evaluate": [], "save_predictions": [], "render_gif": ["-p", "frames", "2"]}.items():
        notebook = NOTEBOOKS / f"{name}.ipynb"
        subprocess.run([sys.executable, "-m", "papermill", notebook, "-p", "run", "done", *words], check=True)
    assert main(["done", "--quiet"]) == 0
    assert "metrics of 2 epochs, evaluation, masks, zip, animation" in capsys.readouterr().out
    folder = output_folder("done")
    mask = min(folder.glob("predictions/*/*/*.png"))
    for path in (mask, folder / "submission.zip", folder / "val.gif"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(NotIdenticalError, match=f"masks: {mask}: not the same bytes"):
        main(["done", "--quiet"])
    assert json.loads((folder / "evaluation.json").read_text())["run"] == "done"
