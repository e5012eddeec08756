"""Run a job in a process of its own, papermill's, as a person would; it saves when it is told to stop.

What tells it is a file, which works on this machine and on others that see the same folders alike.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cityscapes.errors import BusyError, StoppedError
from cityscapes.files.atomic import write_text
from cityscapes.workspace import WORKSPACE_VARIABLE
from dlv3p.experiments.jobs import FINISHED, Job, read_job

NOT_BEGUN = 75
"""The status of a job that the stop has kept from beginning."""
LOOK_SECONDS = 0.5
"""How often a job that runs looks for the file that stops it."""
LOG_LINES = 200

# papermill dies with the process, or the thread, that started it: the signal stays set over exec. Without it, a job of
# a killed worker would go on, and keep its run from the job that is started in its place.
START = """
import ctypes, os, sys
try:
    ctypes.CDLL(None).prctl(1, 15)
except (OSError, AttributeError):
    pass
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, "-m", "papermill", *sys.argv[2:]])
"""

slot = threading.local()
"""The GPU of this thread's jobs, in `slot.gpu`, where an executor has given it one."""
_processes: set[subprocess.Popen] = set()


@dataclass(frozen=True)
class Outcome:
    """How a job ended: exit status, 0 for success, the last line that it printed, and its seconds."""

    number: int
    status: int
    line: str
    seconds: float

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop, and can be resumed."""
        return self.status in (130, 143, NOT_BEGUN)

    @property
    def elsewhere(self) -> bool:
        """Whether another process is doing it."""
        return self.status == BusyError.exit_status

    @property
    def failed(self) -> bool:
        """Whether it ended by itself, and not well."""
        return bool(self.status) and not self.stopped and not self.elsewhere


def run_job(job: Job, stop: Path) -> Outcome:
    """Execute a job's notebook; once the file `stop` exists, the job saves and ends, or does not begin.

    What another process has finished since the sweep began is left as it is.

    The log of a job that fails is kept beside its executed notebook.
    """
    began = time.monotonic()
    if stop.exists():
        return Outcome(job.number, NOT_BEGUN, "", 0.0)
    if read_job(job).state == FINISHED:
        return Outcome(job.number, 0, "", 0.0)
    job.copy.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as log:
        status = _wait(_start(job, log), stop)
        log.seek(0)
        lines = log.read().decode(errors="replace").replace("\r", "\n").splitlines()
    if stop.exists() and (status == -signal.SIGINT or lines[-1:] == ["Aborted!"]):  # before papermill took signals
        status = StoppedError.exit_status
    path = job.copy.with_suffix(".log")
    path.unlink(missing_ok=True)
    outcome = Outcome(job.number, status, _last_line(lines, status), time.monotonic() - began)
    if outcome.failed:
        write_text(path, "\n".join([shlex.join(command(job)), *lines[-LOG_LINES:]]) + "\n", durable=False)
    return outcome


def stop_running() -> None:
    """Have the jobs that this process runs save and end, and wait until they have, as before a preemption."""
    for process in list(_processes):
        process.send_signal(signal.SIGTERM)
    for process in list(_processes):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # Popen.wait is not to be entered twice


def command(job: Job) -> list[str]:
    """Return the words of papermill's command line for a job."""
    return papermill_words(job.notebook, job.copy, job.values)


def papermill_words(notebook: Path, copy: Path, values: Mapping[str, Any]) -> list[str]:
    """Return the words of a command line that executes a notebook with some of its parameters."""
    words = ["papermill", str(notebook), str(copy).replace("{", "{{").replace("}", "}}")]  # papermill formats it
    for name, value in values.items():
        words += ["-r" if isinstance(value, str) else "-p", name, _word(value)]
    return words


def _word(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _start(job: Job, log: Any) -> subprocess.Popen:
    words = [sys.executable, "-c", START, str(os.getpid()), *command(job)[1:], "--no-progress-bar"]
    environment = os.environ | {WORKSPACE_VARIABLE: str(job.workspace), "OMP_NUM_THREADS": str(job.threads)}
    if (gpu := getattr(slot, "gpu", None)) is not None:
        environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
    options = {"cwd": job.folder, "env": environment, "stdin": subprocess.DEVNULL, "stdout": log}
    return subprocess.Popen(words, stderr=subprocess.STDOUT, start_new_session=True, **options)


def _wait(process: subprocess.Popen, stop: Path) -> int:
    """Wait until a process ends, and have it save and end once the file exists; return its status."""
    _processes.add(process)
    told = False
    try:
        while True:
            try:
                return process.wait(timeout=LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                if not told and stop.exists():
                    process.send_signal(signal.SIGINT)
                    told = True
    finally:
        _processes.discard(process)
        if process.poll() is None:
            process.terminate()


def _last_line(lines: list[str], status: int) -> str:
    """Return the line that says how a job ended."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}, most likely because memory ran out; what it has saved is kept"
    told = [line.strip() for line in lines if line.strip()]
    if status == StoppedError.exit_status or not status:
        return ""
    errors = [line.removeprefix("Error: ") for line in told if line.startswith("Error: ")]
    return (errors or told or [f"status {status}"])[-1]
