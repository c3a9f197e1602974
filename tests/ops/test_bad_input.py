"""The checks that every operator shares, where torch.compile traces them."""

import torch

from vdiff_kernels.ops import checks


def test_constant_sizes_against_symbolic_ones():
    """A parameter's sizes are constants under torch.compile, those of x symbols: equal by value all the same."""

    def call(x):
        checks.require_shape("call", "weight", weight, "(C,) or (B, C)", (x.shape[-1],), (x.shape[0], x.shape[-1]))
        return x + weight

    weight = torch.nn.Parameter(torch.ones(8))
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="eager")
    assert torch.equal(compiled(torch.ones(3, 8)), torch.full((3, 8), 2.0))
