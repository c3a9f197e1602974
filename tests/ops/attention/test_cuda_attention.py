"""The CUDA attention kernels as nvcc compiles them, simulated: forward and every gradient of the hostile cases within the budget,
clean, the same for every interleaving, and no worse than their golden counts."""

import pytest
import torch

from vdiff_kernels.ops.attention import api, autograd
from vdiff_kernels.testing.check import check
from vdiff_kernels.testing.suite import SPATIAL_CASES, TEMPORAL_CASES

from .simulated import SimulatedKernels

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.fixture
def simulated(simulate, monkeypatch):
    """The public operators run the CUDA kernels in the simulator."""
    monkeypatch.setitem(autograd._KERNELS, "simulated", SimulatedKernels(simulate.launcher))
    monkeypatch.setattr(api, "resolve", lambda name, operator, tensor: "simulated")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [*TEMPORAL_CASES, *SPATIAL_CASES], ids=str)
def test_forward_and_every_gradient(case, dtype, simulated):
    check(case, DTYPES[dtype])
