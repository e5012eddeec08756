"""Processes that train together on this machine, started from a notebook or a script by torchrun."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from cityscapes import errors
from cityscapes.atomic import write_text
from dlv3p.training_parameters import TrainParameters

ERROR_FILE = "DLV3P_ERROR_FILE"
"""Environment variable that names the file into which a process of a group puts the mistake that ended it."""


def launch(parameters: TrainParameters) -> None:
    """Train with `parameters.processes` processes until the run is finished, showing what the first one prints.

    Raises what a process has raised: the user's mistake, or StoppedError after Ctrl-C and stop buttons. Several
    machines are started by torchrun on each of them: `torchrun --nnodes ... -m dlv3p.train --config FILE`.
    """
    with tempfile.TemporaryDirectory(prefix="dlv3p-launch-") as temporary:
        config, error = Path(temporary) / "parameters.json", Path(temporary) / "error.json"
        write_text(config, json.dumps(parameters.as_dict()), durable=False)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(parameters.processes), "-m", "dlv3p.train", "--config", str(config)]
        environment = os.environ | {ERROR_FILE: str(error), "OMP_NUM_THREADS": str(parameters.threads)}
        with open(Path(temporary) / "log", "w+b") as log:
            group = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
            _show_until_the_end(group)
            if group.returncode:
                log.seek(0)
                _raise(error, log.read().decode(errors="replace"), group.returncode)


def report_error(error: errors.UserError) -> None:
    """Leave a mistake where `launch` looks for it, if this process belongs to a group that it has started."""
    path = os.environ.get(ERROR_FILE)
    if path and not Path(path).exists():
        write_text(path, json.dumps({"kind": type(error).__name__, "message": str(error)}), durable=False)


def _show_until_the_end(group: subprocess.Popen) -> None:
    """Pass lines on. An interrupt is passed on as well, and so often, until the group has saved and ended."""
    while True:
        try:
            for line in group.stdout:
                print(line, end="", flush=True)
            group.wait()
            return
        except KeyboardInterrupt:
            group.send_signal(signal.SIGTERM)
        except BaseException:
            group.kill()
            raise


def _raise(path: Path, log: str, status: int) -> None:
    if path.is_file():
        found = json.loads(path.read_text())
        kind = getattr(errors, found["kind"], errors.UserError)
        raise kind(found["message"])
    told = [line for line in log.splitlines() if "Error" in line] or log.splitlines() or ["no word"]
    raise errors.MachineError(
        f"the processes that train together ended with status {status}: {told[-1].strip()}; the last checkpoint stays. "
        "Most often memory had run out; run again to go on, with fewer processes"
    )
