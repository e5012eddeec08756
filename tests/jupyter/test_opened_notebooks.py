"""A notebook of the suite names the kernel of this machine once it is opened; its file stays as it is, as do others."""

import asyncio
import json
import platform
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_server.serverapp import ServerApp

from dlv3p.jupyter import opened_notebooks
from dlv3p.jupyter.opened_notebooks import OpenedNotebooks

STORED = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def opened(path: Path, **metadata: object) -> dict:
    """Write a notebook with metadata, and return those with which JupyterLab opens it."""
    nbformat.write(nbformat.v4.new_notebook(metadata=STORED | metadata), path)
    before = path.read_bytes()
    model = asyncio.run(OpenedNotebooks(root_dir=str(path.parent)).get(path.name))
    assert path.read_bytes() == before
    return json.loads(json.dumps(model["content"]["metadata"]))


def test_a_notebook_of_the_suite_names_the_kernel_as_it_does_itself(tmp_path: Path) -> None:
    found = opened(tmp_path / "a.ipynb", dlv3p={"parameters": "TrainParameters"})
    assert found["kernelspec"]["display_name"] == "Python 3 (ipykernel)"
    assert found["language_info"]["version"] == platform.python_version()
    assert found["dlv3p"] == {"parameters": "TrainParameters"}


def test_the_server_finds_the_style_sheet_before_any_other(tmp_path: Path) -> None:
    server = ServerApp(static_custom_path=["theirs"])
    OpenedNotebooks(root_dir=str(tmp_path), parent=server)
    ours, *others = server.static_custom_path
    assert "word-break: normal" in (Path(ours) / "custom.css").read_text()
    assert others == ["theirs"]


def test_any_other_notebook_and_one_whose_kernel_is_not_here_are_opened_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {"parameters": "TrainParameters"}
    assert opened(tmp_path / "b.ipynb") == STORED
    other = {"display_name": "R", "language": "R", "name": "ir"}
    assert opened(tmp_path / "c.ipynb", dlv3p=ours, kernelspec=other)["kernelspec"] == other

    def missing(name: str) -> None:
        raise NoSuchKernel(name)

    monkeypatch.setattr(opened_notebooks, "get_kernel_spec", missing)
    assert opened(tmp_path / "d.ipynb", dlv3p=ours) == STORED | {"dlv3p": ours}
