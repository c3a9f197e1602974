import os

import pytest
import torch

import vdiff_kernels

pytest_plugins = ["tests.ptxsim.fixtures"]

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers are the parallelism; their thread pools would only wait on each other


FIRST = "tests/verify/day/test_day.py"  # few tests, and long: at the end, one worker would wait for the other


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=["reference", "composed", "cpu"])
def backend(request):
    """Each backend that a CPU must serve. A library that did not build fails here, with its reason."""
    state = vdiff_kernels.availability(request.param)
    assert state, state
    return request.param
