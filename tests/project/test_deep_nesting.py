"""JSON and YAML nested without end is one line for a user, or a file that is not there: never a traceback."""

import pytest

from cityscapes.demo import city
from cityscapes.demo.city import DESCRIPTION
from cityscapes.errors import UserError
from cityscapes.files.checksums import check_recorded, read_json
from cityscapes.masks import report
from cityscapes.submissions.manifest import compare_with_manifest, manifest_path
from dlv3p.compression import pruned_run, quantization
from dlv3p.data import write_shards
from dlv3p.data.shards import open_shards
from dlv3p.evaluation.comparison import read_evaluations
from dlv3p.jupyter import papermill_words
from dlv3p.parameters.files import read_config, read_value
from dlv3p.pictures import curves
from dlv3p.profiling import report as profile_report
from dlv3p.profiling import sweep
from dlv3p.runs.bands import read_band
from dlv3p.runs.record import read_record

DEEP = "[" * 100_000 + "]" * 100_000

READERS = {
    "config.json": read_config,
    "config.yaml": read_config,
    "train/index.json": lambda path: open_shards(path.parents[1], "train"),
    "shards/index.json": lambda path: write_shards._known_shards(path.parent),
    "shards/.a.tar.json": lambda path: write_shards._known_shards(path.parent),
    "saved/a/run.json": lambda path: curves._read_facts(path),
    "saved/b/run.json": read_record,
    "saved/c/pruning/settings.json": lambda path: pruned_run._read(path, path.parents[1]),
    "saved/d-int8/quantization.json": lambda path: quantization.load_quantized("d"),
    "outputs/a/evaluation.json": lambda path: read_evaluations(["a"]),
    "outputs/b/evaluation.json": profile_report._scored,
    "outputs/b/sweep.json": sweep._unfinished_rows,
    "best.pt.json": lambda path: check_recorded(path.with_suffix(""), ""),
    "band.json": read_band,
    "any.json": read_json,
    "a.ipynb": papermill_words.parameters_class,
    DESCRIPTION: lambda path: city._found(path.parent),
    report.RECORD: lambda path: report._read(path.parent),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_gets_to_the_end_of_brackets_without_one(name, workspace):
    path = workspace / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(DEEP)
    told = ""
    try:
        READERS[name](path)
    except UserError as refusal:
        told = str(refusal)
    except ValueError as refusal:
        told = str(refusal) if READERS[name] is read_json else "a traceback\n"
    assert "\n" not in told


def test_a_manifest_of_nested_brackets_is_a_finding(workspace):
    path = workspace / "a.zip"
    manifest_path(path).write_text(DEEP)
    assert "not a readable manifest" in compare_with_manifest(path, {})[0]


def test_a_nested_value_on_the_command_line_names_its_parameter():
    with pytest.raises(UserError, match="epochs=.*cannot be read as a YAML value"):
        read_value("epochs", DEEP[:20_000])
