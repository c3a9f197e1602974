"""Attention of long sequences: out = softmax(scale * q k^T + bias) v. A tile of queries stays, tiles of keys pass (Dao 2023).

    of every sequence and tile of queries:
        for each tile of keys:
            s   = scale * q k^T + bias, -inf where a key is hidden
            m'  = max(m, rowmax(s));  p = exp(s - m')
            sum = sum exp(m - m') + rowsum(p)
            acc = acc exp(m - m') + p v
        out = acc / sum;  lse = m + log(sum)

4 L D elements a sequence come from memory and go there, where its keys stay in L2 while its tiles of queries pass, which are
neighbours in the grid; 4 L S D flops.
"""

import triton
import triton.language as tl
from torch import Tensor

from ...ops.schema import contiguous, sums
from .launch import launch
from .long_sequences import (
    Sequences,
    biases,
    entry_offset,
    exp_above,
    loaded,
    offset_of,
    place_of,
    products_with,
    result_row,
    scores,
    shift_of,
    stored,
    temporal,
    times,
    weighed,
    zeros,
)  # fmt: skip
from .tiles import ceil_div
from .tuning import Config, config

# By Sequences.kind. The first are as large as 99 KiB of shared memory let them be while the next keys and values are on their
# way, with a tile of the bias in float32, and as ptxas finds registers for; then what a GPU with more may like better. Tiles of
# half types have 64 queries or more, those of float32 fewer: GPUs have other instructions for such products, which may round in
# another way, and backward is to find the same scores.
CONFIGS = {
    **dict.fromkeys(
        [(16, 2), (32, 2), (64, 2)],
        (config(8, 3, L_=128, S_=64), config(8, 2, L_=128, S_=128), config(4, 3, L_=64, S_=64)),
    ),
    (128, 2): (config(8, 3, L_=128, S_=64), config(4, 3, L_=64, S_=64)),
    (256, 2): (config(8, 2, L_=64, S_=32),),
    **dict.fromkeys([(16, 4), (32, 4), (64, 4)], (config(4, 3, L_=32, S_=32), config(4, 2, L_=32, S_=64))),
    (128, 4): (config(4, 3, L_=32, S_=16),),
    (256, 4): (config(4, 2, L_=16, S_=16),),
}
CONFIGS_OF_BIAS = {
    **CONFIGS,
    **dict.fromkeys([(16, 2), (32, 2), (64, 2)], (config(4, 3, L_=64, S_=64), config(8, 3, L_=128, S_=64))),
    (128, 2): (config(8, 3, L_=128, S_=32), config(4, 3, L_=64, S_=64)),
}


def temporal_forward(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary, return_lse):
    return forward(temporal(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary), q, return_lse)


def forward(of: Sequences, q: Tensor, return_lse: bool) -> tuple[Tensor, Tensor]:
    """q: as the operator got it, whose results are laid out like it."""
    out, lse = contiguous(q), sums(q, q.shape[:-1] if return_lse else None)

    def run(one: Config):
        tile = one.constants
        launch(
            attend, of.places * of.N * ceil_div(of.L, tile["L_"]), out, lse if return_lse else None, *of.arguments(),
            WHOLE=of.S % tile["S_"] == 0, **of.constants(), **one.options,
        )  # fmt: skip

    of.tuned("attend", CONFIGS if of.bias.table is None else CONFIGS_OF_BIAS, run)
    return out, lse


@triton.jit
def attend(
    p_out, p_lse,                           # (B, T, H, W, N, D), (B, T, H, W, N)
    p_q, p_k, p_v, p_bias, p_focus, p_key_mask, p_turns,
    s_qb, s_qx, s_qy, s_qn, s_q, s_q_line, q_line,
    s_kb, s_kx, s_ky, s_kn, s_k, s_k_line, k_line,
    s_vb, s_vx, s_vy, s_vn, s_v, s_v_line, v_line,
    o_bias, s_bias_n, s_bias_i, s_bias_i_line, s_bias_j, s_bias_j_line, bias_line, s_mask_b, s_mask,
    X, Y, N, L, S, apart, scale,
    CAUSAL: tl.constexpr, R: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, PIECES: tl.constexpr, UNIT: tl.constexpr,
    WHOLE: tl.constexpr, L_: tl.constexpr, S_: tl.constexpr,
):  # fmt: skip
    tiles = tl.cdiv(L, L_)
    place, n = place_of(tl.program_id(0) // tiles, N)
    first = tl.program_id(0) % tiles * L_
    i = first + tl.arange(0, L_)  # [L_]
    p_q += offset_of(place, n, X, Y, s_qb, s_qx, s_qy, s_qn) * UNIT
    p_k += offset_of(place, n, X, Y, s_kb, s_kx, s_ky, s_kn) * UNIT
    p_v += offset_of(place, n, X, Y, s_vb, s_vx, s_vy, s_vn) * UNIT
    o_mask = place // (X * Y) * s_mask_b
    o_head = o_bias + n * s_bias_n
    o_i = entry_offset(i, L, bias_line, s_bias_i, s_bias_i_line, WIDE)

    q = loaded(p_q, i, i < L, q_line, s_q, s_q_line, p_turns, L, R, UNIT, D, PIECES, False)  # [L_, D]
    m, total = tl.full((L_,), -float("inf"), tl.float32), tl.zeros((L_,), tl.float32)
    acc = zeros(L_, PIECES)
    for start in range(0, tl.minimum(S, first + L_) if CAUSAL else S, S_):
        j = start + tl.arange(0, S_)  # [S_]
        products, _ = products_with(
            q, p_k, j, j < S, k_line, s_k, s_k_line, p_turns, S, R, UNIT, D, PIECES, WHOLE, OF_QUERIES=True
        )  # [L_, S_]
        bias = biases(p_bias, o_head, o_i, entry_offset(j, S, bias_line, s_bias_j, s_bias_j_line, WIDE))
        s = scores(products, scale, bias, i, j, j < S, L, S, p_focus, p_key_mask, o_mask, s_mask, CAUSAL, WHOLE)
        m_next = tl.maximum(m, tl.max(s, 1))
        shift = shift_of(m_next)
        p, rescale = exp_above(s, shift[:, None]), exp_above(m, shift)
        total = total * rescale + tl.sum(p, 1)
        v = loaded(p_v, j, j < S, v_line, s_v, s_v_line, None, S, 0, UNIT, D, PIECES, WHOLE)  # [S_, D]
        acc = weighed(times(acc, rescale[:, None]), p.to(v[0].dtype), v)
        m = m_next

    row = result_row(place, i, L, apart) * N + n
    total = tl.where(total == 0, 1, total)  # of a row that sees no key: acc is 0, and m is -inf
    stored(p_out, row, i < L, times(acc, (1 / total)[:, None]), D, PIECES)
    if p_lse is not None:
        tl.store(p_lse + row, m + tl.log(total), i < L)
