"""The Triton kernels in Triton's interpreter, on every hostile case: what they compute, whatever a compiler makes of it."""

import pytest
import torch

import vdiff_kernels as vdiff
from vdiff_kernels import verify
from vdiff_kernels.backends import registry

SERVED = registry.BACKENDS["triton"].kernels


def is_served(operator: str) -> bool:
    """Whole, or its core."""
    return operator in SERVED or any(part in SERVED for part in registry.OPERATORS[operator].parts[:1])


# NumPy has no bfloat16: tests/backends/triton/test_simulated.py has it.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("case", [case for case in verify.CASES if is_served(case.operator)], ids=str)
def test_case(interpreted, case, dtype):
    interpreted(verify.check, case, dtype, "triton")


def test_a_projection_s_gradient_in_longer_rows(interpreted):
    """As where its result is concatenated with another."""
    interpreted(_gradient_in_longer_rows)


def _gradient_in_longer_rows():
    x, weight = torch.randn(5, 8), torch.randn(12, 8)
    found = []
    for name in ("triton", "reference"):
        leaf = x.clone().requires_grad_()
        out = vdiff.geglu(leaf, weight, None, backend=name)
        found += torch.autograd.grad(torch.cat([out, out.new_ones(5, 3)], 1).square().sum(), leaf)
    torch.testing.assert_close(*found)
