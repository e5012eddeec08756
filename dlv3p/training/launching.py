"""Launch the processes that train together on this machine, pass signals on to them, and end them together.

Each is a `python -m dlv3p.train` of its own, with the variables that torchrun would set. They meet at a file.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from cityscapes import errors
from cityscapes.files.atomic import write_text
from cityscapes.workspace import run_folder
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.provenance import COMMAND, command
from dlv3p.runtime.processes import MEETING_FILE
from dlv3p.training.interruption import SIGNALS

ERROR_FILE = "DLV3P_ERROR_FILE"
"""Environment variable that names the file into which a process of a group puts what ended it."""

PARENT = "DLV3P_PARENT"
"""Environment variable with the number of the process that has started the group."""

LOG = "processes.log"
"""What the processes of a group that failed have printed as errors, in the run's folder."""

SECONDS_TO_END = 30
"""How long those that are left get to end by themselves, when another process of the group has failed."""

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def launch(parameters: TrainParameters) -> None:
    """Train with `parameters.processes` processes until the run is finished, showing what they print.

    Signals are passed on to them. Raises what a process has raised: the user's mistake, or StoppedError when it was
    asked to stop. Several machines are started by torchrun on each: `torchrun --nnodes ... -m dlv3p.train ...`.
    """
    with tempfile.TemporaryDirectory(prefix="dlv3p-launch-") as temporary:
        group = _Group(parameters, Path(temporary))
        with _passed_on(group):
            group.run()
        group.raise_for_end()


@contextmanager
def reported_errors() -> Iterator[None]:
    """Leave what ends this process where `launch` looks for it, if it was started there and is the first to end.

    The innermost block is left before the other processes can notice, so that their broken connections are not taken
    for the cause.
    """
    try:
        yield
    except BaseException as error:
        path = os.environ.get(ERROR_FILE)
        if path and not Path(path).exists():
            told = {"rank": os.environ["RANK"], "kind": type(error).__name__, "message": str(error)}
            write_text(path, json.dumps(told), durable=False)
        raise


def started_by_launch() -> bool:
    """Whether this process belongs to a group that `launch` has started, which then speaks for it."""
    return ERROR_FILE in os.environ


def end_with_parent() -> None:
    """Let a process of a group be asked to stop, with a checkpoint, when the one that has started it is no more."""
    if PARENT not in os.environ:
        return
    with suppress(OSError, AttributeError):  # outside Linux there is no such call
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != int(os.environ[PARENT]):  # it was gone before it could be asked for
        sys.exit(errors.TerminatedError.exit_status)


class _Group:
    """The processes of a run, what they write into a folder of their own, and the signals that came meanwhile."""

    def __init__(self, parameters: TrainParameters, folder: Path) -> None:
        self.parameters, self.folder = parameters, folder
        self.processes: list[subprocess.Popen] = []
        self.failed: dict[int, int] = {}
        self.received: list[signal.Signals] = []

    def run(self) -> None:
        """Start the processes and show what they print, until all have ended."""
        write_text(self.folder / "parameters.json", json.dumps(self.parameters.as_dict()), durable=False)
        watch = threading.Thread(target=self._wait, name="watch", daemon=True)
        reading, writing = os.pipe()
        try:
            with open(reading, errors="replace") as lines:
                try:
                    self._start(writing)
                finally:
                    os.close(writing)
                watch.start()
                for line in lines:
                    print(line, end="", flush=True)
            watch.join()
        finally:
            self._end()

    def pass_on(self, number: int, frame: FrameType | None = None) -> None:
        """Send a signal to all processes, as if it had come to them."""
        self.received.append(signal.Signals(number))
        for process in self.processes:
            process.send_signal(number)

    def raise_for_end(self) -> None:
        """Raise what ended the processes, unless they have ended well."""
        if not self.failed:
            return
        kind, message, rank = self._told()
        if issubclass(kind, errors.UserError):
            raise kind(message)
        if kind is KeyboardInterrupt:
            raise KeyboardInterrupt
        run = self.parameters.run_name
        if self.received:  # it came before they could listen
            number = self.received[0]
            raise SIGNALS[number](f"run={run!r}: stopped by {number.name}; run again to go on")
        raise errors.MachineError(
            f"run={run!r}: {self._cause(message, rank)}; the last checkpoint stays{self._keep_log()}"
        )

    def _start(self, output: int) -> None:
        words = [sys.executable, "-m", "dlv3p.train", "--config", str(self.folder / "parameters.json")]
        with open(self.folder / LOG, "ab") as log:
            for rank in range(self.parameters.processes):
                if self.received:
                    self.failed[rank] = -self.received[0]
                    return
                # A session of their own: what Ctrl-C sends to all in a terminal comes to them once, from here.
                options = {"stdout": output, "stderr": log, "start_new_session": True}
                self.processes.append(subprocess.Popen(words, env=self._environment(rank), **options))

    def _environment(self, rank: int) -> dict[str, str]:
        ranks = str(self.parameters.processes)
        return os.environ | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": ranks,
            "LOCAL_WORLD_SIZE": ranks,
            "OMP_NUM_THREADS": str(self.parameters.threads),
            MEETING_FILE: str(self.folder / "meeting"),
            ERROR_FILE: str(self.folder / "error.json"),
            PARENT: str(os.getpid()),
            COMMAND: json.dumps(command()),
        }

    def _wait(self) -> None:
        """Wait until all processes have ended; once one has failed, the others have to follow soon."""
        deadline = float("inf")
        while len(ended := {r: p.returncode for r, p in enumerate(self.processes) if p.poll() is not None}) < len(
            self.processes
        ):
            failed = {rank: status for rank, status in ended.items() if status}
            if failed and not self.failed:
                self.failed, deadline = failed, time.monotonic() + SECONDS_TO_END
            if time.monotonic() > deadline:
                self._kill()
            time.sleep(0.05)
        self.failed = self.failed or {rank: status for rank, status in ended.items() if status}

    def _kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()

    def _end(self) -> None:
        """Leave no process behind, whatever has ended the watching of them."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        with suppress(subprocess.TimeoutExpired):
            for process in self.processes:
                process.wait(timeout=SECONDS_TO_END)
        self._kill()

    def _told(self) -> tuple[type[BaseException], str, str]:
        """Return the kind of what the first process to end has raised, its words, and its rank; RuntimeError: a bug."""
        path = self.folder / "error.json"
        if not path.is_file():
            return RuntimeError, "", ""
        found = json.loads(path.read_text())
        kind, message, rank = found["kind"], found["message"], found["rank"]
        if kind == "KeyboardInterrupt":
            return KeyboardInterrupt, message, rank
        known = getattr(errors, kind, None)
        if isinstance(known, type) and issubclass(known, errors.UserError):
            return known, message, rank
        return RuntimeError, f"{kind}: {message.splitlines()[0] if message else 'no word'}", rank

    def _cause(self, message: str, teller: str) -> str:
        rank, status = min(self.failed.items(), key=lambda item: item[1])  # a signal is negative, and comes first
        if message and status > 0:
            rank = teller
        which = f"process {rank} of the {self.parameters.processes} that train together"
        if status < 0:
            return f"{which} was ended by {signal.Signals(-status).name}, most often since memory had run out"
        if message:
            return f"{which} ended with {message}"
        lines = (self.folder / LOG).read_text(errors="replace").split("\n")
        return f"{which} ended with status {status}: {next((line for line in reversed(lines) if line), 'no word')}"

    def _keep_log(self) -> str:
        """Copy what the processes have printed as errors to the run's folder, and say where it is."""
        target = run_folder(self.parameters.run_name)
        if not target.is_dir():
            return ""
        with suppress(OSError):
            shutil.copy(self.folder / LOG, target / LOG)
            return f". What all of them have said is in {target / LOG}; run again to go on"
        return ""


@contextmanager
def _passed_on(group: _Group) -> Iterator[None]:
    """Pass signals on to the group, where Python lets this process listen: in its main thread."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, group.pass_on) for number in SIGNALS} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
