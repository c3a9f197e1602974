"""Tensors whose ends are further apart than 32 bits count, of which little more than the last block of each launch is touched."""

import numpy as np
import torch

from tests.ptxsim.module import tensors_of


def last_block_of(*kernels):
    """Runs the last block of each launch of these alone: without the others' results."""

    def run(launchers, function, *arguments, memory=()):
        def one(kernel, grid, block, args, shared_bytes):
            if any(name in kernel.name for name in kernels):
                options = dict(memory=(*memory, *tensors_of(arguments)), blocks=(grid[0] - 1, 1), seed=1)
                kernel.launch(grid, block, args, shared_bytes, **options).assert_clean()

        with launchers.simulated(one):
            launchers.call(function, *arguments)

    return run


def zeros(*shape, dtype=torch.float32):
    """Pages that nobody touches take no memory, and no time."""
    return torch.from_numpy(np.zeros(shape, f"u{dtype.itemsize}")).view(dtype)


def nearly(actual, expected):
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(actual.double(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item())


def far(rows, columns):
    """(rows, columns) at steps that make it longer than 2^31 elements."""
    return zeros(rows, max(columns, 2**31 // rows + 9) // 8 * 8, dtype=torch.bfloat16)[:, :columns]
