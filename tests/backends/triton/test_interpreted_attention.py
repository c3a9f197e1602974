"""The attention of the Triton backend in Triton's interpreter, and its layers, on every hostile case."""

from unittest import mock

import pytest
import torch

from tests.backends.triton.cases import cases_of
from vdiff_kernels import verify


# Half precision, of the same kernels, takes as long again; test_simulated.py has it.
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float16, marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("case", cases_of(lambda operator: operator.startswith(("temporal", "spatial"))), ids=str)
def test_case(interpreted, case, dtype):
    interpreted(verify.check, case, dtype, "triton")


def test_few_programs_sum_the_gradient_of_a_bias(interpreted):
    """Two of a head, each of several blocks of sequences, one more than the other: as of tens of thousands of pixels."""
    interpreted(_few_programs)


def _few_programs():
    from vdiff_kernels.backends.triton import short_attention

    with mock.patch.object(short_attention, "PROGRAMS", 4):
        verify.check(verify.TemporalCase("short", B=2, T=5, H=2, W=5, bias="rel"), torch.float32, "triton")
        verify.check(verify.TemporalCase("one-a-program", T=18, S=3, H=1, W=5, bias="dense"), torch.float32, "triton")


def test_the_gradient_of_a_bias_of_many_programs(interpreted):
    """More than a program of the sum takes at once."""
    interpreted(_many_programs)


def _many_programs():
    from vdiff_kernels.backends.triton import short_attention

    partials = torch.randn(150, 2, 3, 4)
    dense, relative = partials.sum(0), torch.zeros(2, 6)
    for i in range(3):
        relative[:, 2 - i : 6 - i] += dense[:, i]
    torch.testing.assert_close(short_attention._table_gradient(partials, None), dense)
    torch.testing.assert_close(short_attention._table_gradient(partials, relative), relative)


def test_chunks_of_several_sequences(interpreted):
    """Which add up to the gradients of shared keys and of a bias: as many each, or fewer in the last ones, or none."""
    interpreted(_chunks)


def _chunks():
    from vdiff_kernels.backends.triton import chunks

    shared = verify.SpatialCase("shared", B=2, T=5, H=1, N=1, D=4, context="shared", S=3, bias="dense")
    for case, enough in ((shared, 4), (shared, 8), (verify.SpatialCase("own", B=3, T=1, D=4, bias="rel"), 4)):
        with mock.patch.object(chunks, "ENOUGH", enough):
            verify.check(case, torch.float32, "triton")


def test_the_log_sum_exp_of_short_sequences(interpreted):
    """Which their own backward does not ask for."""
    interpreted(_log_sum_exp)


def _log_sum_exp():
    from vdiff_kernels.backends.triton import short_attention

    q, k, v = torch.randn(3, 2, 5, 1, 3, 2, 8)
    _, lse = short_attention.forward(q, k, v, None, None, 0.3, False, None, None, True)
    scores = 0.3 * torch.einsum("bthwnd,bshwnd->bthwns", q, k)
    torch.testing.assert_close(lse, scores.logsumexp(-1))
