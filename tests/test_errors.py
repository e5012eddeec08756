"""A user's mistake is one line and a status, in a terminal and below a notebook cell."""

import os
import subprocess
import sys

import pytest

from cityscapes import errors

STATUSES = {
    "ParameterError": 2,
    "InputError": 3,
    "MissingInputError": 3,
    "MachineError": 4,
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


def test_a_reader_that_leaves_the_pipe_ends_the_command_quietly():
    code = (
        "from cityscapes.errors import run_command\nrun_command(lambda: [print('x' * 999) for _ in range(999)] and 0)"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
