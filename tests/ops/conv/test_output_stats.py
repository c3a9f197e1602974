"""The statistics that norm_act_conv returns: of what it returns, however the convolution was cut into strips, rows and tiles."""

import pytest
import torch

from vdiff_kernels import norm_act_conv

# taps, (B, Ci, T, H, W), Co
SHAPES = {
    "one-pixel": ((1, 3, 3), (1, 4, 1, 1, 1), 3),
    "odd-rows": ((1, 3, 3), (2, 8, 3, 5, 9), 6),
    "rows-of-several-runs": ((1, 3, 3), (1, 4, 1, 3, 200), 5),
    "strips-of-a-row": ((1, 3, 3), (1, 512, 1, 4, 70), 8),
    "frames-in-strips": ((3, 1, 1), (2, 8, 5, 7, 23), 6),
    "strips-that-reach-beyond": ((3, 1, 1), (1, 64, 4, 1, 259), 40),
    "one-frame": ((3, 1, 1), (1, 4, 1, 9, 9), 4),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("taps, shape, Co", SHAPES.values(), ids=SHAPES)
def test_of_every_frame_and_channel(taps, shape, Co, dtype, backend):
    x, weight = torch.randn(shape).to(dtype), (torch.randn(Co, shape[1], *taps) / (3 * shape[1]) ** 0.5).to(dtype)
    far = torch.linspace(-100, 100, Co).to(dtype)  # a mean of many deviations
    out, stats = norm_act_conv(x, weight, far, return_stats=True, backend=backend)
    variance, mean = torch.var_mean(out.double(), dim=(3, 4), correction=0)
    expected = torch.stack((mean, variance), -1).transpose(1, 2)
    assert stats.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(stats.double(), expected, rtol=1e-5, atol=1e-6)
