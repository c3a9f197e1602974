"""What kernels share that hold whole sequences of frames: a tile of P sequences, T_ rows each, of which T are there.

Memory is read and written by rows [P * T_, channels], products are of sequences [P, T_, channels]: see `apart`. A sequence i_s is
a pixel of a clip, numbered over (B, H, W).
"""

import triton
import triton.language as tl

from .tiles import pixel_offset


def table_of(bias, rel_bias, T):
    """(table, offset of the first query's first key, strides of heads, queries and keys), of whichever bias there is.

    Entry j - i + T - 1 of a relative one is that of a dense one whose strides are equal and opposite.
    """
    if rel_bias is not None:
        s_n, s = rel_bias.stride()
        return rel_bias, (T - 1) * s, s_n, -s, s
    return (None, 0, 0, 0, 0) if bias is None else (bias, 0, *bias.stride())


@triton.jit
def rows_of(block, sequences, T, P: tl.constexpr, T_: tl.constexpr):
    """(sequence, frame, whether it is there) of the rows of a block of P sequences, each [P * T_, 1]."""
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
def row_number(i_s, i_t, T, HW):
    """In a contiguous (B, T, H, W)."""
    return ((i_s // HW).to(tl.int64) * T + i_t) * HW + i_s % HW


@triton.jit
def apart(x, P: tl.constexpr):
    """Rows [P * T_, ..] as sequences [P, T_, ..], which tl.dot multiplies one by one, a warp or more for each. Of one sequence it
    stays a matrix, whose rows all warps share.
    """
    return x if P == 1 else tl.reshape(x, (P, x.shape[0] // P, x.shape[1]))


@triton.jit
def together(x):
    """Sequences as rows again."""
    return x if len(x.shape) == 2 else tl.reshape(x, (x.shape[0] * x.shape[1], x.shape[2]))


@triton.jit
def transposed(x):
    return tl.trans(x, 1, 0) if len(x.shape) == 2 else tl.trans(x, 0, 2, 1)


@triton.jit
def bias_of(p_bias, o_bias, s_i, s_j, T, S, CAUSAL: tl.constexpr, T_: tl.constexpr, S_: tl.constexpr):
    """What is added to the scores of every sequence, [T_, S_]: -inf hides keys that are not there, or later than the query."""
    i, j = tl.arange(0, T_)[:, None], tl.arange(0, S_)[None, :]
    bias = tl.zeros((T_, S_), tl.float32)
    if p_bias is not None:
        bias = tl.load(p_bias + o_bias + i * s_i + j * s_j, (i < T) & (j < S), 0).to(tl.float32)
    return tl.where((j >= S) | (CAUSAL & (j > i)), -float("inf"), bias)


@triton.jit
def with_focus(s, p_focus, i_s, i_t, seen_q, j_s, j_t, seen_k, HW, T, P: tl.constexpr):
    """Scores, -inf between frames of which one is an image of its own: p_focus (B, T), or None."""
    if p_focus is not None:
        i = apart(tl.load(p_focus + (i_s // HW).to(tl.int64) * T + i_t, seen_q, 0).to(tl.int1), P)
        j = transposed(apart(tl.load(p_focus + (j_s // HW).to(tl.int64) * T + j_t, seen_k, 0).to(tl.int1), P))
        others = apart(i_t, P) != transposed(apart(j_t, P))
        s = tl.where(others & (i | j), -float("inf"), s)
    return s


@triton.jit
def softmax(s):
    """(exponentials, the row's maximum, their sum): 0, -inf and 1 where a row is fully masked."""
    m = tl.max(s, len(s.shape) - 1, keep_dims=True)
    p = tl.exp(s - tl.where(m == -float("inf"), 0, m))
    total = tl.sum(p, len(s.shape) - 1, keep_dims=True)
    return p, m, tl.where(total == 0, 1, total)
