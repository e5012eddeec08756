"""Files that are no weights, or want something else: one line, exit status 6, nothing run, no memory taken."""

import builtins
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from cityscapes.errors import IntegrityError
from dlv3p.profiling.process_memory import measurable, peak_kib, resident_kib, restart_peak
from dlv3p.weights.describe import describe
from dlv3p.weights.reading import read_weights
from dlv3p.weights.recognition import recognize

SIZE = 20_000
NAME = "backbone.conv1.weight"


class Call:
    """Pickled as a call of `function` with `arguments`; with `state`, `__setstate__` is called on the result."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


class Setter:
    """A class whose `__setstate__` would run code."""

    def __setstate__(self, state):
        os.system(state["command"])


def payloads(marker: Path) -> dict[str, object]:
    """Objects that leave a mark, or fill the memory, where they are unpickled without care."""
    command = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w').close()"
    setter = Setter()
    setter.__dict__["command"] = command
    return {
        "os.system": Call(os.system, command),
        "subprocess": Call(subprocess.check_call, ["touch", str(marker)]),
        "eval": Call(eval, python),
        "exec": Call(exec, python),
        "open": Call(open, str(marker), "w"),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "import": Call(__import__, "this"),
        "setstate": setter,
        "object": Call(object.__reduce_ex__, Setter, 2),
        "torch.hub": Call(torch.hub.load, "evil/repository", "model"),
        "torch.load": Call(torch.load, str(marker)),
        "from_file": Call(torch.from_file, str(marker), True, 10),
        "numpy load": Call(np.load, str(marker)),
        "pickle in pickle": Call(pickle.loads, pickle.dumps(Call(os.system, command))),
        "compile": Call(builtins.compile, python, "x", "exec"),
        "path": Call(Path, str(marker)),
        "bytearray bomb": Call(bytearray, 10**10),
        "tensor bomb": Call(torch.Tensor, 10**10),
        "tensor attribute": Call(torch.zeros, 10**9),
        "numpy of objects": Call(np.dtype, "O", state=(1, 2, 3)),
    }


PAYLOADS = sorted(payloads(Path("x")))


@contextmanager
def little_memory():
    """Little is taken in between, even for a moment; only Linux tells."""
    if not measurable():
        yield
        return
    restart_peak()
    before = resident_kib()
    yield
    assert peak_kib() - before < 200_000, "KiB that the file took"


def refused(path: Path) -> str:
    """The line that refuses a file."""
    with little_memory(), pytest.raises(IntegrityError) as refusal:
        describe(recognize(read_weights(path)))
    assert refusal.value.exit_status == 6
    line = str(refusal.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    assert len(line) < 600
    return line


@pytest.mark.parametrize("layout", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_pickle_that_calls_something_is_refused_and_nothing_is_called(name, layout, tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "a.pth"
    content = {"state_dict": {NAME: torch.zeros(2)}, "epoch": payloads(marker)[name]}
    if layout == "bare":
        path.write_bytes(pickle.dumps(payloads(marker)[name]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=layout == "zip")
    line = refused(path)
    assert not marker.exists()
    assert "calls" in line or "not weights" in line or "damaged" in line or "holds a" in line


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'touch MARKER'\ntR.",
        b"(S'touch MARKER'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch MARKER\x85R.",
        b"\x80\x02cposix\nsystem\nq\x00h\x00(S'touch MARKER'\ntR.",
        b"\x80\x02c__builtin__\neval\n(S'1'\ntR.",
        b"\x80\x02ctorch.storage\n_load_from_bytes\n(S'1'\ntR.",
        b"\x80\x02ccollections\nOrderedDict.fromkeys\n(S'1'\ntR.",
    ],
    ids=["getattr", "inst", "stack global", "memo", "python 2", "storage", "dotted"],
)
@pytest.mark.parametrize("layout", ["zip", "bare"])
def test_a_program_of_opcodes_is_refused(program, layout, tmp_path):
    marker, path = tmp_path / "M", tmp_path / "a.pth"
    program = program.replace(b"MARKER", str(marker).encode()) if b"\x8c\x0c" not in program else program
    path.write_bytes(program if layout == "bare" else rewritten(saved({NAME: torch.zeros(1)}), lambda _: program))
    assert "calls" in refused(path)
    assert not marker.exists()
    assert not Path("MARKER").exists()


def test_old_scores_of_numpy_become_numbers(tmp_path):
    for value in (np.float64(0.1), np.float32(0.5), np.int64(-7), np.bool_(True)):
        torch.save({"model_state": {"a.weight": torch.zeros(1)}, "best_score": value}, tmp_path / "a.pth")
        read = read_weights(tmp_path / "a.pth").others["best_score"]
        assert read == value
        assert type(read) in (float, int, bool)


def test_the_names_that_numpy_1_wrote_are_known(tmp_path):
    buffer = io.BytesIO()
    torch.save({"model_state": {"a.weight": torch.zeros(1)}, "best_score": np.float64(0.25)}, buffer)
    old, new = b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"
    (tmp_path / "a.pth").write_bytes(rewritten(buffer, lambda data: data.replace(new, old)))
    assert read_weights(tmp_path / "a.pth").others["best_score"] == 0.25


def rewritten(buffer: io.BytesIO, change, *, compression=zipfile.ZIP_STORED) -> bytes:
    """A zip of torch.save with its pickle changed."""
    result = io.BytesIO()
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(result, "w", compression) as copy:
        for name in source.namelist():
            data = source.read(name)
            copy.writestr(name, change(data) if name.endswith("data.pkl") else data)
    return result.getvalue()


def saved(content) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer


def test_a_tensor_that_claims_more_than_it_has_is_refused_before_it_is_copied(tmp_path):
    bomb = torch.zeros(1).expand(100_000, 100_000)
    torch.save({NAME: bomb}, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").stat().st_size < 2000
    assert "claims 40000000000 bytes" in refused(tmp_path / "a.pth")


def test_a_bomb_is_refused_in_a_small_address_space(tmp_path):
    """The whole command, with 1.5 GB more than what importing torch takes of addresses."""
    torch.save({NAME: torch.zeros(1).expand(100_000, 100_000)}, tmp_path / "a.pth")
    code = (
        "import resource, sys, torch, torchvision, safetensors.torch, dlv3p.weights.loading\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (taken + 1_500_000_000,) * 2)\n"
        "from cityscapes.errors import run_command\n"
        "from dlv3p.weights.__main__ import main\n"
        "run_command(main)\n"
    )
    words = [sys.executable, "-c", code, "inspect", str(tmp_path / "a.pth")]
    result = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 6, result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_a_storage_that_claims_more_than_its_bytes_is_refused(tmp_path):
    content = rewritten(saved({NAME: torch.zeros(4)}), lambda data: data.replace(b"K\x04", b"J\x00\x00\x00\x10"))
    (tmp_path / "a.pth").write_bytes(content)
    refused(tmp_path / "a.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_cut_short_at_any_length_is_refused(legacy, tmp_path):
    torch.save({f"layer{n}.weight": torch.randn(40) for n in range(9)}, tmp_path / "whole.pth",
               _use_new_zipfile_serialization=not legacy)  # fmt: skip
    content = (tmp_path / "whole.pth").read_bytes()
    for length in sorted({*range(1, 40), *range(40, len(content), len(content) // 40), len(content) - 1}):
        (tmp_path / "a.pth").write_bytes(content[:length])
        refused(tmp_path / "a.pth")


def test_safetensors_and_npz_cut_short_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a.weight": torch.zeros(300)}, tmp_path / "whole.safetensors")
    np.savez(tmp_path / "whole.npz", **{"a.weight": np.zeros(300, np.float32)})
    for name in ("whole.safetensors", "whole.npz"):
        content = (tmp_path / name).read_bytes()
        for length in sorted({*range(1, 30), *range(30, len(content), len(content) // 30)}):
            (tmp_path / "a").write_bytes(content[:length])
            refused(tmp_path / "a")


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        header(b"{"),
        header(b"{}", 10**12),
        header(b"{not json}"),
        header(json.dumps({"a": TENSOR}).encode()),
        header(json.dumps({"a": TENSOR | {"shape": [2**40]}}).encode()) + bytes(8),
        header(json.dumps({"a": TENSOR | {"data_offsets": [0, 2**60]}}).encode()) + bytes(8),
        header(json.dumps({"a": TENSOR, "b": TENSOR}).encode()) + bytes(8),
        header(json.dumps({"__metadata__": {"dlv3p": "[1]"}, "a": TENSOR}).encode()) + bytes(8),
        header(json.dumps({"__metadata__": {"dlv3p": "{"}, "a": TENSOR}).encode()) + bytes(8),
        header(json.dumps({"__metadata__": {"dlv3p": "[" * 100_000}, "a": TENSOR}).encode()) + bytes(8),
        header(json.dumps({"__metadata__": {"dlv3p": "{}"}, "a": TENSOR}).encode()) + bytes(8),
        header(b"{}"),
    ],
    ids=lambda content: str(zlib.crc32(content)),
)
def test_a_bad_safetensors_header_is_refused(content, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    refused(tmp_path / "a.safetensors")


def test_things_that_are_no_weights_are_called_by_their_names(tmp_path):
    path = tmp_path / "a.pth"
    for content, words in (
        (b"", "empty"),
        (b"<!DOCTYPE html><html><title>Dropbox</title>", "web page"),
        (b"\n  <html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x1f\x8b\x08" + bytes(99), "gzip"),
        (b"\n\x21\n\x0cconv1.weight\x12\x11\x08\x01\x12\x07Float32\x1a\x04" + bytes(4), "numpy.savez(OUTPUT"),
        (b"\n\xa8\x93\x02\n\x1dnetwork.resnet.layer1.0.gamma\x12\x96\x93\x02" + bytes(99), "a MindSpore checkpoint"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (bytes(257) + b"ustar" + bytes(300), "tar archive"),
        (b"hello", "not weights"),
        (bytes(5000), "not weights"),
        (b"\xff" * 5000, "not weights"),
    ):
        path.write_bytes(content)
        assert words in refused(path)
    (tmp_path / "folder").mkdir()
    assert "a folder" in refused(tmp_path / "folder")


def test_zips_of_other_kinds_are_refused(tmp_path):
    path, buffer = tmp_path / "a.pth", saved({NAME: torch.zeros(2)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photo.jpg", b"x")
    assert "without data.pkl" in refused(path)
    path.write_bytes(rewritten(buffer, lambda data: data, compression=zipfile.ZIP_DEFLATED))
    assert "torch did not write" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/DATA.PKL", pickle.dumps(Call(os.system, "true")))
    assert "without data.pkl" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({NAME: 1}, protocol=2))
    refused(path)


@pytest.mark.parametrize(
    "content",
    [
        3,
        [torch.zeros(1)],
        {},
        {"state_dict": {}},
        {NAME: "text"},
        {1: torch.zeros(1)},
        {NAME: {"deep": torch.zeros(1)}},
    ],
    ids=str,
)
def test_what_is_no_table_of_tensors_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    refused(tmp_path / "a.pth")


@pytest.mark.parametrize("tensor", [torch.zeros(3).to_sparse(), torch.zeros(3, dtype=torch.complex64)], ids=str)
def test_tensors_that_are_no_plain_numbers_are_refused(tensor, tmp_path):
    torch.save({NAME: tensor}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth")


def test_arrays_that_are_objects_or_forged_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **{NAME: np.array([Call(os.system, "true")], dtype=object)})
    refused(path)
    array = io.BytesIO()
    np.save(array, np.zeros(10, np.float32))
    huge = array.getvalue().replace(b"'shape': (10,), }         ", b"'shape': (9999999999,), } ")
    for content, words in (
        (huge, "not a plain array of (9999999999,)"),
        (array.getvalue()[:60], "damaged"),
        (array.getvalue()[:-1], "not a plain array"),
        (b"nothing", "damaged"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{NAME}.npy", content)
        assert words in refused(path)
    bomb = io.BytesIO()
    np.save(bomb, np.zeros(50_000_000, np.float32))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{NAME}.npy", bomb.getvalue())
    del bomb
    assert "unpacks to" in refused(path)


def test_no_bit_that_is_flipped_in_the_structure_ends_in_a_traceback(tmp_path):
    content = bytearray(saved({f"layer{n}.weight": torch.zeros(8) for n in range(3)}).getvalue())
    random = np.random.default_rng(0)
    for position, bit in zip(random.integers(0, len(content), 150), random.integers(0, 8, 150), strict=True):
        damaged = content.copy()
        damaged[position] ^= 1 << bit
        (tmp_path / "a.pth").write_bytes(damaged)
        refused(tmp_path / "a.pth")
