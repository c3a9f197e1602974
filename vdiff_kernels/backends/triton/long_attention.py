"""Attention of sequences of any length: out = softmax(scale * q k^T + bias) v. A tile of queries stays, tiles of keys pass (Dao 2023).

    of every sequence and tile of queries:
        for each tile of keys:
            s   = scale * q k^T + bias, -inf where a key is hidden
            m'  = max(m, rowmax(s));  p = exp(s - m')
            l   = l exp(m - m') + rowsum(p)
            acc = acc exp(m - m') + p v
        out = acc / l;  lse = m + log(l)

A sequence is that of one place (b, x, y) and head: x, y are t, 0 where the pixels of a frame attend, h, w where frames do. Its
tokens are rows of q, k and v in place, by any strides. 4 L D elements a sequence come from memory and go there, where its keys stay
in L2 while its tiles of queries, which are neighbours in the grid, pass; 4 L S D flops.
"""

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from ...ops.schema import contiguous, sums
from .launch import launch
from .tiles import SMALLEST, block_of, ceil_div, dot, outer_strides, rotated, turns_of, unit_of

LOG2E = tl.constexpr(1.4426950408889634)

# Channels that a product takes at once, by the bytes of an element: an operand of float32 goes through registers twice.
LARGEST_PIECE = {2: 128, 4: 64}


@dataclass(frozen=True)
class Sequences:
    """A call, its tensors as sequences: (B, X, Y, lines, tokens, N, D). Within a shared context the sequences of all x are one's."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    bias: tuple = (None, 0, 0, 0, 0, 0, 0, None)  # as kernels get it: see `_dense` and `_relative`
    lines: int | None = None  # of queries and of keys, where the bias is relative
    causal: bool = False
    focus: Tensor | None = None
    key_mask: Tensor | None = None
    rotary: Tensor | None = None
    apart: int = 1  # rows from a token to the next in results: sequences of frames lie beside each other
    has_shared_keys: bool = False

    @property
    def L(self) -> int:
        return self.q.shape[3] * self.q.shape[4]

    @property
    def S(self) -> int:
        return self.k.shape[3] * self.k.shape[4]

    @property
    def N(self) -> int:
        return self.q.shape[5]

    @property
    def D(self) -> int:
        return self.q.shape[6]

    @property
    def places(self) -> int:
        B, X, Y = self.q.shape[:3]
        return B * X * Y

    @property
    def is_wide(self) -> bool:
        """Whether offsets within a head's bias do not fit in 32 bits."""
        table = self.bias[0]
        return table is not None and sum((n - 1) * abs(s) for n, s in zip(table.shape[1:], table.stride()[1:])) >= 2**31

    def tensors(self) -> tuple:
        mask = self.focus if self.key_mask is None else self.key_mask
        return self.q, self.k, self.v, self.bias[0], self.focus, self.key_mask, turns_of(self.rotary), *_mask_strides(mask)

    def numbers(self, unit: int, *more: Tensor) -> tuple:
        """What kernels get besides tensors. more: others with strides of their own."""
        strides = (number for tensor in (self.q, self.k, self.v, *more) for number in _rows(tensor, unit))
        _, X, Y = self.q.shape[:3]
        return *strides, *self.bias[1:], X, Y, self.N, self.L, self.S, self.apart, self.scale

    def constants(self) -> dict:
        R = 0 if self.rotary is None else 2 * self.rotary.shape[1]
        return dict(CAUSAL=self.causal, R=R, D=self.D, WIDE=self.is_wide, PIECES=pieces_of(self.D, LARGEST_PIECE[self.q.element_size()]))


def temporal(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary) -> Sequences:
    T, H, W = q.shape[1:4]
    q, k, v = map(of_frames, (q, k, v))
    table, lines = (_dense(bias), None) if rel_bias is None else (_relative(rel_bias[:, None], 1, T), 1)
    return Sequences(q, k, v, scale, table, lines, causal, focus_present, rotary=rotary, apart=H * W)


def spatial(q, k, v, bias, rel_bias, scale, key_mask) -> Sequences:
    T, H, W = q.shape[1:4]
    table, lines = (_dense(bias), None) if rel_bias is None else (_relative(rel_bias, H, W), H)
    has_shared_keys = k.dim() == 4
    q, k, v = (of_pixels(tensor, T) for tensor in (q, k, v))
    return Sequences(q, k, v, scale, table, lines, key_mask=key_mask, has_shared_keys=has_shared_keys)


def of_frames(x):
    """(B, T, H, W, N, D)."""
    return x.permute(0, 2, 3, 1, 4, 5).unsqueeze(3)


def of_pixels(x, T):
    """(B, T, H, W, N, D), or context (B, T, S, N, D) or (B, S, N, D)."""
    if x.dim() == 6:
        return x.unsqueeze(2)
    frames = x if x.dim() == 5 else x[:, None].expand(-1, T, -1, -1, -1)
    return frames[:, :, None, None]


def _rows(x, unit):
    """Of (B, X, Y, lines, tokens, N, D): strides over B, X, Y, N, tokens and lines, in units, and the tokens of a line; None
    where lines are as far apart as tokens.
    """
    lines, line = x.shape[3:5]
    s_b, s_x, s_y, s_line, s_row, s_n = (stride // unit for stride in outer_strides(x))
    if line == 1:
        s_row, lines = s_line, 1
    if lines == 1 or s_line == line * s_row:
        line, s_line = None, 0
    return s_b, s_x, s_y, s_n, s_row, s_line, line


def _dense(bias):
    """(N, L, S). A bias to kernels: the table, the offset of queries and keys 0 in it, strides over N, of a query's tokens and
    lines and of a key's, and the tokens of a line.
    """
    if bias is None:
        return Sequences.bias
    s_n, s_i, s_j = outer_strides(bias[..., None])
    return bias, 0, s_n, s_i, 0, s_j, 0, None


def _relative(rel_bias, H, W):
    """(N, 2H-1, 2W-1), of lines that are W queries each."""
    s_n, s_y, s_x = outer_strides(rel_bias[..., None])
    return rel_bias, (H - 1) * s_y + (W - 1) * s_x, s_n, -s_x, -s_y, s_x, s_y, None if H == 1 else W


def _mask_strides(mask):
    return (0, 0) if mask is None else mask.stride()


# -------------------------------------------------------------------------------------------------------------------- forward

TILES = {  # (block_of(D), bytes of an element): queries, keys, warps, stages
    (16, 2): (128, 64, 4, 3), (32, 2): (128, 64, 4, 3), (64, 2): (128, 64, 4, 3), (128, 2): (64, 64, 4, 2), (256, 2): (64, 32, 4, 2),
    (16, 4): (64, 32, 4, 2), (32, 4): (64, 32, 4, 2), (64, 4): (64, 32, 4, 2), (128, 4): (32, 32, 4, 2), (256, 4): (32, 16, 4, 2),
}  # fmt: skip


def temporal_forward(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary, return_lse):
    return forward(temporal(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary), q, return_lse)


def forward(of: Sequences, q: Tensor, return_lse: bool):
    """q: as the operator got it, whose results are laid out like it."""
    out, lse = contiguous(q), sums(q, q.shape[:-1] if return_lse else None)
    unit = unit_of(of.q, of.k, of.v)
    queries, keys, num_warps, num_stages = TILES[block_of(of.D, 256), q.element_size()]
    L_, S_ = block_of(of.L, queries), block_of(of.S, keys)
    launch(
        attend, of.places * of.N * ceil_div(of.L, L_), out, lse if return_lse else None, *of.tensors(), *of.numbers(unit),
        UNIT=unit, WHOLE=of.S % S_ == 0, L_=L_, S_=S_, **of.constants(), num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip
    return out, lse


@triton.jit
def attend(
    p_out, p_lse,
    p_q, p_k, p_v, p_bias, p_focus, p_key_mask, p_turns, s_mask_b, s_mask,
    s_qb, s_qx, s_qy, s_qn, s_q, s_q_line, q_line,
    s_kb, s_kx, s_ky, s_kn, s_k, s_k_line, k_line,
    s_vb, s_vx, s_vy, s_vn, s_v, s_v_line, v_line,
    o_bias, s_bias_n, s_bias_i, s_bias_i_line, s_bias_j, s_bias_j_line, bias_line,
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
    o_rows = entry_offset(i[:, None], L, bias_line, s_bias_i, s_bias_i_line, WIDE)

    q = loaded(p_q, i, i < L, q_line, s_q, s_q_line, p_turns, L, R, UNIT, D, PIECES, False)  # [L_, D]
    m, l = tl.full((L_,), -float("inf"), tl.float32), tl.zeros((L_,), tl.float32)
    acc = zeros(L_, PIECES)
    for start in range(0, tl.minimum(S, first + L_) if CAUSAL else S, S_):
        j = start + tl.arange(0, S_)  # [S_]
        products, _ = products_with(
            q, p_k, j, j < S, k_line, s_k, s_k_line, p_turns, S, R, UNIT, D, PIECES, WHOLE, OF_QUERIES=True
        )  # [L_, S_]
        bias = biases(p_bias, o_head, o_rows + entry_offset(j[None, :], S, bias_line, s_bias_j, s_bias_j_line, WIDE))
        s = scores(
            products, scale, bias, i[:, None], j[None, :], (j < S)[None, :], L, S, p_focus, p_key_mask, o_mask, s_mask,
            CAUSAL, WHOLE,
        )  # [L_, S_]  # fmt: skip
        m_next = tl.maximum(m, tl.max(s, 1))
        shift = shift_of(m_next)
        p, rescale = exp_above(s, shift[:, None]), exp_above(m, shift)
        l = l * rescale + tl.sum(p, 1)
        v = loaded(p_v, j, j < S, v_line, s_v, s_v_line, None, S, 0, UNIT, D, PIECES, WHOLE)  # [S_, D]
        acc = weighed(times(acc, rescale[:, None]), p.to(v[0].dtype), v)
        m = m_next

    row = result_row(place, i, L, apart) * N + n
    stored(p_out, row, i < L, times(acc, (1 / tl.where(l == 0, 1, l))[:, None]), D, PIECES)
    if p_lse is not None:
        tl.store(p_lse + row, m + tl.log(tl.where(l == 0, 1, l)), i < L)


# ----------------------------------------------------------------------------------------------------------- rows of sequences


@triton.jit
def place_of(sequence, N):
    """The place and the head of a sequence."""
    return (sequence // N).to(tl.int64), (sequence % N).to(tl.int64)


@triton.jit
def offset_of(place, n, X, Y, s_b, s_x, s_y, s_n):
    return place // (X * Y) * s_b + place // Y % X * s_x + place % Y * s_y + n * s_n


@triton.jit
def row_offset(i, line, s_row, s_line):
    """Of a sequence's tokens by their numbers."""
    if line is None:
        return i.to(tl.int64) * s_row
    else:
        return (i // line).to(tl.int64) * s_line + (i % line).to(tl.int64) * s_row


@triton.jit
def result_row(place, i, length, apart):
    """Of a place's tokens among those of a result, (B, T, H, W) or (B, S) or (B, T, S)."""
    return (place // apart * length + i) * apart + place % apart


@triton.jit
def entry_offset(i, end, line, s_row, s_line, WIDE: tl.constexpr):
    """Within a head's bias, of tokens i, queries or keys, along either axis of a tile; from `end` on that of the last."""
    offset = row_offset(tl.minimum(i, end - 1), line, s_row, s_line)
    return offset if WIDE else offset.to(tl.int32)


@triton.jit
def biases(p_bias, o_head, offset):
    """In float32, None where there is no bias."""
    if p_bias is None:
        return None
    else:
        return tl.load(p_bias + o_head + offset).to(tl.float32)


# ------------------------------------------------------------------------------------------------------------- tiles of scores


@triton.jit
def scores(
    products, scale, bias, i, j, there, L, S, p_focus, p_key_mask, o_mask, s_mask, CAUSAL: tl.constexpr, WHOLE: tl.constexpr
):  # fmt: skip
    """Products q k scaled, plus the bias, and -inf where query i does not see key j, or where that is not there. WHOLE: all are."""
    if bias is not None:
        s = tl.fma(products, scale, bias)
    else:
        s = products * scale
    if not WHOLE:
        s = tl.where(there, s, -float("inf"))
    if CAUSAL:
        s = tl.where(j <= i, s, -float("inf"))
    if p_focus is not None:
        isolated = tl.load(p_focus + o_mask + i * s_mask, i < L, 0) | tl.load(p_focus + o_mask + j * s_mask, j < S, 0)
        s = tl.where((i != j) & (isolated != 0), -float("inf"), s)
    if p_key_mask is not None:
        s = tl.where(tl.load(p_key_mask + o_mask + j * s_mask, j < S, 0) != 0, s, -float("inf"))
    return s


@triton.jit
def shift_of(m):
    """What is subtracted from scores, of their maximum or log-sum-exp: 0 where all of them are -inf."""
    return tl.where(m == -float("inf"), 0, m)


@triton.jit
def exp_above(x, shift):
    """exp(x - shift). Subtracted first, so that the largest of a row is exactly 1: however large scores are, where one key has all
    the weight, out is its v.
    """
    return tl.exp2((x - shift) * LOG2E)


# ----------------------------------------------------------------------------------------- tiles of rows, in pieces of channels


def pieces_of(D: int, largest: int) -> tuple[tuple[int, int], ...]:
    """(first channel, extent) of the pieces, powers of two, into which channels are cut, so that few are wasted: 80 are 64 and 16."""
    pieces, first = [], 0
    while first < D:
        left = D - first
        extent = block_of(left, largest)
        if SMALLEST < extent and left <= extent and block_of(left - extent // 2, largest) < extent // 2:
            extent //= 2
        pieces.append((first, extent))
        first += extent
    return tuple(pieces)


@triton.jit
def loaded(
    p, i, there, line, s_row, s_line, p_turns, T, R: tl.constexpr,
    UNIT: tl.constexpr, D: tl.constexpr, PIECES: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Rows of the tokens i, zeros where they are not there. WHOLE: all are. R: of frames, whose channels turn, or 0."""
    p += (row_offset(i, line, s_row, s_line) * UNIT)[:, None]
    rows = ()
    for n in tl.static_range(len(PIECES)):
        rows += (_loaded(p, i, there, p_turns, T, R, D, PIECES[n][0], PIECES[n][1], WHOLE),)
    return rows


@triton.jit
def products_with(
    x, p, i, there, line, s_row, s_line, p_turns, T, R: tl.constexpr,
    UNIT: tl.constexpr, D: tl.constexpr, PIECES: tl.constexpr, WHOLE: tl.constexpr, OF_QUERIES: tl.constexpr,
):  # fmt: skip
    """(products, rows): `rows` as by `loaded`, and x rows^T where x are OF_QUERIES, else rows x^T. One piece is multiplied before
    the next is loaded: registers do not hold all of a row at once.
    """
    p += (row_offset(i, line, s_row, s_line) * UNIT)[:, None]
    rows = ()
    for n in tl.static_range(len(PIECES)):
        piece = _loaded(p, i, there, p_turns, T, R, D, PIECES[n][0], PIECES[n][1], WHOLE)
        a, b = (x[n], piece) if OF_QUERIES else (piece, x[n])
        products = dot(a, tl.trans(b), None if n == 0 else products)  # noqa: F821
        rows += (piece,)
    return products, rows


@triton.jit
def _loaded(
    p, i, there, p_turns, T, R: tl.constexpr, D: tl.constexpr, FIRST: tl.constexpr, EXTENT: tl.constexpr, WHOLE: tl.constexpr
):  # fmt: skip
    i_d = FIRST + tl.arange(0, EXTENT)
    if not WHOLE:
        x = tl.load(p + i_d, there[:, None] & (i_d < D), 0)
    elif FIRST + EXTENT > D:
        x = tl.load(p + i_d, (i_d < D)[None, :], 0)
    else:
        x = tl.load(p + i_d)
    return rotated(x, p_turns, i[:, None], T, 1, R, FIRST).to(x.dtype) if R else x


@triton.jit
def stored(p, row, there, x, D: tl.constexpr, PIECES: tl.constexpr):
    """To rows of D channels, one after the other."""
    for n in tl.static_range(len(PIECES)):
        i_d = PIECES[n][0] + tl.arange(0, PIECES[n][1])
        tl.store(p + (row * D)[:, None] + i_d, x[n].to(p.dtype.element_ty), there[:, None] & (i_d < D))


@triton.jit
def turned_back(x, p_turns, i, T, R: tl.constexpr, PIECES: tl.constexpr):
    y = ()
    for n in tl.static_range(len(PIECES)):
        y += (rotated(x[n], p_turns, i[:, None], T, -1, R, PIECES[n][0]),)
    return y


@triton.jit
def zeros(ROWS: tl.constexpr, PIECES: tl.constexpr):
    acc = ()
    for n in tl.static_range(len(PIECES)):
        acc += (_zeros(ROWS, PIECES[n][1]),)
    return acc


@triton.jit
def _zeros(ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    return tl.zeros((ROWS, COLUMNS), tl.float32)


@triton.jit
def rows_by_rows(a, b):
    """a b^T."""
    products = dot(a[0], tl.trans(b[0]), None)
    for n in tl.static_range(1, len(a)):
        products = dot(a[n], tl.trans(b[n]), products)
    return products


@triton.jit
def weighed(acc, weights, b):
    """acc + weights b."""
    sums = ()
    for n in tl.static_range(len(b)):
        sums += (dot(weights, b[n], acc[n]),)
    return sums


@triton.jit
def times(a, factors):
    """Each by a number, or by a column of one for each row."""
    products = ()
    for n in tl.static_range(len(a)):
        products += (a[n] * factors,)
    return products
