"""Collect the provenance of a run: code, versions and machine; only the last part of each path is kept."""

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from PIL import features

from cityscapes.files.checksums import file_sha256

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "numba", "papermill", "safetensors", "isal", "timm")
VECTOR_FLAGS = re.compile(r"sse|ssse|avx|amx|fma|f16c|asimd|sve|bf16|fp16")
"""Beginnings of the processor's flags by which torch and oneDNN choose the code that computes."""
CHOICES_OF_CODE = {
    "onednn_max_isa": ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    "mkl_cbwr": ("MKL_CBWR",),
    "mkl_instructions": ("MKL_ENABLE_INSTRUCTIONS",),
    "nvidia_tf32_override": ("NVIDIA_TF32_OVERRIDE",),
}
"""What a user can make oneDNN, MKL and cuBLAS compute with, by environment variables of which the first that is set
counts; torch does not tell what they chose, and the last bits follow it."""
COMMAND = "DLV3P_COMMAND"
"""Environment variable with the command, as JSON, that launched this process's group."""
CHECKOUT = Path(__file__).resolve().parents[2]


def provenance() -> dict[str, Any]:
    """Return code, versions and hardware as plain JSON values."""
    import torch

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(),
        "git": _git(),
        "lock_sha256": lock_sha256(),
        "versions": {
            "python": platform.python_version(),
            "libc": " ".join(platform.libc_ver()) or None,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            **{name: installed_version(name) for name in PACKAGES},
            **_libraries(),
        },
        "hardware": hardware(),
    }


def command() -> list[str]:
    """Return the words of the command that runs here, paths reduced to their last part.

    In a kernel started by papermill, return papermill's command; in another kernel, the notebook's name if it is known;
    in a process of a group, the command that launched the group.
    """
    if COMMAND in os.environ:
        return json.loads(os.environ[COMMAND])
    words = sys.argv
    if "ipykernel" in Path(words[0]).name or Path(words[0]).parent.name == "ipykernel":
        words = _papermill_words(os.getppid()) or ["interactive kernel", *_notebook_name()]
    return [Path(word).name if os.sep in word else word for word in words]


def hardware() -> dict[str, Any]:
    """Return the machine: processor and what torch uses of it, cores, memory, and the GPU if there is one.

    Which instructions oneDNN and MKL chose follows from the processor's flags and from `CHOICES_OF_CODE`.
    """
    import torch

    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_flags": _vector_flags(),
        **{key: _first_set(names) for key, names in CHOICES_OF_CODE.items()},
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": gpu.name if gpu else None,
        "gpu_bytes": gpu.total_memory if gpu else None,
    }


def git_commit() -> str | None:
    """Return the commit of the checkout that this code runs from; None without git or a checkout."""
    commit = _ask_git("rev-parse", "HEAD")
    return commit.strip() if commit else None


def lock_sha256() -> str | None:
    """Return the sha256 of `requirements.lock`; None if there is none."""
    return _sha256(CHECKOUT / "requirements.lock")


def without_credentials(remote: str) -> str:
    """Return the URL of a repository without user, password, token or query."""
    if "://" not in remote:  # user@host:path, or a folder
        return remote.split("@", 1)[-1]
    scheme, rest = remote.split("://", 1)
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rsplit('@', 1)[-1]}{slash}{path}".split("?")[0].split("#")[0]


def _papermill_words(process: int) -> list[str]:
    """Return the command line of a papermill process, else nothing: those of other servers may hold a token."""
    try:
        _, *words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except (OSError, ValueError):
        return []
    return words if words and (Path(words[0]).name == "papermill" or words[:2] == ["-m", "papermill"]) else []


def _notebook_name() -> list[str]:
    """Return the notebook that JupyterLab or VS Code opened for this kernel, as a list of at most one name."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    name = getattr(shell, "user_ns", {}).get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
    return [name] if name else []


def _git() -> dict[str, Any]:
    branch, remote = _ask_git("branch", "--show-current"), _ask_git("remote", "get-url", "origin")
    difference = _difference()
    return {
        "commit": git_commit(),
        "branch": branch.strip() if branch else None,
        "remote": without_credentials(remote.strip()) if remote else None,
        "changed": None if difference is None else bool(difference),
        "diff_sha256": hashlib.sha256(difference).hexdigest() if difference else None,
    }


def _difference() -> bytes | None:
    """Return the differences from the commit: changes, and untracked files that are not ignored."""
    changes, untracked = (
        _ask_git("diff", "HEAD", "--binary"),
        _ask_git("ls-files", "--others", "--exclude-standard", "-z"),
    )
    if changes is None or untracked is None:
        return None
    files = [f"{name} {_sha256(CHECKOUT / name)}\n" for name in untracked.split("\0") if name]
    return "".join([changes, *files]).encode(errors="surrogateescape")


def _ask_git(*arguments: str) -> str | None:
    command = ["git", "-c", "core.fsmonitor=false", *arguments]
    try:
        return subprocess.run(
            command, cwd=CHECKOUT, capture_output=True, text=True, errors="replace", timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _first_set(names: Sequence[str]) -> str | None:
    return next((os.environ[name] for name in names if name in os.environ), None)


def _memory_gib() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (AttributeError, ValueError, OSError):
        return None


def processor() -> str:
    """Return the name of the processor."""
    return _cpuinfo("model name") or platform.processor()


def _vector_flags() -> str | None:
    """Return the processor's flags for vector instructions, in the order of the alphabet; None if they are unknown."""
    flags = _cpuinfo("flags") or _cpuinfo("Features")  # the latter on ARM
    return " ".join(sorted(flag for flag in flags.split() if VECTOR_FLAGS.match(flag))) or None


def _cpuinfo(name: str) -> str:
    """Return what Linux says about the first processor under a name, "" for nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name) and ":" in line), "")


def _libraries() -> dict[str, str | None]:
    """Return the versions of the libraries inside torch that compute, and inside Pillow that decode images."""
    import torch

    built_with = torch.__config__.show()
    found = {"mkl": r"Math Kernel Library Version (\S+)", "onednn": r"MKL-DNN v(\S+)"}
    inside_torch = {name: re.search(pattern, built_with) for name, pattern in found.items()}
    return {
        **{name: match[1] if match else None for name, match in inside_torch.items()},
        "libjpeg": features.version("libjpeg_turbo") or features.version("jpg"),
        "zlib": features.version("zlib"),
    }


def installed_version(package: str) -> str | None:
    """Return the version of a package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _sha256(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None
