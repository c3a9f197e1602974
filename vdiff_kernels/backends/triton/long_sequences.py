"""What the kernels of long sequences share: a call as sequences, and tiles of their rows and scores.

A sequence is that of one place (b, x, y) and head n. Where the pixels of a frame attend, x is t and y is 0; where frames do, x is
h and y is w. Its tokens are rows of q, k and v in place, by any strides; those of pixels lie in lines.

Rows of D channels are tuples of tiles, pieces of so many channels: of 80, 64 and 16, where one tile would have 128.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from ...ops.tensors import power_of_2
from .tiles import SMALLEST, block_of, dot, outer_strides, rotated, turns_of, unit_of
from .tuning import Config, narrowed, tuned

LOG2E = tl.constexpr(1.4426950408889634)


class Bias(NamedTuple):
    """As kernels get it: query i and key j have the entry at origin + n s_n + (i's tokens and lines) + (j's tokens and lines)."""

    table: Tensor | None = None
    origin: int = 0
    s_n: int = 0
    s_i: int = 0
    s_i_line: int = 0
    s_j: int = 0
    s_j_line: int = 0
    line: int | None = None  # tokens of a line, None where there is one

    @property
    def is_wide(self) -> bool:
        """Whether offsets within a head's entries do not fit in 32 bits."""
        if self.table is None:
            return False
        return sum((extent - 1) * stride for extent, stride in zip(self.table.shape[1:], self.table.stride()[1:])) >= 2**31


@dataclass(frozen=True)
class Sequences:
    """A call, its tensors (B, X, Y, lines, tokens, N, D)."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    bias: Bias
    lines: int | None  # of queries, and of keys, where the bias is relative
    apart: int  # from a token to the next, in rows of a result: sequences of frames lie beside each other there
    has_shared_keys: bool = False  # all x of a b have the same
    causal: bool = False
    focus: Tensor | None = None
    key_mask: Tensor | None = None
    rotary: Tensor | None = None

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
        return self.q.shape[:3].numel()

    @property
    def kind(self) -> tuple[int, int]:
        """What kernels' tiles depend on: D up to a power of two, and the bytes of an element."""
        return block_of(self.D, 256), self.q.element_size()

    def tuned(self, kernel: str, configs: dict[tuple, tuple[Config, ...]], run: Callable[[Config], None]) -> None:
        """Runs the configuration for this call, of those by kind, whose tiles have L_ queries and S_ keys."""
        table = "none" if self.bias.table is None else "dense" if self.lines is None else "relative"
        lengths = power_of_2(self.L), power_of_2(self.S)
        key = self.q.dtype, self.D, *lengths, table, self.causal, self.has_shared_keys
        own = narrowed(configs[self.kind], L_=max(SMALLEST, lengths[0]), S_=max(SMALLEST, lengths[1]))
        tuned(kernel, key, own, run, self.q)

    def arguments(self, *more: Tensor) -> tuple:
        """Of every kernel. more: tensors of strides of their own, which come before the numbers."""
        tensors = self.q, self.k, self.v, *more
        unit = unit_of(*tensors)
        mask = self.focus if self.key_mask is None else self.key_mask
        s_mask_b, s_mask = (0, 0) if mask is None else mask.stride()
        _, X, Y = self.q.shape[:3]
        return (
            *tensors, self.bias.table, self.focus, self.key_mask, turns_of(self.rotary),
            *(stride for tensor in tensors for stride in _strides(tensor, unit)), *self.bias[1:], s_mask_b, s_mask,
            X, Y, self.N, self.L, self.S, self.apart, self.scale,
        )  # fmt: skip

    def constants(self, *more: Tensor) -> dict:
        """The same."""
        return dict(
            CAUSAL=self.causal, R=0 if self.rotary is None else 2 * self.rotary.shape[1], D=self.D, WIDE=self.bias.is_wide,
            PIECES=pieces_of(self.D, self.q.element_size()), UNIT=unit_of(self.q, self.k, self.v, *more),
        )  # fmt: skip


def of_frames(x: Tensor) -> Tensor:
    """(B, T, H, W, N, D)."""
    return x.permute(0, 2, 3, 1, 4, 5).unsqueeze(3)


def of_pixels(x: Tensor, T: int) -> Tensor:
    """(B, T, H, W, N, D), or context (B, T, S, N, D) or (B, S, N, D)."""
    if x.dim() == 6:
        return x.unsqueeze(2)
    frames = x if x.dim() == 5 else x[:, None].expand(-1, T, -1, -1, -1)
    return frames[:, :, None, None]


def temporal(q, k, v, bias, rel_bias, scale, causal, focus_present, rotary) -> Sequences:
    _, T, H, W, _, _ = q.shape
    tables = (_dense(bias), None) if rel_bias is None else (_relative(rel_bias[:, None], 1, T), 1)
    return Sequences(
        of_frames(q), of_frames(k), of_frames(v), scale, *tables, apart=H * W, causal=causal, focus=focus_present, rotary=rotary
    )


def spatial(q, k, v, bias, rel_bias, scale, key_mask) -> Sequences:
    _, T, H, W, _, _ = q.shape
    tables = (_dense(bias), None) if rel_bias is None else (_relative(rel_bias, H, W), H)
    is_shared = k.dim() == 4
    return Sequences(
        of_pixels(q, T), of_pixels(k, T), of_pixels(v, T), scale, *tables, apart=1, has_shared_keys=is_shared, key_mask=key_mask
    )


def _dense(bias: Tensor | None) -> Bias:
    """(N, L, S)."""
    if bias is None:
        return Bias()
    s_n, s_i, s_j = outer_strides(bias[..., None])
    return Bias(bias, 0, s_n, s_i, 0, s_j)


def _relative(rel_bias: Tensor, H: int, W: int) -> Bias:
    """(N, 2H-1, 2W-1), or (N, 1, W+S-1) of one line of W queries."""
    s_n, s_y, s_x = outer_strides(rel_bias[..., None])
    return Bias(rel_bias, (H - 1) * s_y + (W - 1) * s_x, s_n, -s_x, -s_y, s_x, s_y, None if H == 1 else W)


def _strides(x: Tensor, unit: int) -> tuple:
    """Of (B, X, Y, lines, tokens, N, D), in units: over B, X, Y, N, tokens and lines, and how many tokens are a line; None where
    all are as far apart.
    """
    lines, line = x.shape[3:5]
    s_b, s_x, s_y, s_line, s_token, s_n = (stride // unit for stride in outer_strides(x))
    if line == 1:
        return s_b, s_x, s_y, s_n, s_line, 0, None
    if lines == 1 or s_line == line * s_token:
        return s_b, s_x, s_y, s_n, s_token, 0, None
    return s_b, s_x, s_y, s_n, s_token, s_line, line


def pieces_of(D: int, element_size: int) -> tuple[tuple[int, int], ...]:
    """(first channel, extent) of the pieces that channels are cut into, powers of two of which few places are empty.

    Operands of float32 go through registers in three parts: their pieces are small. All kernels of a call have the same pieces,
    for backward must find forward's scores again to the last bit.
    """
    largest = 128 if element_size == 2 else 64 if D <= 128 else 32
    pieces, first = [], 0
    while first < D:
        left = D - first
        extent = block_of(left, largest)
        if SMALLEST < extent and left <= extent and block_of(left - extent // 2, largest) < extent // 2:
            extent //= 2
        pieces.append((first, extent))
        first += extent
    return tuple(pieces)


# -------------------------------------------------------------------------------------------------------------------- places


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


# ----------------------------------------------------------------------------------------------------------- tiles of scores


@triton.jit
def entry_offset(i, end, line, s_row, s_line, WIDE: tl.constexpr):
    """Of tokens i, queries or keys, within a head's bias; from `end` on that of the last."""
    offset = row_offset(tl.minimum(i, end - 1), line, s_row, s_line)
    return offset if WIDE else offset.to(tl.int32)


@triton.jit
def biases(p_bias, o_head, o_i, o_j):
    """[L_, S_] float32, 0 where there is no bias."""
    if p_bias is None:
        return 0.0
    else:
        return tl.load(p_bias + o_head + (o_i[:, None] + o_j[None, :])).to(tl.float32)


@triton.jit
def scores(
    products, scale, bias, i, j, there, L, S, p_focus, p_key_mask, o_mask, s_mask, CAUSAL: tl.constexpr, WHOLE: tl.constexpr
):  # fmt: skip
    """[L_, S_], products q k scaled, plus the bias, and -inf where query i does not see key j, or where that is not there.
    WHOLE: all keys are.
    """
    s = tl.fma(products, scale, bias)
    if not WHOLE:
        s = tl.where(there[None, :], s, -float("inf"))
    if CAUSAL:
        s = tl.where(j[None, :] <= i[:, None], s, -float("inf"))
    if p_focus is not None:
        isolated_i = tl.load(p_focus + o_mask + i * s_mask, i < L, 0) != 0
        isolated_j = tl.load(p_focus + o_mask + j * s_mask, j < S, 0) != 0
        is_hidden = (isolated_i[:, None] | isolated_j[None, :]) & (i[:, None] != j[None, :])
        s = tl.where(is_hidden, -float("inf"), s)
    if p_key_mask is not None:
        is_seen = tl.load(p_key_mask + o_mask + j * s_mask, j < S, 0) != 0
        s = tl.where(is_seen[None, :], s, -float("inf"))
    return s


@triton.jit
def shift_of(m):
    """What is subtracted from scores, of their maximum or log-sum-exp: 0 where all of them are -inf."""
    return tl.where(m == -float("inf"), 0, m)


@triton.jit
def exp_above(x, shift):
    """exp(x - shift). Subtracted first, so that the largest of a row is exactly 1: however large scores are, where one key has
    all the weight, out is its v.
    """
    return tl.exp2((x - shift) * LOG2E)


# -------------------------------------------------------------------------------------------------------------- tiles of rows


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
