"""A user's mistake is one line and a status, in a terminal and below a notebook cell."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cityscapes import errors
from cityscapes.files.checksums import file_sha256

STATUSES = {
    "ParameterError": 2,
    "InputError": 3,
    "MissingInputError": 3,
    "MachineError": 4,
    "OutOfMemoryError": 4,
    "DivergedError": 5,
    "IntegrityError": 6,
    "BusyError": 7,
}


@pytest.mark.parametrize(("name", "status"), STATUSES.items())
def test_each_kind_of_mistake_has_its_status_and_one_line(name, status, capsys):
    def fail() -> int:
        raise getattr(errors, name)("what is wrong; how to mend it")

    with pytest.raises(SystemExit) as caught:
        errors.run_command(fail)
    assert caught.value.code == status
    assert capsys.readouterr() == ("", "error: what is wrong; how to mend it\n")


def test_all_mistakes_are_value_errors_and_missing_input_is_also_file_not_found():
    assert all(issubclass(getattr(errors, name), ValueError) for name in STATUSES)
    assert issubclass(errors.MissingInputError, FileNotFoundError)
    assert str(errors.MissingInputError("one line")) == "one line"


def test_a_notebook_shows_the_line_and_no_traceback():
    assert errors.InputError("broken")._render_traceback_() == ["InputError: broken"]


def test_a_status_is_passed_on_and_ctrl_c_ends_quietly(capsys):
    def interrupt() -> int:
        raise KeyboardInterrupt

    for main, status in ((lambda: 0, 0), (lambda: 3, 3), (interrupt, 130)):
        with pytest.raises(SystemExit) as caught:
            errors.run_command(main)
        assert caught.value.code == status
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_keeps_its_traceback():
    def bug() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        errors.run_command(bug)


def test_a_name_that_the_terminal_cannot_show_is_shown_escaped():
    code = "from cityscapes.errors import run_command\nrun_command(lambda: print('m\\u00fcll \\udcff') or 0)"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "m\\xfcll \\udcff\n")


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("lines", [999, 1])  # one line alone stays in the buffer until the command has ended
def test_a_reader_that_leaves_the_pipe_ends_the_command_quietly(lines):
    code = (
        "from cityscapes.errors import run_command\n"
        f"run_command(lambda: [print('x' * 999) for _ in range({lines})] and 0)"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=BUFFERED
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full is Linux's own")
@pytest.mark.parametrize("lines", [999, 1])
def test_output_that_finds_the_disk_full_is_one_line_and_a_status(lines):
    code = (
        "from cityscapes.errors import run_command\n"
        f"run_command(lambda: [print('x' * 999) for _ in range({lines})] and 0)"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=BUFFERED
        )
    assert (done.returncode, done.stderr) == (
        4,
        "error: [Errno 28] No space left on device; free some space and run again\n",
    )


def test_what_the_operating_system_refuses_is_one_line_that_names_the_file(capsys):
    name = "a" * 300
    with pytest.raises(SystemExit) as caught:
        errors.run_command(lambda: open(name).close() or 0)
    assert caught.value.code == 4
    output, line = capsys.readouterr()
    assert (output, line.count("\n"), line[:7]) == ("", 1, "error: ")
    assert name in line


UNREADABLE = Path("/proc/self/mem")
"""A file that opens, and whose first byte is an input/output error, as of a drive that fails."""


@pytest.mark.skipif(not UNREADABLE.exists(), reason="reads /proc")
def test_a_drive_that_fails_while_a_file_is_read_is_one_line_that_names_the_file(capsys):
    with pytest.raises(SystemExit) as caught:
        errors.run_command(lambda: len(file_sha256(UNREADABLE)))
    line = f"error: {UNREADABLE}: [Errno 5] Input/output error; check the drive or the share, and run again\n"
    assert (caught.value.code, capsys.readouterr()) == (4, ("", line))


def test_a_file_in_the_place_of_a_folder_is_named_with_what_to_do(tmp_path, capsys):
    (tmp_path / "saved").touch()
    with pytest.raises(SystemExit) as caught:
        errors.run_command(lambda: (tmp_path / "saved" / "run").mkdir())
    line = capsys.readouterr().err
    assert (caught.value.code, line.count("\n")) == (4, 1)
    assert line.endswith("saved/run'; a file is where a folder should be; move it away\n")


def wrapped() -> Exception:
    """Return the error of a library that hides what it was raised for, as that of ONNX does."""
    try:
        try:
            bytearray(10**15)
        except MemoryError as error:
            raise ValueError("cannot serialize") from error
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (wrapped(), errors.OutOfMemoryError),
        (RuntimeError("can't start new thread"), errors.OutOfMemoryError),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), errors.OutOfMemoryError),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), errors.OutOfMemoryError),
        (OSError(errno.EMFILE, "Too many open files"), errors.MachineError),
        (RuntimeError("a bug"), type(None)),
        (errors.MissingInputError("no file"), type(None)),
    ],
)
def test_what_any_library_says_of_a_failing_machine_is_recognized(error, kind):
    assert type(errors.machine_failure(error)) is kind
