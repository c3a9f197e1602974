"""The Triton kernels as Triton compiles them for an A100, simulated: within the budget, clean, the same bits in every order.

Few cases: a kernel is compiled for each dtype and kind of a call, in up to a second. test_interpreted.py has all of them.
"""

import pytest
import torch

from tests.backends.triton.cases import SERVED
from tests.backends.triton.simulated import simulated_by_triton
from tests.ptxsim.fixtures import clean_triton
from vdiff_kernels import verify

NAMES = {
    "temporal_attention": ["odd-hw", "sixteen-causal", "image-frames", "long-few-keys"],
    "spatial_attention": ["lines-across-tiles", "masked-rows", "padded-context"],
    "temporal_layer": ["animatediff"],
    "channel_stats": ["large-mean"],
    "norm_act": ["group-clip", "one-group", "layer", "rms"],
    "norm_act_conv": ["spatial-group", "temporal-clip", "rms-adaptive", "wide"],
    "norm_linear": ["group-clip", "rms-adaptive"],
    "geglu": ["no-bias", "many-tiles"],
}
CASES = [case for case in verify.CASES if case.operator in SERVED and case.name in NAMES.get(case.operator, ())]


def test_every_operator_has_cases():
    assert SERVED.keys() <= NAMES.keys()
    assert {name for operator in SERVED for name in NAMES[operator]} == {case.name for case in CASES}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case, dtype):
    with simulated_by_triton(clean_triton(seeds=(0, 1))):
        verify.check(case, dtype, "triton")
