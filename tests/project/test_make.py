"""`make` says at its end how the environment is activated, and after that the README's first commands are found."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.terminal import in_terminal

ROOT = Path(__file__).parents[2]
ENVIRONMENT = Path(sys.prefix)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and an environment that is set up already, whose Python answers every command."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho ran: "$@"\n')
    python.chmod(0o755)
    (tmp_path / ".venv" / ".ok").touch()
    return tmp_path


def test_make_demo_says_last_how_the_environment_is_activated(checkout: Path) -> None:
    status, shown = in_terminal("make", "demo", cwd=checkout)
    ran, said = shown.strip().splitlines()
    assert (status, ran) == (0, "ran: -m dlv3p demo")
    assert said.endswith(": source .venv/bin/activate")


def test_make_says_nothing_of_an_environment_of_your_own(checkout: Path) -> None:
    environment = os.environ | {"PATH": f"{checkout / '.venv' / 'bin'}:{os.environ['PATH']}"}
    words = ["make", "demo", "VENV="]
    shown = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True, check=True).stdout
    assert shown == "ran: -m dlv3p demo\n"


@pytest.mark.skipif(not (ENVIRONMENT / "bin" / "activate").is_file(), reason="not in a virtual environment")
def test_the_readmes_first_commands_are_found_once_it_is_activated(tmp_path: Path) -> None:
    """As a person types them in a new terminal, where nothing is active."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.index("source .venv/bin/activate") < readme.index("papermill train.ipynb")
    (manual,) = re.findall(r"papermill train\.ipynb --help-notebook", readme)
    activate = f"source {ENVIRONMENT}/bin/activate"
    plain = [
        "env",
        "-i",
        "PATH=/usr/bin:/bin",
        f"HOME={tmp_path}",
        f"DLV3P_WORKSPACE={tmp_path}",
        "bash",
        "--norc",
        "-c",
    ]
    assert in_terminal(*plain, manual, cwd=ROOT / "notebooks")[0] == 127
    status, shown = in_terminal(*plain, f"{activate} && {manual} && dlv3p --help", cwd=ROOT / "notebooks")
    assert status == 0, shown
    assert "learning_rate" in shown
    assert "usage: dlv3p COMMAND" in shown
