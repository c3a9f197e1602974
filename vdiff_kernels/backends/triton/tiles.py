"""What the kernels and their launchers share.

Names in kernels: p_ pointer, s_ stride, i_ index, o_ offset; a tile's extent is its letter with an underscore, C_ of C. Offsets
of a program and of a tile's rows are 64 bits wide, those within a row 32.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...ops.tensors import power_of_2

SMALLEST = 16  # extent of a tile that tensor cores take
# Of float32 products: Triton's own choice would cut them to 10 bits. The interpreter computes float32 whatever it is asked for.
PRECISION = tl.constexpr("ieee" if triton.knobs.runtime.interpret else "bf16x6")


def ceil_div(a, b):
    return -(-a // b)


def block_of(extent: int, largest: int) -> int:
    """The extent of a tile of a dimension: a power of two, no larger than the dimension needs."""
    return max(SMALLEST, min(largest, power_of_2(extent)))


def outer_strides(tensor: Tensor) -> list[int]:
    """Those of all but the innermost dimension; 0 where there is but one element, whose stride may be anything."""
    return [0 if extent == 1 else stride for extent, stride in zip(tensor.shape[:-1], tensor.stride())]


def unit_of(*tensors: Tensor) -> int:
    """The largest number of elements, a vector of 16 bytes at most, of which all their outer strides are multiples: kernels get
    strides in units of it, so that their compiler knows how wide a row's loads may be.
    """
    return math.gcd(16 // tensors[0].element_size(), *(stride for tensor in tensors for stride in outer_strides(tensor)))


def turns_of(rotary: Tensor | None) -> Tensor | None:
    """(2, T, R//2) float32, contiguous: cosines and sines of the angles (T, R//2)."""
    return None if rotary is None else torch.stack([rotary.cos(), rotary.sin()]).float()


@triton.jit
def pixel_offset(i_p, W, s_h, s_w):
    """Of a frame's pixels, by their numbers."""
    return (i_p // W).to(tl.int64) * s_h + (i_p % W).to(tl.int64) * s_w


@triton.jit
def merged(count, mean, var, n, mean_n, var_n):
    """(count, mean, biased variance) of two sets together, of which the first may be empty."""
    apart = mean_n - mean
    share = n / (count + n)
    return count + n, mean + apart * share, var + (var_n - var) * share + apart * apart * share * (1 - share)


@triton.jit
def dot(a, b, acc):
    """acc + a b. Each float32 is cut into three bfloat16, and the six largest of their products are added: right to all but the
    last bit. Half types ignore the choice.
    """
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def rotated(x, p_turns, i_t, T, sign, R: tl.constexpr, first=0):
    """Pairs (2m, 2m+1) of the first R channels by the angles of frames i_t, or back by sign -1.

    x: channels along its last axis, from the first on; p_turns (2, T, R//2); i_t as x but for its last axis, which is 1.
    """
    pairs: tl.constexpr = x.shape[-1] // 2
    i_r = first // 2 + tl.arange(0, pairs)
    there = (i_t < T) & (i_r < R // 2)
    o_turn = i_t * (R // 2) + i_r
    cos = tl.load(p_turns + o_turn, there, 1)
    sin = tl.load(p_turns + T * (R // 2) + o_turn, there, 0) * sign
    a, b = tl.split(tl.reshape(x.to(tl.float32), x.shape[:-1] + (pairs, 2)))
    return tl.reshape(tl.join(a * cos - b * sin, b * cos + a * sin), x.shape)
