import pytest
import torch

import vdiff_kernels


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=["reference", "cpu"])
def backend(request):
    """Each backend that a CPU must serve. A library that did not build fails here, with its reason."""
    state = vdiff_kernels.availability(request.param)
    assert state, state
    return request.param
