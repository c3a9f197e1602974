"""The CUDA attention kernels as nvcc compiles them, simulated: forward and every gradient of the hostile cases within the budget,
clean, the same for every interleaving, and no worse than their golden counts."""

import pytest
import torch

import vdiff_kernels as vdiff
from tests.ptxsim.fixtures import clean_run
from tests.ptxsim.golden import Golden, owner_of
from tests.ptxsim.launcher import plain_name
from vdiff_kernels.backends import registry
from vdiff_kernels.ops.attention import api, reference
from vdiff_kernels.ops.attention.call import AttentionCall, AttentionOptions
from vdiff_kernels.ops.autograd import run
from vdiff_kernels.verify.cases import SPATIAL_CASES, STEADY_CASES, TEMPORAL_CASES, TILE_CASES
from vdiff_kernels.verify.check import check, evaluate, make_leaves
from vdiff_kernels.verify.inputs import SpatialCase, TemporalCase

from .simulated import launchers, simulated_by_default

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CASES = [*TEMPORAL_CASES, *SPATIAL_CASES]
SHORT, LONG = TemporalCase("short", T=5, N=3, D=12, bias="rel"), SpatialCase("long", T=1, H=5, W=7, N=1, D=12, bias="rel")


@pytest.fixture
def simulated(simulate):
    """The public operators run the CUDA kernels in the simulator."""
    with simulated_by_default(simulate.launcher):
        yield


@pytest.fixture
def clean():
    """The same once, in a shuffled order, and without golden counts: other cases have those."""
    with simulated_by_default(clean_run()):
        yield


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forward_and_every_gradient(case, dtype, simulated):
    check(case, DTYPES[dtype])


@pytest.mark.parametrize("case", TILE_CASES, ids=str)
def test_edges_of_tiles(case, clean):
    check(case, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", STEADY_CASES, ids=str)
def test_head_dims_that_are_compiled(case, dtype, simulated):
    check(case, dtype)


@pytest.mark.parametrize("T, N, D", [(3, 2, 32), (3, 2, 80), (9, 1, 80), (9, 1, 32), (17, 1, 32), (17, 1, 64)])
def test_a_warp_with_several_places(T, N, D, clean):
    """Of clips of which one is images, so that places differ; a warp has a place less."""
    case = TemporalCase("places", B=3, T=T, H=11, W=125, N=N, D=D, bias="rel", focus="clips")
    leaves = make_leaves(case, torch.bfloat16)
    found = evaluate(case, api.temporal_attention, leaves, torch.bfloat16)
    expected = evaluate(case, reference.temporal_attention, {name: t.double() for name, t in leaves.items()}, torch.bfloat16)
    for name, exact in expected.items():
        torch.testing.assert_close(found[name].double(), exact, rtol=0.02, atol=0.01 * exact.abs().max().item())


def test_a_place_leaves_nothing_to_the_next(clean):
    """Of head dims that are no whole chunk, whose rows are padded in shared memory, where three places of a warp take turns."""
    q, k, v, grad = (torch.randn(1, 3, 11, 563, 2, 40).bfloat16() for _ in range(4))
    for t in (q, k, v, grad):
        t[:, :, 0] = torch.nan
    leaves = [t.requires_grad_() for t in (q, k, v)]
    out = vdiff.temporal_attention(*leaves)
    for t in (out, *torch.autograd.grad(out, leaves, grad)):
        assert t[:, :, 1:].isfinite().all() and t[:, :, 0].isnan().all()


def test_every_kernel_that_ships_was_run():
    """By a test of this file: its golden counts are no others'."""
    shipped = {plain_name(name) for unit in launchers().units for name in unit.kernel_names}
    ran = {case.removeprefix(owner_of(case)).strip() for case in Golden("cuda_attention").cases}
    assert shipped <= ran, f"never run: {sorted(shipped - ran)}"


def test_the_large_scores_are_near_the_limit_of_float16():
    for case in (case for case in CASES if case.name == "float16-limit"):
        q, k, _ = (make_leaves(case, torch.float16)[name].double() for name in "qkv")
        if case.operator == "temporal_attention":
            scores = torch.einsum("bthwnd,bshwnd->bhwnts", q, k)
        else:
            scores = torch.einsum("btnld,btnsd->btnls", *(t.flatten(2, 3).transpose(2, 3) for t in (q, k)))
        assert torch.finfo(torch.float16).max / 2 < scores.abs().max() < torch.finfo(torch.float16).max


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("case", [SHORT, LONG], ids=str)
def test_a_table_of_another_dtype(case, dtype, simulated):
    leaves = make_leaves(case, torch.bfloat16)
    leaves["rel_bias"] = leaves["rel_bias"].bfloat16().float()  # what all of them hold
    expected = evaluate(case, getattr(api, case.operator), leaves, torch.bfloat16)
    leaves["rel_bias"] = leaves["rel_bias"].to(dtype)
    actual = evaluate(case, getattr(api, case.operator), leaves, torch.bfloat16)
    assert actual["d_rel_bias"].dtype == dtype
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value.to(actual[name].dtype), rtol=0, atol=0)


@pytest.mark.parametrize("case", [SHORT, LONG], ids=str)
def test_incoming_gradients_of_any_strides(case, simulated):
    leaves = make_leaves(case, torch.bfloat16)
    B, T, H, W, N, D = leaves["q"].shape
    incoming = {
        "of a sum": torch.ones(1, dtype=torch.bfloat16).expand(B, T, H, W, N, D),
        "of one row": torch.randn(D).bfloat16().expand(B, T, H, W, N, D),
        "channels first": torch.randn(B, N * D, T, H, W).bfloat16().movedim(1, -1).unflatten(-1, (N, D)),
    }
    for words, grad_out in incoming.items():
        grads = []
        for backend, gradient in (("simulated", grad_out), ("simulated", grad_out.contiguous())):
            inputs = {name: t.clone().requires_grad_() for name, t in leaves.items()}
            out = case.call(getattr(vdiff, case.operator), inputs, backend=backend)
            grads.append(torch.autograd.grad(out, list(inputs.values()), gradient))
        assert all(torch.equal(a, b) for a, b in zip(*grads)), words


@pytest.mark.parametrize("case", [SHORT, LONG], ids=str)
def test_one_packed_gradient(case, simulated):
    """dq, dk and dv written as the slices of one dqkv are those that are written apart."""
    leaves = make_leaves(case, torch.bfloat16)
    qkv = torch.stack([leaves[name] for name in "qkv"], 4).requires_grad_()
    table = leaves["rel_bias"].requires_grad_()
    options = AttentionOptions(rel_bias=table)
    grad_out = torch.randn(qkv.shape[:4] + qkv.shape[5:]).bfloat16()
    together = run(AttentionCall.packed(case.operator, qkv, options), "simulated")
    apart = run(AttentionCall(case.operator, *qkv.unbind(4), options), "simulated")
    grads = [torch.autograd.grad(out, [qkv, table], grad_out) for out in (together, apart)]
    assert torch.equal(together, apart) and all(torch.equal(a, b) for a, b in zip(*grads))


@pytest.mark.parametrize("case", [SHORT, TemporalCase("sixteen", T=9, N=2, D=20), LONG], ids=str)
@pytest.mark.parametrize("poison", ["q", "k", "v"])
def test_nan_stays_in_its_sequence(case, poison, simulated):
    """Of the last head of the first place; a pair of short sequences shares a tile."""
    leaves = make_leaves(case, torch.float16)
    leaves.pop("rel_bias", None)
    clean = evaluate(case, getattr(api, case.operator), leaves, torch.float16)
    place = (0, slice(None), 0, 0, -1) if case.operator == "temporal_attention" else (0, 0, slice(None), slice(None), -1)
    leaves[poison][place] = torch.nan
    spoiled = evaluate(case, getattr(api, case.operator), leaves, torch.float16)
    for name, values in clean.items():
        elsewhere = torch.ones_like(values, dtype=torch.bool)
        elsewhere[place] = False
        assert torch.equal(spoiled[name][elsewhere], values[elsewhere]), name
    assert spoiled["out"][place].isnan().all()


def test_warps_with_several_units_add_their_bias_gradients(simulated):
    """More sequences than warps that the launcher lets have a partial of the gradient."""
    check(TemporalCase("many", T=2, H=70, W=120, N=1, D=8, bias="rel"), torch.bfloat16)


def test_blocks_with_several_frames_add_their_gradients(simulated):
    """More frames than the launchers cut a shared context's keys, or the sequences of a bias, into chunks."""
    check(SpatialCase("many-frames", T=70, H=1, W=3, N=16, D=8, context="shared", S=5, bias="dense"), torch.bfloat16)


def test_warps_with_several_units_keep_their_heads_apart(clean):
    """Units of 2 sequences, more than warps have partials, whose heads take turns by 3."""
    check(TemporalCase("many-heads", T=2, H=49, W=56, N=3, D=8, bias="rel"), torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("D", [16, 56, 72, 96, 112, 144, 200])
def test_the_fewest_columns_of_a_class(D, dtype, simulated):
    """Forward of long sequences has classes of head dims, and a head need not fill its class."""
    check(TemporalCase("class", T=66, H=1, W=1, N=1, D=D), dtype)


def test_lines_that_are_padded(clean):
    """By whole pixels, so that rows are moved by 16 bytes, yet lie at no even steps."""
    padded = torch.randn(3, 1, 1, 5, 20, 1, 16).bfloat16()[..., :15, :, :].unbind()
    assert torch.equal(vdiff.spatial_attention(*padded), vdiff.spatial_attention(*(t.contiguous() for t in padded)))


@pytest.mark.parametrize("scale", [-0.5, 0.0])
def test_a_scale_that_is_not_positive(scale, clean):
    check(TemporalCase("scale", T=40, H=1, W=1, N=1, D=8, causal=True, scale=scale), torch.bfloat16)


@pytest.mark.parametrize("T", [5, 40])
def test_a_mask_of_any_strides(T, clean):
    """The public operator makes the mask contiguous; the kernels take any."""
    kernels = registry.BACKENDS["simulated"].kernels["temporal_attention"]
    q, k, v, grad_out = (torch.randn(2, T, 1, 1, 1, 8).bfloat16() for _ in range(4))
    spread = torch.rand(2, 3 * T) < 0.3
    results = []
    for focus in (spread[:, ::3], spread[:, ::3].contiguous()):
        call = AttentionCall("temporal_attention", q, k, v, AttentionOptions(scale=0.5, focus_present=focus))
        out, saved = kernels.forward(call, True)
        results.append((out, *kernels.backward(call, saved, grad_out, (True,) * 3 + (False,) * 4)[:3]))
    expected = reference.temporal_attention(q, k, v, scale=0.5, focus_present=spread[:, ::3])
    torch.testing.assert_close(results[0][0], expected, rtol=0.02, atol=0.02)
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_a_bias_gradient_keeps_what_is_small_beside_its_largest_terms(clean):
    """On the main diagonal ds is one value 62 times, and 2^24 of it and as many less, between which a plain float sum forgets."""
    T = 64
    q, k, v, grad_out = torch.zeros(4, 1, T, 1, 1, 1, 4)
    v[:, :, ..., 0] = torch.tensor([1.0, -1.0]).repeat(T // 2).view(1, T, 1, 1, 1)
    grad_out[..., 0] = v[..., 0]
    grad_out[:, 0, ..., 0] *= 2.0**24
    grad_out[:, 31, ..., 0] *= -(2.0**24)
    table = torch.zeros(1, 2 * T - 1, requires_grad=True)
    out = vdiff.temporal_attention(q, k, v, rel_bias=table)
    (gradient,) = torch.autograd.grad(out, table, grad_out)
    torch.testing.assert_close(gradient[0, T - 1].item(), 62 / T, rtol=0.05, atol=0)


def test_angles_of_far_frames(clean):
    """As good as their float32, whole turns away from zero."""
    q, k, v = torch.randn(3, 1, 4, 1, 1, 1, 4)
    rotary = 1e5 + torch.rand(4, 2)
    out = vdiff.temporal_attention(q, k, v, rotary=rotary)
    expected = reference.temporal_attention(*(t.double() for t in (q, k, v)), rotary=rotary.double())
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-5)
