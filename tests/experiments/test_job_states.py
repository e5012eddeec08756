"""A job is finished where its executed notebook is whole and of the network that is there now, and nowhere else."""

import json
import os
import shutil

import nbformat
import pytest
import yaml
from PIL import Image

from cityscapes.files.checksums import record_path
from cityscapes.workspace import run_folder
from dlv3p.data.roots import open_images
from dlv3p.experiments.grid import read_sweep
from dlv3p.experiments.jobs import read_job
from dlv3p.jupyter.executed_copy import seal, what_is_used
from dlv3p.runs.folders import checkpoint_path
from dlv3p.runs.record import read_record, write_record

TIMES = {"start_time": "2026-01-01T00:00:00", "end_time": "2026-01-01T00:01:00", "exception": None}


@pytest.fixture
def job(trained_once, workspace):
    """A finished evaluation of a finished run."""
    shutil.copytree(trained_once[0] / "saved", workspace / "saved")
    path = workspace / "mine.yaml"
    path.write_text(yaml.safe_dump({"notebook": "evaluate", "fixed": {"run": "done"}, "grid": {"threads": [1, 2]}}))
    job = read_sweep(path).jobs[0]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 + 1")])
    notebook.metadata |= {"dlv3p": {"parameters": "x"}, "papermill": {**TIMES, "parameters": dict(job.values)}}
    notebook.cells[0].outputs.append(nbformat.v4.new_output("stream", text="mIoU 0.5\n"))
    seal(notebook, what_is_used(job.parameters))
    job.copy.parent.mkdir(parents=True)
    nbformat.write(notebook, job.copy)
    return job


def rewrite(job, change):
    content = json.loads(job.copy.read_text())
    change(content)
    job.copy.write_text(json.dumps(content))


def other_network(job):
    for path in (checkpoint_path("done", "best"), checkpoint_path("done", "last")):
        path.write_bytes(path.read_bytes() + b"more")
        record_path(path).unlink()
        os.utime(path, (0, 0))  # older than the notebook


CHANGES = {
    "nothing": (lambda job: None, "finished"),
    "indentation": (lambda job: rewrite(job, lambda content: None), "finished"),
    "a copy of an earlier version": (lambda job: rewrite(job, lambda c: c["metadata"].pop("dlv3p")), "finished"),
    "an output": (lambda job: rewrite(job, lambda c: c["cells"][0]["outputs"][0].update(text=["mIoU 0.9\n"])), "new"),
    "a cell": (lambda job: rewrite(job, lambda c: c["cells"].clear()), "new"),
    "the end of the file": (lambda job: job.copy.write_bytes(job.copy.read_bytes()[:-9]), "new"),
    "another network": (other_network, "new"),
    "no network": (lambda job: checkpoint_path("done", "best").unlink(), "new"),
    "no run": (lambda job: shutil.rmtree(checkpoint_path("done", "best").parents[1]), "new"),
}


def test_a_use_of_a_run_on_data_that_was_mended_since_is_to_be_done_again(job, city, tmp_path):
    def resealed():
        content = nbformat.read(job.copy, as_version=4)
        seal(content, what_is_used(job.parameters))
        nbformat.write(content, job.copy)

    root = shutil.copytree(city, tmp_path / "data")
    record = run_folder("done") / "run.json"
    known = read_record(record)
    write_record(record, {**known, "parameters": {**known["parameters"], "data_root": str(root)}})
    assert read_job(job).state == "finished"  # of a copy of the data
    path = open_images(root, "val").image_path(0)
    then = path.stat()
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    state = read_job(job).state
    resealed()
    assert (state, read_job(job).state) == ("new", "finished")
    rewrite(job, lambda content: content["metadata"]["dlv3p"]["executed"].pop("data_sha256"))  # an earlier version's
    assert read_job(job).state == "finished"


@pytest.mark.parametrize(("change", "state"), CHANGES.values(), ids=CHANGES)
def test_a_use_of_a_run_is_finished_only_as_it_was_executed(job, change, state):
    change(job)
    assert read_job(job).state == state


def test_a_copy_of_an_earlier_version_is_stale_without_its_run(job):
    rewrite(job, lambda content: content["metadata"].pop("dlv3p"))
    checkpoint_path("done", "best").unlink()
    assert read_job(job).state == "new"
