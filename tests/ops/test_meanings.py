"""The fixed meanings of the contract that a comparison with the definition alone would not show."""

import os
import subprocess
import sys

import pytest
import torch
from torch.autograd import gradcheck

import vdiff_kernels as vdiff
from vdiff_kernels import verify
from vdiff_kernels.ops.attention import reference


def randn(*shape, dtype=torch.float32, grad=False):
    return torch.randn(*shape, dtype=dtype, requires_grad=grad)


# ----------------------------------------------------------------------------------------------------- the definition
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("T, S", [(5, 5), (7, 3), (2, 6)])
def test_temporal_attention_is_sdpa_per_pixel(backend, T, S, causal):
    q, k, v = randn(2, T, 3, 2, 3, 8), randn(2, S, 3, 2, 3, 8), randn(2, S, 3, 2, 3, 8)
    bias = randn(3, T, S)
    mask = bias.masked_fill(torch.arange(S) > torch.arange(T)[:, None], -torch.inf) if causal else bias
    rows = [t.permute(0, 2, 3, 4, 1, 5) for t in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*rows, attn_mask=mask).permute(0, 4, 1, 2, 3, 5)
    torch.testing.assert_close(vdiff.temporal_attention(q, k, v, bias=bias, causal=causal, backend=backend), expected)


def test_relative_bias_entries(backend):
    """Uniform scores: the bias alone decides, entry by entry, by the formulas of the contract written as loops."""
    T, S, H, W, N = 4, 6, 3, 2, 2
    rel = randn(N, T + S - 1)
    dense = torch.stack([torch.stack([rel[:, j - i + T - 1] for j in range(S)], -1) for i in range(T)], 1)
    q, k, v = torch.zeros(1, T, 1, 1, N, 4), torch.zeros(1, S, 1, 1, N, 4), randn(1, S, 1, 1, N, 4)
    torch.testing.assert_close(
        vdiff.temporal_attention(q, k, v, rel_bias=rel, backend=backend),
        vdiff.temporal_attention(q, k, v, bias=dense, backend=backend),
    )
    rel = randn(N, 2 * H - 1, 2 * W - 1)
    dense = torch.empty(N, H * W, H * W)
    for i in range(H * W):
        for j in range(H * W):
            dense[:, i, j] = rel[:, j // W - i // W + H - 1, j % W - i % W + W - 1]
    q, v = torch.zeros(1, 2, H, W, N, 4), randn(1, 2, H, W, N, 4)
    torch.testing.assert_close(
        vdiff.spatial_attention(q, q, v, rel_bias=rel, backend=backend),
        vdiff.spatial_attention(q, q, v, bias=dense, backend=backend),
    )


def test_rotary_depends_on_distance_only(backend):
    q, k = randn(1, 1, 1, 1, 1, 8).expand(1, 6, 1, 1, 1, 8), randn(1, 1, 1, 1, 1, 8).expand(1, 6, 1, 1, 1, 8)
    angles = torch.arange(6)[:, None] * torch.tensor([1.0, 0.1])
    eye = torch.eye(6)[None, :, None, None, None, :]  # v = one-hot frames: out is the attention row
    rows = vdiff.temporal_attention(q, k, torch.cat((eye, eye[..., :2]), -1), rotary=angles, causal=True, backend=backend)
    rows = rows.reshape(6, 8)[:, :6]
    ratios = [rows[i, i - 1] / rows[i, i] for i in range(1, 6)]
    torch.testing.assert_close(torch.stack(ratios), ratios[0].expand(5))


def test_focus_present_isolates_image_frames(backend):
    q, k, v = (randn(2, 4, 2, 2, 1, 8) for _ in range(3))
    images = torch.tensor([[False, False, True, True], [False] * 4])
    out = vdiff.temporal_attention(q, k, v, focus_present=images, backend=backend)
    torch.testing.assert_close(out[0, 2:], v[0, 2:])  # an image sees itself alone
    torch.testing.assert_close(out[:1, :2], vdiff.temporal_attention(q[:1, :2], k[:1, :2], v[:1, :2], backend="reference"))
    torch.testing.assert_close(out[1:], vdiff.temporal_attention(q[1:], k[1:], v[1:], backend="reference"))


@pytest.mark.parametrize("per_frame", [False, True])
def test_key_mask_leaves_the_keys_that_are_true(backend, per_frame):
    """Each sample's own, in any strides; the others get no gradient, and a sample without keys gets zeros."""
    q, k, v = randn(3, 2, 3, 2, 2, 8, grad=True), randn(3, 2, 9, 2, 8, grad=True), randn(3, 2, 9, 2, 8, grad=True)
    bias = randn(2, 6, 9, grad=True)
    keys, values = (k, v) if per_frame else (k[:, 0], v[:, 0])
    key_mask = torch.zeros(18, 6, dtype=torch.bool).T[::2, ::2]  # (3, 9)
    key_mask[0, [0, 3, 4, 8]] = key_mask[1, [1, 2]] = True
    out = vdiff.spatial_attention(q, keys, values, bias=bias, key_mask=key_mask, backend=backend)
    out.square().sum().backward()
    for b in (0, 1):
        seen = [t[b : b + 1].index_select(-3, key_mask[b].nonzero()[:, 0]) for t in (keys, values)]
        alone = vdiff.spatial_attention(q[b : b + 1], *seen, bias=bias[:, :, key_mask[b]], backend="reference")
        torch.testing.assert_close(out[b : b + 1], alone)
    assert (out[2] == 0).all() and (q.grad[2] == 0).all()
    for gradient in (k.grad, v.grad):
        hidden = (gradient if per_frame else gradient[:, :1]).transpose(1, 2)[~key_mask]
        assert (hidden == 0).all() and not (gradient == 0).all()
    assert (bias.grad[:, :, ~key_mask.any(0)] == 0).all() and (bias.grad[:, :, key_mask.any(0)] != 0).all()


# -------------------------------------------------------------------------------------------- masked and non-finite rows
@pytest.mark.parametrize("dtype", verify.DTYPES, ids=str)
def test_a_fully_masked_row_gives_zeros(backend, dtype):
    q, k, v = (randn(1, 3, 2, 2, 1, 8).to(dtype).requires_grad_() for _ in range(3))
    bias = torch.zeros(1, 3, 3)
    bias[0, 1] = -torch.inf
    bias.requires_grad_()
    out = vdiff.temporal_attention(q, k, v, bias=bias, backend=backend)
    out.float().square().sum().backward()
    assert (out[:, 1] == 0).all() and (q.grad[:, 1] == 0).all() and (bias.grad[:, 1] == 0).all()
    assert all(torch.isfinite(t.grad).all() for t in (q, k, v, bias))


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_non_finite_query_touches_its_own_row(backend, poison):
    q, k, v = (randn(2, 4, 3, 3, 2, 8) for _ in range(3))
    clean = vdiff.temporal_attention(q, k, v, backend=backend)
    q[1, 2, 0, 1, 1] = poison
    out = vdiff.temporal_attention(q, k, v, backend=backend)
    touched = torch.zeros_like(out, dtype=torch.bool)
    touched[1, 2, 0, 1, 1] = True
    assert torch.equal(out[~touched], clean[~touched]) and not torch.isfinite(out[touched]).any()


def test_a_non_finite_key_touches_its_own_sequence(backend):
    q, k, v = (randn(2, 4, 3, 3, 2, 8) for _ in range(3))
    clean = vdiff.temporal_attention(q, k, v, backend=backend)
    k[1, 2, 0, 1, 1] = torch.nan
    out = vdiff.temporal_attention(q, k, v, backend=backend)
    touched = torch.zeros_like(out, dtype=torch.bool)
    touched[1, :, 0, 1, 1] = True
    assert torch.equal(out[~touched], clean[~touched])


# ------------------------------------------------------------------------------------------------ strides and gradients
def test_zero_stride_gradients(backend):
    q, k, v = (randn(1, 3, 2, 2, 2, 8, grad=True) for _ in range(3))
    vdiff.temporal_attention(q, k, v, backend=backend).sum().backward()  # stride 0 in every dimension
    x = randn(1, 4, 3, 5, 5, grad=True)
    vdiff.norm_act_conv(x, randn(4, 4, 1, 3, 3), norm=vdiff.Norm("group", groups=2), backend=backend).sum().backward()
    for t in (q, v, x):
        assert t.grad.is_contiguous() or t.grad.is_contiguous(memory_format=torch.channels_last_3d)


def test_outputs_are_contiguous_and_channels_last(backend):
    q = randn(1, 8, 2, 2, 2, 3).permute(0, 5, 2, 3, 4, 1)  # innermost stride is not one
    assert vdiff.temporal_attention(q, q, q, backend=backend).is_contiguous()
    assert vdiff.spatial_attention(q, q, q, backend=backend).is_contiguous()
    x = randn(1, 4, 3, 5, 5)
    for out in (
        vdiff.norm_act_conv(x, randn(6, 4, 1, 3, 3), backend=backend),
        vdiff.pseudo3d_conv(x, randn(6, 4, 1, 3, 3), None, randn(2, 6, 3, 1, 1), None, backend=backend),
        vdiff.norm_act(x, vdiff.Norm("layer"), backend=backend),
    ):
        assert out.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("table_dtype", verify.DTYPES, ids=str)
def test_bias_gradients_return_in_the_dtype_of_the_table(backend, table_dtype):
    q, k, v = (randn(2, 3, 2, 2, 2, 8).bfloat16() for _ in range(3))
    for name, shape in (("bias", (2, 3, 3)), ("rel_bias", (2, 5))):
        table = randn(*shape).to(table_dtype).requires_grad_()
        vdiff.temporal_attention(q, k, v, **{name: table}, backend=backend).float().sum().backward()
        assert table.grad.dtype == table_dtype and table.grad.shape == shape


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_mix_is_the_alpha_blender(backend, shape):
    x, spatial = randn(2, 4, 3, 3, 3), randn(2, 6, 3, 3, 3)
    weight, alpha = randn(6, 4, 3, 1, 1), torch.rand(shape)
    temporal = spatial + torch.nn.functional.conv3d(x, weight, padding=(1, 0, 0))
    blend = alpha.reshape(*shape[:1], 1, *shape[1:], *[1] * (4 - len(shape))) if shape else alpha
    blend = blend if len(shape) != 1 else alpha.reshape(2, 1, 1, 1, 1)
    expected = blend * spatial + (1 - blend) * temporal
    out = vdiff.norm_act_conv(x, weight, residual=spatial, mix=alpha, backend=backend)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_returned_stats_serve_the_next_norm(backend):
    x = randn(2, 8, 3, 5, 5, grad=True)
    weight, norm = randn(8, 8, 1, 3, 3), vdiff.Norm("group", groups=4, scope="clip")
    h, stats = vdiff.norm_act_conv(x, weight, return_stats=True, backend=backend)
    var, mean = torch.var_mean(h, dim=(3, 4), correction=0)
    torch.testing.assert_close(stats, torch.stack((mean, var), -1).transpose(1, 2))
    assert not stats.requires_grad
    with_stats = vdiff.norm_act(h, norm, act="silu", stats=stats, backend=backend)
    without = vdiff.norm_act(h, norm, act="silu", backend=backend)
    torch.testing.assert_close(with_stats, without)
    given, computed = (torch.autograd.grad(out.square().sum(), x, retain_graph=True)[0] for out in (with_stats, without))
    torch.testing.assert_close(given, computed)
    other = vdiff.norm_act(h, norm, stats=stats + 1, backend=backend)
    assert not torch.allclose(other, without)  # the value follows the statistics that are given


# ---------------------------------------------------------------------------------------------------- extents and memory
@pytest.mark.parametrize("sequences", [65_535, 65_536, 131_072])
def test_any_number_of_sequences(backend, sequences):
    q = torch.randn(1, 2, sequences, 1, 1, 4)
    out = vdiff.temporal_attention(q, q, q, backend=backend)
    for pixels in (slice(0, 2), slice(-2, None)):
        expected = reference.temporal_attention(*[q[:, :, pixels].double()] * 3).float()
        torch.testing.assert_close(out[:, :, pixels], expected)


def test_offsets_past_two_to_the_31(backend, tmp_path):
    """A view whose last frame lies past 2^31 elements of a sparse file: 64-bit offsets, nothing materialized."""
    stride = 2**31 + 8
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 4 * (stride + 64))
    storage = torch.UntypedStorage.from_file(str(tmp_path / "sparse"), False, 4 * (stride + 64))
    flat = torch.empty(0).set_(storage)
    flat[:64], flat[stride : stride + 64] = torch.randn(64), torch.randn(64)
    q = flat.as_strided((1, 2, 2, 2, 2, 8), (0, stride, 32, 16, 8, 1))
    out = vdiff.temporal_attention(q, q, q, backend=backend)
    torch.testing.assert_close(out, reference.temporal_attention(*[q.clone()] * 3))


def test_a_long_clip_needs_no_score_matrix_of_its_length(monkeypatch):
    q, k, v = (randn(1, 40, 2, 1, 2, 4, dtype=torch.float64) for _ in range(3))
    rel, focus = randn(2, 79, dtype=torch.float64), torch.rand(1, 40) > 0.7
    whole = reference.temporal_attention(q, k, v, rel_bias=rel, causal=True, focus_present=focus)
    monkeypatch.setattr(reference, "MAX_SCORES", 4 * 40 * 7)
    sizes = []
    monkeypatch.setattr(reference, "softmax", lambda s, f=reference.softmax: (sizes.append(s.numel()), f(s))[1])
    blocks = reference.temporal_attention(q, k, v, rel_bias=rel, causal=True, focus_present=focus)
    torch.testing.assert_close(blocks, whole)
    assert len(sizes) == 6 and max(sizes) <= reference.MAX_SCORES


PEAK_MEMORY = """
import resource, torch, vdiff_kernels as vdiff
q, k, v = (torch.randn(1, 16, 256, 128, 8, 1, requires_grad=True) for _ in range(3))  # 16 MiB each
bias = torch.randn(8, 16, 16, requires_grad=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
vdiff.temporal_attention(q, k, v, bias=bias, backend="cpu").sum().backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_no_bias_table_per_pixel():
    """32,768 pixels: one table each would be 256 MiB. All results, gradients and saved tensors together are at most 112."""
    run = subprocess.run([sys.executable, "-c", PEAK_MEMORY], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 160, f"backward grew the process by {run.stdout} MiB"


THREAD_CASES = [
    verify.TemporalCase("threads", B=2, T=7, H=9, W=11, N=3, D=40, bias="dense"),
    verify.TemporalCase("threads-rel", T=5, H=16, W=16, N=1, D=8, bias="rel", layout="packed"),
    verify.SpatialCase("threads", B=2, T=3, H=7, W=5, N=2, D=24, bias="rel"),
    verify.SpatialCase("threads-context", T=4, H=6, W=5, N=3, D=16, context="shared", S=9, bias="dense"),
    verify.NormCase("threads", B=2, T=4, H=9, W=11, C=24, scope="clip", modulated=True),
    verify.ConvCase("threads", B=2, T=4, H=9, W=11, C=16, Co=24, temb="frame", residual=True, mix="frame"),
    verify.ConvCase("threads-temporal", T=6, H=9, W=11, C=16, Co=24, kernel="temporal", norm="rms"),
    verify.GegluCase("threads", (130, 24), E=40),
]


@pytest.mark.parametrize("case", THREAD_CASES, ids=str)
def test_bit_equal_for_every_thread_count_and_run(case):
    leaves = verify.make_leaves(case, torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 2):
            torch.set_num_threads(count)
            results.append(verify.evaluate(case, verify.functions(case)[0], leaves, torch.float32, backend="cpu"))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(results[0][name], other[name]) for name in other)


# ------------------------------------------------------------------------------------------------------------- calculus
GRADCHECK_CASES = [
    verify.TemporalCase("all", B=2, T=4, H=1, W=2, N=2, D=4, bias="dense", causal=True, focus="frames", rotary=2),
    verify.TemporalCase("cross", T=3, S=5, H=1, W=2, N=2, D=3, bias="rel", layout="contiguous"),
    verify.SpatialCase("rel", T=1, H=2, W=3, N=2, D=3, bias="rel", layout="packed"),
    verify.SpatialCase("context", T=2, H=2, W=1, N=1, D=3, context="shared", S=3, bias="dense"),
    verify.NormCase("clip", B=2, C=4, T=2, H=2, W=2, groups=2, scope="clip", modulated=True, residual=True),
    verify.NormCase("rms", norm="rms", C=3, T=1, H=2, W=2, modulated=True),
    verify.ConvCase("spatial", B=2, C=4, Co=2, T=2, H=3, W=2, groups=2, temb="clip", residual=True, mix="frame"),
    verify.ConvCase(
        "temporal", C=4, Co=3, T=3, H=1, W=2, kernel="temporal", norm="layer", temb="frame", mix="scalar", residual=True
    ),
    verify.GegluCase("plain", (3, 4), E=2),
]  # fmt: skip


@pytest.mark.parametrize("case", GRADCHECK_CASES, ids=str)
def test_gradcheck(case, backend):
    leaves = verify.make_leaves(case, torch.float64)
    function = verify.functions(case)[0]

    def call(*tensors):
        return case.call(function, dict(zip(leaves, tensors)), backend=backend)

    assert gradcheck(call, [t.requires_grad_() for t in leaves.values()], nondet_tol=0.0)


def test_double_backward_raises():
    q = randn(1, 3, 1, 2, 1, 4, grad=True)
    with pytest.raises(RuntimeError, match="double backward is not supported"):
        torch.autograd.grad(vdiff.temporal_attention(q, q, q, backend="cpu").sum(), q, create_graph=True)


@pytest.mark.parametrize("grad", [False, True])
def test_vmap_raises(grad):
    q = randn(2, 1, 3, 1, 2, 1, 4, grad=grad)
    with pytest.raises(RuntimeError, match="vmap"):
        torch.vmap(lambda t: vdiff.temporal_attention(t, t, t, backend="cpu"))(q)
