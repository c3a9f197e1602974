"""draft"""

import math

import torch
import triton
import triton.language as tl

from ...ops.schema import absent, contiguous, sums
from .launch import launch
from .tiles import block_of, ceil_div, dot, pixel_offset

PROGRAMS = 1024  # that share the sequences where the gradient of a bias is summed, each writing a partial of it


def forward(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary, return_lse):
    B, T, H, W, N, D = q.shape
    S = k.shape[1]
    out, lse = contiguous(q), sums(q, q.shape[:-1] if return_lse else None)
    tiles, num_warps = _tiles(T, S, D, q.element_size(), backward=False)
    unit = _unit(q, k, v)
    launch(
        short_forward, ceil_div(B * H * W, tiles["P"]) * N,
        q, k, v, *_table(bias, rel_bias, T), focus_present, _turns(rotary), out, lse if return_lse else None,
        *_strides(q, unit), *_strides(k, unit), *_strides(v, unit),
        B * H * W, T, S, H * W, W, N, scale,
        UNIT=unit, CAUSAL=causal, R=_turned(rotary), D=D, **tiles, num_warps=num_warps, num_stages=1,
    )  # fmt: skip
    return out, lse


def backward(grad_out, q, k, v, out, lse, bias, rel_bias, scale, causal, focus_present, rotary, packed, need_bias_grad):
    B, T, H, W, N, D = q.shape
    S = k.shape[1]
    if packed:
        dqkv = q.new_empty((B, T, H, W, 3, N, D))
        dq, dk, dv = dqkv.unbind(4)
        results = dqkv, absent(q), absent(q)
    else:
        dq, dk, dv = results = contiguous(q), contiguous(k), contiguous(v)
    tiles, num_warps = _tiles(T, S, D, q.element_size(), backward=True)
    unit = _unit(q, k, v, grad_out)
    table = bias if rel_bias is None else rel_bias
    need_bias_grad = need_bias_grad and table is not None
    blocks = ceil_div(B * H * W, tiles["P"])
    programs = min(blocks, ceil_div(PROGRAMS, N)) if need_bias_grad else blocks  # of a head
    partials = sums(q, (programs, N, T, S)) if need_bias_grad else None
    launch(
        short_backward, programs * N,
        grad_out, q, k, v, *_table(bias, rel_bias, T), focus_present, _turns(rotary), dq, dk, dv, partials,
        *_strides(grad_out, unit), *_strides(q, unit), *_strides(k, unit), *_strides(v, unit), 3 * N if packed else N,
        B * H * W, blocks, programs, T, S, H * W, W, N, scale,
        UNIT=unit, CAUSAL=causal, R=_turned(rotary), D=D, **tiles, num_warps=num_warps, num_stages=1,
    )  # fmt: skip
    if not need_bias_grad:
        return *results, absent(q)
    dtable = sums(q, table.shape)
    I, J = (T, S) if bias is None else (1, T * S)
    E_ = 32
    launch(sum_partials, N * ceil_div(I + J - 1, E_), partials, dtable, programs, N, I, J, ROWS=64, E_=E_)
    return *results, dtable


def _tiles(T, S, D, element_size, backward):
    T_, S_, D_ = block_of(T, 64), block_of(S, 64), block_of(D, 256)
    P = 4 if max(T_, S_) <= 32 else 1
    return dict(P=P, T_=T_, S_=S_, C_=D_, CHUNKS=1), 4


def _turns(rotary):
    """(2, T, R//2): cosines and sines."""
    return None if rotary is None else torch.stack([rotary.cos(), rotary.sin()])


def _turned(rotary):
    return 0 if rotary is None else 2 * rotary.shape[1]


def _unit(*tensors):
    return math.gcd(16 // tensors[0].element_size(), *(stride for tensor in tensors for stride in _outer_strides(tensor)))


def _outer_strides(tensor):
    return [0 if extent == 1 else stride for extent, stride in zip(tensor.shape[:5], tensor.stride())]


def _strides(tensor, unit):
    return [stride // unit for stride in _outer_strides(tensor)]


def _table(bias, rel_bias, T):
    """(table, offset of the first query's first key, strides of heads, queries and keys)"""
    if rel_bias is not None:
        s_n, s = rel_bias.stride()
        return rel_bias, (T - 1) * s, s_n, -s, s
    return (None, 0, 0, 0, 0) if bias is None else (bias, 0, *bias.stride())


# ------------------------------------------------------------------------------------------------------------------ kernels


@triton.jit
def short_forward(
    p_q, p_k, p_v,
    p_bias, o_bias, s_bn, s_bi, s_bj,
    p_focus, p_turns, p_out, p_lse,
    s_qb, s_qt, s_qh, s_qw, s_qn,
    s_kb, s_kt, s_kh, s_kw, s_kn,
    s_vb, s_vt, s_vh, s_vw, s_vn,
    sequences, T, S, HW, W, N, scale,
    UNIT: tl.constexpr, CAUSAL: tl.constexpr, R: tl.constexpr, D: tl.constexpr,
    P: tl.constexpr, T_: tl.constexpr, S_: tl.constexpr, C_: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) % N).to(tl.int64)
    block = tl.program_id(0) // N
    i_s, i_t, seen_q = rows_of(block, sequences, T, P, T_)
    j_s, j_t, seen_k = rows_of(block, sequences, S, P, S_)
    p_q += (n * s_qn + row_offset(i_s, i_t, HW, W, s_qb, s_qt, s_qh, s_qw)) * UNIT
    p_k += (n * s_kn + row_offset(j_s, j_t, HW, W, s_kb, s_kt, s_kh, s_kw)) * UNIT
    p_v += (n * s_vn + row_offset(j_s, j_t, HW, W, s_vb, s_vt, s_vh, s_vw)) * UNIT
    q = turned_rows(p_q, seen_q, 0, p_turns, i_t, T, R, D, P, C_)
    k = turned_rows(p_k, seen_k, 0, p_turns, j_t, T, R, D, P, C_)
    v = rows(p_v, seen_k, 0, D, P, C_)
    s = dot(q, transposed(k), None)
    for c in range(1, CHUNKS):
        q = turned_rows(p_q, seen_q, c, p_turns, i_t, T, R, D, P, C_)
        k = turned_rows(p_k, seen_k, c, p_turns, j_t, T, R, D, P, C_)
        s = dot(q, transposed(k), s)
    b = bias_of(p_bias, o_bias + n * s_bn, s_bi, s_bj, T, S, CAUSAL, T_, S_)
    s = with_focus(s * scale + b, p_focus, i_s, i_t, seen_q, j_s, j_t, seen_k, HW, T, P)
    p, m, l = softmax(s)
    row = ((i_s // HW).to(tl.int64) * T + i_t) * HW + i_s % HW
    p_out += (row * N + n) * D
    store_rows(p_out, seen_q, 0, dot(p.to(v.dtype), v, None) / l, D, P, C_)
    for c in range(1, CHUNKS):
        v = rows(p_v, seen_k, c, D, P, C_)
        store_rows(p_out, seen_q, c, dot(p.to(v.dtype), v, None) / l, D, P, C_)
    if p_lse is not None:
        tl.store(p_lse + row * N + n, together(m + tl.log(l)), seen_q)


@triton.jit
def short_backward(
    p_do, p_q, p_k, p_v,
    p_bias, o_bias, s_bn, s_bi, s_bj,
    p_focus, p_turns, p_dq, p_dk, p_dv, p_partials,
    s_ob, s_ot, s_oh, s_ow, s_on,
    s_qb, s_qt, s_qh, s_qw, s_qn,
    s_kb, s_kt, s_kh, s_kw, s_kn,
    s_vb, s_vt, s_vh, s_vw, s_vn, heads,
    sequences, blocks, programs, T, S, HW, W, N, scale,
    UNIT: tl.constexpr, CAUSAL: tl.constexpr, R: tl.constexpr, D: tl.constexpr,
    P: tl.constexpr, T_: tl.constexpr, S_: tl.constexpr, C_: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) % N).to(tl.int64)
    block = tl.program_id(0) // N
    b = bias_of(p_bias, o_bias + n * s_bn, s_bi, s_bj, T, S, CAUSAL, T_, S_)
    if p_partials is None:
        gradients(
            block, n, b, p_do, p_q, p_k, p_v, p_focus, p_turns, p_dq, p_dk, p_dv,
            s_ob, s_ot, s_oh, s_ow, s_on, s_qb, s_qt, s_qh, s_qw, s_qn, s_kb, s_kt, s_kh, s_kw, s_kn,
            s_vb, s_vt, s_vh, s_vw, s_vn, heads, sequences, T, S, HW, W, scale, UNIT, R, D, P, T_, S_, C_, CHUNKS,
        )  # fmt: skip
    else:
        total = apart(tl.zeros((P * T_, S_), tl.float32), P)
        for block in tl.range(tl.program_id(0) // N, blocks, programs, disable_licm=True):
            total += gradients(
                block, n, b, p_do, p_q, p_k, p_v, p_focus, p_turns, p_dq, p_dk, p_dv,
                s_ob, s_ot, s_oh, s_ow, s_on, s_qb, s_qt, s_qh, s_qw, s_qn, s_kb, s_kt, s_kh, s_kw, s_kn,
                s_vb, s_vt, s_vh, s_vw, s_vn, heads, sequences, T, S, HW, W, scale, UNIT, R, D, P, T_, S_, C_, CHUNKS,
            )  # fmt: skip
        if P > 1:
            total = tl.sum(total, 0)
        i, j = tl.arange(0, T_)[:, None], tl.arange(0, S_)[None, :]
        tl.store(p_partials + tl.program_id(0).to(tl.int64) * T * S + i * S + j, total, (i < T) & (j < S))


@triton.jit
def gradients(
    block, n, b, p_do, p_q, p_k, p_v, p_focus, p_turns, p_dq, p_dk, p_dv,
    s_ob, s_ot, s_oh, s_ow, s_on, s_qb, s_qt, s_qh, s_qw, s_qn, s_kb, s_kt, s_kh, s_kw, s_kn,
    s_vb, s_vt, s_vh, s_vw, s_vn, heads, sequences, T, S, HW, W, scale,
    UNIT: tl.constexpr, R: tl.constexpr, D: tl.constexpr,
    P: tl.constexpr, T_: tl.constexpr, S_: tl.constexpr, C_: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    i_s, i_t, seen_q = rows_of(block, sequences, T, P, T_)
    j_s, j_t, seen_k = rows_of(block, sequences, S, P, S_)
    at_do = p_do + (n * s_on + row_offset(i_s, i_t, HW, W, s_ob, s_ot, s_oh, s_ow)) * UNIT
    at_q = p_q + (n * s_qn + row_offset(i_s, i_t, HW, W, s_qb, s_qt, s_qh, s_qw)) * UNIT
    at_k = p_k + (n * s_kn + row_offset(j_s, j_t, HW, W, s_kb, s_kt, s_kh, s_kw)) * UNIT
    at_v = p_v + (n * s_vn + row_offset(j_s, j_t, HW, W, s_vb, s_vt, s_vh, s_vw)) * UNIT
    q = turned_rows(at_q, seen_q, 0, p_turns, i_t, T, R, D, P, C_)
    k = turned_rows(at_k, seen_k, 0, p_turns, j_t, T, R, D, P, C_)
    v = rows(at_v, seen_k, 0, D, P, C_)
    do = rows(at_do, seen_q, 0, D, P, C_)
    s = dot(q, transposed(k), None)
    dp = dot(do, transposed(v), None)
    for c in range(1, CHUNKS):
        q = turned_rows(at_q, seen_q, c, p_turns, i_t, T, R, D, P, C_)
        k = turned_rows(at_k, seen_k, c, p_turns, j_t, T, R, D, P, C_)
        s = dot(q, transposed(k), s)
        dp = dot(rows(at_do, seen_q, c, D, P, C_), transposed(rows(at_v, seen_k, c, D, P, C_)), dp)
    s = with_focus(s * scale + b, p_focus, i_s, i_t, seen_q, j_s, j_t, seen_k, HW, T, P)
    p, m, l = softmax(s)
    p = p / l
    ds = p * (dp - tl.sum(p * dp, len(p.shape) - 1, keep_dims=True))
    at_dq = p_dq + ((((i_s // HW).to(tl.int64) * T + i_t) * HW + i_s % HW) * heads + n) * D
    o_dk = ((((j_s // HW).to(tl.int64) * S + j_t) * HW + j_s % HW) * heads + n) * D
    at_dk, at_dv = p_dk + o_dk, p_dv + o_dk
    rounded, p = ds.to(q.dtype), p.to(q.dtype)
    for c in range(CHUNKS):
        if CHUNKS > 1:
            do = rows(at_do, seen_q, c, D, P, C_)
        store_rows(at_dv, seen_k, c, dot(transposed(p), do, None), D, P, C_)
    for c in range(CHUNKS):
        if CHUNKS > 1:
            k = turned_rows(at_k, seen_k, c, p_turns, j_t, T, R, D, P, C_)
        store_turned(at_dq, seen_q, c, dot(rounded, k, None) * scale, p_turns, i_t, T, R, D, P, C_)
    for c in range(CHUNKS):
        if CHUNKS > 1:
            q = turned_rows(at_q, seen_q, c, p_turns, i_t, T, R, D, P, C_)
        store_turned(at_dk, seen_k, c, dot(transposed(rounded), q, None) * scale, p_turns, j_t, T, R, D, P, C_)
    return ds


@triton.jit
def sum_partials(p_partials, p_sum, parts, N, I, J, ROWS: tl.constexpr, E_: tl.constexpr):
    entries = I + J - 1
    blocks = tl.cdiv(entries, E_)
    n, e = tl.program_id(0) // blocks, tl.program_id(0) % blocks * E_ + tl.arange(0, E_)[None, :]
    total = tl.zeros((ROWS, E_), tl.float64)
    for start in range(0, parts * I, ROWS):
        r = start + tl.arange(0, ROWS)[:, None]
        i = r % I
        j = e + i - (I - 1)
        o = ((r // I).to(tl.int64) * N + n) * I * J + i * J + j
        total += tl.load(p_partials + o, (r < parts * I) & (j >= 0) & (j < J), 0)
    tl.store(p_sum + n * entries + e, tl.sum(total, 0, keep_dims=True).to(tl.float32), e < entries)


@triton.jit
def apart(x, P: tl.constexpr):
    return x if P == 1 else tl.reshape(x, (P, x.shape[0] // P, x.shape[1]))


@triton.jit
def together(x):
    return x if len(x.shape) == 2 else tl.reshape(x, (x.shape[0] * x.shape[1], x.shape[2]))


@triton.jit
def transposed(x):
    return tl.trans(x, 1, 0) if len(x.shape) == 2 else tl.trans(x, 0, 2, 1)


@triton.jit
def rows_of(block, sequences, T, P: tl.constexpr, T_: tl.constexpr):
    row = tl.arange(0, P * T_)[:, None]
    if P == 1:
        i_s, i_t = block, row
    else:
        i_s, i_t = block * P + row // T_, row % T_
    return i_s, i_t, (i_s < sequences) & (i_t < T)


@triton.jit
def row_offset(i_s, i_t, HW, W, s_b, s_t, s_h, s_w):
    return (i_s // HW).to(tl.int64) * s_b + pixel_offset(i_s % HW, W, s_h, s_w) + i_t.to(tl.int64) * s_t


@triton.jit
def rows(p_row, seen, c, D: tl.constexpr, P: tl.constexpr, C_: tl.constexpr):
    i_d = c * C_ + tl.arange(0, C_)[None, :]
    return apart(tl.load(p_row + i_d, seen & (i_d < D), 0), P)


@triton.jit
def turned_rows(p_row, seen, c, p_turns, i_t, T, R: tl.constexpr, D: tl.constexpr, P: tl.constexpr, C_: tl.constexpr):
    i_d = c * C_ + tl.arange(0, C_)[None, :]
    x = tl.load(p_row + i_d, seen & (i_d < D), 0)
    if R:
        x = turned(x.to(tl.float32), c, p_turns, i_t, T, 1.0, R, C_).to(x.dtype)
    return apart(x, P)


@triton.jit
def store_rows(p_row, seen, c, x, D: tl.constexpr, P: tl.constexpr, C_: tl.constexpr):
    i_d = c * C_ + tl.arange(0, C_)[None, :]
    tl.store(p_row + i_d, together(x), seen & (i_d < D))


@triton.jit
def store_turned(p_row, seen, c, x, p_turns, i_t, T, R: tl.constexpr, D: tl.constexpr, P: tl.constexpr, C_: tl.constexpr):
    x = together(x)
    if R:
        x = turned(x, c, p_turns, i_t, T, -1.0, R, C_)
    i_d = c * C_ + tl.arange(0, C_)[None, :]
    tl.store(p_row + i_d, x, seen & (i_d < D))


@triton.jit
def turned(x, c, p_turns, i_t, T, sign, R: tl.constexpr, C_: tl.constexpr):
    i_r = c * (C_ // 2) + tl.arange(0, C_ // 2)[None, :]
    there = (i_t < T) & (i_r < R // 2)
    o = i_t * (R // 2) + i_r
    cos = tl.load(p_turns + o, there, 1)
    sin = tl.load(p_turns + T * (R // 2) + o, there, 0) * sign
    a, b = tl.split(tl.reshape(x, (x.shape[0], C_ // 2, 2)))
    return tl.reshape(tl.join(a * cos - b * sin, a * sin + b * cos), (x.shape[0], C_))


@triton.jit
def bias_of(p_bias, o_bias, s_i, s_j, T, S, CAUSAL: tl.constexpr, T_: tl.constexpr, S_: tl.constexpr):
    i, j = tl.arange(0, T_)[:, None], tl.arange(0, S_)[None, :]
    b = tl.zeros((T_, S_), tl.float32)
    if p_bias is not None:
        o = i * s_i + j * s_j
        b = tl.load(p_bias + o_bias + o, (i < T) & (j < S), 0).to(tl.float32)
    return tl.where((j >= S) | (CAUSAL & (j > i)), -float("inf"), b)


@triton.jit
def with_focus(s, p_focus, i_s, i_t, seen_q, j_s, j_t, seen_k, HW, T, P: tl.constexpr):
    if p_focus is not None:
        i = apart(tl.load(p_focus + (i_s // HW).to(tl.int64) * T + i_t, seen_q, 0).to(tl.int1), P)
        j = transposed(apart(tl.load(p_focus + (j_s // HW).to(tl.int64) * T + j_t, seen_k, 0).to(tl.int1), P))
        apart_t = apart(i_t, P) != transposed(apart(j_t, P))
        s = tl.where(apart_t & (i | j), -float("inf"), s)
    return s


@triton.jit
def softmax(s):
    """(exponentials, their logarithm's shift, their sums)"""
    m = tl.max(s, len(s.shape) - 1, keep_dims=True)
    shift = tl.where(m == -float("inf"), 0, m)
    p = tl.exp(s - shift)
    l = tl.sum(p, len(s.shape) - 1, keep_dims=True)
    return p, m, tl.where(l == 0, 1, l)
