"""The CUDA attention kernels far out: any number of sequences, offsets past 2^31, launches that fail. Part of the grid runs, on
unfilled memory."""

import pytest
import torch

from tests.ptxsim.fixtures import clean_run
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


@pytest.mark.parametrize("sequences", [65_536, 5_000_000])
def test_any_number_of_sequences_backward(simulate, sequences):
    T, D = 3, 8
    q, k, v, grad_out = (torch.empty(1, T, 1, sequences, 1, D, dtype=torch.bfloat16) for _ in range(4))
    for t in (q, k, v, grad_out):
        t[:, :, :, -16:] = torch.randn(1, T, 1, 16, 1, D)
    kernels = last_blocks(simulate, 2)
    options = (None, None, D**-0.5, False, None, None, False, False)
    grads = kernels.backward["temporal"](grad_out, q, k, v, None, None, *options)[:3]
    last = [t[:, :, :, -8:].clone().requires_grad_() for t in (q, k, v)]
    expected = torch.autograd.grad(temporal_attention(*last), last, grad_out[:, :, :, -8:])
    for grad, of_last in zip(grads, expected):
        nearly(grad[:, :, :, -8:], of_last)


@pytest.mark.parametrize("frames_first", [True, False])
def test_offsets_past_2_to_the_31(simulate, frames_first):
    """Forward reads a qkv of that size, backward writes a dqkv of it too. Of rows that lie far apart, or of places."""
    T, H, N, D = 16, 88_000, 8, 64
    qkv = torch.empty(1, *((T, H) if frames_first else (H, T)), 1, 3, N, D, dtype=torch.bfloat16)
    qkv = qkv if frames_first else qkv.transpose(1, 2)
    assert qkv.numel() > 2**31
    qkv[:, :, -4:] = torch.randn(1, T, 4, 1, 3, N, D)
    q, k, v = qkv.unbind(4)
    kernels = last_blocks(simulate, 4)  # which have the warps of all heads
    out, _ = kernels.forward["temporal"](q, k, v, None, None, D**-0.5, False, None, None, False)
    nearly(out[:, :, -1:], temporal_attention(*(t[:, :, -1:] for t in (q, k, v))))
    grad_out = torch.randn(1, T, 1, 1, N, D).bfloat16().expand(1, T, H, 1, N, D)
    options = (None, None, D**-0.5, False, None, None, True, False)
    dqkv = kernels.backward["temporal"](grad_out, q, k, v, None, None, *options)[0]
    last = qkv[:, :, -1:].clone().requires_grad_()
    (expected,) = torch.autograd.grad(temporal_attention(*last.unbind(4)), last, grad_out[:, :, -1:])
    nearly(dqkv[:, :, -1:], expected)


def test_offsets_past_2_to_the_31_of_long_sequences(simulate):
    T, H, W, N, D = 8_800, 5, 8, 2, 1024 // 8
    qkv = torch.empty(1, 24 * T // 3, H, W, 3, N, D, dtype=torch.bfloat16)
    assert qkv.numel() > 2**31
    qkv[:, -1:] = torch.randn(1, 1, H, W, 3, N, D)
    q, k, v = qkv.unbind(4)
    out, _ = last_blocks(simulate, 2).forward["spatial"](q, k, v, None, None, D**-0.5, None, False)
    nearly(out[:, -1:], spatial_attention(*(t[:, -1:] for t in (q, k, v))))


@pytest.mark.parametrize("T", [3, 34])
def test_row_offsets_past_2_to_the_31(T):
    """The last rows of one sequence, short or long, lie that far from its first."""
    N, D = 2, 64
    H = (2**31 // ((T - 1) * 3 * N * D) + 8) // 8 * 8  # the last place is the last block's
    qkv = torch.empty(1, T, H, 1, 3, N, D, dtype=torch.bfloat16)
    assert (T - 1) * qkv.stride(1) > 2**31
    qkv[:, :, -1:] = torch.randn(1, T, 1, 1, 3, N, D)
    q, k, v = qkv.unbind(4)
    long = T > 32
    kernels = SimulatedKernels(clean_run(last_blocks=2), outputs=torch.empty)
    out, lse = kernels.forward["temporal"](q, k, v, None, None, D**-0.5, False, None, None, long)
    last = qkv[:, :, -1:].clone().requires_grad_()
    expected = temporal_attention(*last.unbind(4))
    nearly(out[:, :, -1:], expected)
    grad_out = torch.randn(1, T, 1, 1, N, D).bfloat16().expand(1, T, H, 1, N, D)
    options = (None, None, D**-0.5, False, None, None, True, False)
    dqkv = kernels.backward["temporal"](grad_out, q, k, v, *((out, lse) if long else (None, None)), *options)[0]
    (expected,) = torch.autograd.grad(expected, last, grad_out[:, :, -1:])
    nearly(dqkv[:, :, -1:], expected)


@pytest.mark.parametrize(
    "shared_bytes, D, words",
    [
        (48 << 10, 256, "DYNAMIC refused: ERROR; device 0"),
        (8 << 10, 64, "launch failed: ERROR; grid 1, block 128, DYNAMIC, device 0"),
    ],
    ids=["asked for", "not asked for"],
)
def test_a_launch_without_its_shared_memory_says_what_and_where(shared_bytes, D, words):
    def on_a_small_gpu(launchers, function, *arguments, memory):
        with launchers.simulated(None, shared_bytes=shared_bytes):
            launchers.call(function, *arguments)

    q = torch.randn(1, 40, 1, 1, 1, D).bfloat16()
    words = words.replace("DYNAMIC", r"\d+ bytes of dynamic shared memory").replace("ERROR", r".* \(cudaErrorInvalidValue\)")
    with pytest.raises(RuntimeError, match=f"long_attention_fwd_kernel: {words}"):
        SimulatedKernels(on_a_small_gpu).forward["temporal"](q, q, q, None, None, 1.0, False, None, None, False)
