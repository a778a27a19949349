"""What the tests of servers rest on in support/forked.py."""

import os
from importlib import import_module

import pytest
from forked import AT_START, others


@pytest.mark.slow  # such are large packages
@pytest.mark.parametrize("package", ["cv2", "decord", "ray"])
def test_a_package_that_tests_import_leaves_servers_to_be_forked(package):
    """Each of these sets variables. A server that is not forked takes ten seconds more."""
    import_module(package)
    assert others(os.environ) == others(AT_START)
