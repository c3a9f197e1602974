"""What the Triton kernels move at sizes of models, as small as they show it: no worse than their golden counts."""

import pytest
import torch

from tests.backends.triton.cases import SERVED
from tests.backends.triton.simulated import simulated_by_triton
from vdiff_kernels import verify

CASES = [
    verify.TemporalCase("sixteen-frames", T=16, H=2, W=4, N=2, D=64, bias="rel", layout="packed"),
    verify.TemporalCase("sixty-four-frames", T=64, H=1, W=2, N=2, D=40, bias="rel"),
    verify.SpatialCase("pixels", T=1, H=8, W=16, N=2, D=64, bias="rel"),
    verify.SpatialCase("text", T=2, H=8, W=8, N=2, D=40, context="shared", S=77),
    verify.StatsCase("level", T=2, H=16, W=16, C=128),
    verify.NormCase("group", T=2, H=16, W=16, C=128, groups=32),
    verify.NormCase("layer", norm="layer", T=1, H=8, W=8, C=320, act=None),
    verify.ConvCase("spatial", T=1, H=16, W=16, C=64, Co=64, groups=32, temb="clip", residual=True),
    verify.ConvCase("temporal", T=4, H=8, W=8, C=64, Co=64, groups=32, kernel="temporal", temb="frame", residual=True),
    verify.LinearCase("projection", T=1, H=8, W=16, C=64, Co=192, norm="layer", bias=False),
    verify.GegluCase("feedforward", (256, 64), E=256),
]


@pytest.mark.parametrize("case", [case for case in CASES if case.operator in SERVED], ids=str)
def test_counts(case, simulate):
    with simulated_by_triton(simulate.triton_launch):
        verify.check(case, torch.bfloat16, "triton")
