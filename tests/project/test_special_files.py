"""A folder, a pipe or a device in the place of a file is one line for every reader, and never a wait without end."""

import os
import signal
from pathlib import Path

import pytest

from cityscapes.dataset import Split
from cityscapes.errors import UserError
from cityscapes.files.checksums import file_sha256, read_json, read_recorded
from cityscapes.files.images import inspect_picture, read_ids, read_image
from cityscapes.files.locks import holder_of, lock_folder
from cityscapes.files.stamps import is_made_from
from cityscapes.label_files import read_label_table
from cityscapes.submissions.check import check_submission
from dlv3p.data.class_table import read_class_table
from dlv3p.data.roots import open_images
from dlv3p.data.voc import read_list
from dlv3p.evaluation.candidates import read_groups
from dlv3p.evaluation.image_counts import read_image_counts
from dlv3p.parameters.files import read_config
from dlv3p.runs.record import read_record
from dlv3p.weights.reading import read_weights

READERS = {
    "sha256": file_sha256,
    "json": read_json,
    "recorded": read_recorded,
    "image": read_image,
    "header": inspect_picture,
    "submission": lambda path: check_submission(path, expected=()),
    "mask": read_ids,
    "label table": read_label_table,
    "classes": read_class_table,
    "list": lambda path: read_list(path, path.parent, images="i", masks="m"),
    "groups": lambda path: read_groups(path, ["a"]),
    "counts": read_image_counts,
    "config": read_config,
    "run.json": read_record,
    "weights": read_weights,
    "split": lambda path: Split.image_bytes(type("One", (), {"image_path": lambda self, index: path})(), 0),
}


@pytest.fixture(params=["folder", "pipe", "device"])
def path(request: pytest.FixtureRequest, tmp_path: Path):
    """What is no file; a reader that waits for it is ended."""
    path = tmp_path / "found"
    make = {"folder": Path.mkdir, "pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero")}
    make[request.param](path)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("a reader waits"))
    signal.alarm(20)
    yield path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_one_line(path: Path, reader: str) -> None:
    with pytest.raises(UserError, match="found") as caught:
        READERS[reader](path)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_nothing_where_none_is_needed(path: Path) -> None:
    assert not is_made_from(path, b"")


def test_a_lock_that_is_no_file_is_one_line(path: Path) -> None:
    path.rename(path.with_name(".lock"))
    with pytest.raises(UserError, match=".lock: is a"), lock_folder(path.parent):
        pass
    with pytest.raises(UserError, match=".lock: is a"):
        holder_of(path.parent)


def test_a_record_that_is_no_file_is_one_line(path: Path) -> None:
    path.rename(path.with_name("a.png.json"))
    path.with_name("a.png").write_bytes(b"content")
    with pytest.raises(UserError, match="a.png.json: is a"):
        read_recorded(path.with_name("a.png"))


def test_a_pipe_among_the_images_of_a_data_set_is_named(tmp_path: Path) -> None:
    (tmp_path / "images" / "val").mkdir(parents=True)
    (tmp_path / "classes.csv").write_text("id,name\n0,road\n1,sky\n")
    os.mkfifo(tmp_path / "images" / "val" / "a.png")
    with pytest.raises(UserError, match="a.png: is a pipe, a socket or a device, where a file is expected"):
        open_images(tmp_path, "val").image(0)
