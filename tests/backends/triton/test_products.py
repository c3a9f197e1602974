"""What the cases of tests/backends/triton/test_interpreted.py do not reach: statistics on the way out of a product, and the
verdicts' own cases."""

import pytest
import torch

from vdiff_kernels import verify
from vdiff_kernels.backends.backend import Variant
from vdiff_kernels.ops.conv.api import norm_act_conv
from vdiff_kernels.ops.norm.reference import channel_stats
from vdiff_kernels.verify import verdicts


def shares_of_statistics(kernel, C, Co, dtype):
    """The largest difference from the statistics of a convolution's result in float64, in units of 1e-5 of them."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 17, C).to(dtype).movedim(-1, 1) + 3
    weight = torch.randn(Co, C, *kernel).to(dtype) * 0.1
    out, stats = norm_act_conv(x, weight, residual=torch.randn(2, 3, 9, 17, Co).to(dtype).movedim(-1, 1), return_stats=True,
                               backend="triton")  # fmt: skip
    exact = channel_stats(out.double())
    return ((stats.double() - exact).abs() / (1e-5 * (1 + exact.abs()))).max().item()


@pytest.mark.parametrize(
    "kernel, C, Co, dtype",
    [
        ((3, 1, 1), 20, 70, torch.float32),
        ((1, 3, 3), 20, 70, torch.float16),
        ((1, 3, 3), 8, 136, torch.float16),  # which PyTorch's library convolves
    ],
)
def test_statistics_of_what_is_written(interpreted, kernel, C, Co, dtype):
    """Of several tiles of pixels and blocks of channels."""
    assert interpreted(shares_of_statistics, kernel, C, Co, dtype) < 1


VARIANTS = [
    Variant("norm_act", "float16", None, kinds=("group", "silu")),
    Variant("norm_act", "float16", None, D=24, kinds=("layer",)),
    Variant("norm_linear", "float16", None, kinds=("rms",)),
    Variant("norm_act_conv", "float16", None, kinds=("group", "silu", "temporal")),
    Variant("geglu", "float16", None),
    Variant("channel_stats", "float16", None),
    Variant("temporal_layer", "float16", None, 8, 16, "rel", ("causal",)),
    Variant("temporal_attention", "float16", None, 4, 16, "dense"),
    Variant("spatial_attention", "float16", None, 0, 16, None, ("shared", "keys")),
]


def checked_first(variant):
    return verify.check(verdicts.case_of(variant), getattr(torch, variant.dtype), "triton")


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_check_before_first_use_is_passed(interpreted, variant):
    interpreted(checked_first, variant)
