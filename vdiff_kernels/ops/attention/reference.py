"""The definition of temporal and spatial attention and of their layers, in eager PyTorch. Every backend is held to it.

`compute_dtype` is the dtype of the arithmetic: by default float32 for half types, float64 for float64. Error budgets pass the
input's own low precision, to learn what eager PyTorch makes of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..norm.call import Norm
from ..norm.reference import normalize
from ..tensors import acc_dtype

# Queries are taken in blocks whose scores stay below this many elements, so that a long clip or a large frame needs no
# score matrix of its whole length at once.
MAX_SCORES = 1 << 26


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
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Attention over frames at each pixel.

    q: (B, T, H, W, N, D); k, v: (B, S, H, W, N, D); bias: (N, T, S); rel_bias: (N, T+S-1); focus_present: (B,) or (B, T);
    rotary: (T, R//2). Returns (B, T, H, W, N, D) in q's dtype. A fully masked row gives zeros.
    Source: Ho et al. 2022 (arXiv 2204.03458), section 3; relative bias as in Shaw et al. 2018; rotary as in Su et al. 2021.
    """
    dtype = compute_dtype or acc_dtype(q.dtype)
    T, S = q.shape[1], k.shape[1]
    rows = [t.to(dtype).permute(0, 2, 3, 4, 1, 5) for t in (q, k, v)]  # (B, H, W, N, T, D)
    if rotary is not None:
        rows[:2] = (rotate(t, rotary) for t in rows[:2])
    frames = torch.arange(max(T, S), device=q.device)

    def modify(scores, start, stop):
        i, j = frames[start:stop, None], frames[None, :S]
        scores = add_bias(scores, bias, rel_bias, start, stop, lambda: j - i + (T - 1))
        if causal:
            scores = scores.masked_fill(j > i, -torch.inf)
        if focus_present is not None:
            isolated = focus_present if focus_present.dim() == 2 else focus_present[:, None].expand(-1, T)
            hidden = (i != j) & (isolated[:, start:stop, None] | isolated[:, None, :])  # (B, rows, T)
            scores = scores.masked_fill(hidden[:, None, None, None], -torch.inf)
        return scores

    out = attend(*rows, q.shape[-1] ** -0.5 if scale is None else scale, modify)
    return out.permute(0, 4, 1, 2, 3, 5).to(q.dtype).contiguous()


def spatial_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    bias: Tensor | None = None,
    rel_bias: Tensor | None = None,
    scale: float | None = None,
    key_mask: Tensor | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Attention over the pixels of each frame, or from each pixel to a context.

    q: (B, T, H, W, N, D); k, v: the same, or context (B, S, N, D) shared by the frames, or (B, T, S, N, D) per frame;
    bias: (N, H*W, S); rel_bias: (N, 2H-1, 2W-1), not with context; key_mask: (B, S), True may be attended, with context only.
    Returns (B, T, H, W, N, D) in q's dtype. A fully masked row gives zeros.
    Source: Ho et al. 2022 (arXiv 2204.03458), section 3; per-offset bias as in Liu et al. 2021 (Swin).
    """
    dtype = compute_dtype or acc_dtype(q.dtype)
    H, W = q.shape[2:4]
    pixel = torch.arange(H * W, device=q.device)
    y, x = pixel // W, pixel % W

    def sequences(t):  # to (B, T or 1, N, L or S, D)
        if t.dim() == 6:
            t = t.flatten(2, 3)
        elif t.dim() == 4:
            t = t[:, None]
        return t.to(dtype).transpose(2, 3)

    def modify(scores, start, stop):
        def entry():
            rows = slice(start, stop)
            return (y[None] - y[rows, None] + (H - 1)) * (2 * W - 1) + (x[None] - x[rows, None] + (W - 1))

        scores = add_bias(scores, bias, None if rel_bias is None else rel_bias.flatten(1), start, stop, entry)
        if key_mask is not None:
            scores = scores.masked_fill(~key_mask[:, None, None, None], -torch.inf)
        return scores

    out = attend(*map(sequences, (q, k, v)), q.shape[-1] ** -0.5 if scale is None else scale, modify)
    return out.transpose(2, 3).to(q.dtype).contiguous().view(q.shape)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, modify) -> Tensor:
    """softmax(modify(scale * q k^T)) v: q (..., L, D), k and v (..., S, D). modify(scores, start, stop) sees query rows."""
    L, S = q.shape[-2], k.shape[-2]

    def attend_rows(start, stop):
        return softmax(modify(q[..., start:stop, :] @ k.transpose(-2, -1) * scale, start, stop)) @ v

    scores_per_row = q[..., 0, 0].numel() * S
    if L * scores_per_row <= MAX_SCORES:
        return attend_rows(0, L)
    rows = max(1, MAX_SCORES // scores_per_row)
    return torch.cat([attend_rows(start, min(start + rows, L)) for start in range(0, L, rows)], dim=-2)


def softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension; zeros, with zero gradient, where a row is all -inf."""
    masked = (scores == -torch.inf).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(masked, 0.0), dim=-1).masked_fill(masked, 0.0)


def add_bias(scores, bias, rel_bias, start, stop, entry):
    """scores (..., N, rows, S) plus bias (N, L, S), or plus rel_bias (N, offsets) at entry() (rows, S)."""
    if bias is not None:
        return scores + bias[:, start:stop].to(scores.dtype)
    if rel_bias is not None:
        return scores + rel_bias.to(scores.dtype)[:, entry()]
    return scores


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotary embedding of x (..., T, D) by angles (T, R//2) in radians: pairs (2m, 2m+1) of the first R channels."""
    angle = rotary.to(torch.promote_types(x.dtype, torch.float32))
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    R = 2 * rotary.shape[-1]
    a, b = x[..., :R].unflatten(-1, (-1, 2)).unbind(-1)
    rotated = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    return torch.cat((rotated, x[..., R:]), dim=-1)


def temporal_layer(x, w_qkv, b_qkv, w_out, b_out, *, compute_dtype=None, **arguments) -> Tensor:
    """Norm, projection, temporal attention, projection, residual: `layer` with `temporal_attention`'s arguments."""
    return layer(temporal_attention, x, w_qkv, b_qkv, w_out, b_out, compute_dtype=compute_dtype, **arguments)


def spatial_layer(x, w_qkv, b_qkv, w_out, b_out, *, compute_dtype=None, **arguments) -> Tensor:
    """Norm, projection, spatial attention, projection, residual: `layer` with `spatial_attention`'s arguments."""
    return layer(spatial_attention, x, w_qkv, b_qkv, w_out, b_out, compute_dtype=compute_dtype, **arguments)


def layer(
    attention,
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
    compute_dtype: torch.dtype | None = None,
    **arguments,
) -> Tensor:
    """gate * linear(attention(linear(norm(x) + pos_emb, w_qkv, b_qkv)), w_out, b_out) + residual.

    x: (B, T, H, W, C); w_qkv: (3*N*D, C), b_qkv: (3*N*D,); w_out: (Co, N*D), b_out: (Co,); pos_emb: (T, C); gate: (B, Co);
    residual: (B, T, H, W, Co). Returns (B, T, H, W, Co) in x's dtype. Arithmetic stays in one dtype from norm to residual.
    """
    dtype = compute_dtype or acc_dtype(x.dtype)
    w_qkv, b_qkv, w_out, b_out = (None if t is None else t.to(dtype) for t in (w_qkv, b_qkv, w_out, b_out))
    h = x.to(dtype)
    if norm is not None:
        h = normalize(h, norm)
    if pos_emb is not None:
        h = h + pos_emb.to(dtype)[:, None, None, :]
    q, k, v = F.linear(h, w_qkv, b_qkv).unflatten(-1, (3, num_heads, -1)).unbind(-3)
    out = attention(q, k, v, compute_dtype=dtype, **arguments)
    out = F.linear(out.flatten(-2), w_out, b_out)
    if gate is not None:
        out = gate.to(dtype)[:, None, None, None, :] * out
    if residual is not None:
        out = out + residual.to(dtype)
    return out.to(x.dtype)
