"""What the native library takes it gives back: the resident memory of a process does not grow from call to call."""

import sys

import pytest
import torch

import vdiff_kernels as vdiff
from vdiff_kernels.bench.counting import resident

B, T, H, W, C, N = 2, 17, 16, 16, 32, 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.skipif(not vdiff.availability("cpu"), reason="the native library is not built")
def test_a_layers_backward_takes_no_new_memory_each_time():
    x = torch.randn(B, T, H, W, C, requires_grad=True)
    parameters = [torch.randn(shape, requires_grad=True) for shape in ((3 * C, C), (C, C), (N, 2 * T - 1))]

    def call():
        w_qkv, w_out, table = parameters
        out = vdiff.temporal_layer(x, w_qkv, None, w_out, None, num_heads=N, rel_bias=table, backend="cpu")
        torch.autograd.grad(out.sum(), [x, *parameters])

    for _ in range(20):
        call()
    before = resident()
    for _ in range(60):
        call()
    assert resident() - before < 4 << 20
