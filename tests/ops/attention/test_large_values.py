"""Values near the largest number: their weighted mean is finite, though their sum is not."""

import pytest
import torch

from vdiff_kernels import spatial_attention, temporal_attention, temporal_layer

LARGE = 3e38  # Of 3.4e38.


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("T", [1, 3, 16, 70])
def test_temporal(dtype, T, backend):
    q, k = torch.randn(2, 1, T, 2, 3, 2, 8).to(dtype)
    v = torch.full_like(q, LARGE)
    v[..., 1, :] = torch.randn(()).to(dtype)  # another head is not touched
    out = temporal_attention(q, k, v, backend=backend)
    torch.testing.assert_close(out, v, rtol=1e-6 if dtype == torch.float32 else 0, atol=0)
    v[..., 0, 0] = -torch.inf  # still infinity where it is one
    assert (temporal_attention(q, k, v, backend=backend)[..., 0, 0] == -torch.inf).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("H, W", [(3, 5), (40, 41)])
def test_spatial(dtype, H, W, backend):
    q, k = torch.randn(2, 1, 1, H, W, 1, 8).to(dtype)
    v = torch.full_like(q, LARGE)
    torch.testing.assert_close(spatial_attention(q, k, v, backend=backend), v, rtol=1e-5 if dtype == torch.float32 else 0, atol=0)


def test_a_layer(backend):
    """v of 3e38 in its scratch."""
    x = torch.ones(1, 6, 2, 2, 8)
    w_qkv = torch.zeros(24, 8)
    w_qkv[16:, 0] = LARGE
    out = temporal_layer(x, w_qkv, None, torch.eye(8), None, num_heads=2, backend=backend)
    torch.testing.assert_close(out, torch.full_like(out, LARGE), rtol=1e-6, atol=0)
