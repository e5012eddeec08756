"""A disk that fills, a real one, is one line and status 4; nothing good is lost, and the next run with room is whole.

The disks are small ones in memory, in a mount namespace of each test's own, of which the machine sees nothing.
"""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[2] / "support" / "full_disk.py"
APART = ["unshare", "--map-root-user", "--mount"]


@cache
def cannot_mount() -> str:
    """Why no small disk can be made here, "" where it can."""
    try:
        words = [*APART, "mount", "-t", "tmpfs", "-o", "size=4k", "disk", "/mnt"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def check(writer: str, data: Path, folder: Path, sizes: int) -> None:
    if why := cannot_mount():
        pytest.skip(f"no small disk can be mounted here: {why}")
    words = [*APART, sys.executable, str(SUPPORT), writer, str(data), str(folder), str(sizes)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    ends = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(ends) == sizes + 1
    assert 4 in {end["status"] for end in ends}
    for end in ends:
        if end["status"]:
            assert end["status"] == 4, end
            assert re.fullmatch(r"error: /.*: no space left to write it.*; free some and run again", end["said"]), end
        assert end["left"] == [], end
        assert end["same"] is True, end


@pytest.mark.parametrize("writer", ["shards", "cache"])
def test_a_disk_that_fills_is_one_line_and_loses_nothing(city, tmp_path, writer):
    check(writer, city, tmp_path / "out", 6)


@pytest.mark.parametrize("sizes", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_a_disk_that_fills_while_voc_is_unpacked_is_no_fault_of_its_archives(tmp_path, sizes):
    pytest.importorskip("scipy", reason="SBD's masks need scipy: pip install 'dlv3p[voc]'")
    from dlv3p.data.demo import write_demo_voc_archives

    write_demo_voc_archives(tmp_path / "archives")
    check("voc", tmp_path, tmp_path / "out", sizes)


@pytest.mark.slow
@pytest.mark.parametrize(
    "writer",
    ["zip", "animation", "evaluation", "masks", "export", "predictions", "onnx", "images", "checkpoints", "rename"],
)
def test_every_writer_loses_nothing_on_a_disk_that_fills(city, tmp_path, writer):
    check(writer, city, tmp_path / "out", 8)
