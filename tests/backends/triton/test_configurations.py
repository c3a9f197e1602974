"""Every configuration that tuning may choose, simulated: as right and as clean as the first, which all other tests take.

CI takes one of each kernel; compiling them all takes minutes.
"""

import pytest
import torch

from tests.backends.triton.simulated import simulated_by_triton
from tests.ptxsim.fixtures import clean_triton
from vdiff_kernels import verify
from vdiff_kernels.backends.triton import tuning
from vdiff_kernels.verify import ConvCase, GegluCase, LinearCase, SpatialCase


def pixels(D, bias=None):
    """More than one tile of the largest there are."""
    return SpatialCase("", T=1, H=10, W=13, N=1, D=D, bias=bias)


# The kernels whose lists a case goes through, and how long the longest of those is.
HALF = [
    (pixels(12), {"attend": 3, "query_gradient": 3, "key_gradients": 2}),
    (pixels(40, "rel"), {"attend": 2, "query_gradient": 3, "key_gradients": 2, "score_gradients": 2}),
    (pixels(80), {"attend": 2, "query_gradient": 2, "key_gradients": 2}),
    (pixels(80, "dense"), {"attend": 2, "query_gradient": 2, "key_gradients": 2, "score_gradients": 1}),
    (GegluCase("", (130, 72), E=72), {"geglu_fwd": 4, "geglu_bwd": 4}),
    (LinearCase("", norm="layer", T=1, H=12, W=16, C=72, Co=140, residual=True), {"product": 5}),
    (ConvCase("", kernel="temporal", T=2, H=9, W=16, C=72, Co=136, groups=8), {"product": 5, "weight_gradient": 3}),
]
SINGLE = [
    (pixels(12, "rel"), {"attend": 2, "query_gradient": 2, "key_gradients": 2, "score_gradients": 2}),
    (pixels(40), {"attend": 2, "query_gradient": 1, "key_gradients": 2}),
    (GegluCase("", (70, 40), E=36), {"geglu_fwd": 2, "geglu_bwd": 2}),
    (LinearCase("", norm="layer", T=1, H=8, W=16, C=72, Co=140, residual=True), {"product": 3}),
    (ConvCase("", kernel="temporal", T=2, H=5, W=8, C=72, Co=68, groups=8), {"weight_gradient": 3}),
]
QUICK = {case for case, lists in HALF if lists.keys() & {"geglu_fwd", "weight_gradient"} or case.bias == "rel"}
EACH = [
    pytest.param(
        case,
        dtype,
        lists,
        number,
        id=f"{case}-{number}-{dtype}",
        marks=[] if number == 1 and case in QUICK else pytest.mark.slow,
    )  # fmt: skip
    for dtype, cases in ((torch.float16, HALF), (torch.float32, SINGLE))
    for case, lists in cases
    for number in range(1, max(lists.values()))
]


@pytest.mark.parametrize("case, dtype, lists, number", EACH)
def test_every_configuration_computes_the_same(monkeypatch, case, dtype, lists, number):
    longest = {}

    def chosen(kernel, key, configs, run, index):
        longest[kernel] = max(longest.get(kernel, 0), len(configs))
        return configs[min(number, len(configs) - 1)]

    monkeypatch.setattr(tuning, "chosen", chosen)
    with simulated_by_triton(clean_triton(seeds=(0, 1))):
        verify.check(case, dtype, "triton")
    assert {kernel: longest[kernel] for kernel in lists} == lists
