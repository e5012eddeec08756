"""Define user errors, which are shown as one-line messages, and the exit status of each kind.

A message says what is wrong, where, what is allowed and how to fix it. Libraries raise; only a command line's `main`
and the papermill engine turn an error into an exit status.
"""

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path


class UserError(ValueError):
    """A mistake that its reader can fix: shown as one line, in a terminal and below a notebook cell."""

    exit_status = 1

    def _render_traceback_(self) -> list[str]:
        """Return what IPython prints below the cell: the kind of error and its one line, no traceback."""
        return [f"{type(self).__name__}: {self}"]


class ParameterError(UserError):
    """A parameter or argument that is unknown, of the wrong type or outside what is allowed."""

    exit_status = 2


class InputError(UserError):
    """Input data that is damaged, inconsistent or of the wrong kind."""

    exit_status = 3


class MissingInputError(InputError, FileNotFoundError):
    """Input data that does not exist."""


class MachineError(UserError):
    """A failure of the machine: no space, no permission, no network, no such device, no memory."""

    exit_status = 4


class OutOfMemoryError(MachineError):
    """A computation that does not fit into the memory of the device."""


class DivergedError(UserError):
    """A computation that has produced a value that is not finite (nan or infinity)."""

    exit_status = 5


class IntegrityError(UserError):
    """A stored file that is damaged, or that does not belong where it is used."""

    exit_status = 6


class NewerFormatError(IntegrityError):
    """A file from a later version of this suite: intact, but unreadable for this one."""


class BusyError(UserError):
    """A folder that another process is writing to."""

    exit_status = 7


class StoppedError(UserError):
    """A job that was asked to stop (Ctrl-C, a stop button), after saving its work."""

    exit_status = 130


class TerminatedError(StoppedError):
    """A job that a cluster or a service manager has stopped (SIGTERM), after saving its work."""

    exit_status = 143


def reason(error: Exception) -> str:
    """Return the first line of another library's error, or its type when it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


OUT_OF_MEMORY_TEXTS = (
    *("DefaultCPUAllocator", "ALLOC_FAILED", "bad_alloc", "bad allocation", "can't start new thread"),
    *("Cannot allocate memory", "Failed to allocate memory", "failed to map segment", "could not create a primitive"),
)
"""Texts of out-of-memory errors without a class of their own: torch on the CPU, cuDNN and cuBLAS, C++, Python itself,
the operating system, ONNX Runtime, the loader of libraries, oneDNN."""

DRIVE_FAULTS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
REMEDIES = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some of the quota and run again",
    errno.ENOTDIR: "a file is where a folder should be; move it away",
    errno.EMFILE: "allow more open files (ulimit -n), or use fewer workers",
    **dict.fromkeys(DRIVE_FAULTS, "check the drive or the share, and run again"),
}
"""What helps against errors of the operating system whose own words do not say it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of any library, or one that it was raised for, says that memory ran out."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        named = any(kind.__name__ in ("MemoryError", "OutOfMemoryError") for kind in type(cause).__mro__)  # as torch's
        if named or getattr(cause, "errno", None) == errno.ENOMEM:
            return True
        if any(text in str(cause) for text in OUT_OF_MEMORY_TEXTS):
            return True
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return False


def machine_failure(error: BaseException) -> MachineError | None:
    """Return in one line what an error says of a failing machine: of its memory or its files; None if it is another.

    It is for what no place in the code expects; where more is known, the error is raised there, with better advice.
    """
    if is_out_of_memory(error):
        return OutOfMemoryError("out of memory; end other programs that hold it, or use fewer workers at once")
    if not isinstance(error, OSError) or isinstance(error, UserError):
        return None
    path = _path_at(error) if error.errno in DRIVE_FAULTS and error.filename is None else None
    where = f"{path}: " if path else ""
    remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
    return MachineError(f"{where}{reason(error)}{remedy}")


def _path_at(error: BaseException) -> Path | None:
    """Return the path in the innermost function that had one: an error of a read, unlike one of open, names no file."""
    walked = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    frames = [frame for frame in walked if frame.f_code.co_name != "<module>"]  # whose paths are any of a program's
    paths = (value for frame in reversed(frames) for value in frame.f_locals.values() if isinstance(value, Path))
    return next(paths, None)


def run_command(main: Callable[[], int]) -> None:
    """Run a command line's `main` and exit with its status; a user's mistake becomes one line on stderr.

    `BrokenPipeError` (the reader of a pipe is gone) and Ctrl-C end quietly, with the statuses that shells expect. Any
    other error of the operating system and a lack of memory are one line too, with the status of
    MachineError.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name that the terminal cannot show is not an error
    try:
        status = main()
        sys.stdout.flush()  # an error of the last lines may be raised only here
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        status = 141
    except Exception as error:
        if (failure := machine_failure(error)) is None:
            raise
        print(f"error: {failure}", file=sys.stderr)
        status = failure.exit_status
    try:
        sys.stdout.flush()
    except OSError:  # the reader is gone, and Python would try to write the rest again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def require(purpose: str, packages: Sequence[str], extra: str) -> None:
    """Raise MachineError, which says what to install, unless all `packages` that `purpose` needs are installed."""
    if missing := missing_packages(packages):
        raise MachineError(f"{purpose} needs {' and '.join(missing)}; install with: pip install 'dlv3p[{extra}]'")


def missing_packages(packages: Sequence[str]) -> list[str]:
    """Return the packages that are not installed, by import name."""
    return [name for name in packages if find_spec(name) is None]
