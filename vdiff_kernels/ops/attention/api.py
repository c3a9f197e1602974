"""temporal_attention, spatial_attention and their layers: check the arguments once, choose the backend, call it."""

import torch
from torch import Tensor

from .. import checks
from ..backend import resolve
from ..library import acc_dtype
from ..norm.spec import Norm, require_norm
from . import fused_layer, reference
from .autograd import attention

_Q = "(B, T, H, W, N, D)"


def temporal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    rel_bias: Tensor | None = None,
    scale: float | None = None,
    causal: bool = False,
    focus_present: Tensor | None = None,
    rotary: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attention over frames at each pixel: softmax(scale * q k^T + bias) v.

    Args:
        q: (B, T, H, W, N, D), float32, float64, float16 or bfloat16; D from 1 to 256. Any outer strides are read in place;
            a non-unit innermost stride is copied once.
        k, v: (B, S, H, W, N, D), q's dtype and device. Query frame i and key frame j share origin 0.
        bias: (N, T, S), any floating dtype, added in float32 after the scale; expanded views allowed; -inf masks.
        rel_bias: (N, T+S-1), entry [n, j - i + T - 1]; instead of bias.
        scale: default D ** -0.5.
        causal: frame i sees frames j <= i.
        focus_present: (B,) or (B, T) bool; frame i sees frame j iff i == j or neither is isolated (True). Needs S == T.
        rotary: (T, R//2) float32 or float64 angles in radians, R <= D, interleaved pairs; a constant. Needs S == T.
        backend: None (auto), "reference", "cpu", "cuda" or "triton".

    Returns (B, T, H, W, N, D), contiguous, q's dtype. A fully masked row gives zeros and zero gradients. Differentiable once in
    q, k, v, bias and rel_bias; "cpu" saves those alone, "cuda" for long sequences also out and a log-sum-exp (B, T, H, W, N).

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: Ho et al. 2022 (arXiv 2204.03458), section 3.
    """
    q, k, v = checks.autocast(q, k, v)
    _check_temporal_attention(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary)
    name = resolve(backend, "temporal_attention", q)
    arguments = dict(bias=bias, rel_bias=rel_bias, scale=scale, causal=causal, focus_present=focus_present, rotary=rotary)
    if name == "reference":
        return _reference(reference.temporal_attention, q, k, v, **arguments)
    options = _temporal_options(q, q.shape[-1], scale, causal, focus_present, rotary)
    return attention("temporal", name, *map(checks.unit_stride, (q, k, v)), bias, rel_bias, options)


@checks.once
def _check_temporal_attention(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary) -> None:
    op = "temporal_attention"
    _require_qkv(op, q, k, v)
    B, T, H, W, N, D = q.shape
    checks.require_extents(op, "q", q, T=T, N=N)
    checks.require_rank(op, "k", k, "(B, S, H, W, N, D)")
    S = k.shape[1]
    checks.require_shape(op, "k", k, "(B, S, H, W, N, D)", (B, S, H, W, N, D))
    checks.require_shape(op, "v", v, "(B, S, H, W, N, D)", (B, S, H, W, N, D))
    checks.require_extents(op, "k", k, S=S)
    _require_temporal(op, "q", q, (B, T, S, N, D), bias, rel_bias, scale, causal, focus_present, rotary)


def spatial_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    rel_bias: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attention over the pixels of each frame, or from each pixel to a context.

    Args:
        q: (B, T, H, W, N, D), as in `temporal_attention`.
        k, v: (B, T, H, W, N, D) the frame's own pixels, or context (B, S, N, D) shared by the frames, or (B, T, S, N, D).
        bias: (N, H*W, S), any floating dtype, S = H*W without context; expanded views allowed; -inf masks.
        rel_bias: (N, 2H-1, 2W-1), entry [n, jy - iy + H - 1, jx - ix + W - 1]; instead of bias, not with context.
        scale: default D ** -0.5.
        backend: None (auto), "reference", "cpu", "cuda" or "triton".

    Returns (B, T, H, W, N, D), contiguous, q's dtype. Differentiable once in q, k, v, bias and rel_bias, saving what
    `temporal_attention` saves.

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: Ho et al. 2022 (arXiv 2204.03458), section 3.
    """
    q, k, v = checks.autocast(q, k, v)
    _check_spatial_attention(q, k, v, bias, rel_bias, scale)
    name = resolve(backend, "spatial_attention", q)
    if name == "reference":
        return _reference(reference.spatial_attention, q, k, v, bias=bias, rel_bias=rel_bias, scale=scale)
    options = _spatial_options(q.shape[-1], scale)
    return attention("spatial", name, *map(checks.unit_stride, (q, k, v)), bias, rel_bias, options)


@checks.once
def _check_spatial_attention(q, k, v, bias, rel_bias, scale) -> None:
    op = "spatial_attention"
    _require_qkv(op, q, k, v)
    B, T, H, W, N, D = q.shape
    checks.require_extents(op, "q", q, H=H, W=W, N=N)
    if k.dim() not in (4, 5, 6):
        raise ValueError(f"{op}: k has shape {tuple(k.shape)}; expected {_Q}, or context (B, S, N, D) or (B, T, S, N, D)")
    context = k.dim() != 6
    S = k.shape[-3] if context else H * W
    letters, sizes = {
        6: (_Q, (B, T, H, W, N, D)),
        5: ("(B, T, S, N, D)", (B, T, S, N, D)),
        4: ("(B, S, N, D)", (B, S, N, D)),
    }[k.dim()]
    checks.require_shape(op, "k", k, letters, sizes)
    checks.require_shape(op, "v", v, letters, sizes)
    checks.require_extents(op, "k", k, S=S)
    _require_spatial(op, "q", q, (H, W, S, N, D), bias, rel_bias, scale, context)


def temporal_layer(
    x: Tensor,
    w_qkv: Tensor,
    b_qkv: Tensor | None,
    w_out: Tensor,
    b_out: Tensor | None,
    *,
    num_heads: int,
    norm: Norm | None = None,
    pos_emb: Tensor | None = None,
    gate: Tensor | None = None,
    residual: Tensor | None = None,
    bias: Tensor | None = None,
    rel_bias: Tensor | None = None,
    scale: float | None = None,
    causal: bool = False,
    focus_present: Tensor | None = None,
    rotary: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """A whole temporal attention layer: gate * linear(attention(linear(norm(x) + pos_emb, w_qkv)), w_out) + residual.

    Args:
        x: (B, T, H, W, C), any dtype of `temporal_attention`.
        w_qkv: (3*N*D, C), b_qkv: (3*N*D,) or None, w_out: (Co, N*D), b_out: (Co,) or None: as nn.Linear holds them, x's dtype.
        num_heads: N.
        norm: over the channels of x; scope as in `Norm`.
        pos_emb: (T, C), added after the norm, as AnimateDiff does. x's dtype, or float32 beside a half x.
        gate: (B, Co), multiplies the layer before the residual is added, as adaLN does. x's dtype, or float32 beside a half x.
        residual: (B, T, H, W, Co), x's dtype.
        bias, rel_bias, scale, causal, focus_present, rotary, backend: as in `temporal_attention`, with S = T.

    Returns (B, T, H, W, Co) in x's dtype. "cpu" computes the whole in blocks that stay in the cache and saves x alone: q, k, v and
    the scores are never in memory, and backward computes them again. Beside it stand a group norm or one with scale and shift,
    which goes before the layer, and composed of norm_act, linear, attention on one packed qkv and linear, as "cuda" always is:
    a layer with a gate, and one whose bias wants the gradient of a table above fused_layer.MAX_TABLE.

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: Ho et al. 2022 (arXiv 2204.03458), section 3; seeds' TemporalAttention.
    """
    x, w_qkv, b_qkv, w_out, b_out, residual = checks.autocast(x, w_qkv, b_qkv, w_out, b_out, residual)
    layer = x, w_qkv, b_qkv, w_out, b_out
    _check_temporal_layer(
        *layer, num_heads, norm, pos_emb, gate, residual, bias, rel_bias, scale, causal, focus_present, rotary
    )  # fmt: skip
    name = resolve(backend, "temporal_layer", x)
    around = dict(num_heads=num_heads, norm=norm, pos_emb=pos_emb, gate=gate, residual=residual)
    if name == "reference":
        arguments = dict(bias=bias, rel_bias=rel_bias, scale=scale, causal=causal, focus_present=focus_present, rotary=rotary)
        return _reference(reference.temporal_layer, *layer, **around, **arguments)
    options = _temporal_options(x, w_out.shape[1] // num_heads, scale, causal, focus_present, rotary)
    return fused_layer.layer("temporal", name, *layer, bias, rel_bias, options, **around)


@checks.once
def _check_temporal_layer(
    x, w_qkv, b_qkv, w_out, b_out, num_heads, norm, pos_emb, gate, residual, bias, rel_bias, scale, causal, focus_present, rotary
) -> None:  # fmt: skip
    op = "temporal_layer"
    D = _require_layer(op, x, w_qkv, b_qkv, w_out, b_out, num_heads, norm, pos_emb, gate, residual)
    B, T = x.shape[:2]
    checks.require_extents(op, "x", x, T=T)
    _require_temporal(op, "x", x, (B, T, T, num_heads, D), bias, rel_bias, scale, causal, focus_present, rotary)


def spatial_layer(
    x: Tensor,
    w_qkv: Tensor,
    b_qkv: Tensor | None,
    w_out: Tensor,
    b_out: Tensor | None,
    *,
    num_heads: int,
    norm: Norm | None = None,
    pos_emb: Tensor | None = None,
    gate: Tensor | None = None,
    residual: Tensor | None = None,
    bias: Tensor | None = None,
    rel_bias: Tensor | None = None,
    scale: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """A whole spatial self-attention layer: `temporal_layer` with attention over the pixels of each frame.

    Arguments as in `temporal_layer`; bias, rel_bias and scale as in `spatial_attention` with S = H*W. Returns (B, T, H, W, Co).
    """
    x, w_qkv, b_qkv, w_out, b_out, residual = checks.autocast(x, w_qkv, b_qkv, w_out, b_out, residual)
    layer = x, w_qkv, b_qkv, w_out, b_out
    _check_spatial_layer(*layer, num_heads, norm, pos_emb, gate, residual, bias, rel_bias, scale)
    name = resolve(backend, "spatial_layer", x)
    around = dict(num_heads=num_heads, norm=norm, pos_emb=pos_emb, gate=gate, residual=residual)
    if name == "reference":
        return _reference(reference.spatial_layer, *layer, **around, bias=bias, rel_bias=rel_bias, scale=scale)
    options = _spatial_options(w_out.shape[1] // num_heads, scale)
    return fused_layer.layer("spatial", name, *layer, bias, rel_bias, options, **around)


@checks.once
def _check_spatial_layer(
    x, w_qkv, b_qkv, w_out, b_out, num_heads, norm, pos_emb, gate, residual, bias, rel_bias, scale
) -> None:  # fmt: skip
    op = "spatial_layer"
    D = _require_layer(op, x, w_qkv, b_qkv, w_out, b_out, num_heads, norm, pos_emb, gate, residual)
    H, W = x.shape[2:4]
    checks.require_extents(op, "x", x, H=H, W=W)
    _require_spatial(op, "x", x, (H, W, H * W, num_heads, D), bias, rel_bias, scale, context=False)


def _reference(definition, x, *tensors, **arguments):
    """The definition, out of autocast's reach: it chooses its own precision."""
    with torch.autocast(x.device.type, enabled=False):
        return definition(x, *tensors, **arguments)


def _temporal_options(q, D, scale, causal, focus_present, rotary):
    """(constants, tensors): the operator's arguments between rel_bias and return_lse."""
    if focus_present is not None:
        focus_present = focus_present if focus_present.dim() == 2 else focus_present[:, None].expand(-1, q.shape[1])
        focus_present = focus_present.contiguous()
    if rotary is not None:
        rotary = rotary.to(acc_dtype(q.dtype)).contiguous()
    return (D**-0.5 if scale is None else float(scale), causal), (focus_present, rotary)


def _spatial_options(D, scale):
    return (D**-0.5 if scale is None else float(scale),), ()


def _require_qkv(op, q, k, v):
    checks.require_tensor(op, "q", q)
    checks.require_floating(op, "q", q)
    checks.require_rank(op, "q", q, _Q)
    checks.require_like(op, "k", k, "q", q)
    checks.require_like(op, "v", v, "q", q)
    _require_head_dim(op, "q", q.shape, q.shape[-1])


def _require_head_dim(op, name, shape, D):
    if not 1 <= D <= checks.MAX_HEAD_DIM:
        raise ValueError(f"{op}: {name} has shape {tuple(shape)}, so D = {D}; expected D from 1 to {checks.MAX_HEAD_DIM}")


def _require_bias(op, like_name, like, bias, rel_bias, bias_letters, bias_sizes, rel_letters, rel_sizes):
    if bias is not None and rel_bias is not None:
        raise ValueError(f"{op}: bias and rel_bias are both given; expected at most one of them")
    if bias is not None:
        checks.require_table(op, "bias", bias, like_name, like)
        checks.require_shape(op, "bias", bias, bias_letters, bias_sizes)
    if rel_bias is not None:
        checks.require_table(op, "rel_bias", rel_bias, like_name, like)
        checks.require_shape(op, "rel_bias", rel_bias, rel_letters, rel_sizes)


def _require_scale(op, scale):
    if scale is not None:
        checks.require_number(op, "scale", scale)


def _require_temporal(op, like_name, like, sizes, bias, rel_bias, scale, causal, focus_present, rotary):
    B, T, S, N, D = sizes
    _require_bias(op, like_name, like, bias, rel_bias, "(N, T, S)", (N, T, S), "(N, T+S-1)", (N, T + S - 1))
    _require_scale(op, scale)
    checks.require_bool(op, "causal", causal)
    for name, value in (("focus_present", focus_present), ("rotary", rotary)):
        if value is not None and S != T:
            raise ValueError(f"{op}: {name} is given with S = {S} and T = {T}; expected S == T")
    if focus_present is not None:
        require_focus_present(op, focus_present, like_name, like, B, T)
    if rotary is not None:
        checks.require_tensor(op, "rotary", rotary)
        checks.require_device(op, "rotary", rotary, like_name, like)
        if rotary.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{op}: rotary has dtype {rotary.dtype}; expected float32 or float64 angles in radians")
        if rotary.dim() != 2 or rotary.shape[0] != T or not 1 <= rotary.shape[1] <= D // 2:
            raise ValueError(
                f"{op}: rotary has shape {tuple(rotary.shape)}; expected (T, R//2) with T = {T} and R//2 from 1 to {D // 2}"
            )
        checks.require_no_grad(op, "rotary", rotary)


def require_focus_present(op, focus_present, like_name, like, B, T):
    checks.require_tensor(op, "focus_present", focus_present)
    checks.require_device(op, "focus_present", focus_present, like_name, like)
    if focus_present.dtype != torch.bool:
        raise TypeError(f"{op}: focus_present has dtype {focus_present.dtype}; expected torch.bool")
    checks.require_shape(op, "focus_present", focus_present, "(B,) or (B, T)", (B,), (B, T))


def _require_spatial(op, like_name, like, sizes, bias, rel_bias, scale, context):
    H, W, S, N, _ = sizes
    if context and rel_bias is not None:
        raise ValueError(f"{op}: rel_bias is given with context k, v; expected bias (N, H*W, S) or none")
    rel_sizes = (N, 2 * H - 1, 2 * W - 1)
    _require_bias(op, like_name, like, bias, rel_bias, "(N, H*W, S)", (N, H * W, S), "(N, 2H-1, 2W-1)", rel_sizes)
    _require_scale(op, scale)


def _require_layer(op, x, w_qkv, b_qkv, w_out, b_out, num_heads, norm, pos_emb, gate, residual):
    """Returns D."""
    checks.require_tensor(op, "x", x)
    checks.require_floating(op, "x", x)
    checks.require_rank(op, "x", x, "(B, T, H, W, C)")
    C = x.shape[-1]
    checks.require_positive_int(op, "num_heads", num_heads)
    checks.require_like(op, "w_qkv", w_qkv, "x", x)
    checks.require_rank(op, "w_qkv", w_qkv, "(3*N*D, C)")
    inner = w_qkv.shape[0]
    if inner % (3 * num_heads) != 0 or w_qkv.shape[1] != C:
        raise ValueError(f"{op}: w_qkv has shape {tuple(w_qkv.shape)}; expected (3*N*D, C) with N = {num_heads} and C = {C}")
    D = inner // (3 * num_heads)
    _require_head_dim(op, "w_qkv", w_qkv.shape, D)
    checks.require_like(op, "w_out", w_out, "x", x)
    checks.require_rank(op, "w_out", w_out, "(Co, N*D)")
    Co = w_out.shape[0]
    checks.require_shape(op, "w_out", w_out, "(Co, N*D)", (Co, num_heads * D))
    for name, value, letters, size in (("b_qkv", b_qkv, "(3*N*D,)", inner), ("b_out", b_out, "(Co,)", Co)):
        if value is not None:
            checks.require_like(op, name, value, "x", x)
            checks.require_shape(op, name, value, letters, (size,))
    if norm is not None:
        require_norm(op, norm, x, C)
    if pos_emb is not None:
        checks.require_parameter(op, "pos_emb", pos_emb, "x", x, "(T, C)", (x.shape[1], C))
    if gate is not None:
        checks.require_parameter(op, "gate", gate, "x", x, "(B, Co)", (x.shape[0], Co))
    if residual is not None:
        checks.require_like(op, "residual", residual, "x", x)
        checks.require_shape(op, "residual", residual, "(B, T, H, W, Co)", (*x.shape[:4], Co))
    return D
