"""The attention of the Triton backend in Triton's interpreter, and its layers, on every hostile case."""

import pytest
import torch

from tests.backends.triton.cases import cases_of
from vdiff_kernels import verify


# Half precision, of the same kernels, takes as long again; test_simulated.py has it.
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("case", cases_of(lambda operator: operator.startswith(("temporal", "spatial"))), ids=str)
def test_case(interpreted, case, dtype):
    interpreted(verify.check, case, dtype, "triton")
