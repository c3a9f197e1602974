"""Attention over frames whose sequences a program holds whole: out = softmax(scale * q k^T + bias) v, and its gradients.

    of every P sequences of a head:
        s   = scale * q k^T + bias, -inf where a key is hidden     # (P, T, S)
        p   = softmax(s)
        out = p v;  lse = log(sum(exp(s)))
    of the same, backward:
        dp  = dout v^T
        ds  = p * (dp - rowsum(p * dp))
        dv, dk, dq = p^T dout, scale * ds^T q, scale * ds k
        dbias = dbias + ds                                         # of each program; then of all programs, in their order

A program has 4 sequences of up to 16 frames, a warp each, or a longer one, 16 of its rows a warp. The products of the 4 are those
of a tl.dot of three dimensions, never of one large tile whose blocks beside the diagonal are masked: 0 * NaN would carry a NaN
from a sequence to its neighbours. So sequences of 8 frames leave half of a tensor core's 16 rows idle; memory bounds them all the
same, at 8 flops a byte: T = 16, D = 64 takes 600 instructions of a warp for 8 KiB.

(2 T + 2 S) D elements a sequence come from memory or go there, (3 T + 4 S) D backward: q, k and v are read in place, by any
strides, and neither out nor lse is needed again. C_ channels are taken at once, so many that registers hold them of q, k, v and
dout. Where D is more, backward reads q, k and dout again, from a cache. A bias gradient costs a partial (T, S) a program.
"""

import triton
import triton.language as tl

from ...ops.schema import absent, contiguous, sums
from .launch import launch
from .short_sequences import apart, bias_of, row_number, row_offset, rows_of, softmax, table_of, together, transposed, with_focus
from .tiles import SMALLEST, block_of, ceil_div, dot, outer_strides, rotated, turns_of, unit_of

# Programs that sum the gradient of a bias: many for each place of a GPU, so that the last ones leave few idle, and no more
# than PARTIALS elements of what they write.
PROGRAMS, PARTIALS = 4096, 1 << 22


def forward(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary, return_lse):
    B, T, H, W, N, D = q.shape
    S = k.shape[1]
    out, lse = contiguous(q), sums(q, q.shape[:-1] if return_lse else None)
    tiles, num_warps = _tiles(T, S, D, q.element_size(), rotary)
    unit = unit_of(q, k, v)
    launch(
        short_forward, ceil_div(B * H * W, tiles["P"]) * N,
        q, k, v, *table_of(bias, rel_bias, T), focus_present, turns_of(rotary), out, lse if return_lse else None,
        *_strides(unit, q, k, v), B * H * W, T, S, H * W, W, N, scale,
        UNIT=unit, ALIKE=_alike(q, k, v), CAUSAL=causal, D=D, **tiles, num_warps=num_warps, num_stages=1,
    )  # fmt: skip
    return out, lse


def backward(grad_out, q, k, v, out, lse, bias, rel_bias, scale, causal, focus_present, rotary, packed, need_bias_grad):
    B, T, H, W, N, D = q.shape
    S = k.shape[1]
    if packed:
        dqkv = q.new_empty((B, T, H, W, 3, N, D))
        (dq, dk, dv), results = dqkv.unbind(4), (dqkv, absent(q), absent(q))
    else:
        dq, dk, dv = results = contiguous(q), contiguous(k), contiguous(v)
    table = bias if rel_bias is None else rel_bias
    need_bias_grad = need_bias_grad and table is not None
    tiles, num_warps = _tiles(T, S, D, q.element_size(), rotary)
    unit = unit_of(grad_out, q, k, v)
    blocks = ceil_div(B * H * W, tiles["P"])
    programs, partials = blocks, None  # of a head
    if need_bias_grad:
        programs = min(blocks, ceil_div(min(PROGRAMS, PARTIALS // (T * S)), N))
        partials = sums(q, (programs, N, T, S))
    launch(
        short_backward, programs * N,
        grad_out, q, k, v, *table_of(bias, rel_bias, T), focus_present, turns_of(rotary), dq, dk, dv, partials,
        *_strides(unit, grad_out, q, k, v), 3 * N if packed else N,
        B * H * W, blocks, programs, T, S, H * W, W, N, scale,
        UNIT=unit, ALIKE=_alike(q, k, v), CAUSAL=causal, D=D, **tiles, num_warps=num_warps, num_stages=1,
    )  # fmt: skip
    return *results, _table_gradient(partials, rel_bias) if need_bias_grad else absent(q)


def _tiles(T, S, D, element_size, rotary) -> tuple[dict, int]:
    """(tiles, warps). C_ channels at once, as many as registers hold: turning takes some, and float32, whose product is six,
    many more.
    """
    T_, S_ = block_of(T, 64), block_of(S, 64)
    rows = max(T_, S_)
    if element_size == 4:
        C_ = SMALLEST
    elif rotary is not None or D > 64:
        C_ = max(SMALLEST, 512 // rows)
    else:
        C_ = 1024 // rows
    C_ = min(C_, block_of(D, 256))
    P, num_warps = (4, 4) if rows == 16 else (1, rows // 16)
    return dict(P=P, T_=T_, S_=S_, C_=C_, CHUNKS=ceil_div(D, C_), R=0 if rotary is None else 2 * rotary.shape[1]), num_warps


def _alike(q, k, v) -> bool:
    """Whether rows of q, k and v have the same offsets, as slices of one projection have."""
    return q.shape == k.shape and outer_strides(q) == outer_strides(k) == outer_strides(v)


def _strides(unit, *tensors):
    """In units, so that a kernel sees how far rows are aligned."""
    return (stride // unit for tensor in tensors for stride in outer_strides(tensor))


def _table_gradient(partials, rel_bias):
    """Partials (programs, N, T, S) summed, along the diagonals too where the table is relative."""
    programs, N, T, S = partials.shape
    gradient = sums(partials, (N, T, S))
    _sum(partials, gradient, programs, 1, T * S)
    if rel_bias is None:
        return gradient
    diagonals = sums(partials, rel_bias.shape)
    _sum(gradient, diagonals, 1, T, S)
    return diagonals


def _sum(parts, total, number, L, S):
    N, E_ = total.shape[0], 16
    launch(sum_diagonals, N * ceil_div(L + S - 1, E_), parts, total, number, N, L, S, ROWS=128, E_=E_)


# ------------------------------------------------------------------------------------------------------------------- kernels


@triton.jit
def short_forward(
    p_q, p_k, p_v, p_bias, o_bias, s_bn, s_bi, s_bj, p_focus, p_turns, p_out, p_lse,
    s_qb, s_qt, s_qh, s_qw, s_qn, s_kb, s_kt, s_kh, s_kw, s_kn, s_vb, s_vt, s_vh, s_vw, s_vn,
    sequences, T, S, HW, W, N, scale,
    UNIT: tl.constexpr, ALIKE: tl.constexpr, CAUSAL: tl.constexpr, D: tl.constexpr,
    P: tl.constexpr, T_: tl.constexpr, S_: tl.constexpr, C_: tl.constexpr, CHUNKS: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) % N).to(tl.int64)
    i_s, i_t, seen_q, j_s, j_t, seen_k, o_q, o_k, o_v = places(
        tl.program_id(0) // N, n, (s_qb, s_qt, s_qh, s_qw, s_qn), (s_kb, s_kt, s_kh, s_kw, s_kn), (s_vb, s_vt, s_vh, s_vw, s_vn),
        sequences, T, S, HW, W, UNIT, ALIKE, P, T_, S_,
    )  # fmt: skip
    p_q += o_q
    p_k += o_k
    p_v += o_v
    q = loaded(p_q, seen_q, 0, p_turns, i_t, T, D, P, C_, R)
    k = loaded(p_k, seen_k, 0, p_turns, j_t, T, D, P, C_, R)
    v = loaded(p_v, seen_k, 0, None, j_t, T, D, P, C_, 0)

    # s = scale * q k^T + bias
    s = dot(q, transposed(k), None)
    for c in range(1, CHUNKS):
        q = loaded(p_q, seen_q, c, p_turns, i_t, T, D, P, C_, R)
        k = loaded(p_k, seen_k, c, p_turns, j_t, T, D, P, C_, R)
        s = dot(q, transposed(k), s)
    s = s * scale + bias_of(p_bias, o_bias + n * s_bn, s_bi, s_bj, T, S, CAUSAL, T_, S_)
    s = with_focus(s, p_focus, i_s, i_t, seen_q, j_s, j_t, seen_k, HW, T, P)

    # out = softmax(s) v
    p, m, total = softmax(s)
    row = row_number(i_s, i_t, T, HW) * N + n
    if p_lse is not None:
        tl.store(p_lse + row, together(m + tl.log(total)), seen_q)
    p = p.to(v.dtype)
    for c in range(CHUNKS):
        if CHUNKS > 1:
            v = loaded(p_v, seen_k, c, None, j_t, T, D, P, C_, 0)
        store(p_out + row * D, seen_q, c, dot(p, v, None) / total, None, i_t, T, D, C_, 0)


@triton.jit
def short_backward(
    p_do, p_q, p_k, p_v, p_bias, o_bias, s_bn, s_bi, s_bj, p_focus, p_turns, p_dq, p_dk, p_dv, p_partials,
    s_ob, s_ot, s_oh, s_ow, s_on, s_qb, s_qt, s_qh, s_qw, s_qn, s_kb, s_kt, s_kh, s_kw, s_kn, s_vb, s_vt, s_vh, s_vw, s_vn,
    heads,                                  # from a pixel of the results to the next
    sequences, blocks, programs, T, S, HW, W, N, scale,
    UNIT: tl.constexpr, ALIKE: tl.constexpr, CAUSAL: tl.constexpr, D: tl.constexpr,
    P: tl.constexpr, T_: tl.constexpr, S_: tl.constexpr, C_: tl.constexpr, CHUNKS: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) % N).to(tl.int64)
    block = tl.program_id(0) // N
    of_do, of_q = (s_ob, s_ot, s_oh, s_ow, s_on), (s_qb, s_qt, s_qh, s_qw, s_qn)
    of_k, of_v = (s_kb, s_kt, s_kh, s_kw, s_kn), (s_vb, s_vt, s_vh, s_vw, s_vn)
    if p_partials is None:
        bias = bias_of(p_bias, o_bias + n * s_bn, s_bi, s_bj, T, S, CAUSAL, T_, S_)
        gradients(
            block, 0.0, p_do, p_q, p_k, p_v, bias, p_focus, p_turns, p_dq, p_dk, p_dv, of_do, of_q, of_k, of_v, heads, n,
            sequences, T, S, HW, W, scale, UNIT, ALIKE, D, P, T_, S_, C_, CHUNKS, R,
        )  # fmt: skip
    else:
        dbias = apart(tl.zeros((P * T_, S_), tl.float32), P)
        for block in tl.range(tl.program_id(0) // N, blocks, programs, disable_licm=True):
            # A zero, which the compiler does not know for one: it would else keep the addresses of the bias, one an element, from
            # block to block, for which there are no registers. Nor are there for all else that is the same for each block.
            zero = block // blocks
            bias = bias_of(
                p_bias, o_bias + n * s_bn + zero, s_bi + zero, s_bj + zero, T + zero, S + zero, CAUSAL, T_, S_
            )  # fmt: skip
            dbias = gradients(
                block, dbias, p_do, p_q, p_k, p_v, bias, p_focus, p_turns, p_dq, p_dk, p_dv, of_do, of_q, of_k, of_v, heads, n,
                sequences, T, S, HW, W, scale, UNIT, ALIKE, D, P, T_, S_, C_, CHUNKS, R,
            )  # fmt: skip
        if P > 1:
            dbias = tl.sum(dbias, 0)
        i, j = tl.arange(0, T_)[:, None], tl.arange(0, S_)[None, :]
        tl.store(p_partials + tl.program_id(0).to(tl.int64) * T * S + i * S + j, dbias, (i < T) & (j < S))


@triton.jit
def gradients(
    block, dbias, p_do, p_q, p_k, p_v, bias, p_focus, p_turns, p_dq, p_dk, p_dv, of_do, of_q, of_k, of_v, heads, n,
    sequences, T, S, HW, W, scale,
    UNIT: tl.constexpr, ALIKE: tl.constexpr, D: tl.constexpr,
    P: tl.constexpr, T_: tl.constexpr, S_: tl.constexpr, C_: tl.constexpr, CHUNKS: tl.constexpr, R: tl.constexpr,
):  # fmt: skip
    """Of a block of sequences. Returns dbias + ds."""
    i_s, i_t, seen_q, j_s, j_t, seen_k, o_q, o_k, o_v = places(
        block, n, of_q, of_k, of_v, sequences, T, S, HW, W, UNIT, ALIKE, P, T_, S_
    )  # fmt: skip
    p_q += o_q
    p_k += o_k
    p_v += o_v
    p_do += (n * of_do[4] + row_offset(i_s, i_t, HW, W, of_do[0], of_do[1], of_do[2], of_do[3])) * UNIT
    q = loaded(p_q, seen_q, 0, p_turns, i_t, T, D, P, C_, R)
    k = loaded(p_k, seen_k, 0, p_turns, j_t, T, D, P, C_, R)
    v = loaded(p_v, seen_k, 0, None, j_t, T, D, P, C_, 0)
    do = loaded(p_do, seen_q, 0, None, i_t, T, D, P, C_, 0)

    # s = scale * q k^T + bias, dp = dout v^T
    s = dot(q, transposed(k), None)
    dp = dot(do, transposed(v), None)
    for c in range(1, CHUNKS):
        q = loaded(p_q, seen_q, c, p_turns, i_t, T, D, P, C_, R)
        k = loaded(p_k, seen_k, c, p_turns, j_t, T, D, P, C_, R)
        s = dot(q, transposed(k), s)
        v = loaded(p_v, seen_k, c, None, j_t, T, D, P, C_, 0)
        do = loaded(p_do, seen_q, c, None, i_t, T, D, P, C_, 0)
        dp = dot(do, transposed(v), dp)
    s = with_focus(s * scale + bias, p_focus, i_s, i_t, seen_q, j_s, j_t, seen_k, HW, T, P)

    # ds = p * (dp - rowsum(p * dp))
    p, _, total = softmax(s)
    p = p / total
    ds = p * (dp - tl.sum(p * dp, len(p.shape) - 1, keep_dims=True))
    dbias += ds
    p, ds = p.to(q.dtype), ds.to(q.dtype)

    # dv, dk, dq = p^T dout, scale * ds^T q, scale * ds k: one after another, for their operands fill the registers
    p_dq += (row_number(i_s, i_t, T, HW) * heads + n) * D
    o_key = (row_number(j_s, j_t, S, HW) * heads + n) * D
    for c in range(CHUNKS):
        if CHUNKS > 1:
            do = loaded(p_do, seen_q, c, None, i_t, T, D, P, C_, 0)
        store(p_dv + o_key, seen_k, c, dot(transposed(p), do, None), None, j_t, T, D, C_, 0)
    for c in range(CHUNKS):
        if CHUNKS > 1:
            q = loaded(p_q, seen_q, c, p_turns, i_t, T, D, P, C_, R)
        store(p_dk + o_key, seen_k, c, dot(transposed(ds), q, None) * scale, p_turns, j_t, T, D, C_, R)
    for c in range(CHUNKS):
        if CHUNKS > 1:
            k = loaded(p_k, seen_k, c, p_turns, j_t, T, D, P, C_, R)
        store(p_dq, seen_q, c, dot(ds, k, None) * scale, p_turns, i_t, T, D, C_, R)
    return dbias


@triton.jit
def places(
    block, n, of_q, of_k, of_v, sequences, T, S, HW, W,
    UNIT: tl.constexpr, ALIKE: tl.constexpr, P: tl.constexpr, T_: tl.constexpr, S_: tl.constexpr,
):  # fmt: skip
    """(sequence, frame, whether it is there) of the rows of queries, and of keys; the offsets of q's, k's and v's."""
    i_s, i_t, seen_q = rows_of(block, sequences, T, P, T_)
    o_q = (n * of_q[4] + row_offset(i_s, i_t, HW, W, of_q[0], of_q[1], of_q[2], of_q[3])) * UNIT
    if ALIKE:
        return i_s, i_t, seen_q, i_s, i_t, seen_q, o_q, o_q, o_q
    else:
        j_s, j_t, seen_k = rows_of(block, sequences, S, P, S_)
        o_k = (n * of_k[4] + row_offset(j_s, j_t, HW, W, of_k[0], of_k[1], of_k[2], of_k[3])) * UNIT
        o_v = (n * of_v[4] + row_offset(j_s, j_t, HW, W, of_v[0], of_v[1], of_v[2], of_v[3])) * UNIT
        return i_s, i_t, seen_q, j_s, j_t, seen_k, o_q, o_k, o_v


@triton.jit
def loaded(p_row, seen, c, p_turns, i_t, T, D: tl.constexpr, P: tl.constexpr, C_: tl.constexpr, R: tl.constexpr):
    """Chunk c of rows' channels, of which the first R are turned by their frames' angles, by sequence."""
    i_d = c * C_ + tl.arange(0, C_)[None, :]
    x = tl.load(p_row + i_d, seen & (i_d < D), 0)
    if R:
        x = rotated(x, p_turns, i_t, T, 1, R, c * C_).to(x.dtype)
    return apart(x, P)


@triton.jit
def store(p_row, seen, c, x, p_turns, i_t, T, D: tl.constexpr, C_: tl.constexpr, R: tl.constexpr):
    """Chunk c of rows' channels, of which the first R are turned back."""
    x = together(x)
    if R:
        x = rotated(x, p_turns, i_t, T, -1, R, c * C_)
    i_d = c * C_ + tl.arange(0, C_)[None, :]
    tl.store(p_row + i_d, x.to(p_row.dtype.element_ty), seen & (i_d < D))


@triton.jit
def sum_diagonals(p_parts, p_total, parts, N, L, S, ROWS: tl.constexpr, E_: tl.constexpr):
    """(parts, N, L, S) to (N, L + S - 1): over the parts and along diagonals, in float64, for terms of a sum may be far apart.

    A dense table, whose entries have no others on their diagonal, comes as one row: L = 1.
    """
    entries = L + S - 1
    blocks = tl.cdiv(entries, E_)
    n = tl.program_id(0) // blocks
    i_e = tl.program_id(0) % blocks * E_ + tl.arange(0, E_)[None, :]
    total = tl.zeros((ROWS, E_), tl.float64)
    for start in range(0, parts * L, ROWS):
        row = start + tl.arange(0, ROWS)[:, None]
        i = row % L
        j = i_e + i - (L - 1)
        o_row = (((row // L).to(tl.int64) * N + n) * L + i) * S
        total += tl.load(p_parts + o_row + j, (row < parts * L) & (j >= 0) & (j < S), 0).to(tl.float64)
    tl.store(p_total + n * entries + i_e, tl.sum(total, 0, keep_dims=True).to(tl.float32), i_e < entries)
