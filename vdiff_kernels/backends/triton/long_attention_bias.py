"""The gradient of the bias: ds = p (dp - delta) added up over the sequences of a head, on chip, a tile of scores at a time.

    of every head, tile of queries and tile of keys:
        for each sequence of the head:
            p    = exp(scale * q k^T + bias - lse);  dp = dout v^T
            sum += p (dp - delta)

A dense bias is made of such tiles. A relative one has an entry for each offset of a key from a query, (dy, dx) of pixels. So its
tiles are of Y lines of queries and Y lines of keys, P tokens of each, and a program takes all whose keys are as many lines away:

    of every head, block of Y lines from queries to keys, piece of their lines and piece of the keys' lines:
        for each sequence of the head and Y lines of queries:
            sum += p (dp - delta)
        of each of Y x Y pairs of lines, the P x P pairs of tokens are added up along the diagonals: 2 P - 1 parts of entries
    of every head and entry:
        its parts added up, in order

Where programs would be few, each takes a chunk of the sequences. A tile reads 4 rows of D elements for each of its queries, and
takes 4 D flops for each pair.
"""

import triton
import triton.language as tl
from torch import Tensor

from ...ops.schema import sums
from ...ops.tensors import power_of_2
from .chunks import add_chunks, chunks_of
from .launch import launch
from .long_sequences import Sequences, biases, entry_offset, exp_above, loaded, offset_of, products_with, scores
from .tiles import block_of, ceil_div
from .tuning import Config, config

# By Sequences.kind: TILE queries, and as many keys. Four tiles of rows are on their way at once.
CONFIGS = {
    **dict.fromkeys([(16, 2), (32, 2), (64, 2)], (config(4, 3, TILE=64), config(8, 3, TILE=64))),
    (128, 2): (config(8, 2, TILE=64),),
    (256, 2): (config(4, 2, TILE=32),),
    **dict.fromkeys([(16, 4), (32, 4)], (config(4, 3, TILE=32), config(4, 3, TILE=16))),
    **dict.fromkeys([(64, 4), (128, 4)], (config(4, 3, TILE=16),)),
    (256, 4): (config(4, 2, TILE=16),),
}
MOST_ENTRIES, PARTS = 64, 16  # that a program of the last step takes at once


def bias_gradient(of: Sequences, table: Tensor, rows: Tensor, arguments: tuple, constants: dict) -> Tensor:
    """In float32, of the table's shape."""
    gradient = sums(of.q, table.shape)
    of.tuned("score_gradients", CONFIGS, lambda one: _sum_up(of, gradient, rows, arguments, constants, one))
    return gradient


def _sum_up(of: Sequences, gradient: Tensor, rows: Tensor, arguments: tuple, constants: dict, one: Config) -> None:
    tile = one.constants["TILE"]
    how = {"num_warps": one.num_warps, "num_stages": one.num_stages}
    lines = of.lines or 1
    Wq, Wk = of.L // lines, of.S // lines  # queries and keys of a line
    if of.lines is None:
        Q_, K_, Y_ = block_of(Wq, tile), block_of(Wk, tile), 1
    else:
        Q_ = K_ = _piece(Wq, Wk, tile)
        Y_ = min(tile // Q_, power_of_2(lines))
    blocks = ceil_div(lines, Y_)
    programs = of.N * (2 * blocks - 1) * ceil_div(Wq, Q_) * ceil_div(Wk, K_)
    chunks = chunks_of(programs, of.places)
    parts = gradient
    if of.lines is not None:
        parts = sums(of.q, (chunks, programs, Y_, Y_, 2 * Q_))
    elif chunks > 1:
        parts = sums(of.q, (chunks, *gradient.shape))
    cut = Wq, Wk, lines, blocks
    launch(
        score_gradients, programs * chunks, parts, rows, of.places, ceil_div(of.places, chunks), *cut, *arguments,
        RELATIVE=of.lines is not None, WHOLE=Wq % Q_ == 0 and Wk % K_ == 0 and lines % Y_ == 0, Y_=Y_, Q_=Q_, K_=K_,
        **constants, **how,
    )  # fmt: skip
    if of.lines is not None:
        E_ = block_of(Wq + Wk - 1, MOST_ENTRIES)
        launch(
            entries_of_parts, of.N * (2 * lines - 1) * ceil_div(Wq + Wk - 1, E_), parts, gradient, chunks, of.N, *cut,
            Y_=Y_, P=Q_, E_=E_, PARTS=PARTS,
        )  # fmt: skip
    elif chunks > 1:
        add_chunks(parts, gradient)


def _piece(Wq: int, Wk: int, largest: int) -> int:
    """Tokens of the pieces into which lines are cut: of those that leave the fewest places of tiles empty, the most."""
    pieces = [piece for piece in (16, 32, 64) if piece <= largest]
    return min(pieces, key=lambda piece: (ceil_div(Wq, piece) * ceil_div(Wk, piece) * piece**2, -piece))


@triton.jit
def score_gradients(
    p_parts, p_row, places, its_places, Wq, Wk, lines, blocks,
    p_q, p_k, p_v, p_dout, p_bias, p_focus, p_key_mask, p_turns,
    s_qb, s_qx, s_qy, s_qn, s_q, s_q_line, q_line,
    s_kb, s_kx, s_ky, s_kn, s_k, s_k_line, k_line,
    s_vb, s_vx, s_vy, s_vn, s_v, s_v_line, v_line,
    s_ob, s_ox, s_oy, s_on, s_o, s_o_line, o_line,
    o_bias, s_bias_n, s_bias_i, s_bias_i_line, s_bias_j, s_bias_j_line, bias_line, s_mask_b, s_mask,
    X, Y, N, L, S, apart, scale,
    CAUSAL: tl.constexpr, R: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, PIECES: tl.constexpr, UNIT: tl.constexpr,
    WHOLE: tl.constexpr, RELATIVE: tl.constexpr, Y_: tl.constexpr, Q_: tl.constexpr, K_: tl.constexpr,
):  # fmt: skip
    """Of lines of Wq queries and of Wk keys, of a dense bias one of each; a program takes `its_places`, a chunk of all places.

    p_parts: (chunks, N, L, S); RELATIVE: (programs, Y_, Y_, 2 K_), of lines of queries, lines of keys, and offsets from -K_ on.
    """
    program = tl.program_id(0)
    across_q, across_k, shifts = tl.cdiv(Wq, Q_), tl.cdiv(Wk, K_), 2 * blocks - 1
    shift = program // (across_q * across_k) % shifts - blocks + 1  # blocks from queries to keys
    chunk_n = program // (across_q * across_k) // shifts
    n = (chunk_n % N).to(tl.int64)
    first_place = (chunk_n // N).to(tl.int64) * its_places
    row, column = tl.arange(0, Y_ * Q_), tl.arange(0, Y_ * K_)  # [L_], [S_]
    x_i = program // across_k % across_q * Q_ + row % Q_
    x_j = program % across_k * K_ + column % K_
    first_block, its_blocks = tl.maximum(-shift, 0), blocks - tl.abs(shift)

    # The bias is the same for all places, and for all blocks of lines that are as far apart.
    i = (first_block * Y_ + row // Q_) * Wq + x_i  # [L_]
    j = ((first_block + shift) * Y_ + column // K_) * Wk + x_j  # [S_]
    o_i = entry_offset(i, L, bias_line, s_bias_i, s_bias_i_line, WIDE)
    o_j = entry_offset(j, S, bias_line, s_bias_j, s_bias_j_line, WIDE)
    bias = biases(p_bias, o_bias + n * s_bias_n, o_i, o_j)  # [L_, S_]
    total = tl.zeros((Y_ * Q_, Y_ * K_), tl.float32)
    for step in range(0, tl.minimum(places - first_place, its_places).to(tl.int32) * its_blocks):
        place, block = first_place + step // its_blocks, first_block + step % its_blocks
        y_i, y_j = block * Y_ + row // Q_, (block + shift) * Y_ + column // K_
        i, j = y_i * Wq + x_i, y_j * Wk + x_j  # [L_], [S_]
        there_i, there_j = (y_i < lines) & (x_i < Wq), (y_j < lines) & (x_j < Wk)
        o_q = offset_of(place, n, X, Y, s_qb, s_qx, s_qy, s_qn) * UNIT
        q = loaded(p_q + o_q, i, there_i, q_line, s_q, s_q_line, p_turns, L, R, UNIT, D, PIECES, WHOLE)  # [L_, D]
        o_k = offset_of(place, n, X, Y, s_kb, s_kx, s_ky, s_kn) * UNIT
        products, _ = products_with(
            q, p_k + o_k, j, there_j, k_line, s_k, s_k_line, p_turns, S, R, UNIT, D, PIECES, WHOLE, OF_QUERIES=True
        )  # [L_, S_]
        o_mask = place // (X * Y) * s_mask_b
        s = scores(products, scale, bias, i, j, there_j, L, S, p_focus, p_key_mask, o_mask, s_mask, CAUSAL, WHOLE)
        o_row = (place * N + n) * 2 * L + i
        lse = tl.load(p_row + o_row, there_i, float("inf"))
        delta = tl.load(p_row + o_row + L, there_i, 0)
        o_dout = offset_of(place, n, X, Y, s_ob, s_ox, s_oy, s_on) * UNIT
        dout = loaded(p_dout + o_dout, i, there_i, o_line, s_o, s_o_line, None, L, 0, UNIT, D, PIECES, WHOLE)  # [L_, D]
        o_v = offset_of(place, n, X, Y, s_vb, s_vx, s_vy, s_vn) * UNIT
        dp, _ = products_with(
            dout, p_v + o_v, j, there_j, v_line, s_v, s_v_line, None, S, 0, UNIT, D, PIECES, WHOLE, OF_QUERIES=True
        )  # [L_, S_]
        ds = exp_above(s, lse[:, None]) * (dp - delta[:, None])
        if not WHOLE:
            ds = tl.where(there_i[:, None] & there_j[None, :], ds, 0)
        total += ds

    if RELATIVE:
        # Each row moves to the left by its number in its line: below each other are then offsets that are the same, or K_ less.
        moved = column[None, :] % K_ + row[:, None] % Q_
        aligned = tl.gather(total, column[None, :] - column[None, :] % K_ + moved % K_, 1)
        p_parts += program.to(tl.int64) * (Y_ * Y_ * 2 * K_)
        o_part = tl.arange(0, Y_)[:, None] * (Y_ * 2 * K_) + column[None, :] // K_ * (2 * K_) + column[None, :] % K_
        for is_less in tl.static_range(2):
            of_sign = tl.where((moved >= K_) == (is_less == 0), 0, aligned)
            tl.store(p_parts + o_part + (1 - is_less) * K_, tl.sum(tl.reshape(of_sign, (Y_, Q_, Y_ * K_)), 1))
    else:
        o_total = (chunk_n.to(tl.int64) * L + x_i)[:, None] * S + x_j[None, :]
        tl.store(p_parts + o_total, total, (x_i < Wq)[:, None] & (x_j < Wk)[None, :])


@triton.jit
def entries_of_parts(
    p_parts, p_entries, chunks, N, Wq, Wk, lines, blocks, Y_: tl.constexpr, P: tl.constexpr, E_: tl.constexpr, PARTS: tl.constexpr
):  # fmt: skip
    """Parts as of `score_gradients` to (N, 2 lines - 1, Wq + Wk - 1)."""
    across = tl.cdiv(Wq + Wk - 1, E_)
    row = tl.program_id(0) // across
    n, dy = (row // (2 * lines - 1)).to(tl.int64), row % (2 * lines - 1) - lines + 1  # lines from queries to keys
    i_e = tl.program_id(0) % across * E_ + tl.arange(0, E_)  # [E_]
    across_q, across_k, shifts = tl.cdiv(Wq, P), tl.cdiv(Wk, P), 2 * blocks - 1
    parts = chunks * Y_ * across_q * across_k
    total = tl.zeros((E_,), tl.float32)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)[:, None]  # [PARTS, 1]
        piece_q, piece_k = part // across_k % across_q, part % across_k
        line_i, chunk = part // (across_q * across_k) % Y_, part // (across_q * across_k) // Y_
        line_j = line_i + dy + blocks * Y_  # in blocks from the first that is `blocks` before that of line_i: not negative
        shift = line_j // Y_ - 1
        program = ((chunk * N + n) * shifts + shift) * across_q * across_k + piece_q * across_k + piece_k
        place = i_e[None, :] - (Wq - 1) - (piece_k - piece_q) * P + P  # [PARTS, E_], of the offset among those of a part
        there = (part < parts) & (shift >= 0) & (shift < shifts) & (place >= 0) & (place < 2 * P) & (i_e < Wq + Wk - 1)
        p_part = p_parts + ((program * Y_ + line_i) * Y_ + line_j % Y_) * (2 * P)
        total += tl.sum(tl.load(p_part + place, there, 0), 0)
    tl.store(p_entries + row.to(tl.int64) * (Wq + Wk - 1) + i_e, total, i_e < Wq + Wk - 1)
