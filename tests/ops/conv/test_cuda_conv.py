"""The CUDA convolutions as nvcc compiles them, simulated: forward and every gradient of the hostile cases within the budget, clean,
the same for every interleaving, and no worse than their golden counts."""

import pytest
import torch

from tests.ptxsim.fixtures import clean_run
from tests.ptxsim.golden import Golden, owner_of
from tests.ptxsim.launcher import plain_name
from vdiff_kernels.verify.cases import CONV_CASES
from vdiff_kernels.verify.check import check

from .simulated import launchers, simulated_by_default

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CASES = CONV_CASES


@pytest.fixture
def simulated(simulate):
    """The public operator runs the CUDA kernels in the simulator."""
    with simulated_by_default(simulate.launcher):
        yield


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_every_gradient(case, dtype, simulated):
    check(case, DTYPES[dtype])
