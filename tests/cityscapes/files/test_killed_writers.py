"""A writer that is killed at any moment leaves nothing once it has run again, and then has the same result."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[2] / "support" / "killed_writers.py"


WRITERS = ["zip", "shards", "animation", "cache", "evaluation", "masks", "export", "predictions", "onnx"]


def tried(writer: str, data: Path, folder: Path, every: int) -> dict:
    words = [sys.executable, str(SUPPORT), writer, str(data), str(folder), str(every)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("writer", ["animation", "evaluation", "predictions"])
def test_a_small_writer_leaves_nothing(city, tmp_path, writer):
    found = tried(writer, city, tmp_path, 7 if writer == "predictions" else 3)
    assert found["moments"] >= 5
    assert all(found["same"])
    assert found["temporary"] == []


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_a_rename_is_completed_by_the_next_one_whenever_it_was_killed(tmp_path, every):
    found = tried("rename", tmp_path, tmp_path / "out", every)
    assert found["moments"] >= 8  # the record's write, its fsync, and three folders
    assert all(found["same"])


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_leaves_nothing_whenever_it_was_killed(city, tmp_path, writer):
    found = tried(writer, city, tmp_path, 1)
    assert found["moments"] >= 5
    assert all(found["same"])
    assert found["temporary"] == []


@pytest.mark.slow
def test_a_preparation_of_voc_leaves_nothing_whenever_it_was_killed(tmp_path):
    pytest.importorskip("scipy", reason="SBD's masks need scipy: pip install 'dlv3p[voc]'")
    from dlv3p.data.demo import write_demo_voc_archives

    write_demo_voc_archives(tmp_path / "archives")
    found = tried("voc", tmp_path, tmp_path / "out", 7)
    assert found["moments"] >= 5
    assert all(found["same"])
    assert found["temporary"] == []


@pytest.mark.slow
def test_a_launcher_leaves_no_folder_whenever_it_was_killed(city, tmp_path):
    found = tried("launch", city, tmp_path, 1)
    assert found["moments"] >= 3
    assert all(found["same"])
    assert found["temporary"] == []
