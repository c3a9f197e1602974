"""The registered operators that Triton implements, and torch.compile over them, simulated."""

import functools

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.library import opcheck

import vdiff_kernels as vdiff
from tests.backends.triton.cases import SERVED, is_served
from tests.backends.triton.simulated import simulated_by_triton
from tests.ops.arguments import assert_as_the_fake_says, calls_of, name_of
from tests.ptxsim.fixtures import clean_triton
from vdiff_kernels import library, verify
from vdiff_kernels.backends.triton import FUNCTIONS
from vdiff_kernels.ops.norm.api import channel_stats
from vdiff_kernels.ops.schema import named

IMPLEMENTED = {named(operator, "triton") for operator in FUNCTIONS}
CALLS = [call for call in calls_of("triton") if name_of(call) in IMPLEMENTED]


@pytest.fixture(autouse=True)
def simulated():
    with simulated_by_triton(clean_triton()):
        yield


def test_every_schema_of_what_is_served_is_implemented():
    for served in SERVED.values():
        assert all(library.has_kernel(name, key) for name in served.schemas for key in ("CPU", "CUDA"))
    assert {name_of(call) for call in CALLS} == {name for served in SERVED.values() for name in served.schemas}


@pytest.mark.parametrize("call", CALLS, ids=name_of)
def test_opcheck(call):
    opcheck(*call)


@pytest.mark.parametrize("call", CALLS, ids=name_of)
def test_outputs_are_contiguous_and_as_the_fake_says(call):
    assert_as_the_fake_says(*call)


# ------------------------------------------------------------------------------------------------------------- torch.compile


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


CASES = [
    verify.TemporalCase("all", B=2, T=5, H=2, W=3, N=2, D=8, bias="dense", causal=True, focus="frames", rotary=4),
    verify.SpatialCase("rel", T=2, H=3, W=2, bias="rel", layout="packed"),
    verify.SpatialCase("padded", B=3, T=2, H=3, W=2, context="shared", S=5, key_mask="padding"),
    verify.StatsCase("plain"),
    verify.NormCase("group", B=2, scope="clip", residual=True, modulated=True),
    verify.ConvCase("conv", B=2, temb="clip", residual=True, mix="frame"),
    verify.LayerCase("layer", attention=verify.TemporalCase("", T=4, N=2, D=6, bias="rel")),
    verify.Pseudo3DCase("plain"),
    verify.LinearCase("group-clip", B=2, scope="clip", gate=True, residual=True),
    verify.GegluCase("plain"),
]


@pytest.mark.parametrize("case", [case for case in CASES if is_served(case.operator)], ids=str)
def test_compiles_whole_forward_and_backward(case, fresh_dynamo):
    leaves, function = verify.make_leaves(case, torch.float32), verify.functions(case)[0]
    compiled = torch.compile(functools.partial(function, backend="triton"), fullgraph=True, backend="aot_eager")
    got, expected = (
        verify.evaluate(case, run, leaves, torch.float32) for run in (compiled, functools.partial(function, backend="triton"))
    )
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], msg=lambda m: f"{name}: {m}")


def _pixels(*rest):
    return lambda B, T, H: torch.randn(B, T, H, 1, *rest, requires_grad=True)


def _attention(B, T, H):
    return *(_pixels(3, 8)(B, T, H) for _ in range(3)), torch.randn(3, 2 * T - 1, requires_grad=True)


def _context(B, T, H):
    return _pixels(3, 8)(B, T, H), *(torch.randn(B, T + 6, 3, 8, requires_grad=True) for _ in range(2))


def _layer(B, T, H):
    """Of a half type, which is served whole."""
    weights = torch.randn(3 * 14, 8), torch.randn(8, 14)
    return tuple(t.detach().half().requires_grad_() for t in (_pixels(8)(B, T, H), *weights))


# By operator: what makes its tensors, of so many clips, frames and lines, and what calls it with them.
DYNAMIC = {
    "temporal_attention": (_attention, lambda q, k, v, table: vdiff.temporal_attention(q, k, v, rel_bias=table, causal=True)),
    "spatial_attention": (_context, vdiff.spatial_attention),
    "temporal_layer": (
        _layer,
        lambda x, w_qkv, w_out: vdiff.temporal_layer(x, w_qkv, None, w_out, None, num_heads=2, norm=vdiff.Norm("layer")),
    ),
    "channel_stats": (lambda *sizes: (_pixels(8)(*sizes),), lambda x: channel_stats(x.movedim(-1, 1)) * x.mean()),
    "norm_act": (
        lambda *sizes: (_pixels(8)(*sizes), torch.rand(8, requires_grad=True)),
        lambda x, weight: vdiff.norm_act(x.movedim(-1, 1), vdiff.Norm("group", weight, groups=4)),
    ),
    "norm_act_conv": (
        lambda *sizes: (_pixels(8)(*sizes), torch.randn(6, 8, 1, 3, 3, requires_grad=True)),
        lambda x, weight: vdiff.norm_act_conv(x.movedim(-1, 1), weight, norm=vdiff.Norm("layer")),
    ),
    "norm_linear": (
        lambda *sizes: (_pixels(8)(*sizes), torch.randn(7, 8, requires_grad=True)),
        lambda x, weight: vdiff.norm_linear(x, weight, norm=vdiff.Norm("rms")),
    ),
    "geglu": (lambda *sizes: (_pixels(8)(*sizes), torch.randn(12, 8, requires_grad=True)), lambda x, w: vdiff.geglu(x, w, None)),
}


def test_every_operator_has_a_call_of_many_sizes():
    assert SERVED.keys() <= DYNAMIC.keys()


@pytest.mark.parametrize("operator", [operator for operator in DYNAMIC if operator in SERVED])
def test_dynamic_shapes_take_one_graph(operator, fresh_dynamo):
    make, call = DYNAMIC[operator]
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=counter)
    with vdiff.backend("triton"):
        for sizes in ((2, 5, 4), (4, 2, 6)):  # all apart at first, from all others too: equal sizes are guarded to stay equal
            tensors = make(*sizes)
            results = []
            for run in (compiled, call):
                out = run(*tensors)
                results.append([out, *torch.autograd.grad(out.square().sum(), tensors, allow_unused=True)])
            for got, expected in zip(*results):
                torch.testing.assert_close(got, expected)
    assert counter.frame_count == 1
