"""Fixtures that several test modules share: a tiny embedded city, and a workspace of the test's own."""

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
    from public_files import vainf_state

    return vainf_state()
