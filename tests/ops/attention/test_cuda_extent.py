"""The CUDA attention kernels far out: any number of sequences, offsets past 2^31. Part of the grid runs, on unfilled memory."""

import pytest
import torch

from vdiff_kernels.ops.attention.reference import spatial_attention, temporal_attention

from .simulated import SimulatedKernels


def last_blocks(simulate, number):
    """Runs the last blocks of each launch alone, and only once: no memory is copied."""

    def run(launchers, function, *arguments, memory):
        return simulate.launcher(
            launchers, function, *arguments, memory=memory, seeds=0, blocks=lambda grid: (grid - number, number)
        )

    return SimulatedKernels(run, outputs=torch.empty)


def nearly(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("sequences", [65_535, 65_536, 131_072, 5_000_000])
def test_any_number_of_sequences(simulate, sequences):
    T, D = 3, 8
    q, k, v = (torch.empty(1, T, 1, sequences, 1, D, dtype=torch.bfloat16) for _ in range(3))
    for t in (q, k, v):
        t[:, :, :, -16:] = torch.randn(1, T, 1, 16, 1, D)
    out, _ = last_blocks(simulate, 2).forward["temporal"](q, k, v, None, None, D**-0.5, False, None, None, False)
    nearly(out[:, :, :, -8:], temporal_attention(*(t[:, :, :, -8:] for t in (q, k, v))))


def test_offsets_past_2_to_the_31(simulate):
    T, H, N, D = 16, 88_000, 8, 64
    qkv = torch.empty(1, T, H, 1, 3, N, D, dtype=torch.bfloat16)
    assert qkv.numel() > 2**31
    qkv[:, :, -4:] = torch.randn(1, T, 4, 1, 3, N, D)
    q, k, v = qkv.unbind(4)
    kernels = last_blocks(simulate, 2)
    out, _ = kernels.forward["temporal"](q, k, v, None, None, D**-0.5, False, None, None, False)
    nearly(out[:, :, -1:], temporal_attention(*(t[:, :, -1:] for t in (q, k, v))))


def test_offsets_past_2_to_the_31_of_long_sequences(simulate):
    T, H, W, N, D = 8_800, 5, 8, 2, 1024 // 8
    qkv = torch.empty(1, 24 * T // 3, H, W, 3, N, D, dtype=torch.bfloat16)
    assert qkv.numel() > 2**31
    qkv[:, -1:] = torch.randn(1, 1, H, W, 3, N, D)
    q, k, v = qkv.unbind(4)
    out, _ = last_blocks(simulate, 2).forward["spatial"](q, k, v, None, None, D**-0.5, False)
    nearly(out[:, -1:], spatial_attention(*(t[:, -1:] for t in (q, k, v))))
