"""What the kernels and their launchers share.

Names in kernels: p_ pointer, s_ stride, i_ index, o_ offset; a tile's extent is its letter with an underscore, C_ of C. Offsets
of a program and of a tile's rows are 64 bits wide, those within a row 32.
"""

import triton
import triton.language as tl

from ...ops.tensors import power_of_2

SMALLEST = 16  # extent of a tile that tensor cores take


def ceil_div(a, b):
    return -(-a // b)


def block_of(extent: int, largest: int) -> int:
    """The extent of a tile of a dimension: a power of two, no larger than the dimension needs."""
    return max(SMALLEST, min(largest, power_of_2(extent)))


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
