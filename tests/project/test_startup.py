"""Nothing slow is imported before it is needed: what `--help` and notebooks load, rather than how long they take."""

import os
import subprocess
import sys

import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.startup import COMMANDS, NOTEBOOKS, ROOT, imports_of

HELP = """
import contextlib, io, runpy, sys
for command in {commands}:
    is_module, words = command.startswith("-m "), command.removeprefix("-m ").split()
    sys.argv = [*words, "--help"]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:
        (runpy.run_module if is_module else runpy.run_path)(words[0], run_name="__main__")
    assert shown.getvalue().startswith("usage: "), command
"""

SLOW = {"torchvision", "torch._dynamo", "timm", "onnxruntime", "openvino"}
"""What takes seconds to import and is needed by some runs only."""


def loaded(code: str) -> set[str]:
    """Return the names of the modules that a new process holds after running `code`."""
    code += "\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def notebook_imports(name: str) -> str:
    return imports_of(ROOT / "notebooks" / f"{name}.ipynb")


def test_help_imports_neither_torch_nor_numpy():
    modules = loaded(HELP.format(commands=COMMANDS))
    assert "cityscapes.errors" in modules
    assert modules & {"torch", "numpy", "pandas", "PIL", "numba", "nbformat"} == set()


def test_help_of_the_benchmarks_imports_no_torch_and_starts_none():
    modules = loaded(HELP.format(commands=["-m benchmarks", *(f"-m benchmarks.{name}" for name in BENCHMARKS)]))
    assert "benchmarks" in modules
    assert modules & (SLOW | {"torch", "pandas", "nbformat"}) == set()


def test_a_wrong_parameter_is_refused_before_torch_is_imported():
    code = """
from cityscapes.errors import ParameterError
from dlv3p.train import main
try:
    main(["-p", "epoch", "3"])
except ParameterError as error:
    assert "epochs" in str(error)
else:
    raise SystemExit("not refused")
"""
    assert "torch" not in loaded(code)


def test_a_network_needs_no_tables_no_plots_and_no_other_library():
    modules = loaded("from dlv3p.models.deeplab import build_network")
    assert "torch" in modules
    assert modules & (SLOW | {"pandas", "matplotlib", "numba", "scipy"}) == set()


def test_an_audit_needs_no_torch():
    modules = loaded(notebook_imports("audit_data"))
    assert "dlv3p.data.audit" in modules
    assert "torch" not in modules


def test_no_notebook_imports_at_once_what_only_some_runs_need():
    modules = loaded("\n".join(map(notebook_imports, NOTEBOOKS)))
    assert {"torch", "pandas", "dlv3p.train"} <= modules
    assert modules & SLOW == set()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_imports_of_a_notebook_are_found(name: str):
    assert "from dlv3p.parameters." in notebook_imports(name)


def test_threads_that_wait_spin_briefly_and_sleep_unless_the_user_says_otherwise():
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    code = f"import os, dlv3p.parameters; print(*(os.environ.get(name) for name in {names}))"
    untouched = {name: value for name, value in os.environ.items() if name not in names}
    for told, expected in (
        ({}, "passive 10000"),
        ({"OMP_WAIT_POLICY": "active"}, "active None"),
        ({"GOMP_SPINCOUNT": "0"}, "passive 0"),
    ):
        environment = untouched | told
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{expected}\n"
