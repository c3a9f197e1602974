"""The channel statistics of every frame: x (B, T, H, W, C) to mean and biased variance, (B, T, C, 2) float32.

    of every frame, run of its pixels and block of channels:
        for each tile of the run:
            count, mean, var = merged(those so far, those of the tile)      # Chan, Golub and LeVeque 1979: exact for large means
    of every frame and block of channels:
        merge the runs, in their order

x is read once. A run's statistics are 8 bytes a channel: 1/256 of a run in half precision.
"""

import triton
import triton.language as tl

from ...ops.schema import sums
from .launch import launch
from .tiles import block_of, ceil_div, merged, pixel_offset

RUN = 1024  # pixels of a frame that a program takes


def channel_stats(x):
    B, T, H, W, C = x.shape
    pixels = H * W
    runs = ceil_div(pixels, RUN)
    channels = block_of(C, 64)
    blocks = ceil_div(C, channels)
    of_runs = sums(x, (B, T, runs, C, 2))
    launch(
        stats_of_runs, B * T * runs * blocks, x, of_runs, T, H * W, W, C, runs, blocks, *x.stride()[:4],
        RUN=RUN, P=block_of(pixels, 64), C_=channels,
    )  # fmt: skip
    if runs == 1:
        return of_runs.view(B, T, C, 2)
    stats = sums(x, (B, T, C, 2))
    launch(merge_runs, B * T * blocks, of_runs, stats, pixels, C, runs, blocks, RUN=RUN, C_=channels)
    return stats


@triton.jit
def stats_of_runs(
    p_x, p_stats,                           # (B, T, H, W, C), (B, T, runs, C, 2)
    T, pixels, W, C, runs, blocks,
    s_b, s_t, s_h, s_w,
    RUN: tl.constexpr, P: tl.constexpr, C_: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    frame, run = program // blocks // runs, program // blocks % runs
    i_c = program % blocks * C_ + tl.arange(0, C_)  # [C_]
    p_x += (frame // T).to(tl.int64) * s_b + (frame % T).to(tl.int64) * s_t
    count = 0.0
    mean, var = tl.zeros((C_,), tl.float32), tl.zeros((C_,), tl.float32)
    for start in range(0, tl.minimum(RUN, pixels - run * RUN), P):
        i_p = run * RUN + start + tl.arange(0, P)  # [P]
        seen = (i_p < pixels)[:, None]
        x = tl.load(p_x + pixel_offset(i_p, W, s_h, s_w)[:, None] + i_c, seen & (i_c < C), 0).to(tl.float32)  # [P, C_]
        n = tl.minimum(pixels - run * RUN - start, P).to(tl.float32)
        tile_mean = tl.sum(x, 0) / n
        centred = tl.where(seen, x - tile_mean, 0)
        count, mean, var = merged(count, mean, var, n, tile_mean, tl.sum(centred * centred, 0) / n)
    p_stats += ((frame.to(tl.int64) * runs + run) * C + i_c) * 2
    tl.store(p_stats, mean, i_c < C)
    tl.store(p_stats + 1, var, i_c < C)


@triton.jit
def merge_runs(p_runs, p_stats, pixels, C, runs, blocks, RUN: tl.constexpr, C_: tl.constexpr):
    """(B, T, runs, C, 2) to (B, T, C, 2)."""
    frame = (tl.program_id(0) // blocks).to(tl.int64)
    i_c = tl.program_id(0) % blocks * C_ + tl.arange(0, C_)  # [C_]
    count = 0.0
    mean, var = tl.zeros((C_,), tl.float32), tl.zeros((C_,), tl.float32)
    for run in range(runs):
        o_run = ((frame * runs + run) * C + i_c) * 2
        n = tl.minimum(pixels - run * RUN, RUN).to(tl.float32)
        of_mean, of_var = tl.load(p_runs + o_run, i_c < C, 0), tl.load(p_runs + o_run + 1, i_c < C, 0)
        count, mean, var = merged(count, mean, var, n, of_mean, of_var)
    p_stats += (frame * C + i_c) * 2
    tl.store(p_stats, mean, i_c < C)
    tl.store(p_stats + 1, var, i_c < C)
