"""Trainings in processes that can be killed: forked, so that torch is imported once for all of them.

The server, `python tests/support/trainings.py`, imports everything, and forks a child for each line of JSON that it
reads; the client is `Trainings`. The product knows nothing of faults: the child injects them before it calls `train`.
Processes that train together are forked as well, where the product would start a `python -m dlv3p.train` for each; all
else is theirs: the variables, the session, the pipes, how they meet and how they end.

A *moment* is one of those that every write passes: when half of a file's bytes are there, before and after each fsync
(of the file, then of its folder), and before and after the rename. Those below `saved/` are counted from 0.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

MOMENTS_PER_WRITE = 7


class Trainings:
    """Starts `python -m dlv3p.train` in forked children; a context manager that leaves no child behind."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.server.stdout.readline()  # all is imported

    def __enter__(self) -> "Trainings":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stdin.close()
        self.server.wait(timeout=60)
        self.server.stdout.close()

    def train(
        self,
        parameters: dict[str, Any],
        workspace: Path,
        *,
        signals: tuple[signal.Signals, ...] = (),
        moment: int | None = None,
        seconds: float | None = None,
        largest_file: int | None = None,
        powerless: bool = False,
        fault: str = "",
        config: Path | None = None,
    ) -> tuple[int, str, int]:
        """Train, and return the status (negative: the signal), what was printed, and how many moments passed.

        The child and its workers get `signals` at a `moment`, or after so many `seconds`.
        `largest_file` in bytes makes a full disk; `powerless` takes root's right to write where it may not. When it has
        stopped itself, by SIGSTOP, -SIGSTOP comes back at once; `go_on` then waits for its end. `fault` is Python, run
        by each of several processes before it trains.
        """
        words = ["--config", str(config)] if config else []
        words += [word for name, value in parameters.items() for word in ("-p", name, json.dumps(value))]
        asked = {
            "arguments": words,
            "workspace": str(workspace), "log": str(self.log), "signals": [int(number) for number in signals],
            "moment": moment, "seconds": seconds, "largest_file": largest_file, "powerless": powerless,
            "fault": fault,
        }  # fmt: skip
        return self._ask(asked)

    def go_on(self) -> tuple[int, str, int]:
        """Let the training that has stopped itself go on, to its end."""
        return self._ask({"go_on": True})

    def _ask(self, asked: dict[str, Any]) -> tuple[int, str, int]:
        self.server.stdin.write(json.dumps(asked) + "\n")
        told = json.loads(self.server.stdout.readline())
        moments = Path(f"{self.log}.moments")
        return told, self.log.read_text(), moments.stat().st_size if moments.exists() else 0


def serve() -> None:
    """Fork a child for each line of stdin, and write how it ended to stdout."""
    with suppress(ImportError):
        import timm  # noqa: F401
    import dlv3p.data.roots
    import dlv3p.training.callbacks
    import dlv3p.training.checkpoints
    import dlv3p.training.divergence
    import dlv3p.training.launching
    import dlv3p.training.recovery
    import dlv3p.training.validation  # noqa: F401

    print("ready", flush=True)
    child = 0
    for line in sys.stdin:
        asked = json.loads(line)
        if "go_on" in asked:
            os.killpg(child, signal.SIGCONT)
        else:
            child = os.fork() or _child(asked)
        print(json.dumps(_end_of(child, asked)), flush=True)


def _end_of(child: int, asked: dict[str, Any]) -> int:
    """Wait until a child ends, or stops itself; send it the signals once its time is over."""
    if asked.get("seconds") is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        signal.sigtimedwait([signal.SIGCHLD], asked["seconds"])
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            for number in asked["signals"]:
                with suppress(ProcessLookupError):
                    os.killpg(child, number)
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return -os.WSTOPSIG(status)
    with suppress(ProcessLookupError):  # workers that a killed one has left
        os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(status)


def _child(asked: dict[str, Any]) -> None:
    """Train as the command does, with the faults that were asked for; never returns."""
    from dlv3p.train import main

    os.setpgid(0, 0)
    _listen_as_when_started()
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream in (0, 1, 2):
        os.dup2(log if stream else os.open(os.devnull, os.O_RDONLY), stream)
    os.environ["DLV3P_WORKSPACE"] = asked["workspace"]
    _count_moments(Path(asked["log"] + ".moments"), asked)
    if asked["largest_file"]:
        _fill_disk(asked["largest_file"])
    if asked["powerless"]:
        _give_up_power()
    _fork_group(asked["fault"])
    _end_as_command(lambda: main(asked["arguments"]))


def _listen_as_when_started() -> None:
    """Take signals as Python does when it starts, whatever the process that has forked this one made of them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _end_as_command(main: Callable[[], int]) -> None:
    """Run a command, and end this process as it would end that of the command; never returns."""
    from cityscapes.errors import run_command

    status = 70
    try:
        run_command(main)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def _fork_group(fault: str) -> None:
    """Let this process fork those that train together, each of which then runs `fault`."""
    from dlv3p.train import main
    from dlv3p.training import launching

    class Forked:
        """What `launch` starts and watches, without the seconds that an interpreter takes for its imports."""

        def __init__(self, words: list[str], *, env: dict[str, str], stdout: int, stderr: IO, start_new_session: bool):
            self.returncode, self.pid = None, os.fork()
            if self.pid == 0:
                os.setsid()
                _listen_as_when_started()
                os.dup2(stdout, 1)
                os.dup2(stderr.fileno(), 2)
                os.environ.clear()
                os.environ.update(env)
                exec(fault, {})
                _end_as_command(lambda: main(words[words.index("dlv3p.train") + 1 :]))

        def poll(self) -> int | None:
            if self.returncode is None:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if ended else None
            return self.returncode

        def wait(self, timeout: float) -> None:
            deadline = time.monotonic() + timeout
            while self.poll() is None:
                if time.monotonic() > deadline:
                    raise subprocess.TimeoutExpired("fork", timeout)
                time.sleep(0.01)

        def send_signal(self, number: int) -> None:
            if self.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, number)

        def terminate(self) -> None:
            self.send_signal(signal.SIGTERM)

        def kill(self) -> None:
            self.send_signal(signal.SIGKILL)

    launching.subprocess = SimpleNamespace(Popen=Forked, TimeoutExpired=subprocess.TimeoutExpired)


def _count_moments(path: Path, asked: dict[str, Any]) -> None:
    """Let this process send itself the signals at the moment that was asked for, of those in the folders of runs."""
    import builtins

    from cityscapes.files import atomic

    passed = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    me, count, fsync, replace = os.getpid(), 0, os.fsync, os.replace
    runs = os.path.join(asked["workspace"], "saved")

    def moment(path: object) -> None:
        nonlocal count
        if os.getpid() != me or not str(path).startswith(runs):
            return
        os.write(passed, b".")
        count += 1
        if count - 1 == asked["moment"]:
            for number in asked["signals"]:
                _from_outside(number)

    class Halves(io.FileIO):
        def write(self, content: bytes) -> int:
            content = memoryview(content).cast("B")
            done = super().write(content[: len(content) // 2])
            moment(self.name)
            while done < len(content):
                done += super().write(content[done:])
            return done

    def opened(name: object, mode: str = "r", **options: Any) -> Any:
        return Halves(name, "xb") if mode == "xb" else builtins.open(name, mode, **options)

    def synced(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        moment(name)
        fsync(descriptor)
        moment(name)

    def replaced(source: object, target: object) -> None:
        moment(target)
        replace(source, target)
        moment(target)

    atomic.open, os.fsync, os.replace = opened, synced, replaced


def _from_outside(number: int) -> None:
    """Have another process send a signal to this one and its workers, which expect only this one to end them.

    It is held back until the fork is over: what a handler raises in a callback of the fork would be lost.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    group, sender = os.getpgrp(), os.fork()
    if not sender:
        os.setpgid(0, 0)
        os.closerange(3, 4096)  # it outlives the group for a moment, and must not hold the lock of the run's folder
        os.killpg(group, number)
        os._exit(0)
    os.waitpid(sender, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])


def _fill_disk(largest_file: int) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))


def _give_up_power() -> None:
    """Give up all capabilities of root, as capset(2) does, so that it too may only write where it is allowed to."""
    import ctypes

    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    serve()
