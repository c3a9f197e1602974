"""Norms, folded into what a kernel that reads x needs of them.

    group:           h = (x - mean) * mul + add         mean, mul, add of each clip or frame, and channel
    layer, rms:      h = (x - mean) * rstd * mul + add  mean, rstd of each pixel; mul, add of each clip and channel
    with             mul = rstd * weight * (1 + scale), add = bias * (1 + scale) + shift         (rstd 1 in that of a pixel)

x stays centred before it is scaled: a large mean costs no digits. A table has 16 bytes a channel of a clip or frame, and is made
of the channel statistics alone, which a convolution may have left.
"""

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from ...ops.schema import sums
from ...ops.tensors import power_of_2
from .channel_stats import channel_stats
from .launch import launch
from .tiles import SMALLEST, block_of, ceil_div, merged, pixel_offset

ROWS = tl.constexpr(4)  # of a table: mean, mul, add, rstd
MAX_CHANNELS = 8192  # of a norm of each pixel, whose channels are one tile
TILE = 4096  # elements


@dataclass(frozen=True)
class Folded:
    """A norm and activation as kernels take them."""

    kind: str  # "group", "layer", "rms" or "none"
    act: str
    eps: float
    groups: int
    table: Tensor | None  # (B * T / frames, ROWS, C), fp32
    frames: int  # that share a row of the table

    @property
    def is_nothing(self) -> bool:
        return self.kind == "none" and self.act == "none"

    @property
    def is_by_pixel(self) -> bool:
        return self.kind in ("layer", "rms")


def folded(x, kind, weight, bias, groups, eps, scope, scale, shift, act, stats) -> Folded:
    """The norm of a schema, of x (B, T, H, W, C)."""
    B, T, _, _, C = x.shape
    if kind == "none":
        return Folded(kind, act, eps, 1, None, T)
    weight, bias, scale, shift = (None if t is None else t.contiguous() for t in (weight, bias, scale, shift))
    if kind != "group":
        table = sums(x, (B, ROWS.value, C))
        launch(fold, B, None, weight, bias, scale, shift, table, 1, C, 1, 1, eps, T_=1, C_=min(1024, power_of_2(C)))
        return Folded(kind, act, eps, 1, table, T)
    stats = channel_stats(x) if stats is None else stats.contiguous()
    frames = 1 if scope == "frame" else T
    rows = B * T // frames
    table = sums(x, (rows, ROWS.value, C))
    launch(
        fold, rows * groups, stats, weight, bias, scale, shift, table, frames, C, groups, T // frames, eps,
        T_=min(16, power_of_2(frames)), C_=min(256, power_of_2(C // groups)),
    )  # fmt: skip
    return Folded(kind, act, eps, groups, table, frames)


@triton.jit
def fold(
    p_stats, p_weight, p_bias, p_scale, p_shift, p_table,  # (B, T, C, 2) or None, (C,), (C,), (B, C), (B, C), (rows, ROWS, C)
    frames, C, groups, rows_of_clip, eps,
    T_: tl.constexpr, C_: tl.constexpr,
):  # fmt: skip
    """Of a row of the table and a group: its statistics from those of its channels, then the table's columns."""
    row, group = (tl.program_id(0) // groups).to(tl.int64), tl.program_id(0) % groups
    width = C // groups
    mean, rstd = 0.0, 1.0
    if p_stats is not None:
        count, var = 0.0, 0.0
        for t in range(0, frames, T_):
            for c in range(0, width, C_):
                i_t, i_c = t + tl.arange(0, T_)[:, None], c + tl.arange(0, C_)[None, :]
                seen = (i_t < frames) & (i_c < width)
                p = p_stats + ((row * frames + i_t) * C + group * width + i_c) * 2
                means, vars = tl.load(p, seen, 0), tl.load(p + 1, seen, 0)  # [T_, C_]
                n = (tl.minimum(frames - t, T_) * tl.minimum(width - c, C_)).to(tl.float32)
                tile_mean = tl.sum(tl.sum(means, 1), 0) / n
                apart = tl.where(seen, means - tile_mean, 0)
                count, mean, var = merged(count, mean, var, n, tile_mean, tl.sum(tl.sum(vars + apart * apart, 1), 0) / n)
        rstd = 1 / tl.sqrt(var + eps)
    for c in range(0, width, C_):
        i_c = c + tl.arange(0, C_)  # [C_]
        seen = i_c < width
        i_c += group * width
        mul, add = tl.full((C_,), rstd, tl.float32), tl.zeros((C_,), tl.float32)
        if p_weight is not None:
            mul *= tl.load(p_weight + i_c, seen, 0).to(tl.float32)
        if p_bias is not None:
            add += tl.load(p_bias + i_c, seen, 0).to(tl.float32)
        o_clip = row // rows_of_clip * C + i_c
        if p_scale is not None:
            scale = 1 + tl.load(p_scale + o_clip, seen, 0).to(tl.float32)
            mul, add = mul * scale, add * scale
        if p_shift is not None:
            add += tl.load(p_shift + o_clip, seen, 0).to(tl.float32)
        p = p_table + row * ROWS * C + i_c
        tl.store(p, tl.full((C_,), mean, tl.float32), seen)
        tl.store(p + C, mul, seen)
        tl.store(p + 2 * C, add, seen)
        tl.store(p + 3 * C, tl.full((C_,), rstd, tl.float32), seen)


@triton.jit
def columns(p_table, row, i_c, C):
    """(mean, mul, add) of channels [C_], of a row of the table."""
    p = p_table + row.to(tl.int64) * ROWS * C + i_c
    return tl.load(p, i_c < C, 0), tl.load(p + C, i_c < C, 0), tl.load(p + 2 * C, i_c < C, 0)


@triton.jit
def pixel_moments(x, seen, C, eps, CENTRED: tl.constexpr):
    """(mean, rstd) [P] of the rows of x [P, C_], 0 where not seen: a layer norm's, or an rms norm's, whose mean is 0."""
    if CENTRED:
        mean = tl.sum(x, 1) / C
        apart = tl.where(seen, x - mean[:, None], 0)
        return mean, 1 / tl.sqrt(tl.sum(apart * apart, 1) / C + eps)
    return tl.zeros((x.shape[0],), tl.float32), 1 / tl.sqrt(tl.sum(x * x, 1) / C + eps)


@triton.jit
def activated(h, SILU: tl.constexpr):
    return h * tl.sigmoid(h) if SILU else h


@triton.jit
def slope(h, SILU: tl.constexpr):
    """The derivative of `activated` at h, of fp32."""
    s = tl.sigmoid(h)
    return s * (1 + h * (1 - s)) if SILU else tl.full(h.shape, 1, tl.float32)


def pixel_tile(C: int) -> dict:
    """The tile of a norm of each pixel, which holds all of its channels, and its warps."""
    channels = max(SMALLEST, power_of_2(C))
    return {"P": max(1, TILE // channels), "C_": channels, "num_warps": 8 if channels > TILE // 2 else 4}


def channel_tile(C: int, pixels: int) -> dict:
    """The tile of what knows its statistics: rows of at least 128 bytes in half precision, where there are so many channels."""
    channels = block_of(C, 64)
    return {"P": block_of(pixels, TILE // channels), "C_": channels}


def moments(x, norm: Folded) -> Tensor | None:
    """(B, T, H, W, 2) fp32: mean and rstd of each pixel, of a norm of each pixel, for kernels that see a part of its channels."""
    if not norm.is_by_pixel:
        return None
    B, T, H, W, C = x.shape
    found, tile = sums(x, (B, T, H, W, 2)), pixel_tile(C)
    blocks = ceil_div(H * W, tile["P"])
    launch(
        of_pixels, B * T * blocks, x, found, T, H * W, W, C, blocks, *x.stride()[:4], norm.eps,
        CENTRED=norm.kind == "layer", **tile,
    )  # fmt: skip
    return found


@triton.jit
def of_pixels(
    p_x, p_moments, T, pixels, W, C, blocks, s_b, s_t, s_h, s_w, eps, P: tl.constexpr, C_: tl.constexpr, CENTRED: tl.constexpr
):  # fmt: skip
    frame = tl.program_id(0) // blocks
    i_p, i_c = tl.program_id(0) % blocks * P + tl.arange(0, P), tl.arange(0, C_)
    p_x += (frame // T).to(tl.int64) * s_b + (frame % T).to(tl.int64) * s_t
    seen = (i_p < pixels)[:, None] & (i_c < C)
    x = tl.load(p_x + pixel_offset(i_p, W, s_h, s_w)[:, None] + i_c, seen, 0).to(tl.float32)  # [P, C_]
    mean, rstd = pixel_moments(x, seen, C, eps, CENTRED)
    p_moments += (frame.to(tl.int64) * pixels + i_p) * 2
    tl.store(p_moments, mean, i_p < pixels)
    tl.store(p_moments + 1, rstd, i_p < pixels)
