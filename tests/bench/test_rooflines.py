"""Counted floors: of an attention, a layer, a convolution and a projection, by hand."""

import pytest
import torch

from vdiff_kernels.bench.presets import SPATIAL, TEMPORAL, small
from vdiff_kernels.bench.rooflines import Roofline, Work, work
from vdiff_kernels.ops.attention.call import AttentionOptions, LayerCall
from vdiff_kernels.ops.conv.call import ConvCall, Pseudo3DCall
from vdiff_kernels.ops.feedforward.call import GegluCall
from vdiff_kernels.ops.linear.call import LinearCall
from vdiff_kernels.ops.norm.call import Norm, NormCall, StatsCall

B, T, H, W, C = 2, 3, 4, 5, 8
PIXELS = B * T * H * W


def meta(*shape):
    return torch.empty(shape, device="meta")


@pytest.mark.parametrize("backward", [False, True])
def test_attention(backward):
    rows = 2 * 16 * 64 * 64 * 8 * 40
    found = work(TEMPORAL["animatediff-64"].call(torch.bfloat16), backward)
    assert found == Work((11 if backward else 4) * rows * 2, (14 if backward else 4) * rows * 16)


@pytest.mark.parametrize("backward", [False, True])
def test_attention_to_a_context(backward):
    rows, keys = 2 * 16 * 64 * 64 * 8 * 40, 2 * 77 * 8 * 40
    found = work(SPATIAL["text"].call(torch.float32), backward)
    moved = 2 * rows + 2 * keys + (3 * rows + 4 * keys if backward else 0)
    assert found == Work(4 * moved, (14 if backward else 4) * rows * 77)


@pytest.mark.parametrize("backward", [False, True])
def test_a_layer(backward):
    x = meta(B, T, H, W, C)
    around = x, meta(3 * C, C), None, meta(C, C), None, 2, None, None, None
    call = LayerCall("temporal_layer", *around, None, AttentionOptions())
    flops = 2 * PIXELS * C * 4 * C + 4 * PIXELS * T * C
    assert work(call, backward) == Work((5 if backward else 2) * x.nbytes, (3 if backward else 1) * flops)
    beside = LayerCall("temporal_layer", *around, meta(*x.shape), AttentionOptions())
    assert work(beside, backward).bytes == work(call, backward).bytes + x.nbytes


@pytest.mark.parametrize("backward", [False, True])
def test_a_convolution(backward):
    x, weight, Co = meta(B, C, T, H, W), meta(6, C, 1, 3, 3), 6
    flops = (3 if backward else 1) * 2 * PIXELS * Co * C * 9
    bare = work(ConvCall("norm_act_conv", x, weight), backward)
    assert bare == Work(4 * PIXELS * (C + Co + (2 * C + Co if backward else 0)), flops)
    norm = Norm("group", groups=2)
    whole = work(ConvCall("norm_act_conv", x, weight, None, norm, "silu", None, meta(B, Co, T, H, W)), backward)
    assert whole == Work(4 * PIXELS * (C * (2 + 3 * backward) + Co * (2 + 2 * backward)), flops)
    given = work(ConvCall("norm_act_conv", x, weight, None, norm, stats=meta(B, T, C, 2)), backward)
    assert given == bare


@pytest.mark.parametrize("backward", [False, True])
def test_a_linear_layer_of_pixels(backward):
    """As a convolution of one tap."""
    x, residual, norm = meta(B, T, H, W, C), meta(B, T, H, W, 6), Norm("group", groups=2)
    conv = ConvCall("norm_act_conv", x.movedim(-1, 1), meta(6, C, 1, 1, 1), None, norm, None, None, residual.movedim(-1, 1))
    assert work(LinearCall("norm_linear", x, meta(6, C), None, norm, None, None, residual), backward) == work(conv, backward)


def test_a_projection_and_norms():
    M, E = 10, 16
    call = GegluCall("geglu", meta(M, C), meta(2 * E, C), None)
    assert work(call) == Work(4 * (M * C + 2 * E * C + M * E), 2 * M * C * 2 * E)
    assert work(call, True) == Work(4 * (M * (3 * C + 2 * E) + 3 * 2 * E * C), 3 * 2 * M * C * 2 * E)
    x = meta(B, C, T, H, W)
    assert work(StatsCall("channel_stats", x)) == Work(x.nbytes, 0)
    assert work(NormCall("norm_act", x, Norm("rms"))) == Work(2 * x.nbytes, 0)
    assert work(NormCall("norm_act", x, Norm("group", groups=1), residual=x)) == Work(4 * x.nbytes, 0)


def test_two_convolutions_are_counted_one_by_one():
    with pytest.raises(KeyError):
        work(Pseudo3DCall("pseudo3d_conv", meta(B, C, T, H, W), meta(C, C, 1, 3, 3), None, meta(C, C, 3, 1, 1), None))


def test_a_floor_is_the_longer_of_the_two():
    roofline = Roofline(bytes_rate=100, flops_rate=10)
    assert roofline.seconds(Work(200, 10)) == 2 and roofline.seconds(Work(200, 50)) == 5


@pytest.mark.parametrize("shape", [*TEMPORAL.values(), *SPATIAL.values()], ids=lambda shape: shape.name(False))
def test_a_preset_is_a_call_and_a_case(shape):
    shape.call(torch.bfloat16)
    leaves = small(shape).case("small").leaves(torch.Generator().manual_seed(0))
    assert leaves["q"].shape == small(shape).rows and leaves["k"].shape == small(shape).keys
    table = leaves.get("bias", leaves.get("rel_bias"))
    assert (None if table is None else tuple(table.shape)) == small(shape).table
