"""What the cases of tests/backends/triton/test_interpreted.py do not reach of products: statistics on the way out, every
configuration that tuning may choose, and the verdicts' own cases."""

import pytest
import torch

from vdiff_kernels import verify
from vdiff_kernels.backends.backend import Variant
from vdiff_kernels.ops.conv.api import norm_act_conv
from vdiff_kernels.ops.norm.reference import channel_stats
from vdiff_kernels.verify import LinearCase, verdicts


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


def checked_with(number, dtype):
    """A case of many tiles by the configuration of that number."""
    from vdiff_kernels.backends.triton import product

    case = LinearCase("tuned", norm="layer", T=1, H=12, W=16, C=72, Co=140, residual=True)
    configs = product.CONFIGS
    product.CONFIGS = {size: (own[number % len(own)],) for size, own in configs.items()}
    try:
        return verify.check(case, dtype, "triton")
    finally:
        product.CONFIGS = configs


@pytest.mark.parametrize(
    "dtype, number", [(torch.float16, number) for number in range(5)] + [(torch.float32, number) for number in range(3)]
)
def test_every_configuration_computes_the_same(interpreted, dtype, number):
    interpreted(checked_with, number, dtype)


def test_there_are_no_more_configurations():
    from vdiff_kernels.backends.triton import product

    assert {size: len(own) for size, own in product.CONFIGS.items()} == {2: 5, 4: 3}


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
