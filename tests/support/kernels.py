"""Kernels for notebooks in seconds less: forked from a process that has imported torch and the tables and plots once.

Only what others wrote is imported there, in the order of the suite; the suite itself is imported by each notebook. The
server, `python tests/support/kernels.py`, forks a kernel for each line of JSON that it reads, and ends with its stdin.
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path

LAUNCHER = ["-m", "ipykernel_launcher"]


class ForkedKernel:
    """What Jupyter wants of the process of a kernel, as `subprocess.Popen` has it."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int) -> None:
        self.pid, self._end = pid, os.pidfd_open(pid)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return None while the kernel runs; how it ended, only its parent knows."""
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end of the kernel."""
        if self.returncode is None and select.select([self._end], [], [], timeout)[0]:
            self.returncode = 0
            os.close(self._end)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the kernel has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the kernel to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the kernel."""
        self.send_signal(signal.SIGKILL)


class Kernels:
    """Starts kernels in the place of `jupyter_client.launcher.launch_kernel`; the server starts with the first."""

    def __init__(self) -> None:
        self.server: subprocess.Popen | None = None

    def launch(
        self, command: list[str], *, env: Mapping[str, str], cwd: str | None = None, **_: object
    ) -> ForkedKernel:
        """Start the kernel of a command such as `python -m ipykernel_launcher -f FILE`."""
        assert command[1:3] == LAUNCHER, command
        if self.server is None:
            words = [sys.executable, "-P", __file__]
            self.server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        asked = {"arguments": command[3:], "environment": dict(env), "folder": str(cwd or Path.cwd())}
        self.server.stdin.write(json.dumps(asked) + "\n")
        return ForkedKernel(int(self.server.stdout.readline()))

    def close(self) -> None:
        """End the server."""
        if self.server is not None:
            self.server.stdin.close()
            self.server.wait(timeout=60)
            self.server.stdout.close()


def serve() -> None:
    """Fork a kernel for each line of stdin, which writes its process id to stdout."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as every kernel does
    import dlv3p.parameters  # noqa: F401  # before torch, since it says how threads wait

    for name in [name for name in sys.modules if name.partition(".")[0] in ("cityscapes", "dlv3p")]:
        del sys.modules[name]
    for name in ("torchvision", "pandas", "matplotlib.backends.backend_agg", "ipykernel.kernelapp"):
        import_module(name)
    import_module("pandas").set_option("display.max_columns", 20)  # its choice where it is imported by a kernel

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a kernel
    for line in sys.stdin:
        if not os.fork():
            _be_kernel(json.loads(line))


def _be_kernel(asked: Mapping[str, object]) -> None:
    """Be the kernel that was asked for, in a process group of its own before anybody learns of it; never returns."""
    from ipykernel.kernelapp import launch_new_instance

    os.setsid()
    print(os.getpid(), flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    os.environ.clear()
    os.environ.update(asked["environment"], JPY_PARENT_PID=str(os.getppid()))
    os.chdir(asked["folder"])
    sys.argv = ["ipykernel_launcher", *asked["arguments"]]
    status = 1
    try:
        launch_new_instance()
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    serve()
