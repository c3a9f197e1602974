"""A larger sweep of the CUDA attention kernels, simulated: drawn shapes, layouts, arguments, more interleavings."""

import random

import pytest
import torch

from tests.ptxsim.fixtures import clean_run
from vdiff_kernels.verify.check import check
from vdiff_kernels.verify.inputs import SpatialCase, TemporalCase

from .simulated import simulated_by_default

LENGTHS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 64, 65)
HEAD_DIMS = (1, 2, 6, 8, 15, 24, 32, 36, 40, 48, 64, 65, 80, 96, 112, 128, 144, 160, 200, 255, 256)


def drawn_temporal(draw, number):
    T, D = draw.choice(LENGTHS), draw.choice(HEAD_DIMS)
    layout = draw.choice(("contiguous", "packed", "channels_first", "sliced"))
    S = draw.choice(LENGTHS) if layout == "contiguous" and draw.random() < 0.3 else None
    square = S in (None, T)
    return TemporalCase(
        f"drawn-{number}", B=draw.choice((1, 2)), T=T, S=S,
        H=draw.choice((1, 3)), W=draw.choice((1, 2)), N=draw.choice((1, 2, 3)), D=D,
        bias=draw.choice((None, "rel", "dense", "expanded", "masked")), causal=draw.random() < 0.3, layout=layout,
        focus=draw.choice((None, "clips", "frames")) if square else None,
        rotary=draw.choice((None, D // 2 * 2 or None)) if square else None,
    )  # fmt: skip


def drawn_spatial(draw, number):
    context = draw.choice((None, None, "shared", "frames"))
    bias = draw.choice((None, "dense", "expanded") if context else (None, "rel", "dense", "expanded", "masked"))
    return SpatialCase(
        f"drawn-{number}", B=draw.choice((1, 2)), T=draw.choice((1, 2, 3)),
        H=draw.choice((1, 3, 6, 9)), W=draw.choice((1, 5, 8, 11)),
        N=draw.choice((1, 2, 3)), D=draw.choice(HEAD_DIMS), bias=bias, context=context, S=draw.choice(LENGTHS),
        layout="contiguous" if context else draw.choice(("contiguous", "packed", "channels_first", "sliced")),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("number", range(30))
@pytest.mark.parametrize("drawn", [drawn_temporal, drawn_spatial])
def test_forward_and_every_gradient(drawn, number, dtype):
    with simulated_by_default(clean_run(tuple(range(6)))):
        check(drawn(random.Random(number), number), dtype)
