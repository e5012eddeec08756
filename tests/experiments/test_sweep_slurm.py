"""A real Slurm on this machine: without systemd, control groups and accounting, started and ended by the test."""

import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress

import pytest
from support.exactness import outcome
from support.sweeps import PARENT, SEEDS, kill, resumed, saved
from support.tiny import tiny

from dlv3p.experiments.sweep import FailedJobs, main
from dlv3p.train import train

DAEMONS = ("munged", "slurmctld", "slurmd")
MISSING = [name for name in (*DAEMONS, "sbatch", "srun") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: apt-get install slurmctld slurmd munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="slurmd starts jobs as root only"),
]

CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}
SlurmdSpoolDir={folder}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
KillWait=30
NodeName={host} CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports() -> list[int]:
    """Two ports that nothing listens on."""
    sockets = [socket.create_server(("", 0)) for _ in range(2)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """Slurm's controller and one node, this machine; ended with the module."""
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    for parent in folder.parents[:2]:  # munge wants to be found by others
        parent.chmod(0o755)
    key = folder / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    host = socket.gethostname().split(".")[0]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, ports=free_ports()))
    places = {"socket": "munge", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
    munged = ["munged", "--foreground", "--force", *(f"--{name}={folder / path}" for name, path in places.items())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = [
            subprocess.Popen(words, **options) for words in (munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D"])
        ]
        try:
            for _ in range(150):
                if (
                    "idle"
                    in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, check=False).stdout
                ):
                    break
                with suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"slurmctld ended with status {running[1].wait(timeout=0.2)}")
            yield
        finally:
            for process in reversed(running):
                process.terminate()
            for process in running:
                process.wait(timeout=60)


def test_a_job_of_slurm_that_is_killed_is_lost_and_resumed_by_the_same_command(
    by_hand, slurm, workspace, write_sweep, capsys
):
    path = write_sweep(grid={"seed": list(SEEDS)}, slurm={"time": 20, "cpus_per_task": 1})
    kill(workspace, 1, PARENT)
    with pytest.raises(FailedJobs, match="^1 of 4 jobs failed; to run them again: dlv3p sweep .* --on slurm$"):
        main([str(path), "--on", "slurm"])
    assert "ended without a result; its log is " in capsys.readouterr().out
    assert main([str(path), "--on", "slurm"]) == 0
    assert resumed(workspace, 1) == [3]
    assert saved(workspace) == by_hand
    scripts = list((workspace / "outputs" / "seeds" / "slurm").glob("*_submission.sh"))
    assert sum("#SBATCH --array=0-3" in script.read_text() for script in scripts) == 1


def test_a_job_that_slurm_warns_of_preemption_saves_is_requeued_and_goes_on(city, slurm, workspace, write_sweep):
    path = write_sweep(grid={"seed": [0]}, fixed={"epochs": 40}, slurm={"time": 20, "cpus_per_task": 1})
    kill(workspace, 0, PARENT, signal.SIGUSR2)
    assert main([str(path), "--on", "slurm"]) == 0
    (steps,) = resumed(workspace, 0)
    assert 3 <= steps < 120
    assert outcome(workspace / "saved" / "tiny-0") == outcome(train(tiny(city, run="by-hand", epochs=40)).folder)


def test_what_slurm_refuses_is_one_line(slurm, workspace, write_sweep, capsys):
    path = write_sweep(grid={"seed": [0]}, slurm={"partition": "none_such"})
    with pytest.raises(FailedJobs):
        main([str(path), "--on", "slurm"])
    assert "job 1 (seed=0) failed: on='slurm': " in capsys.readouterr().out
