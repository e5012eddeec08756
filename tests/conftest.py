"""Fixtures that several test modules share: a tiny embedded city, a run on it, and a workspace of the test's own."""

import shutil
from dataclasses import replace

import pytest

from cityscapes.demo.city import write_demo_city


@pytest.fixture(scope="session")
def city(tmp_path_factory):
    """A tiny embedded city: 6 images to train on, 3 to validate with, 2 to predict."""
    root = tmp_path_factory.mktemp("city")
    return write_demo_city(root, height=64, width=128, frames={"train": 6, "val": 3, "test": 2})


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """An empty workspace, so that a test neither sees nor leaves anything in the project's folders."""
    monkeypatch.setenv("DLV3P_WORKSPACE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def vainf():
    """The entries of a DeepLabV3+ as VainF publishes it, of 21 classes; not to be changed."""
    from support.public_files import vainf_state

    return vainf_state()


@pytest.fixture(scope="session")
def trained_once(city, tmp_path_factory):
    """The workspace of a finished tiny run, "done", at half the images' size, and its result; not to be changed."""
    from support.tiny import tiny

    from dlv3p.train import train

    with pytest.MonkeyPatch.context() as patch:
        workspace = tmp_path_factory.mktemp("trained")
        patch.setenv("DLV3P_WORKSPACE", str(workspace))
        return workspace, train(tiny(city, run="done", image_scale=0.5))


@pytest.fixture(scope="module")
def trained(trained_once, tmp_path_factory):
    """What training gave for the tiny run, of which the workspace of this module's tests has a copy."""
    workspace, result = trained_once
    copy = shutil.copytree(workspace, tmp_path_factory.mktemp("module") / "workspace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DLV3P_WORKSPACE", str(copy))
        yield replace(result, folder=copy / result.folder.relative_to(workspace))


@pytest.fixture(scope="session")
def trainings(tmp_path_factory):
    """Trainings in processes of their own that can be killed."""
    from support.trainings import Trainings

    with Trainings(tmp_path_factory.mktemp("trainings") / "log") as server:
        yield server
