"""The `dlv3p` command finds every other one, and the old names of modules forward with a warning."""

import subprocess
import sys
from importlib import import_module, reload

import pytest

from cityscapes.errors import ParameterError
from dlv3p.__main__ import COMMANDS, main

FORWARDED = {
    "dlv3p.loading": ("dlv3p.weights.loading", "load_model"),
    "dlv3p.shards": ("dlv3p.data.write_shards", "write_shards"),
    "dlv3p.demo": ("dlv3p.jupyter.demo", "load_run"),
}
"""Old name: the module that it is now, and something that was imported from it."""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_answers_for_help_under_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: dlv3p {name} ")


def test_the_list_of_commands_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown and purpose in shown for name, (_, purpose) in COMMANDS.items())
    assert main([]) == 2


def test_a_wrong_name_is_one_line_with_the_nearest() -> None:
    with pytest.raises(ParameterError, match=r"^dlv3p trian: no such command; allowed are train, .*did you mean train"):
        main(["trian"])


def test_the_list_of_commands_needs_no_torch() -> None:
    code = "import sys\nfrom dlv3p.__main__ import main\nmain(['--help'])\nsys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("old", FORWARDED)
def test_an_old_name_forwards_and_warns_with_the_new_one(old: str) -> None:
    new, member = FORWARDED[old]
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        module = reload(sys.modules[old]) if old in sys.modules else import_module(old)
    assert getattr(module, member) is getattr(import_module(new), member)
