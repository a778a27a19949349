"""Fixtures of several tests of the models."""

import shutil

import pytest

from demo.tiny_release import write_release


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """A tiny T2V-A14B as it is released; who breaks a part of it asks for a `copy`."""
    return write_release(tmp_path_factory.mktemp("wan") / "T2V-A14B")


@pytest.fixture
def copy(release, tmp_path):
    """A copy of a part of the release that a test may break."""

    def make(name):
        source = release / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
        return tmp_path / name

    return make
