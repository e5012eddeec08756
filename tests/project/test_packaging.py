"""Dependencies are stated once, in pyproject.toml; the lock, the conda environment and the Makefile follow it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
STATED = PROJECT["dependencies"] + sum(EXTRAS.values(), [])
NOT_LOCKED = {"trackio", "wandb"}
"""Extras that the lock has no room for: Trackio needs an older Pillow; tests put a stand-in in the place of either."""
DEPENDENCIES = [line for line in STATED if Requirement(line).name not in {PROJECT["name"], *NOT_LOCKED}]
LOCK = (ROOT / "requirements.lock").read_text()


def locked_versions(name: str) -> list[str]:
    """The versions of one package in the lock; several where Python versions differ."""
    pins = re.findall(r"^([\w.-]+)==([^\s;\\]+)", LOCK, re.MULTILINE)
    return [version for package, version in pins if canonicalize_name(package) == canonicalize_name(name)]


@pytest.mark.parametrize("dependency", DEPENDENCIES)
def test_lock_pins_every_dependency_within_its_range(dependency: str) -> None:
    requirement = Requirement(dependency)
    versions = locked_versions(requirement.name)
    assert versions, f"{requirement.name} is not in requirements.lock: make it again, its first lines say how"
    assert all(requirement.specifier.contains(version) for version in versions)


def test_tests_ask_for_every_extra_so_that_none_is_skipped_for_want_of_one() -> None:
    (of_ours,) = [Requirement(line) for line in EXTRAS["test"] if Requirement(line).name == PROJECT["name"]]
    assert of_ours.extras == EXTRAS.keys() - {"test"} - NOT_LOCKED


def test_lock_has_a_hash_for_every_pin_and_names_no_private_index() -> None:
    pins = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(pins) > 100
    assert all("--hash=sha256:" in pin for pin in pins)
    assert not re.search(r"file:|index-url|find-links|https?://", LOCK)


def test_lock_brings_no_grammar_that_every_papermill_would_read_for_a_second() -> None:
    assert locked_versions("rfc3987-syntax") == []


def test_lock_brings_what_an_offline_editable_install_needs() -> None:
    assert locked_versions("setuptools")


def test_conda_environment_installs_the_project_and_states_no_dependency_of_its_own() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *plain, from_pip = environment["dependencies"]
    assert from_pip == {"pip": ["-e .[test]"]}
    python, *tools = [entry.split(" ", 1) for entry in plain]
    assert python[0] == "python"
    assert SpecifierSet(python[1]) == SpecifierSet(PROJECT["requires-python"])
    assert [tool for (tool,) in tools] == ["pip", "make"]


def test_an_installation_has_every_file_that_is_no_module() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    brought = {path for package, globs in stated.items() for glob in globs for path in folder_of(package).glob(glob)}
    files = [path for package in ("dlv3p", "cityscapes") for path in (ROOT / package).rglob("*") if path.is_file()]
    assert {path for path in files if path.suffix != ".py" and path.parent.name != "__pycache__"} == brought


def folder_of(package: str) -> Path:
    """The folder of a package, which has to exist."""
    folder = ROOT.joinpath(*package.split("."))
    assert (folder / "__init__.py").is_file()
    return folder


def test_makefile_accepts_the_python_versions_of_the_project() -> None:
    low, high = re.search(r"\((3, \d+)\) <= sys.version_info < \((3, \d+)\)", (ROOT / "Makefile").read_text()).groups()
    assert SpecifierSet(f">={low.replace(', ', '.')},<{high.replace(', ', '.')}") == SpecifierSet(
        PROJECT["requires-python"]
    )


def make(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `make` on the committed Makefile in another folder."""
    command = ["make", "--file", str(ROOT / "Makefile"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that setup depends on."""
    (tmp_path / "requirements.lock").write_text("")
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


def test_an_old_python_is_refused_with_one_remedy(folder: Path) -> None:
    old = folder / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = make("demo", f"PYTHON={old}", folder=folder)
    assert result.returncode == 2
    assert "make demo PYTHON=python3.12" in result.stdout
    assert not (folder / ".venv").exists()


def test_a_python_without_venv_gets_a_remedy(folder: Path) -> None:
    bare = folder / "bare-python"
    bare.write_text('#!/bin/sh\n[ "$1" = -m ] && exit 1\nexit 0\n')
    bare.chmod(0o755)
    result = make("test", f"PYTHON={bare}", folder=folder)
    assert result.returncode == 2
    assert "apt-get install python3-venv" in result.stdout


def test_an_environment_that_is_ready_is_not_set_up_again(folder: Path) -> None:
    (folder / ".venv").mkdir()
    (folder / ".venv" / ".ok").touch()
    run, told = make("--dry-run", "demo", folder=folder).stdout.splitlines()
    assert run == ".venv/bin/python -m dlv3p demo"
    assert told.startswith("echo ")


def test_an_empty_venv_takes_the_active_environment(folder: Path) -> None:
    assert make("--dry-run", "test", "VENV=", folder=folder).stdout.splitlines() == [
        "python -m pytest tests/export/test_quantization.py",
        "GOMP_SPINCOUNT=0 python -m pytest notebooks -n 2 --dist loadfile --durations=10",
        "OMP_NUM_THREADS=1 python -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder --durations=20 "
        "--ignore=tests/export/test_quantization.py",
    ]


def test_pip_goes_on_where_uv_cannot_install(folder: Path) -> None:
    """Set up with a Python whose `uv` fails, and see which commands it is asked to run."""
    fake = folder / "python"
    fake.write_text(
        f"#!{sys.executable}\nimport pathlib, shutil, sys\nwords = sys.argv[1:]\n"
        f"open({str(folder / 'log')!r}, 'a').write(' '.join(words) + '\\n')\n"
        "if words[:2] == ['-m', 'venv']:\n"
        "    bin = pathlib.Path(words[2], 'bin')\n"
        "    bin.mkdir(parents=True)\n"
        "    shutil.copy(__file__, bin / 'python')\n"
        "sys.exit(words[:2] == ['-m', 'uv'])\n"
    )
    fake.chmod(0o755)
    assert make("demo", f"PYTHON={fake}", folder=folder).returncode == 0
    commands = (folder / "log").read_text().splitlines()
    assert any(line.startswith("-m uv pip install") and "--require-hashes" in line for line in commands)
    assert "-m pip install --progress-bar off --require-hashes -r requirements.lock" in commands
    assert commands[-1] == "-m dlv3p demo"


def test_every_data_file_beside_the_modules_is_shipped() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    shipped = {
        path
        for package, globs in patterns.items()
        for pattern in globs
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    beside = {path for package in ("dlv3p", "cityscapes") for path in (ROOT / package).rglob("*.[cj]s*")}
    assert beside
    assert shipped == beside
