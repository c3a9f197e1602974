"""The gradients of attention of sequences of any length: dq, dk and dv, and by `long_attention_bias` that of the bias.

    dq, of every sequence and tile of queries:
        delta = rowsum(dout * out)
        for each tile of keys:
            p   = exp(scale * q k^T + bias - lse);  dp = dout v^T
            ds  = p (dp - delta)
            dq += scale * ds k

    dk and dv, of every sequence and tile of keys, whose scores lie transposed:
        for each tile of queries, of every sequence that shares the keys:
            p, dp, ds as above
            dv += p^T dout;  dk += scale * ds^T q

The sequences that share keys are cut into chunks where programs would be few; their parts are added up in order, so that results
are the same in every run. 7 and 6 L D elements a sequence, where what passes stays in L2; 6 and 8 L S D flops.
"""

import triton
import triton.language as tl
from torch import Tensor

from ...ops.schema import absent, contiguous, sums
from .chunks import add_chunks, chunks_of
from .launch import launch
from .long_attention_bias import bias_gradient
from .long_sequences import (
    Sequences,
    biases,
    entry_offset,
    exp_above,
    loaded,
    of_frames,
    offset_of,
    place_of,
    products_with,
    result_row,
    scores,
    shift_of,
    stored,
    temporal,
    times,
    turned_back,
    weighed,
    zeros,
)  # fmt: skip
from .tiles import ceil_div
from .tuning import Config, config, narrowed

# By Sequences.kind, as forward's: 64 queries and more of half types, fewer of float32.
DQ_CONFIGS = {
    **dict.fromkeys(
        [(16, 2), (32, 2), (64, 2)],
        (config(4, 3, L_=64, S_=64), config(8, 2, L_=128, S_=64), config(8, 3, L_=64, S_=64)),
    ),
    (128, 2): (config(4, 3, L_=64, S_=32), config(8, 3, L_=64, S_=32)),
    (256, 2): (config(8, 2, L_=64, S_=16),),
    **dict.fromkeys([(16, 4), (32, 4)], (config(4, 3, L_=32, S_=32), config(8, 3, L_=32, S_=32))),
    (64, 4): (config(8, 3, L_=32, S_=32),),
    (128, 4): (config(4, 2, L_=16, S_=16),),
    (256, 4): (config(8, 1, L_=16, S_=16),),
}
DKDV_CONFIGS = {
    **dict.fromkeys([(16, 2), (32, 2)], (config(4, 3, L_=64, S_=64), config(8, 3, L_=64, S_=64))),
    (64, 2): (config(8, 3, L_=64, S_=64), config(4, 2, L_=64, S_=64)),
    (128, 2): (config(4, 2, L_=64, S_=32), config(8, 2, L_=64, S_=64)),
    (256, 2): (config(8, 2, L_=64, S_=16),),
    **dict.fromkeys([(16, 4), (32, 4)], (config(8, 3, L_=16, S_=32), config(4, 2, L_=16, S_=32))),
    (64, 4): (config(8, 3, L_=16, S_=32), config(4, 2, L_=16, S_=16)),
    (128, 4): (config(8, 3, L_=16, S_=32),),
    (256, 4): (config(8, 2, L_=16, S_=16),),
}
# Keys of a tile of fewer than 64 queries, at most. With 64, a Hopper multiplies such queries by mma for the scores and by wgmma
# for dk; Triton (3.8) then counts the stages that mma needs, and copies the next queries over those that wgmma may still read.
KEYS_OF_FEW = 32


def temporal_backward(
    grad_out, q, k, v, out, lse, bias, rel_bias, scale, causal, focus_present, rotary, packed, need_bias_grad
):  # fmt: skip
    of = temporal(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary)
    table = rel_bias if bias is None else bias
    return backward(of, of_frames(grad_out), q, k, v, out, lse, packed, table if need_bias_grad else None)


def backward(of: Sequences, grad_out: Tensor, q, k, v, out, lse, packed: bool, table: Tensor | None):
    """grad_out: as a sequence's rows; q, k, v: as the operator got them, whose gradients are laid out like them; table: the bias
    whose gradient is wanted.
    """
    if packed:
        dqkv = q.new_empty((*q.shape[:4], 3, *q.shape[4:]))
        dq, dk, dv = dqkv.unbind(4)
        results = dqkv, absent(q), absent(q)
    else:
        results = dq, dk, dv = contiguous(q), contiguous(k), contiguous(v)
    heads = (3 if packed else 1) * of.N
    rows = sums(q, (of.places * of.N, 2, of.L))
    arguments, constants = of.arguments(grad_out), of.constants(grad_out)
    _queries(of, dq, heads, out, lse, rows, arguments, constants)
    _keys(of, dk, dv, heads, rows, arguments, constants)
    return *results, absent(q) if table is None else bias_gradient(of, table, rows, arguments, constants)


def _queries(of, dq, heads, out, lse, rows, arguments, constants):
    def run(one: Config):
        tile = one.constants
        launch(
            query_gradient, of.places * of.N * ceil_div(of.L, tile["L_"]), dq, rows, out, lse, heads, *arguments,
            WHOLE=of.S % tile["S_"] == 0, **constants, **one.options,
        )  # fmt: skip

    of.tuned("query_gradient", DQ_CONFIGS, run)


def _keys(of, dk, dv, heads, rows, arguments, constants):
    B, X, _ = of.q.shape[:3]
    groups, members = (B, X) if of.has_shared_keys else (of.places, 1)
    configs = DKDV_CONFIGS
    if of.L <= 32:
        configs = {of.kind: narrowed(configs[of.kind], S_=KEYS_OF_FEW)}

    def run(one: Config):
        tile = one.constants
        programs = groups * of.N * ceil_div(of.S, tile["S_"])
        chunks = chunks_of(programs, members)
        its_dk, its_dv = (dk, dv) if chunks == 1 else sums(dk, (2, chunks, *dk.shape))
        launch(
            key_gradients, programs * chunks, its_dk, its_dv, rows, heads, groups, ceil_div(members, chunks), *arguments,
            SHARED=of.has_shared_keys, WHOLE=of.L % tile["L_"] == 0, **constants, **one.options,
        )  # fmt: skip
        if chunks > 1:
            add_chunks(its_dk, dk)
            add_chunks(its_dv, dv)

    of.tuned("key_gradients", configs, run)


@triton.jit
def query_gradient(
    p_dq, p_row, p_out, p_lse, heads,
    p_q, p_k, p_v, p_dout, p_bias, p_focus, p_key_mask, p_turns,
    s_qb, s_qx, s_qy, s_qn, s_q, s_q_line, q_line,
    s_kb, s_kx, s_ky, s_kn, s_k, s_k_line, k_line,
    s_vb, s_vx, s_vy, s_vn, s_v, s_v_line, v_line,
    s_ob, s_ox, s_oy, s_on, s_o, s_o_line, o_line,
    o_bias, s_bias_n, s_bias_i, s_bias_i_line, s_bias_j, s_bias_j_line, bias_line, s_mask_b, s_mask,
    X, Y, N, L, S, apart, scale,
    CAUSAL: tl.constexpr, R: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, PIECES: tl.constexpr, UNIT: tl.constexpr,
    WHOLE: tl.constexpr, L_: tl.constexpr, S_: tl.constexpr,
):  # fmt: skip
    """Also p_row (sequences, 2, L): the log-sum-exp and delta of each row, beside each other for the kernels to come."""
    tiles = tl.cdiv(L, L_)
    place, n = place_of(tl.program_id(0) // tiles, N)
    first = tl.program_id(0) % tiles * L_
    i = first + tl.arange(0, L_)  # [L_]
    p_q += offset_of(place, n, X, Y, s_qb, s_qx, s_qy, s_qn) * UNIT
    p_k += offset_of(place, n, X, Y, s_kb, s_kx, s_ky, s_kn) * UNIT
    p_v += offset_of(place, n, X, Y, s_vb, s_vx, s_vy, s_vn) * UNIT
    p_dout += offset_of(place, n, X, Y, s_ob, s_ox, s_oy, s_on) * UNIT
    o_mask = place // (X * Y) * s_mask_b
    o_head = o_bias + n * s_bias_n
    o_i = entry_offset(i, L, bias_line, s_bias_i, s_bias_i_line, WIDE)

    q = loaded(p_q, i, i < L, q_line, s_q, s_q_line, p_turns, L, R, UNIT, D, PIECES, False)  # [L_, D]
    dout = loaded(p_dout, i, i < L, o_line, s_o, s_o_line, None, L, 0, UNIT, D, PIECES, False)  # [L_, D]
    row = result_row(place, i, L, apart)
    delta = row_products(dout, p_out, row * N + n, i < L, D, PIECES)
    shift = shift_of(tl.load(p_lse + row * N + n, i < L, float("inf")))
    p_row += (place * N + n) * 2 * L + i
    tl.store(p_row, shift, i < L)
    tl.store(p_row + L, delta, i < L)
    dq = zeros(L_, PIECES)
    for start in range(0, tl.minimum(S, first + L_) if CAUSAL else S, S_):
        j = start + tl.arange(0, S_)  # [S_]
        products, k = products_with(
            q, p_k, j, j < S, k_line, s_k, s_k_line, p_turns, S, R, UNIT, D, PIECES, WHOLE, OF_QUERIES=True
        )  # [L_, S_], [S_, D]
        bias = biases(p_bias, o_head, o_i, entry_offset(j, S, bias_line, s_bias_j, s_bias_j_line, WIDE))
        s = scores(products, scale, bias, i, j, j < S, L, S, p_focus, p_key_mask, o_mask, s_mask, CAUSAL, WHOLE)
        p = exp_above(s, shift[:, None])
        dp, _ = products_with(dout, p_v, j, j < S, v_line, s_v, s_v_line, None, S, 0, UNIT, D, PIECES, WHOLE, OF_QUERIES=True)
        ds = p * (dp - delta[:, None])
        dq = weighed(dq, ds.to(k[0].dtype), k)
    dq = times(dq, scale)
    if R:
        dq = turned_back(dq, p_turns, i, L, R, PIECES)
    stored(p_dq, row * heads + n, i < L, dq, D, PIECES)


@triton.jit
def key_gradients(
    p_dk, p_dv, p_row, heads, groups, members,
    p_q, p_k, p_v, p_dout, p_bias, p_focus, p_key_mask, p_turns,
    s_qb, s_qx, s_qy, s_qn, s_q, s_q_line, q_line,
    s_kb, s_kx, s_ky, s_kn, s_k, s_k_line, k_line,
    s_vb, s_vx, s_vy, s_vn, s_v, s_v_line, v_line,
    s_ob, s_ox, s_oy, s_on, s_o, s_o_line, o_line,
    o_bias, s_bias_n, s_bias_i, s_bias_i_line, s_bias_j, s_bias_j_line, bias_line, s_mask_b, s_mask,
    X, Y, N, L, S, apart, scale,
    CAUSAL: tl.constexpr, R: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, PIECES: tl.constexpr, UNIT: tl.constexpr,
    WHOLE: tl.constexpr, L_: tl.constexpr, S_: tl.constexpr, SHARED: tl.constexpr,
):  # fmt: skip
    """A group is the sequences that share keys, one or those of all x; a program takes `members` of them, a chunk."""
    tiles, q_tiles = tl.cdiv(S, S_), tl.cdiv(L, L_)
    group, n = place_of(tl.program_id(0) // tiles % (groups * N), N)
    chunk = tl.program_id(0) // tiles // (groups * N)
    place = group * X if SHARED else group
    first = tl.program_id(0) % tiles * S_
    j = first + tl.arange(0, S_)  # [S_]
    p_k += offset_of(place, n, X, Y, s_kb, s_kx, s_ky, s_kn) * UNIT
    p_v += offset_of(place, n, X, Y, s_vb, s_vx, s_vy, s_vn) * UNIT
    o_mask = place // (X * Y) * s_mask_b
    o_head = o_bias + n * s_bias_n
    o_j = entry_offset(j, S, bias_line, s_bias_j, s_bias_j_line, WIDE)

    k = loaded(p_k, j, j < S, k_line, s_k, s_k_line, p_turns, S, R, UNIT, D, PIECES, False)  # [S_, D]
    v = loaded(p_v, j, j < S, v_line, s_v, s_v_line, None, S, 0, UNIT, D, PIECES, False)  # [S_, D]
    dk, dv = zeros(S_, PIECES), zeros(S_, PIECES)
    begin, end = 0, q_tiles
    if SHARED:
        place += chunk * members
        end = tl.minimum(members, X - chunk * members) * q_tiles
    elif CAUSAL:
        begin = first // L_  # of whose queries the last one sees the first key
    for step in range(begin, end):
        its_place, start = place, step * L_
        if SHARED:
            its_place, start = place + step // q_tiles, step % q_tiles * L_
        i = start + tl.arange(0, L_)  # [L_]
        o_q = offset_of(its_place, n, X, Y, s_qb, s_qx, s_qy, s_qn) * UNIT
        products, q = products_with(
            k, p_q + o_q, i, i < L, q_line, s_q, s_q_line, p_turns, L, R, UNIT, D, PIECES, WHOLE, OF_QUERIES=False
        )  # [L_, S_], [L_, D]
        bias = biases(p_bias, o_head, entry_offset(i, L, bias_line, s_bias_i, s_bias_i_line, WIDE), o_j)
        s = scores(products, scale, bias, i, j, None, L, S, p_focus, p_key_mask, o_mask, s_mask, CAUSAL, True)
        o_row = (its_place * N + n) * 2 * L + i
        p = exp_above(s, tl.load(p_row + o_row, i < L, float("inf"))[:, None])
        o_dout = offset_of(its_place, n, X, Y, s_ob, s_ox, s_oy, s_on) * UNIT
        dp, dout = products_with(
            v, p_dout + o_dout, i, i < L, o_line, s_o, s_o_line, None, L, 0, UNIT, D, PIECES, WHOLE, OF_QUERIES=False
        )  # [L_, S_], [L_, D]
        ds = p * (dp - tl.load(p_row + o_row + L, i < L, 0)[:, None])
        dv = weighed(dv, tl.trans(p.to(dout[0].dtype)), dout)
        dk = weighed(dk, tl.trans(ds.to(q[0].dtype)), q)
    dk = times(dk, scale)
    if R:
        dk = turned_back(dk, p_turns, j, S, R, PIECES)
    row = result_row(group, j, S, apart) * heads + n
    if SHARED:
        row += chunk.to(tl.int64) * groups * S * N
    stored(p_dk, row, j < S, dk, D, PIECES)
    stored(p_dv, row, j < S, dv, D, PIECES)


@triton.jit
def row_products(x, p, i, there, D: tl.constexpr, PIECES: tl.constexpr):
    """rowsum(x rows) of the rows i of D channels, from the diagonal of x rows^T: added up as dp = dout v^T is, so that dp - delta
    is exactly 0 where one key has all the weight.
    """
    products, _ = products_with(x, p, i, there, None, D, 0, None, 0, 0, 1, D, PIECES, False, OF_QUERIES=True)
    place = tl.arange(0, products.shape[0])
    return tl.sum(tl.where(place[:, None] == place[None, :], products, 0), 1)
