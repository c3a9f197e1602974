"""temporal_attention, spatial_attention and their layers: each makes its call."""

from torch import Tensor

from ..autograd import run
from ..norm.api import norm_act
from ..norm.call import Norm
from ..tensors import autocast
from .call import AttentionCall, AttentionOptions, LayerCall
from .parts import layer


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
        backend: None (auto), "reference", "composed", "cpu", "cuda" or "triton".

    Returns (B, T, H, W, N, D), contiguous, q's dtype. A fully masked row gives zeros and zero gradients. Differentiable once in
    q, k, v, bias and rel_bias; "cpu" saves those alone, "cuda" for long sequences also out and a log-sum-exp (B, T, H, W, N).

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: Ho et al. 2022 (arXiv 2204.03458), section 3.
    """
    q, k, v = autocast(q, k, v)
    options = AttentionOptions(bias, rel_bias, scale, causal, focus_present, rotary)
    return run(AttentionCall("temporal_attention", q, k, v, options), backend)


def spatial_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    rel_bias: Tensor | None = None,
    scale: float | None = None,
    key_mask: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Attention over the pixels of each frame, or from each pixel to a context.

    Args:
        q: (B, T, H, W, N, D), as in `temporal_attention`.
        k, v: (B, T, H, W, N, D) the frame's own pixels, or context (B, S, N, D) shared by the frames, or (B, T, S, N, D).
        bias: (N, H*W, S), any floating dtype, S = H*W without context; expanded views allowed; -inf masks.
        rel_bias: (N, 2H-1, 2W-1), entry [n, jy - iy + H - 1, jx - ix + W - 1]; instead of bias, not with context.
        scale: default D ** -0.5.
        key_mask: (B, S) bool, with context only; a sample's queries see the keys that are True, as those of a padded text.
        backend: None (auto), "reference", "composed", "cpu", "cuda" or "triton".

    Returns (B, T, H, W, N, D), contiguous, q's dtype. A fully masked row gives zeros and zero gradients. Differentiable once in
    q, k, v, bias and rel_bias, saving what `temporal_attention` saves.

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: Ho et al. 2022 (arXiv 2204.03458), section 3.
    """
    q, k, v = autocast(q, k, v)
    options = AttentionOptions(bias, rel_bias, scale, key_mask=key_mask)
    return run(AttentionCall("spatial_attention", q, k, v, options), backend)


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

    Returns (B, T, H, W, Co) in x's dtype. "cpu" computes the whole in blocks that stay in the cache and saves x alone: q, k, v
    and the scores are never in memory, and backward computes them again. A group norm, or one with scale and shift, goes
    before it. In parts, norm_act, linear, attention on one packed qkv and linear, each by what serves it best: every other
    backend, a layer with a gate, and one whose bias wants the gradient of more than 2^18 entries (`explain` says which).

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: Ho et al. 2022 (arXiv 2204.03458), section 3; seeds' TemporalAttention.
    """
    options = AttentionOptions(bias, rel_bias, scale, causal, focus_present, rotary)
    return _layer("temporal_layer", x, w_qkv, b_qkv, w_out, b_out, num_heads, norm, pos_emb, gate, residual, options, backend)


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
    options = AttentionOptions(bias, rel_bias, scale)
    return _layer("spatial_layer", x, w_qkv, b_qkv, w_out, b_out, num_heads, norm, pos_emb, gate, residual, options, backend)


def _layer(operator, x, w_qkv, b_qkv, w_out, b_out, num_heads, norm, pos_emb, gate, residual, options, backend):
    cast = autocast(x, w_qkv, b_qkv, w_out, b_out, residual)
    call = LayerCall(operator, *cast[:5], num_heads, norm, pos_emb, gate, cast[0] if residual is x else cast[5], options)
    if cast[0] is x and cast[5] is residual:
        return run(call, backend, layer)
    call.check()
    # As eager PyTorch under autocast: the norm in x's own dtype, the products in autocast's, the sum in the wider.
    if norm is not None and cast[0] is not x:
        call.x, call.norm = norm_act(x.movedim(-1, 1), norm, backend=backend).movedim(1, -1).to(call.x.dtype), None
    call.residual = None
    out = run(call, backend, layer)
    return out if residual is None else out + residual
