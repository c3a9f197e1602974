"""The Triton kernels in Triton's interpreter, on every hostile case: what they compute, whatever a compiler makes of it.

Attention is in test_interpreted_attention.py: a file is one worker's.
"""

import pytest
import torch

import vdiff_kernels as vdiff
from tests.backends.triton.cases import NOT_NUMPYS, TOO_LONG, cases_of
from vdiff_kernels import verify


# NumPy has no bfloat16: test_simulated.py has it.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("case", cases_of(lambda operator: not operator.startswith(("temporal", "spatial"))), ids=str)
def test_case(interpreted, case, dtype):
    interpreted(verify.check, case, dtype, "triton")


def test_what_is_left_out_is_there():
    assert {str(case) for case in verify.CASES} >= TOO_LONG | NOT_NUMPYS


def test_a_projection_s_gradient_in_longer_rows(interpreted):
    """As where its result is concatenated with another."""
    interpreted(_gradient_in_longer_rows)


def _gradient_in_longer_rows():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(5, 8, generator=generator), torch.randn(12, 8, generator=generator) / 8**0.5
    found = []
    for name in ("triton", "reference"):
        leaf = x.clone().requires_grad_()
        out = vdiff.geglu(leaf, weight, None, backend=name)
        found += torch.autograd.grad(torch.cat([out, out.new_ones(5, 3)], 1).square().sum(), leaf)
    torch.testing.assert_close(*found)
