"""geglu: out = a * gelu(b), [a | b] = x weight^T + bias, of x (M, C) and weight (2E, C); gelu(b) = b cdf(b), by erf.

    of every tile of rows and of columns e:
        a = bias[e];  b = bias[E + e]
        for each tile of channels:
            a += x[rows, channels] weight[e, channels]^T;  b += x[rows, channels] weight[E + e, channels]^T     # x is read once
        forward:   out = a gelu(b)
        backward:  da = dout gelu(b);  db = dout a (cdf(b) + b density(b))

Backward computes the product again: a and b, if they were kept, would be twice the result. The other two products are PyTorch's:
dx = [da | db] weight, dweight = [da | db]^T x, of da and db rounded to x's dtype. Every tile leaves the sums of its rows, before
they are rounded, for dbias.

Programs take GROUP tiles of rows before they go on to the next columns, so that those at work at once share both in L2.
"""

import triton
import triton.language as tl

from ...ops.schema import absent, sums
from ...ops.tensors import power_of_2, without_autocast
from .launch import launch
from .tiles import block_of, ceil_div, dot
from .tuning import Config, config, narrowed, tuned

GROUP = 8

# By the bytes of an element, and whether rows of x and weight begin at multiples of 16 bytes, which one copy takes: a tile's
# rows, its columns of a (with as many of b) and channels. A product of 128 by 128 is what L2 can feed with half types. One of
# float32 is six of tensor cores, whose operands take more registers: beyond 64 by 64 they spill beside backward's epilogue, as
# do the addresses of single elements. The first of a list takes at most the 99 KiB of shared memory that every GPU gives a block.
CONFIGS = {
    (2, True): (
        config(8, 3, M_=128, E_=64, C_=64), config(8, 4, M_=128, E_=64, C_=32), config(4, 3, M_=64, E_=64, C_=64),
        config(4, 4, M_=64, E_=32, C_=64),
    ),
    (2, False): (config(8, 3, M_=64, E_=64, C_=32),),
    (4, True): (config(4, 3, M_=64, E_=32, C_=16), config(4, 3, M_=32, E_=32, C_=32)),
    (4, False): (config(8, 3, M_=64, E_=32, C_=16),),
}  # fmt: skip


def geglu(x, weight, bias):
    out = x.new_empty((x.shape[0], weight.shape[0] // 2))
    _tuned(geglu_fwd, x, weight, lambda one: _launch(geglu_fwd, one, x, weight, bias, out))
    return out


def geglu_backward(grad_out, x, weight, bias):
    dab = x.new_empty((x.shape[0], weight.shape[0]))

    def run(one: Config):
        of_tiles = None if bias is None else sums(x, (ceil_div(x.shape[0], one.constants["M_"]), weight.shape[0]))
        _launch(geglu_bwd, one, x, weight, bias, dab, of_tiles, grad_out, grad_out.stride(0))
        return absent(x) if bias is None else of_tiles.sum(0)

    dbias = _tuned(geglu_bwd, x, weight, run)
    with without_autocast(x):
        return dab @ weight, dab.T @ x, dbias


def _tuned(kernel, x, weight, run):
    (M, C), E, size = x.shape, weight.shape[0] // 2, x.element_size()
    is_aligned = all(t.stride(0) * size % 16 == 0 for t in (x, weight))
    needed = {"M_": block_of(M, 128), "E_": block_of(E, 128), "C_": block_of(C, 128)}
    key = x.dtype, power_of_2(M), C, E, is_aligned
    return tuned(kernel.fn.__name__, key, narrowed(CONFIGS[size, is_aligned], **needed), run, x)


def _launch(kernel, one: Config, x, weight, bias, *results):
    (M, C), E, tile = x.shape, weight.shape[0] // 2, one.constants
    programs = ceil_div(M, tile["M_"]) * ceil_div(E, tile["E_"])
    launch(
        kernel, programs, x, weight, None if bias is None else bias.contiguous(), *results,
        M, C, E, x.stride(0), weight.stride(0), GROUP=GROUP, **one.options,
    )  # fmt: skip


@triton.jit
def geglu_fwd(
    p_x, p_weight, p_bias, p_out,           # (M, C), (2E, C), (2E,) or None, (M, E)
    M, C, E, s_x, s_weight,
    M_: tl.constexpr, E_: tl.constexpr, C_: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    tile, i_e = place(M, E, M_, E_, GROUP)
    i_m = tile * M_ + tl.arange(0, M_)  # [M_]
    a, b = projected(p_x, p_weight, p_bias, i_m, i_e, M, C, E, s_x, s_weight, M_, E_, C_)
    out = a * b * cdf(b)
    tl.store(p_out + i_m.to(tl.int64)[:, None] * E + i_e, out.to(p_out.dtype.element_ty), (i_m < M)[:, None] & (i_e < E))


@triton.jit
def geglu_bwd(
    p_x, p_weight, p_bias,                  # (M, C), (2E, C), (2E,) or None
    p_dab, p_sums, p_dout, s_dout,          # (M, 2E), (tiles of rows, 2E) or None, (M, E)
    M, C, E, s_x, s_weight,
    M_: tl.constexpr, E_: tl.constexpr, C_: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    tile, i_e = place(M, E, M_, E_, GROUP)
    i_m = tile * M_ + tl.arange(0, M_)  # [M_]
    a, b = projected(p_x, p_weight, p_bias, i_m, i_e, M, C, E, s_x, s_weight, M_, E_, C_)
    inside = (i_m < M)[:, None] & (i_e < E)
    dout = tl.load(p_dout + i_m.to(tl.int64)[:, None] * s_dout + i_e, inside, 0).to(tl.float32)
    below = cdf(b)
    density = tl.exp(-0.5 * b * b) * 0.3989422804014327  # 1 / sqrt(2 pi)
    da, db = dout * b * below, dout * a * (below + b * density)
    p_dab += i_m.to(tl.int64)[:, None] * (2 * E) + i_e
    tl.store(p_dab, da.to(p_dab.dtype.element_ty), inside)
    tl.store(p_dab + E, db.to(p_dab.dtype.element_ty), inside)
    if p_sums is not None:  # dout is 0 in the rows that are not there
        p_sums += tile.to(tl.int64) * (2 * E) + i_e
        tl.store(p_sums, tl.sum(da, 0), i_e < E)
        tl.store(p_sums + E, tl.sum(db, 0), i_e < E)


@triton.jit
def place(M, E, M_: tl.constexpr, E_: tl.constexpr, GROUP: tl.constexpr):
    """The tile of rows of this program, and its columns [E_]."""
    program, tiles, across = tl.program_id(0), tl.cdiv(M, M_), tl.cdiv(E, E_)
    first = program // (GROUP * across) * GROUP
    group, within = tl.minimum(tiles - first, GROUP), program % (GROUP * across)
    return first + within % group, within // group * E_ + tl.arange(0, E_)


@triton.jit
def projected(p_x, p_weight, p_bias, i_m, i_e, M, C, E, s_x, s_weight, M_: tl.constexpr, E_: tl.constexpr, C_: tl.constexpr):
    """(a, b), [M_, E_] each."""
    a, b = tl.zeros((M_, E_), tl.float32), tl.zeros((M_, E_), tl.float32)
    if p_bias is not None:
        a += tl.load(p_bias + i_e, i_e < E, 0).to(tl.float32)
        b += tl.load(p_bias + E + i_e, i_e < E, 0).to(tl.float32)
    p_x += i_m.to(tl.int64)[:, None] * s_x
    p_a = p_weight + i_e.to(tl.int64) * s_weight
    p_b = p_weight + (i_e.to(tl.int64) + E) * s_weight
    for start in range(0, C, C_):
        i_c = start + tl.arange(0, C_)  # [C_]
        there = (i_c < C)[:, None] & (i_e < E)
        x = tl.load(p_x + i_c, (i_m < M)[:, None] & (i_c < C), 0)  # [M_, C_]
        a = dot(x, tl.load(p_a + i_c[:, None], there, 0), a)
        b = dot(x, tl.load(p_b + i_c[:, None], there, 0), b)
    return a, b


@triton.jit
def cdf(b):
    """Of the normal distribution."""
    return 0.5 + 0.5 * tl.math.erf(b * 0.7071067811865476)  # 1 / sqrt(2)
