"""Arguments of the registered operators, for tests of each kind of them."""

import torch

from vdiff_kernels.ops.schema import named

OPS = torch.ops.vdiff_kernels


def calls_of(kind: str) -> list[tuple]:
    """(operator, arguments) for every operator of that kind."""
    there = [(getattr(OPS, named(name, kind), None), arguments) for name, arguments in calls()]
    return [(operator.default, arguments) for operator, arguments in there if operator]


def name_of(call) -> str:
    return call[0]._schema.name.removeprefix("vdiff_kernels::")


def assert_as_the_fake_says(operator, arguments) -> None:
    """Of what an operator returns: contiguous, and of the shape, dtype and strides of its fake kernel."""
    real = operator(*arguments)
    with torch._subclasses.FakeTensorMode() as mode:
        fake = operator(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments))
    for got, expected in zip(*((r,) if isinstance(r, torch.Tensor) else r for r in (real, fake)), strict=True):
        assert got.is_contiguous()
        assert (got.shape, got.dtype, got.stride()) == (expected.shape, expected.dtype, expected.stride())


def attention_inputs(dtype=torch.float32, packed=False):
    qkv = torch.randn(2, 5, 2, 3, 3, 2, 8).to(dtype)
    q, k, v = qkv.unbind(4) if packed else (t.contiguous() for t in qkv.unbind(4))
    return q, k, v


def temporal_options():
    return 0.3, True, torch.rand(2, 5) > 0.5, torch.rand(5, 2)


def group_norm(C, B=2, T=3, act="silu"):
    """The norm's part of a schema, from norm_kind to stats."""
    stats = torch.rand(B, T, C, 2)
    return "group", torch.rand(C), torch.rand(C), 4, 1e-5, "clip", torch.rand(B, C), torch.rand(B, C), act, stats


NO_NORM = "none", None, None, 0, 1e-5, "frame", None, None, "none", None


def calls():
    """(operator, arguments) for every operator of a schema, with arguments present and absent."""
    q, k, v = attention_inputs()
    bias, rel = torch.randn(2, 5, 5), torch.randn(2, 9)
    yield "temporal_attention", (q, k, v, bias, None, *temporal_options(), True)
    yield "temporal_attention", (*attention_inputs(packed=True), None, rel, 0.3, False, None, None, False)
    lse = torch.randn(2, 5, 2, 3, 2)
    yield "temporal_attention_backward", (torch.randn_like(q), q, k, v, None, lse, bias, None, *temporal_options(), False, True)
    packed = attention_inputs(packed=True)
    yield "temporal_attention_backward", (torch.randn_like(q), *packed, q, lse, None, rel, 0.3, False, None, None, True, False)
    context = torch.randn(2, 4, 2, 8)
    yield "spatial_attention", (q, k, v, None, torch.randn(2, 3, 5), 0.3, None, True)
    yield "spatial_attention", (q, context, context.clone(), torch.randn(2, 6, 4), None, 0.3, torch.rand(2, 4) > 0.5, False)
    grad_out, mask = torch.randn_like(q), torch.rand(2, 4) > 0.5
    yield "spatial_attention_backward", (grad_out, *packed, q, lse, None, torch.randn(2, 3, 5), 0.3, None, True, True)
    yield "spatial_attention_backward", (grad_out, q, context, context.clone(), q, lse, None, None, 0.3, mask, False, False)
    yield from layer_calls()
    x = torch.randn(2, 3, 4, 5, 8)
    yield "channel_stats", (x,)
    yield "norm_act", (x, *group_norm(8), torch.randn_like(x))
    yield "norm_act_backward", (torch.randn_like(x), x, *group_norm(8))
    weight, out = torch.randn(6, 8, 1, 3, 3), torch.randn(2, 3, 4, 5, 6)
    yield "norm_act_conv", (x, weight, torch.rand(6), *group_norm(8), torch.rand(2, 3, 6), out, torch.rand(2, 3), True)
    yield "norm_act_conv", (x, torch.randn(6, 8, 3, 1, 1), None, *NO_NORM, None, None, None, False)
    yield "norm_act_conv_backward", (
        out, x, weight, torch.rand(6), *group_norm(8), torch.rand(2, 3, 6), torch.rand(2, 3), True, True, True,
    )  # fmt: skip
    yield "norm_act_conv_backward", (out, x, weight, None, *NO_NORM, None, None, False, True, False)
    weight, pos_emb, gate, norm = torch.randn(6, 8), torch.randn(3, 8), torch.randn(2, 6), group_norm(8, act="none")
    yield "norm_linear", (x, weight, torch.rand(6), *norm, pos_emb, gate, out)
    yield "norm_linear", (x, weight, None, *NO_NORM, None, None, None)
    yield "norm_linear_backward", (out, x, weight, torch.rand(6), *norm, pos_emb, gate, True, True)
    yield "norm_linear_backward", (out, x, weight, None, *NO_NORM, None, None, False, True)
    rows, projection = torch.randn(7, 8), torch.randn(12, 8)
    yield "geglu", (rows, projection, torch.rand(12))
    yield "geglu_backward", (torch.randn(7, 6), rows, projection, None)


def layer_calls():
    x, out = torch.randn(2, 5, 2, 3, 12), torch.randn(2, 5, 2, 3, 10)  # N = 2, D = 8
    layer = x, torch.randn(48, 12), torch.randn(48), torch.randn(10, 16), torch.randn(10), 2
    full = *layer, "layer", torch.rand(12), torch.rand(12), 1e-5, torch.randn(5, 12)
    bare = x, layer[1], None, layer[3], None, 2, "none", None, None, 0.0, None
    square = *bare[:3], torch.randn(12, 16), *bare[4:]
    yield "temporal_layer", (*full, out, torch.randn(2, 5, 5), None, *temporal_options())
    yield "temporal_layer", (*bare, None, None, torch.randn(2, 9), 0.3, False, None, None)
    yield "temporal_layer_backward", (out, *full, torch.randn(2, 5, 5), None, *temporal_options(), False, True)
    yield "temporal_layer_backward", (out, *bare, None, torch.randn(2, 9), 0.3, False, None, None, False, False)
    yield "spatial_layer", (*full, out, torch.randn(2, 6, 6), None, 0.3)
    yield "spatial_layer", (*bare, None, None, torch.randn(2, 3, 5), 0.3)
    yield "spatial_layer_backward", (out, *full, None, torch.randn(2, 3, 5), 0.3, False, True)
    yield "spatial_layer_backward", (x, *square, torch.randn(2, 6, 6), None, 0.3, True, False)
