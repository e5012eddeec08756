"""Shards hold the files unchanged, in the same bytes every time; training from them equals training from the files."""

import io
import json
import logging
import os
import pickle
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from cityscapes.errors import InputError, IntegrityError, MachineError, MissingInputError
from dlv3p.data import shards as sharded
from dlv3p.data import write_shards as shards
from dlv3p.data.augment import Augmentation
from dlv3p.data.fingerprints import data_fingerprint, image_fingerprint, labels_fingerprint
from dlv3p.data.loader import TrainingSamples, training_loader
from dlv3p.data.parts import Part
from dlv3p.data.roots import open_images, open_split
from dlv3p.data.shards import is_sharded, open_shards
from dlv3p.data.write_shards import check_shards, main, write_shards

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CROP = Augmentation(32, 48, color_jitter=0.3)


@pytest.fixture
def split(city, workspace):
    return open_split(city, "train")


@pytest.fixture
def written(split, tmp_path):
    write_shards(split, tmp_path / "shards", samples=4)
    return tmp_path / "shards"


def epoch(split, *, workers=0):
    loader = training_loader(TrainingSamples(split, CROP, seed=3), batch_size=2, workers=workers)
    loader.sampler.epoch = 2
    return [tensor for batch in loader for tensor in batch]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_files_and_names_and_classes_come_back_unchanged(split, written):
    opened = open_shards(written, "train")
    assert len(opened) == len(split) == 6
    assert opened.class_names == tuple(split.class_names)
    assert (opened.colors[:19] == split.colors[:19]).all()
    assert data_fingerprint(opened) == data_fingerprint(split)
    for index in range(6):
        assert opened.name(index) == split.name(index)
        assert opened.image_bytes(index) == split.image_path(index).read_bytes()
        assert (opened.mask(index) == split.mask(index)).all()
        assert opened.pair(index)[0].tobytes() == split.image(index).tobytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_from_shards_equals_one_from_files_bit_for_bit(split, written, workers):
    assert same(epoch(split), epoch(open_shards(written, "train"), workers=workers))


def test_the_order_in_which_shards_were_written_changes_no_sample(split, tmp_path):
    write_shards(split, tmp_path / "shuffled", samples=2, order_seed=5)
    index = json.loads((tmp_path / "shuffled" / "train" / "index.json").read_text())
    assert [sample["index"] for shard in index["shards"] for sample in shard["samples"]] != list(range(6))
    assert same(epoch(split), epoch(open_shards(tmp_path / "shuffled", "train")))


def test_the_same_data_gives_the_same_bytes(split, written, tmp_path):
    write_shards(split, tmp_path / "again", samples=4)
    assert contents(written / "train") == contents(tmp_path / "again" / "train")
    assert sorted(contents(written / "train")) == ["index.json", "train-000000.tar", "train-000001.tar"]


def test_a_webdataset_reader_finds_the_files(split, written):
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted((written / "train").glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [json.loads(sample["json"])["name"] for sample in samples] == [split.name(index) for index in range(6)]
    assert samples[3]["png"] == split.image_path(3).read_bytes()
    assert samples[3]["mask.png"] == split.mask_path(3).read_bytes()


def test_members_are_plain_files_without_owner_or_time(written):
    with tarfile.open(written / "train" / "train-000000.tar") as tar:
        assert {(m.isreg(), m.mtime, m.uid, m.gid, m.mode) for m in tar} == {(True, 0, 0, 0, 0o644)}


def test_masks_that_differ_from_their_file_are_stored_as_classes(split, tmp_path, monkeypatch):
    masks = [split.mask(index) for index in range(6)]
    monkeypatch.setattr(split, "mask", lambda index: np.where(masks[index] == 0, 5, masks[index]).astype(np.uint8))
    write_shards(split, tmp_path / "shards")
    opened = open_shards(tmp_path / "shards", "train")
    assert all((opened.mask(index) == split.mask(index)).all() for index in range(6))


def test_images_without_masks_can_be_written_and_predicted_but_not_trained_on(city, workspace, tmp_path):
    write_shards(open_images(city, "test"), tmp_path / "shards")
    opened = open_shards(tmp_path / "shards", "test", labeled=False)
    assert not opened.has_mask(0)
    assert opened.image(0).size == (128, 64)
    with pytest.raises(MissingInputError, match="has no mask"):
        opened.mask(0)
    with pytest.raises(InputError, match="2 of 2 images have no mask"):
        open_shards(tmp_path / "shards", "test")


def test_finished_shards_are_kept_and_damaged_or_changed_ones_written_again(split, written):
    first, second = (written / "train" / f"train-00000{number}.tar" for number in range(2))
    before = contents(written / "train")
    second.write_bytes(second.read_bytes()[:-1])
    kept = first.stat().st_ino
    write_shards(split, written, samples=4)
    assert contents(written / "train") == before
    assert first.stat().st_ino == kept
    write_shards(split, written, samples=4, force=True)
    assert first.stat().st_ino != kept


def repaint(path, gray):
    """Write an image, or another one of equal size and time."""
    times = path.stat() if path.exists() else None
    Image.new("RGB" if "images" in path.parts else "L", (16, 8), gray).save(path, compress_level=0)
    if times:
        assert path.stat().st_size == times.st_size
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_what_is_made_of_files_that_changed_to_others_of_equal_size_and_time_is_made_again(tmp_path, workspace):
    root = tmp_path / "own"
    image, mask = (root / kind / "train" / "a.png" for kind in ("images", "masks"))
    for path in (image, mask):
        path.parent.mkdir(parents=True)
    (root / "classes.csv").write_text("id,name\n0,road\n1,sky\n")
    repaint(image, (7, 7, 7))
    repaint(mask, 0)
    for path, gray in ((image, (8, 8, 8)), (mask, 1)):
        split = open_split(root, "train")
        before = [len(split), image_fingerprint(split, 0), labels_fingerprint(split, version="1")]
        write_shards(split, tmp_path / "shards")
        repaint(path, gray)
        split = open_split(root, "train")
        assert [len(split), image_fingerprint(split, 0), labels_fingerprint(split, version="1")] != before
        write_shards(split, tmp_path / "shards")
        opened = open_shards(tmp_path / "shards", "train")
        assert opened.image(0).tobytes() == split.image(0).tobytes()
        assert opened.mask(0).tobytes() == split.mask(0).tobytes()


def test_shards_are_written_again_when_the_class_table_changes(split, written, monkeypatch):
    made = []
    write = shards._write_shard
    monkeypatch.setattr(shards, "_write_shard", lambda *arguments: made.append(1) or write(*arguments))
    write_shards(split, written, samples=4)
    assert not made
    split.class_names = split.class_names[::-1]  # in a mask of colors, other ids
    write_shards(split, written, samples=4)
    assert len(made) == len(list((written / "train").glob("*.tar")))


def test_writing_that_was_interrupted_goes_on_with_the_shards_that_are_finished(split, tmp_path, monkeypatch):
    write, done = shards._write_shard, []

    def dies(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments)
        return write(*arguments)

    monkeypatch.setattr(shards, "_write_shard", dies)
    with pytest.raises(KeyboardInterrupt):
        write_shards(split, tmp_path / "shards", samples=2)
    assert not is_sharded(tmp_path / "shards", "train")
    monkeypatch.setattr(shards, "_write_shard", lambda *arguments: done.append(arguments) or write(*arguments))
    write_shards(split, tmp_path / "shards", samples=2)
    assert len(done) == 3
    assert len(open_shards(tmp_path / "shards", "train")) == 6


def test_shards_of_an_earlier_call_do_not_stay_for_those_who_read_all_of_a_folder(split, tmp_path):
    folder = write_shards(split, tmp_path, samples=1).parent
    (folder / "mine.tar").touch()
    assert len(list(folder.glob("*.tar"))) == len(split) + 1
    write_shards(split, tmp_path, samples=len(split))
    assert sorted(path.name for path in folder.glob("*.tar")) == ["mine.tar", f"{split.split}-000000.tar"]


def test_a_split_within_another_one_can_be_written_and_read(split, tmp_path):
    inner = Part(split, [1, 0], "val/inner")
    write_shards(inner, tmp_path, samples=1)
    assert check_shards(tmp_path / "val" / "inner") == []
    read = open_shards(tmp_path, "val/inner")
    assert np.array_equal(read.mask(0), split.mask(1))
    assert not list((tmp_path / "val" / "inner").glob(".val*"))


def test_a_full_disk_leaves_no_shard_and_no_index(split, tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards._HashingWriter, "write", full)
    with pytest.raises(MachineError, match="no space left"):
        write_shards(split, tmp_path / "shards")
    assert not (tmp_path / "shards" / "train").exists()


def test_l5_a_truncated_shard_is_reported_with_both_hashes(written):
    path = written / "train" / "train-000001.tar"
    expected = shards._sha256(path)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(IntegrityError) as caught:
        open_shards(written, "train").image(5)
    assert all(part in str(caught.value) for part in ("train-000001.tar", expected, shards._sha256(path)))
    assert caught.value.exit_status == 6


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_l5_a_flipped_bit_is_reported_with_both_hashes(written, kind):
    path = written / "train" / "train-000000.tar"
    expected, content = shards._sha256(path), bytearray(path.read_bytes())
    index = json.loads((written / "train" / "index.json").read_text())
    _, offset, size, _ = index["shards"][0]["samples"][2][kind]
    content[offset + size // 2] ^= 16
    path.write_bytes(content)
    opened = open_shards(written, "train")
    opened.pair(1)
    with pytest.raises(IntegrityError, match=f"train-000000.tar: .*{expected}.*{shards._sha256(path)}"):
        opened.pair(2)


@pytest.mark.parametrize("workers", [0, 1])
def test_l5_a_run_stops_with_the_same_line_from_a_worker(written, workers):
    path = written / "train" / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(IntegrityError, match=r"train-000000.tar: has \d+ bytes, not \d+; sha256 expected") as caught:
        epoch(open_shards(written, "train"), workers=workers)
    assert "\n" not in str(caught.value)


def test_l5_an_index_that_points_beyond_the_end_is_refused_before_anything_is_read(written):
    path = written / "train" / "index.json"
    index = json.loads(path.read_text())
    index["shards"][1]["samples"][1]["image"][1] = 10**9
    del index["content_sha256"]
    path.write_text(json.dumps(index))
    with pytest.raises(IntegrityError, match=r"ends at byte 10000\d+ of train-000001.tar, which has"):
        open_shards(written, "train")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2, "shards": [1]}', "\0"])
def test_l5_a_damaged_index_is_refused(written, content):
    (written / "train" / "index.json").write_text(content)
    with pytest.raises(IntegrityError, match="not an index of shards"):
        open_shards(written, "train")


def test_an_index_cannot_lead_out_of_its_folder(written):
    path = written / "train" / "index.json"
    content = json.loads(path.read_text().replace('"train-000000.tar"', '"../../secret.tar"'))
    del content["content_sha256"]
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="is not the name of a file beside it"):
        open_shards(written, "train")


def test_check_finds_what_is_damaged_or_gone(written, capsys):
    assert main(["check", "--root", str(written)]) == 0
    first, second = (written / "train" / f"train-00000{number}.tar" for number in range(2))
    content = bytearray(first.read_bytes())
    content[-1] ^= 1
    first.write_bytes(content)
    second.unlink()
    faults = check_shards(written / "train")
    assert len(faults) == 2
    assert "found no file" in faults[1]
    with pytest.raises(IntegrityError, match="2 shards differ from what was written"):
        main(["check", "--root", str(written)])


def test_the_command_writes_and_says_where(city, workspace, tmp_path):
    command = [sys.executable, "-m", "dlv3p.shards", "write", "--root", city, "--split", "val", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(tmp_path / "val" / "index.json")
    assert len(open_shards(tmp_path, "val")) == 3


def test_shards_are_recognized_by_their_index(written, city):
    assert is_sharded(written)
    assert is_sharded(written, "train")
    assert not is_sharded(written, "val")
    assert not is_sharded(city)
    with pytest.raises(MissingInputError, match=r"val/index.json: no such file"):
        open_shards(written, "val")


@pytest.fixture(scope="module")
def s3_server():
    """Moto's server of the S3 protocol on the loopback, with the settings by which s3fs finds it."""
    pytest.importorskip("s3fs", reason="s3fs, an optional extra, is not installed")
    moto = pytest.importorskip("moto.server", reason="moto, a package of the tests, is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    names |= {"AWS_ACCESS_KEY_ID": "name", "AWS_SECRET_ACCESS_KEY": "secret"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(name, value)
        yield
    server.stop()


class Remote(NamedTuple):
    """Shards behind a URL, and the file system on which they can be changed."""

    url: str
    files: "AbstractFileSystem"

    def path(self, name: str) -> str:
        """The path of a file of the split `train`."""
        return f"{self.url}/train/{name}"


@pytest.fixture(params=["memory", "s3"])
def remote(request, written):
    """The same shards behind a URL: in memory, and on a server of the S3 protocol; no test leaves the machine."""
    fsspec = pytest.importorskip("fsspec")
    if request.param == "s3":
        request.getfixturevalue("s3_server")
    files, url = fsspec.filesystem(request.param), f"{request.param}://bucket"
    files.makedirs(url, exist_ok=True)
    found = Remote(url, files)
    for path in (written / "train").iterdir():
        files.pipe_file(found.path(path.name), path.read_bytes())
    yield found
    files.rm(url, recursive=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_from_a_url_equals_one_from_files(split, remote, workers):
    assert same(epoch(split), epoch(open_shards(remote.url, "train"), workers=workers))


def test_a_file_url_is_a_url_as_well(split, written):
    pytest.importorskip("fsspec")
    assert same(epoch(split), epoch(open_shards(f"file://{written}", "train")))


def test_a_shard_is_fetched_once(remote):
    assert open_shards(remote.url, "train").image(0)
    for path in remote.files.glob(remote.path("*.tar")):
        remote.files.rm(path)
    assert open_shards(remote.url, "train").image(3)


def test_a_local_copy_that_was_damaged_is_named_rather_than_its_source(written, workspace):
    pytest.importorskip("fsspec")
    opened = open_shards(f"file://{written}", "train")
    opened.image(0)
    (copy,) = (workspace / "data" / "fetched_shards").glob("*.tar")
    content = copy.read_bytes()
    copy.write_bytes(content[:-600])
    with pytest.raises(IntegrityError, match=f"^{copy}: has .* delete it, and it is fetched again$"):
        opened.image(0)
    copy.unlink()
    opened.image(0)
    assert copy.read_bytes() == content


def test_a_shard_that_arrives_damaged_is_not_kept(remote, workspace):
    path = remote.path("train-000000.tar")
    remote.files.pipe_file(path, remote.files.cat_file(path)[:-1])
    with pytest.raises(IntegrityError, match=f"{path}: differs from its index"):
        open_shards(remote.url, "train").image(0)
    assert not list((workspace / "data" / "fetched_shards").iterdir())


def test_a_protocol_without_its_library_is_one_line(monkeypatch):
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MachineError, match=r"s3:// needs s3fs; install with: pip install 'dlv3p\[s3\]'"):
        open_shards("s3://bucket", "train")
    with pytest.raises(MachineError, match="nowhere://bucket/train/index.json: cannot be opened"):
        open_shards("nowhere://bucket", "train")


def test_an_opened_split_can_be_sent_to_another_process(written):
    opened = open_shards(written, "train")
    opened.image(0)
    assert pickle.loads(pickle.dumps(opened)).image_bytes(0) == opened.image_bytes(0)


def test_a_shard_that_is_gone_is_named_here_and_behind_a_url(written, remote):
    (written / "train" / "train-000000.tar").unlink()
    remote.files.rm(remote.path("train-000000.tar"))
    for root in (written, remote.url):
        opened = open_shards(root, "train")
        for read in (opened.image, opened.mask):
            with pytest.raises(MissingInputError, match="train-000000.tar: (cannot be read|no such file)"):
                read(0)


def test_a_connection_that_breaks_is_an_error_of_the_machine(remote, workspace, monkeypatch):
    opened = open_shards(remote.url, "train")

    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise KeyError("a library's own error")

    monkeypatch.setattr(sharded, "_open_url", lambda url: Broken())
    with pytest.raises(MachineError, match="train-000000.tar: cannot be read completely"):
        opened.image(0)
    assert not list((workspace / "data" / "fetched_shards").iterdir())


@pytest.mark.parametrize("change", [{"classes": None}, {"colors": [[1, 2]]}, {"shards": [{"name": "a.tar"}]}])
def test_an_index_that_lacks_something_is_refused(written, change):
    path = written / "train" / "index.json"
    content = json.loads(path.read_text()) | change
    del content["content_sha256"]  # or it would be refused for that alone
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="not an index of shards"):
        open_shards(written, "train")


def test_a_hash_cannot_lead_out_of_the_folder_of_fetched_shards(written):
    path = written / "train" / "index.json"
    content = json.loads(path.read_text())
    content["shards"][0]["sha256"] = "../../elsewhere"
    del content["content_sha256"]
    path.write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="is not a sha256"):
        open_shards(f"file://{written}", "train")


def test_reading_keeps_no_file_open(written):
    opened = open_shards(written, "train")
    before = len(os.listdir("/proc/self/fd"))
    assert [opened.image(index) and opened.mask(index).size for index in range(len(opened))]
    assert len(os.listdir("/proc/self/fd")) == before
