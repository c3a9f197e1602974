"""act(norm(x)) + residual, forward: x, residual (B, T, H, W, C) of any outer strides, out contiguous.

    of every frame, tile of its pixels and block of channels, where the statistics are known:
        out = act((x - mean) * mul + add) + residual
    of every frame and tile of its pixels, with all of their channels, where each pixel has its own:
        mean, rstd = moments of each pixel
        out = act((x - mean) * rstd * mul + add) + residual

x and the residual are read once, out is written once; channel statistics that are not given read x once more.
"""

import triton
import triton.language as tl

from .launch import launch
from .norm import Folded, activated, channel_tile, columns, folded, pixel_moments, pixel_tile
from .tiles import ceil_div, pixel_offset


def norm_act(x, kind, weight, bias, groups, eps, scope, scale, shift, act, stats, residual):
    return applied(x, folded(x, kind, weight, bias, groups, eps, scope, scale, shift, act, stats), residual)


def applied(x, norm: Folded, residual=None):
    """act(norm(x)) + residual, or x itself where that is the same."""
    if norm.is_nothing and residual is None:
        return x
    B, T, H, W, C = x.shape
    out = x.new_empty(x.shape)
    tile = pixel_tile(C) if norm.is_by_pixel else channel_tile(C, H * W)
    runs, blocks = ceil_div(H * W, tile["P"]), ceil_div(C, tile["C_"])
    s_residual = (0, 0, 0, 0) if residual is None else residual.stride()[:4]
    launch(
        apply, B * T * runs * blocks, x, residual, norm.table, out, T, H * W, W, C, runs, blocks, norm.frames, *x.stride()[:4],
        *s_residual, norm.eps, KIND=norm.kind, SILU=norm.act == "silu", **tile,
    )  # fmt: skip
    return out


@triton.jit
def apply(
    p_x, p_residual, p_table, p_out,
    T, pixels, W, C, runs, blocks, frames, s_b, s_t, s_h, s_w, sr_b, sr_t, sr_h, sr_w, eps,
    KIND: tl.constexpr, SILU: tl.constexpr, P: tl.constexpr, C_: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    frame = (program // blocks // runs).to(tl.int64)
    i_p = program // blocks % runs * P + tl.arange(0, P)  # [P]
    i_c = program % blocks * C_ + tl.arange(0, C_)  # [C_]
    seen = (i_p < pixels)[:, None] & (i_c < C)
    p_x += frame // T * s_b + frame % T * s_t
    h = tl.load(p_x + pixel_offset(i_p, W, s_h, s_w)[:, None] + i_c, seen, 0).to(tl.float32)  # [P, C_]
    if KIND != "none":
        mean, mul, add = columns(p_table, frame // frames, i_c, C)
        if KIND == "group":
            h = (h - mean) * mul + add
        else:
            of_pixel, rstd = pixel_moments(h, seen, C, eps, KIND == "layer")
            h = (h - of_pixel[:, None]) * rstd[:, None] * mul + add
    out = activated(h, SILU)
    if p_residual is not None:
        p_residual += frame // T * sr_b + frame % T * sr_t
        out += tl.load(p_residual + pixel_offset(i_p, W, sr_h, sr_w)[:, None] + i_c, seen, 0).to(tl.float32)
    p_out += (frame * pixels + i_p)[:, None] * C + i_c
    tl.store(p_out, out.to(p_out.dtype.element_ty), seen)
