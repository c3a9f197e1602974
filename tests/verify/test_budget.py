"""The error budget bites: implementations wrong in one small way must fail it, in every dtype."""

from dataclasses import replace

import pytest
import torch

from vdiff_kernels import verify
from vdiff_kernels.ops.attention import reference as attention
from vdiff_kernels.ops.conv import reference as conv
from vdiff_kernels.ops.norm import reference as norm

DENSE = verify.TemporalCase("dense", B=2, T=6, H=2, W=3, N=3, D=16, bias="dense")
SPATIAL = verify.SpatialCase("rel", B=1, T=2, H=4, W=4, N=2, D=16, bias="rel")
CONV = verify.ConvCase("conv", B=2, C=8, Co=8, norm="group", temb="clip", residual=True, mix="frame")
NORM = verify.NormCase("norm", B=2, norm="group", scope="clip", eps=0.1)


def transposed_bias(q, k, v, *, bias, backend, **arguments):
    return attention.temporal_attention(q, k, v, bias=bias.transpose(1, 2), **arguments)


def dropped_scale(q, k, v, *, scale, backend, **arguments):
    return attention.temporal_attention(q, k, v, scale=1.0, **arguments)


class _WrongAxis(torch.autograd.Function):
    """Identity whose gradient was summed over frames where heads belong: the same total, spread wrongly."""

    @staticmethod
    def forward(ctx, bias):
        return bias.view_as(bias)

    @staticmethod
    def backward(ctx, grad):
        return grad.mean(0, keepdim=True).expand_as(grad).contiguous()


def bias_gradient_over_the_wrong_axis(q, k, v, *, bias, backend, **arguments):
    return attention.temporal_attention(q, k, v, bias=_WrongAxis.apply(bias), **arguments)


def causal_off_by_one(q, k, v, *, backend, causal, **arguments):
    T = q.shape[1]
    hidden = torch.ones(T, T, dtype=torch.bool).triu(0).fill_diagonal_(False)
    hidden[0, 1] = False  # frame 0 sees frame 1
    bias = torch.zeros(q.shape[4], T, T).masked_fill(hidden, -torch.inf)
    return attention.temporal_attention(q, k, v, bias=bias, **arguments)


def transposed_offsets(q, k, v, *, rel_bias, backend, **arguments):
    return attention.spatial_attention(q, k, v, rel_bias=rel_bias.transpose(1, 2), **arguments)


def padding_off_by_one(x, weight, bias, *, backend, **arguments):
    return conv.norm_act_conv(x, weight.roll(1, dims=-1), bias, **arguments)


def padding_before_the_activation(x, weight, bias, *, norm: object, act, backend, **arguments):
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    out = conv.norm_act_conv(padded, weight, bias, norm=norm, act=act, **_cropped(arguments, 1))
    return out[..., 1:-1, 1:-1]


def _cropped(arguments, by):
    residual = arguments.pop("residual")
    return {**arguments, "residual": torch.nn.functional.pad(residual, (by, by, by, by))}


def mix_of_the_other_side(x, weight, bias, *, mix, backend, **arguments):
    return conv.norm_act_conv(x, weight, bias, mix=1 - mix, **arguments)


def dropped_temb(x, weight, bias, *, temb, backend, **arguments):
    return conv.norm_act_conv(x, weight, bias, temb=0 * temb, **arguments)


def statistics_per_frame(x, wanted, *, backend, **arguments):
    return norm.norm_act(x, replace(wanted, scope="frame"), **arguments)


def dropped_eps(x, wanted, *, backend, **arguments):
    return norm.norm_act(x, replace(wanted, eps=0.09), **arguments)


MUTATIONS = [
    (DENSE, transposed_bias),
    (DENSE, dropped_scale),
    (DENSE, bias_gradient_over_the_wrong_axis),
    (replace(DENSE, bias=None, causal=True), causal_off_by_one),
    (SPATIAL, transposed_offsets),
    (CONV, padding_off_by_one),
    (CONV, padding_before_the_activation),
    (CONV, mix_of_the_other_side),
    (CONV, dropped_temb),
]
NORM_MUTATIONS = [statistics_per_frame, dropped_eps]


@pytest.mark.parametrize("dtype", verify.DTYPES, ids=str)
@pytest.mark.parametrize("case, mutation", MUTATIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mutation_fails(case, mutation, dtype):
    with pytest.raises(AssertionError, match="error|non-finite"):
        verify.check(case, dtype, function=mutation)


@pytest.mark.parametrize("dtype", verify.DTYPES, ids=str)
@pytest.mark.parametrize("mutation", NORM_MUTATIONS, ids=lambda value: value.__name__)
def test_a_norm_mutation_fails(mutation, dtype):
    def function(x, *, norm, **arguments):
        return mutation(x, norm, **arguments)

    with pytest.raises(AssertionError, match="error"):
        verify.check(NORM, dtype, function=function)


def test_an_unwritten_output_fails():
    def forgets_the_last_frame(q, k, v, *, backend, **arguments):
        full = attention.temporal_attention(q, k, v, **arguments)
        out = torch.empty_like(full)
        return torch.cat((full[:, :-1], out[:, -1:]), dim=1)

    with pytest.raises(AssertionError, match="non-finite"):
        verify.check(DENSE, torch.float32, function=forgets_the_last_frame)


def test_a_wrong_shape_fails():
    def flattens(q, k, v, *, backend, **arguments):
        return attention.temporal_attention(q, k, v, **arguments)

    leaves = verify.make_leaves(DENSE, torch.float32)
    truth, eager = verify.truth_and_eager(DENSE, leaves, torch.float32)
    candidate = {**eager, "d_bias": eager["d_bias"].flatten()}
    with pytest.raises(AssertionError, match="d_bias: shape"):
        verify.assert_within_budget(candidate, truth, eager, "flattened")


def test_eager_itself_passes():
    for case in (DENSE, SPATIAL, CONV, NORM):
        for dtype in verify.DTYPES:
            leaves = verify.make_leaves(case, dtype)
            truth, eager = verify.truth_and_eager(case, leaves, dtype)
            assert verify.assert_within_budget(eager, truth, eager, str(case)) <= 1
