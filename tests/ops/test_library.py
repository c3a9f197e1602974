"""The registered operators themselves: opcheck, and what they refuse."""

import pytest
import torch
from torch.library import opcheck

from vdiff_kernels import library

OPS = torch.ops.vdiff_kernels


def attention_inputs(dtype=torch.float32, packed=False):
    qkv = torch.randn(2, 5, 2, 3, 3, 2, 8).to(dtype)
    q, k, v = qkv.unbind(4) if packed else (t.contiguous() for t in qkv.unbind(4))
    return q, k, v


def temporal_options():
    return 0.3, True, torch.rand(2, 5) > 0.5, torch.rand(5, 2)


def group_norm(C, B=2, T=3):
    """The norm's part of a schema, from norm_kind to stats."""
    stats = torch.rand(B, T, C, 2)
    return "group", torch.rand(C), torch.rand(C), 4, 1e-5, "clip", torch.rand(B, C), torch.rand(B, C), "silu", stats


NO_NORM = "none", None, None, 0, 1e-5, "frame", None, None, "none", None


def calls():
    """(operator, arguments) for every registered operator, with arguments present and absent."""
    q, k, v = attention_inputs()
    bias, rel = torch.randn(2, 5, 5), torch.randn(2, 9)
    temporal = OPS.temporal_attention_native.default
    temporal_backward = OPS.temporal_attention_native_backward.default
    yield temporal, (q, k, v, bias, None, *temporal_options(), True)
    yield temporal, (*attention_inputs(packed=True), None, rel, 0.3, False, None, None, False)
    lse = torch.randn(2, 5, 2, 3, 2)
    yield temporal_backward, (torch.randn_like(q), q, k, v, None, lse, bias, None, *temporal_options(), False, True)
    packed = attention_inputs(packed=True)
    yield temporal_backward, (torch.randn_like(q), *packed, q, lse, None, rel, 0.3, False, None, None, True, False)
    spatial = OPS.spatial_attention_native.default
    spatial_backward = OPS.spatial_attention_native_backward.default
    context = torch.randn(2, 4, 2, 8)
    yield spatial, (q, k, v, None, torch.randn(2, 3, 5), 0.3, None, True)
    yield spatial, (q, context, context.clone(), torch.randn(2, 6, 4), None, 0.3, torch.rand(2, 4) > 0.5, False)
    yield spatial_backward, (torch.randn_like(q), *packed, None, lse, None, torch.randn(2, 3, 5), 0.3, None, True, True)
    mask = torch.rand(2, 4) > 0.5
    yield spatial_backward, (torch.randn_like(q), q, context, context.clone(), q, lse, None, None, 0.3, mask, False, False)
    yield from layer_calls()
    x = torch.randn(2, 3, 4, 5, 8)
    yield OPS.channel_stats_native.default, (x,)
    yield OPS.norm_act_native.default, (x, *group_norm(8), torch.randn_like(x))
    yield OPS.norm_act_native_backward.default, (torch.randn_like(x), x, *group_norm(8))
    weight, out = torch.randn(6, 8, 1, 3, 3), torch.randn(2, 3, 4, 5, 6)
    conv, conv_backward = OPS.norm_act_conv_native.default, OPS.norm_act_conv_native_backward.default
    yield conv, (x, weight, torch.rand(6), *group_norm(8), torch.rand(2, 3, 6), out, torch.rand(2, 3), True)
    yield conv, (x, torch.randn(6, 8, 3, 1, 1), None, *NO_NORM, None, None, None, False)
    yield conv_backward, (
        out, x, weight, torch.rand(6), *group_norm(8), torch.rand(2, 3, 6), torch.rand(2, 3), True, True, True,
    )  # fmt: skip
    yield conv_backward, (out, x, weight, None, *NO_NORM, None, None, False, True, False)
    rows, projection = torch.randn(7, 8), torch.randn(12, 8)
    yield OPS.geglu_native.default, (rows, projection, torch.rand(12))
    yield OPS.geglu_native_backward.default, (torch.randn(7, 6), rows, projection, None)


def layer_calls():
    x, out = torch.randn(2, 5, 2, 3, 12), torch.randn(2, 5, 2, 3, 10)  # N = 2, D = 8
    layer = x, torch.randn(48, 12), torch.randn(48), torch.randn(10, 16), torch.randn(10), 2
    full = *layer, "layer", torch.rand(12), torch.rand(12), 1e-5, torch.randn(5, 12)
    bare = x, layer[1], None, layer[3], None, 2, "none", None, None, 0.0, None
    square = *bare[:3], torch.randn(12, 16), *bare[4:]
    forward, backward = OPS.temporal_layer_native.default, OPS.temporal_layer_native_backward.default
    yield forward, (*full, out, torch.randn(2, 5, 5), None, *temporal_options())
    yield forward, (*bare, None, None, torch.randn(2, 9), 0.3, False, None, None)
    yield backward, (out, *full, torch.randn(2, 5, 5), None, *temporal_options(), False, True)
    yield backward, (out, *bare, None, torch.randn(2, 9), 0.3, False, None, None, False, False)
    forward, backward = OPS.spatial_layer_native.default, OPS.spatial_layer_native_backward.default
    yield forward, (*full, out, torch.randn(2, 6, 6), None, 0.3)
    yield forward, (*bare, None, None, torch.randn(2, 3, 5), 0.3)
    yield backward, (out, *full, None, torch.randn(2, 3, 5), 0.3, False, True)
    yield backward, (x, *square, torch.randn(2, 6, 6), None, 0.3, True, False)


def name_of(call):
    return call[0]._schema.name.removeprefix("vdiff_kernels::")


CALLS = list(calls())


@pytest.mark.parametrize("call", CALLS, ids=name_of)
def test_opcheck(call):
    op, arguments = call
    opcheck(op, arguments)


@pytest.mark.parametrize("call", CALLS, ids=name_of)
def test_outputs_are_contiguous_and_as_the_fake_says(call):
    op, arguments = call
    real = op(*arguments)
    with torch._subclasses.FakeTensorMode() as mode:
        fake = op(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments))
    for got, expected in zip(*((r,) if isinstance(r, torch.Tensor) else r for r in (real, fake))):
        assert got.is_contiguous()
        assert (got.shape, got.dtype, got.stride()) == (expected.shape, expected.dtype, expected.stride())


def test_every_operator_is_covered():
    defined = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("vdiff_kernels::")}
    assert {name_of(call) for call in CALLS} == defined


@pytest.mark.parametrize("call", CALLS, ids=name_of)
def test_every_operator_has_a_cpu_kernel(call):
    assert library.has_kernel(name_of(call), "CPU")


def test_the_raw_operator_refuses_a_strided_innermost_dimension():
    q = torch.randn(1, 2, 2, 2, 1, 8).transpose(-1, 1)
    with pytest.raises(RuntimeError, match="q has stride .* expected 1"):
        OPS.temporal_attention_native(q, q, q, None, None, 1.0, False, None, None, False)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"k": torch.randn(2, 5, 2, 3, 2, 7)}, "k has shape"),
        ({"v": torch.randn(2, 5, 2, 3, 2, 8).double()}, "v has dtype float64; expected float32, as q"),
        ({"bias": torch.randn(2, 5, 4)}, r"bias has shape \(2, 5, 4\)"),
        ({"rel_bias": torch.randn(2, 9), "bias": torch.randn(2, 5, 5)}, "bias and rel_bias"),
        ({"rotary": torch.randn(5, 5)}, "rotary"),
        ({"focus": torch.rand(2, 4) > 0}, "focus_present has shape"),
        ({"q": torch.randn(2, 5, 2, 3, 2, 257)}, "D"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_raw_operator_checks_what_it_reads(changes, message):
    q, k, v = attention_inputs()
    arguments = {"q": q, "k": k, "v": v, "bias": None, "rel_bias": None, "scale": 1.0, "causal": False}
    arguments.update({"focus": None, "rotary": None, "return_lse": False})
    with pytest.raises(RuntimeError, match=message):
        OPS.temporal_attention_native(*{**arguments, **changes}.values())


@pytest.mark.parametrize(
    "key_mask, context, message",
    [
        (torch.rand(2, 5) > 0, True, r"key_mask has shape \(2, 5\); expected \(B, S\) = \(2, 4\)"),
        (torch.rand(2, 4), True, "key_mask has dtype float32; expected bool"),
        (torch.rand(2, 6) > 0, False, "key_mask is given without context k, v"),
    ],
    ids=["shape", "dtype", "pixels"],
)
def test_the_raw_operator_checks_the_mask_of_a_context(key_mask, context, message):
    q, k, _ = attention_inputs()
    k = torch.randn(2, 4, 2, 8) if context else k
    with pytest.raises(RuntimeError, match=message):
        OPS.spatial_attention_native(q, k, k, None, None, 1.0, key_mask, False)


def test_log_sum_exp():
    q, k, v = attention_inputs(torch.float64)
    bias = torch.randn(2, 5, 5, dtype=torch.float64)
    bias[0, 3] = -torch.inf
    out, lse = OPS.temporal_attention_native(q, k, v, bias, None, 0.3, False, None, None, True)
    scores = torch.einsum("bthwnd,bshwnd->bhwnts", q, k) * 0.3 + bias
    torch.testing.assert_close(lse, scores.logsumexp(-1).permute(0, 4, 1, 2, 3))
    assert (lse[:, 3, :, :, 0] == -torch.inf).all() and (out[:, 3, :, :, 0] == 0).all()
