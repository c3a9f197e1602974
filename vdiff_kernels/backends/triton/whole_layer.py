"""A whole temporal layer of few channels: residual + linear(attention(linear(norm(x) + pos_emb))), x (B, T, H, W, C), half types.

    of every P sequences of T frames:
        h = norm(x) + pos_emb                                         # (P T, C), read once
        acc = 0                                                       # (P T, Co) fp32
        for each head:
            q, k, v = h w_q^T + b_q, h w_k^T + b_k, h w_v^T + b_v     # (P T, D)
            acc = acc + (softmax(scale q k^T + bias) v) w_out^T
        out = acc + b_out + residual

x is read and out written once: 2 U and the residual's U of memory, where the layer's three operators move 11 U. The products
take 8 C^2 flops a pixel's frame, and so, for C = 128 and 512 bytes, 256 flops a byte: a GPU's own ratio. Beyond that tensor cores
bound the layer, however it is cut, and weights, 8 C^2 bytes, no longer stay in L1: so C is at most MAX_LAYER_CHANNELS. A program
has ROWS rows, which is as many as registers hold beside a head's q, k and v: with 64, sm_80 spills.

Backward computes q, k, v and the attention again, by the operators' kernels, from x: nothing else is saved.
"""

import triton
import triton.language as tl

from .launch import launch
from .linear import norm_linear_backward
from .norm import folded, pixel_moments
from .product import product
from .short_attention import backward as attention_backward
from .short_attention import forward as attention
from .short_sequences import (
    apart,
    bias_of,
    row_number,
    row_offset,
    rows_of,
    softmax,
    table_of,
    together,
    transposed,
    with_focus,
)  # fmt: skip
from .tiles import block_of, ceil_div, dot, rotated, turns_of

ROWS = 32


def temporal_layer(
    x, w_qkv, b_qkv, w_out, b_out, num_heads, norm_kind, norm_weight, norm_bias, norm_eps, pos_emb, residual,
    bias, rel_bias, scale, causal, focus_present, rotary,
):  # fmt: skip
    B, T, H, W, C = x.shape
    Co, inner = w_out.shape
    D = inner // num_heads
    out = x.new_empty((B, T, H, W, Co))
    w_qkv, b_qkv, w_out, b_out, norm_weight, norm_bias, pos_emb = (
        None if t is None else t.contiguous() for t in (w_qkv, b_qkv, w_out, b_out, norm_weight, norm_bias, pos_emb)
    )
    T_ = block_of(T, ROWS)
    P = ROWS // T_
    launch(
        whole_layer, ceil_div(B * H * W, P),
        x, w_qkv, b_qkv, w_out, b_out, norm_weight, norm_bias, pos_emb, residual, *table_of(bias, rel_bias, T), focus_present,
        turns_of(rotary), out, *x.stride()[:4], *((0,) * 4 if residual is None else residual.stride()[:4]),
        B * H * W, T, H * W, W, C, Co, num_heads, norm_eps, scale,
        KIND=norm_kind, CAUSAL=causal, R=0 if rotary is None else 2 * rotary.shape[1], D=D,
        P=P, T_=T_, C_=block_of(C, 128), O_=block_of(Co, 128), D_=block_of(D, 64), num_warps=8, num_stages=1,
    )  # fmt: skip
    return out


def temporal_layer_backward(
    grad_out, x, w_qkv, b_qkv, w_out, b_out, num_heads, norm_kind, norm_weight, norm_bias, norm_eps, pos_emb,
    bias, rel_bias, scale, causal, focus_present, rotary, residual_is_x, need_bias_grad,
):  # fmt: skip
    norm = norm_kind, norm_weight, norm_bias, 1, norm_eps, "frame", None, None, "none", None
    no_norm = "none", None, None, 1, 0.0, "frame", None, None, "none", None
    options = bias, rel_bias, scale, causal, focus_present, rotary
    pos_emb = None if pos_emb is None else pos_emb.contiguous()
    qkv, _ = product(x, w_qkv.contiguous()[:, None], folded(x, *norm), pos_emb=pos_emb, bias=b_qkv)
    q, k, v = qkv.unflatten(-1, (3, num_heads, -1)).unbind(4)
    out, _ = attention(q, k, v, *options, False)
    d_out, dw_out, db_out, *_ = norm_linear_backward(grad_out, out.flatten(-2), w_out, b_out, *no_norm, None, None, True, True)
    dqkv, _, _, dtable = attention_backward(d_out.view(q.shape), q, k, v, None, None, *options, True, need_bias_grad)
    dx, dw_qkv, db_qkv, _, dpos_emb, dnorm_weight, dnorm_bias, *_ = norm_linear_backward(
        dqkv.flatten(-3), x, w_qkv, b_qkv, *norm, pos_emb, None, True, True
    )
    if residual_is_x:
        dx += grad_out
    return dx, dw_qkv.float(), db_qkv, dw_out.float(), db_out, dnorm_weight, dnorm_bias, dpos_emb, dtable


@triton.jit
def whole_layer(
    p_x, p_qkv, p_bqkv, p_wout, p_bout, p_nweight, p_nbias, p_pos, p_residual, p_bias, o_bias, s_bn, s_bi, s_bj, p_focus,
    p_turns, p_out, s_b, s_t, s_h, s_w, sr_b, sr_t, sr_h, sr_w,
    sequences, T, HW, W, C, Co, N, eps, scale,
    KIND: tl.constexpr, CAUSAL: tl.constexpr, R: tl.constexpr, D: tl.constexpr,
    P: tl.constexpr, T_: tl.constexpr, C_: tl.constexpr, O_: tl.constexpr, D_: tl.constexpr,
):  # fmt: skip
    i_s, i_t, seen = rows_of(tl.program_id(0), sequences, T, P, T_)  # [P * T_, 1]
    i_c, i_o, i_d = tl.arange(0, C_), tl.arange(0, O_), tl.arange(0, D_)
    there = seen & (i_c < C)
    x = tl.load(p_x + row_offset(i_s, i_t, HW, W, s_b, s_t, s_h, s_w) + i_c, there, 0)  # [P * T_, C_]
    z = x.to(tl.float32)
    if KIND != "none":
        mean, rstd = pixel_moments(z, there, C, eps, KIND == "layer")
        z = (z - mean[:, None]) * rstd[:, None]
        if p_nweight is not None:
            z *= tl.load(p_nweight + i_c, i_c < C, 0).to(tl.float32)
        if p_nbias is not None:
            z += tl.load(p_nbias + i_c, i_c < C, 0).to(tl.float32)
    if p_pos is not None:
        z += tl.load(p_pos + i_t * C + i_c, there, 0).to(tl.float32)
    h = tl.where(there, z, 0).to(x.dtype)

    acc = tl.zeros((P * T_, O_), tl.float32)
    for n in range(N):
        q = projected(h, p_qkv, p_bqkv, n * D, i_c, i_d, C, D)
        k = projected(h, p_qkv, p_bqkv, (N + n) * D, i_c, i_d, C, D)
        v = projected(h, p_qkv, p_bqkv, (2 * N + n) * D, i_c, i_d, C, D)
        if R:
            q = rotated(q, p_turns, i_t, T, 1, R).to(h.dtype)
            k = rotated(k, p_turns, i_t, T, 1, R).to(h.dtype)
        s = dot(apart(q, P), transposed(apart(k, P)), None) * scale
        s += bias_of(p_bias, o_bias + tl.cast(n, tl.int64) * s_bn, s_bi, s_bj, T, T, CAUSAL, T_, T_)
        p, _, total = softmax(with_focus(s, p_focus, i_s, i_t, seen, i_s, i_t, seen, HW, T, P))
        a = together(dot(p.to(h.dtype), apart(v, P), None) / total).to(h.dtype)  # [P * T_, D_]
        w = tl.load(p_wout + i_o * (N * D) + (n * D + i_d)[:, None], (i_d < D)[:, None] & (i_o < Co), 0)  # [D_, O_]
        acc = dot(a, w, acc)

    there = seen & (i_o < Co)
    if p_bout is not None:
        acc += tl.load(p_bout + i_o, i_o < Co, 0).to(tl.float32)
    if p_residual is not None:
        o_row = row_offset(i_s, i_t, HW, W, sr_b, sr_t, sr_h, sr_w)
        acc += tl.load(p_residual + o_row + i_o, there, 0).to(tl.float32)
    tl.store(p_out + row_number(i_s, i_t, T, HW) * Co + i_o, acc.to(p_out.dtype.element_ty), there)


@triton.jit
def projected(h, p_weight, p_bias, first, i_c, i_d, C, D: tl.constexpr):
    """h weight^T + bias of the D rows from the first on, rounded: [P * T_, D_]."""
    w = tl.load(p_weight + (first + i_d) * C + i_c[:, None], (i_c < C)[:, None] & (i_d < D), 0)  # [C_, D_]
    y = dot(h, w, None)
    if p_bias is not None:
        y += tl.load(p_bias + first + i_d, i_d < D, 0).to(tl.float32)
    return y.to(h.dtype)
