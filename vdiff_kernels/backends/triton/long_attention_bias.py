"""The gradient of the bias: ds = p (dp - delta) added up over the sequences of a head, on chip, a tile of scores at a time.

    of every head, tile of queries and tile of keys:
        for each sequence of the head:
            p    = exp(scale * q k^T + bias - lse);  dp = dout v^T
            sum += p (dp - delta)

A dense bias is made of such tiles. A relative one has an entry for each offset of keys from queries, so a tile is of pieces of P
tokens of some lines of queries, and of as many of keys, and a program goes over all tiles whose keys are as many lines from their
queries:

    of every head, number of lines from queries to keys, piece of the lines of queries and piece of those of keys:
        for each sequence of the head and tile of lines of queries:
            sum += p (dp - delta)
        of each line of queries and line of keys of the tile, each diagonal of the P x P pairs is one part of one entry
    of every head and entry:
        its parts added up, in order

Where programs would be few, each takes a chunk of the sequences. 2 x 2 D elements pass for each pair of a query and a key that a
tile of 64 has 64 of, from L2 mostly; 4 D flops a pair.
"""

import triton
import triton.language as tl
from torch import Tensor

from ...ops.schema import sums
from ...ops.tensors import power_of_2
from .chunks import add_chunks, chunks_of
from .launch import launch
from .long_attention import Sequences, biases, entry_offset, exp_above, loaded, offset_of, products_with, scores
from .tiles import block_of, ceil_div

TILES = {  # (block_of(D), bytes of an element): queries, and keys, warps, stages
    (16, 2): (64, 4, 2), (32, 2): (64, 4, 2), (64, 2): (64, 4, 2), (128, 2): (64, 4, 1), (256, 2): (32, 4, 1),
    (16, 4): (32, 4, 2), (32, 4): (32, 4, 2), (64, 4): (32, 4, 2), (128, 4): (32, 4, 1), (256, 4): (16, 4, 1),
}  # fmt: skip
MOST_ENTRIES, PARTS = 64, 16  # that a program of the last step takes at once


def bias_gradient(of: Sequences, table: Tensor, arguments: tuple, constants: dict) -> Tensor:
    """In float32, of the table's shape."""
    tile, num_warps, num_stages = TILES[block_of(of.D, 256), of.q.element_size()]
    lines = of.lines or 1
    I, J = of.L // lines, of.S // lines
    if of.lines is None:
        I_, J_, Y_ = block_of(I, tile), block_of(J, tile), 1
    else:
        I_ = J_ = _piece(I, J, tile)
        Y_ = min(tile // I_, power_of_2(lines))
    blocks = ceil_div(lines, Y_)
    programs = of.N * (2 * blocks - 1) * ceil_div(I, I_) * ceil_div(J, J_)
    chunks = chunks_of(programs, of.places)
    gradient = sums(of.q, table.shape)
    parts = gradient
    if of.lines is not None:
        parts = sums(of.q, (chunks, programs, Y_, Y_, 2 * I_))
    elif chunks > 1:
        parts = sums(of.q, (chunks, *table.shape))
    launch(
        score_gradients, programs * chunks, parts, of.places, ceil_div(of.places, chunks), I, J, lines, blocks, *arguments,
        RELATIVE=of.lines is not None, WHOLE=I % I_ == 0 and J % J_ == 0 and lines % Y_ == 0, Y_=Y_, I_=I_, J_=J_,
        **constants, num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip
    if of.lines is not None:
        E_ = block_of(I + J - 1, MOST_ENTRIES)
        launch(
            entries_of_parts, of.N * (2 * lines - 1) * ceil_div(I + J - 1, E_), parts, gradient, chunks, of.N, I, J, lines, blocks,
            Y_=Y_, P=I_, E_=E_, PARTS=PARTS,
        )  # fmt: skip
    elif chunks > 1:
        add_chunks(parts, gradient)
    return gradient


def _piece(I: int, J: int, largest: int) -> int:
    """Tokens of the pieces into which lines are cut: of those that leave the fewest places of tiles empty, the most."""
    pieces = [piece for piece in (16, 32, 64) if piece <= largest]
    return min(pieces, key=lambda piece: (ceil_div(I, piece) * ceil_div(J, piece) * piece**2, -piece))


@triton.jit
def score_gradients(
    p_parts, places, its_places, I, J, lines, blocks,
    p_q, p_k, p_v, p_bias, p_focus, p_key_mask, p_turns, s_mask_b, s_mask, p_dout, p_row,
    s_qb, s_qx, s_qy, s_qn, s_q, s_q_line, q_line,
    s_kb, s_kx, s_ky, s_kn, s_k, s_k_line, k_line,
    s_vb, s_vx, s_vy, s_vn, s_v, s_v_line, v_line,
    s_ob, s_ox, s_oy, s_on, s_o, s_o_line, o_line,
    o_bias, s_bias_n, s_bias_i, s_bias_i_line, s_bias_j, s_bias_j_line, bias_line,
    X, Y, N, L, S, apart, scale,
    CAUSAL: tl.constexpr, R: tl.constexpr, D: tl.constexpr, WIDE: tl.constexpr, PIECES: tl.constexpr, UNIT: tl.constexpr,
    WHOLE: tl.constexpr, RELATIVE: tl.constexpr, Y_: tl.constexpr, I_: tl.constexpr, J_: tl.constexpr,
):  # fmt: skip
    """Lines of I queries and of J keys, all in one for a dense bias, in blocks of Y_ lines; a program takes `its_places`, a chunk.

    p_parts (chunks, N, L, S), or (programs, Y_, Y_, 2 J_) of lines of queries, of lines of keys, and of keys' offsets from -J_ on.
    """
    program = tl.program_id(0)
    across_i, across_j, shifts = tl.cdiv(I, I_), tl.cdiv(J, J_), 2 * blocks - 1
    shift = program // (across_i * across_j) % shifts - blocks + 1  # blocks from queries to keys
    chunk_n = program // (across_i * across_j) // shifts
    n = (chunk_n % N).to(tl.int64)
    first_place = (chunk_n // N).to(tl.int64) * its_places
    row, column = tl.arange(0, Y_ * I_), tl.arange(0, Y_ * J_)  # [L_], [S_]
    x_i = program // across_j % across_i * I_ + row % I_
    x_j = program % across_j * J_ + column % J_
    first_block, its_blocks = tl.maximum(-shift, 0), blocks - tl.abs(shift)

    # The bias is the same for all places, and for all blocks of lines that are as far apart.
    i = (first_block * Y_ + row // I_) * I + x_i  # [L_]
    j = ((first_block + shift) * Y_ + column // J_) * J + x_j  # [S_]
    o_rows = entry_offset(i[:, None], L, bias_line, s_bias_i, s_bias_i_line, WIDE)
    o_columns = entry_offset(j[None, :], S, bias_line, s_bias_j, s_bias_j_line, WIDE)
    bias = biases(p_bias, o_bias + n * s_bias_n, o_rows + o_columns)  # [L_, S_]
    total = tl.zeros((Y_ * I_, Y_ * J_), tl.float32)
    for step in range(0, tl.minimum(places - first_place, its_places).to(tl.int32) * its_blocks):
        place, block = first_place + step // its_blocks, first_block + step % its_blocks
        y_i, y_j = block * Y_ + row // I_, (block + shift) * Y_ + column // J_
        i, j = y_i * I + x_i, y_j * J + x_j  # [L_], [S_]
        there_i, there_j = (y_i < lines) & (x_i < I), (y_j < lines) & (x_j < J)
        o_q = offset_of(place, n, X, Y, s_qb, s_qx, s_qy, s_qn) * UNIT
        q = loaded(p_q + o_q, i, there_i, q_line, s_q, s_q_line, p_turns, L, R, UNIT, D, PIECES, WHOLE)  # [L_, D]
        o_k = offset_of(place, n, X, Y, s_kb, s_kx, s_ky, s_kn) * UNIT
        products, _ = products_with(
            q, p_k + o_k, j, there_j, k_line, s_k, s_k_line, p_turns, S, R, UNIT, D, PIECES, WHOLE, OF_QUERIES=True
        )  # [L_, S_]
        s = scores(
            products, scale, bias, i[:, None], j[None, :], there_j[None, :], L, S,
            p_focus, p_key_mask, place // (X * Y) * s_mask_b, s_mask, CAUSAL, WHOLE,
        )  # fmt: skip
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
        # Each row moves to the left by its number in its line: below each other are then offsets that are the same, or J_ less.
        moved = column[None, :] % J_ + row[:, None] % I_
        aligned = tl.gather(total, column[None, :] - column[None, :] % J_ + moved % J_, 1)
        p_parts += program.to(tl.int64) * (Y_ * Y_ * 2 * J_)
        o_part = tl.arange(0, Y_)[:, None] * (Y_ * 2 * J_) + column[None, :] // J_ * (2 * J_) + column[None, :] % J_
        for is_less in tl.static_range(2):
            of_sign = tl.where((moved >= J_) == (is_less == 0), 0, aligned)
            tl.store(p_parts + o_part + (1 - is_less) * J_, tl.sum(tl.reshape(of_sign, (Y_, I_, Y_ * J_)), 1))
    else:
        o_total = (chunk_n.to(tl.int64) * L + x_i)[:, None] * S + x_j[None, :]
        tl.store(p_parts + o_total, total, (x_i < I)[:, None] & (x_j < J)[None, :])


@triton.jit
def entries_of_parts(
    p_parts, p_entries, chunks, N, I, J, lines, blocks, Y_: tl.constexpr, P: tl.constexpr, E_: tl.constexpr, PARTS: tl.constexpr
):  # fmt: skip
    """Parts as of `score_gradients` to (N, 2 lines - 1, I + J - 1)."""
    across = tl.cdiv(I + J - 1, E_)
    row = tl.program_id(0) // across
    n, dy = (row // (2 * lines - 1)).to(tl.int64), row % (2 * lines - 1) - lines + 1  # lines from queries to keys
    i_e = tl.program_id(0) % across * E_ + tl.arange(0, E_)  # [E_]
    across_i, across_j, shifts = tl.cdiv(I, P), tl.cdiv(J, P), 2 * blocks - 1
    parts = chunks * Y_ * across_i * across_j
    total = tl.zeros((E_,), tl.float32)
    for first in range(0, parts, PARTS):
        part = first + tl.arange(0, PARTS)[:, None]  # [PARTS, 1]
        piece_i, piece_j = part // across_j % across_i, part % across_j
        line_i, chunk = part // (across_i * across_j) % Y_, part // (across_i * across_j) // Y_
        line_j = line_i + dy + blocks * Y_  # in blocks from the first that is `blocks` before that of line_i: not negative
        shift = line_j // Y_ - 1
        program = ((chunk * N + n) * shifts + shift) * across_i * across_j + piece_i * across_j + piece_j
        place = i_e[None, :] - (I - 1) - (piece_j - piece_i) * P + P  # [PARTS, E_], of the offset among those of a part
        there = (part < parts) & (shift >= 0) & (shift < shifts) & (place >= 0) & (place < 2 * P) & (i_e < I + J - 1)
        p_part = p_parts + ((program * Y_ + line_i) * Y_ + line_j % Y_) * (2 * P)
        total += tl.sum(tl.load(p_part + place, there, 0), 0)
    tl.store(p_entries + row.to(tl.int64) * (I + J - 1) + i_e, total, i_e < I + J - 1)
