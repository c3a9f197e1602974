"""What adds up, where programs would be few, in chunks: parts (chunks, ...) float32, then their sums, in order."""

import triton
import triton.language as tl
from torch import Tensor

from .launch import launch
from .tiles import ceil_div

ENOUGH = 512  # programs for any GPU: what adds up is cut no further
RUN = 1024  # elements of the sums that a program takes


def chunks_of(programs: int, members: int) -> int:
    """Into how many chunks members that add up are cut, so that programs are enough. By the shape alone."""
    return max(1, min(members, ceil_div(ENOUGH, max(1, programs))))


def add_chunks(parts: Tensor, result: Tensor) -> None:
    """parts (chunks, ...) to result (...)."""
    launch(sum_chunks, ceil_div(result.numel(), RUN), parts, result, parts.shape[0], result.numel(), RUN=RUN)


@triton.jit
def sum_chunks(p_parts, p_sum, chunks, size, RUN: tl.constexpr):
    """(chunks, size) to (size), in order."""
    i = tl.program_id(0).to(tl.int64) * RUN + tl.arange(0, RUN)
    total = tl.zeros((RUN,), tl.float32)
    for _ in range(chunks):
        total += tl.load(p_parts + i, i < size, 0)
        p_parts += size
    tl.store(p_sum + i, total.to(p_sum.dtype.element_ty), i < size)
