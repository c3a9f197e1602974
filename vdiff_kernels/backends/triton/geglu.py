"""geglu: out = a * gelu(b), [a | b] = x weight^T + bias, of x (M, C) and weight (2E, C); gelu(b) = b cdf(b), by erf.

    of every tile of rows and of columns e:
        a = bias[e];  b = bias[E + e]
        for each tile of channels:
            a += x[rows, channels] weight[e, channels]^T;  b += x[rows, channels] weight[E + e, channels]^T     # x is read once
        forward:   out = a gelu(b)
        backward:  da = dout gelu(b);  db = dout a (cdf(b) + b density(b))

Backward computes the product again: a and b, if they were kept, would be twice the result. The other two products are PyTorch's:
dx = [da | db] weight, dweight = [da | db]^T x, of da and db rounded to x's dtype. dbias is their sum over rows, in float32.

Programs take GROUP tiles of rows before they go on to the next columns, so that those at work at once share both in L2.
"""

import torch
import triton
import triton.language as tl

from ...ops.schema import shape_of, sums
from ...ops.tensors import without_autocast
from .launch import launch
from .tiles import block_of, ceil_div, dot

GROUP = 8

# By the bytes of an element: tiles of rows, of columns of a (as many of b beside them) and of channels, warps, stages.
TILES = {2: (128, 64, 64, 8, 3), 4: (128, 32, 16, 8, 3)}


def geglu(x, weight, bias):
    out = x.new_empty((x.shape[0], weight.shape[0] // 2))
    _launch(geglu_fwd, x, weight, bias, out)
    return out


def geglu_backward(grad_out, x, weight, bias):
    dab = x.new_empty((x.shape[0], weight.shape[0]))
    _launch(geglu_bwd, x, weight, bias, dab, grad_out, grad_out.stride(0))
    with without_autocast(x):
        dx, dweight = dab @ weight, dab.T @ x
    dbias = sums(x, shape_of(bias))
    if bias is not None:
        torch.sum(dab, 0, dtype=dbias.dtype, out=dbias)
    return dx, dweight, dbias


def _launch(kernel, x, weight, bias, out, *incoming):
    (M, C), E = x.shape, weight.shape[0] // 2
    rows, columns, channels, num_warps, num_stages = TILES[x.element_size()]
    M_, E_, C_ = block_of(M, rows), block_of(E, columns), block_of(C, channels)
    launch(
        kernel, ceil_div(M, M_) * ceil_div(E, E_), x, weight, None if bias is None else bias.contiguous(), out, *incoming,
        M, C, E, x.stride(0), weight.stride(0),
        M_=M_, E_=E_, C_=C_, GROUP=GROUP, num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip


@triton.jit
def geglu_fwd(
    p_x, p_weight, p_bias, p_out,           # (M, C), (2E, C), (2E,) or None, (M, E)
    M, C, E, s_x, s_weight,
    M_: tl.constexpr, E_: tl.constexpr, C_: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    i_m, i_e = places(M, E, M_, E_, GROUP)
    a, b = projected(p_x, p_weight, p_bias, i_m, i_e, M, C, E, s_x, s_weight, M_, E_, C_)
    out = a * b * cdf(b)
    tl.store(p_out + i_m.to(tl.int64)[:, None] * E + i_e, out.to(p_out.dtype.element_ty), (i_m < M)[:, None] & (i_e < E))


@triton.jit
def geglu_bwd(
    p_x, p_weight, p_bias, p_dab, p_dout, s_dout,   # (M, C), (2E, C), (2E,) or None, (M, 2E), (M, E)
    M, C, E, s_x, s_weight,
    M_: tl.constexpr, E_: tl.constexpr, C_: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    i_m, i_e = places(M, E, M_, E_, GROUP)
    a, b = projected(p_x, p_weight, p_bias, i_m, i_e, M, C, E, s_x, s_weight, M_, E_, C_)
    inside = (i_m < M)[:, None] & (i_e < E)
    dout = tl.load(p_dout + i_m.to(tl.int64)[:, None] * s_dout + i_e, inside, 0).to(tl.float32)
    below = cdf(b)
    density = tl.exp(-0.5 * b * b) * 0.3989422804014327  # 1 / sqrt(2 pi)
    p_dab += i_m.to(tl.int64)[:, None] * (2 * E) + i_e
    tl.store(p_dab, (dout * b * below).to(p_dab.dtype.element_ty), inside)
    tl.store(p_dab + E, (dout * a * (below + b * density)).to(p_dab.dtype.element_ty), inside)


@triton.jit
def places(M, E, M_: tl.constexpr, E_: tl.constexpr, GROUP: tl.constexpr):
    """The rows [M_] and columns [E_] of this program."""
    program, tiles, across = tl.program_id(0), tl.cdiv(M, M_), tl.cdiv(E, E_)
    first = program // (GROUP * across) * GROUP
    group, within = tl.minimum(tiles - first, GROUP), program % (GROUP * across)
    return (first + within % group) * M_ + tl.arange(0, M_), within // group * E_ + tl.arange(0, E_)


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
