"""Launch the processes of a distributed training on this machine, forward signals to them, and end them together.

Each is a separate `python -m dlv3p.train` with the variables that torchrun would set. They rendezvous at a file.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TypeVar

from cityscapes import errors
from cityscapes.files.atomic import write_text
from cityscapes.files.leftovers import temporary_folder
from cityscapes.workspace import run_folder
from dlv3p.parameters.training import TrainParameters
from dlv3p.runs.provenance import COMMAND, command
from dlv3p.runtime.processes import RENDEZVOUS_FILE, started_in_group
from dlv3p.training.interruption import SIGNALS, signals_handled

ERROR_FILE = "DLV3P_ERROR_FILE"
"""Environment variable that names the file in which the first process of a group to fail reports its error."""

PARENT = "DLV3P_PARENT"
"""Environment variable with the id of the process that launched the group."""

LOG = "processes.log"
"""The file with the stderr of all processes of a group that failed, in the run's folder."""

SECONDS_TO_END = 30
"""How long the other processes of a group may take to end by themselves after one has failed."""

POLL_SECONDS = 1.0
"""How often a process looks whether another one of its group is still busy."""

T = TypeVar("T")

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def launch(parameters: TrainParameters) -> None:
    """Train with `parameters.processes` processes until the run is finished, and print their output.

    Signals are forwarded to them. Raises the error of a process: the user's mistake, or StoppedError when it was asked
    to stop. For several machines, run `torchrun --nnodes ... -m dlv3p.train ...` on each.
    """
    with temporary_folder("dlv3p-launch") as folder:
        group = _Group(parameters, folder)
        with signals_handled(group.forward):
            group.run()
        group.raise_for_end()


@contextmanager
def reported_errors() -> Iterator[None]:
    """Report the error that ends this process to `launch`, if it belongs to a group and is the first to fail.

    The report is written before the other processes can notice, so that their broken connections are not taken for the
    cause.
    """
    try:
        yield
    except BaseException as error:
        path = os.environ.get(ERROR_FILE)
        if path and not Path(path).exists():
            report = {"rank": os.environ["RANK"], "kind": type(error).__name__, "message": str(error)}
            write_text(path, json.dumps(report), durable=False)
        raise


def in_turn(call: Callable[[], T]) -> T:
    """Call what one process of a group does for all, such as making masks: while one is busy, the others wait."""
    told = False
    while True:
        try:
            return call()
        except errors.BusyError as error:
            if not started_in_group():
                raise
            if not told:
                print(f"waiting: {error}", flush=True)
            told = True
            time.sleep(POLL_SECONDS)


def started_by_launch() -> bool:
    """Return whether this process belongs to a group that `launch` started, which prints the result for all."""
    return ERROR_FILE in os.environ


def end_with_parent() -> None:
    """Have this process of a group receive SIGTERM, and so save and stop, when its parent dies."""
    if PARENT not in os.environ:
        return
    with suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != int(os.environ[PARENT]):  # it died before prctl took effect
        sys.exit(errors.TerminatedError.exit_status)


class _Group:
    """The processes of a run, the temporary folder that they share, and the signals received meanwhile."""

    def __init__(self, parameters: TrainParameters, folder: Path) -> None:
        self.parameters, self.folder = parameters, folder
        self.processes: list[subprocess.Popen] = []
        self.failed: dict[int, int] = {}
        self.received: list[signal.Signals] = []

    def run(self) -> None:
        """Start the processes and print their output until all have ended."""
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

    def forward(self, number: int, frame: FrameType | None = None) -> None:
        """Forward a signal to all processes."""
        self.received.append(signal.Signals(number))
        for process in self.processes:
            process.send_signal(number)

    def raise_for_end(self) -> None:
        """Raise the error that ended the processes, if any."""
        if not self.failed:
            return
        kind, message, rank = self._first_error()
        if issubclass(kind, errors.UserError):
            raise kind(message)
        if kind is KeyboardInterrupt:
            raise KeyboardInterrupt
        run = self.parameters.run_name
        if self.received:  # before they had installed their handlers
            number = self.received[0]
            raise SIGNALS[number](f"run={run!r}: stopped by {number.name}; run again to continue")
        raise errors.MachineError(
            f"run={run!r}: {self._cause(message, rank)}; the last checkpoint is kept{self._keep_log()}"
        )

    def _start(self, output: int) -> None:
        words = [sys.executable, "-m", "dlv3p.train", "--config", str(self.folder / "parameters.json")]
        with open(self.folder / LOG, "ab") as log:
            for rank in range(self.parameters.processes):
                if self.received:
                    self.failed[rank] = -self.received[0]
                    return
                # In a new session, Ctrl-C in a terminal reaches them once, from here.
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
            RENDEZVOUS_FILE: str(self.folder / "rendezvous"),
            ERROR_FILE: str(self.folder / "error.json"),
            PARENT: str(os.getpid()),
            COMMAND: json.dumps(command()),
        }

    def _wait(self) -> None:
        """Wait until all processes have ended; once one has failed, the others are killed after a grace period."""
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
        """Terminate all processes that still run, whatever ended `run`."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        with suppress(subprocess.TimeoutExpired):
            for process in self.processes:
                process.wait(timeout=SECONDS_TO_END)
        self._kill()

    def _first_error(self) -> tuple[type[BaseException], str, str]:
        """Return class, message and rank of the first process's error; RuntimeError stands for a bug."""
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
        return RuntimeError, f"{kind}: {message.splitlines()[0] if message else 'no message'}", rank

    def _cause(self, message: str, reporter: str) -> str:
        rank, status = min(
            self.failed.items(), key=lambda item: item[1]
        )  # a signal has a negative status, and counts first
        if message and status > 0:
            rank = reporter
        which = f"process {rank} of {self.parameters.processes}"
        if status < 0:
            return f"{which} was killed by {signal.Signals(-status).name}, most likely because memory ran out"
        if message:
            return f"{which} failed with {message}"
        lines = (self.folder / LOG).read_text(errors="replace").split("\n")
        return f"{which} failed with status {status}: {next((line for line in reversed(lines) if line), 'no output')}"

    def _keep_log(self) -> str:
        """Copy the processes' stderr to the run's folder, and return where it is."""
        target = run_folder(self.parameters.run_name)
        with suppress(OSError):
            target.mkdir(parents=True, exist_ok=True)  # a start that failed has removed it
            shutil.copy(self.folder / LOG, target / LOG)
            return f". The log of all processes is {target / LOG}; run again to continue"
        return ""
