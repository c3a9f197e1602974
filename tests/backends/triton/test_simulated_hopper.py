"""The Triton kernels as Triton compiles them for an H100 and an H200, whose large tiles are products of wgmma, simulated.

Few cases, each in a dtype whose tiles give wgmma: a kernel is compiled for each kind of a call, in up to two seconds.
"""

import pytest
import torch

from tests.backends.triton.simulated import simulated_by_triton
from tests.ptxsim.compile import from_launch
from tests.ptxsim.fixtures import clean_triton
from vdiff_kernels import verify
from vdiff_kernels.verify.inputs import ConvCase, LinearCase

ARCH = 90
BY_NAME = {str(case): case for case in verify.CASES}
CASES = [
    # As many pixels as fill a tile of 64 rows or more, which those of verify.CASES do not.
    (LinearCase("whole-tiles", norm="layer", T=1, H=8, W=16, C=40, Co=72, residual=True), torch.float32),
    (ConvCase("whole-tiles", T=1, H=8, W=16, C=64, Co=72, groups=32), torch.bfloat16),
    (BY_NAME["geglu-many-tiles"], torch.bfloat16),
    (BY_NAME["temporal_attention-long-causal"], torch.float16),
    (BY_NAME["spatial_attention-long-masked-rows"], torch.bfloat16),
]


@pytest.mark.parametrize("case, dtype", CASES, ids=str)
def test_case(case, dtype):
    products, clean = [], clean_triton(seeds=(0, 1), arch=ARCH)

    def run(kernel, programs, arguments, *how):
        products.append("wgmma.mma_async" in from_launch(kernel, arguments, *how, arch=ARCH)[0].compiled.asm["ptx"])
        clean(kernel, programs, arguments, *how)

    with simulated_by_triton(run):
        verify.check(case, dtype, "triton")
    assert any(products), "none of its launches has wgmma"


def test_few_queries_and_many_keys():
    """Where wgmma would read queries that the next copy overwrites, if tiles of keys were as large as elsewhere."""
    with simulated_by_triton(clean_triton(seeds=(0, 1), arch=ARCH)):
        verify.check(BY_NAME["spatial_attention-late-keys"], torch.float16, "triton")
