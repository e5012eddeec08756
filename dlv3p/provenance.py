"""What a run was made from: code, versions, machine, data. No environment variable and no home folder is recorded."""

import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dlv3p.split import Split

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "numba", "papermill", "safetensors")
CHECKOUT = Path(__file__).resolve().parent.parent


def provenance() -> dict[str, Any]:
    """Return code, versions and hardware as plain JSON values."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(argument).name if os.sep in argument else argument for argument in sys.argv],
        "git": _git(),
        "lock_sha256": _sha256(CHECKOUT / "requirements.lock"),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "hardware": hardware(),
    }


def hardware() -> dict[str, Any]:
    """Return the machine: processor, cores, and the GPU where there is one."""
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": gpu.name if gpu else None,
        "gpu_bytes": gpu.total_memory if gpu else None,
    }


def data_fingerprint(split: Split) -> str:
    """Return one sha256 over the names and sizes of a split's images: another set of files gives another value."""
    if hasattr(split, "source_fingerprint"):  # shards: that of the files that they were made from
        return split.source_fingerprint
    digest = hashlib.sha256()
    for index in range(len(split)):
        digest.update(f"{split.name(index)} {split.image_path(index).stat().st_size}\n".encode())
    return digest.hexdigest()


def _git() -> dict[str, Any]:
    def ask(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", "-c", "core.fsmonitor=false", *arguments],
                cwd=CHECKOUT,
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout

    commit, difference = ask("rev-parse", "HEAD"), ask("diff", "HEAD", "--binary")
    return {
        "commit": commit.strip() if commit else None,
        "changed": None if difference is None else bool(difference),
        "diff_sha256": hashlib.sha256(difference.encode()).hexdigest() if difference else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
