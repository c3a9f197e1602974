"""act(norm(x)), backward: grad_out and x (B, T, H, W, C) of any outer strides; dx contiguous in x's dtype, the rest fp32.

    z = norm(x) as it is computed forward, y = (x - mean) * rstd, dz = grad_out * act'(z)
    of a channel of a frame's run of pixels:  A = sum dz, D = sum dz * y
    dshift = sum A, dscale = sum weight * D + bias * A         over the frames of a clip
    dbias = sum (1 + scale) * A, dweight = sum (1 + scale) * D over all clips
    group:  dx = dz * mul - k1 - (x - mean) * k2, k1 = mean of mul * dz, k2 = rstd * mean of mul * dz * y over the group's pixels,
            which follow from A and D
    layer:  dx = rstd * (dz * mul - mean(dz * mul) - y * mean(dz * mul * y)) over a pixel's channels; rms: without the first mean

Of a group norm, x and grad_out are read twice, of the others once; dx is written once. A and D take 8 bytes a channel of a run.
All sums have a fixed order.
"""

import triton
import triton.language as tl

from ...ops.schema import absent, contiguous, sums
from ...ops.tensors import power_of_2
from .launch import launch
from .norm import ROWS, Folded, channel_tile, columns, folded, pixel_moments, pixel_tile, slope
from .tiles import block_of, ceil_div, pixel_offset

GROUP_RUN, PIXEL_RUN = 1024, 128  # pixels of a frame whose sums are one program's


def norm_act_backward(grad_out, x, kind, weight, bias, groups, eps, scope, scale, shift, act, stats):
    dx = contiguous(x)
    of_parameters = [absent(x) if t is None else sums(x, t.shape) for t in (weight, bias, scale, shift)]
    if x.numel() == 0:
        return dx, *(t.zero_() for t in of_parameters)
    norm = folded(x, kind, weight, bias, groups, eps, scope, scale, shift, act, stats)
    if norm.is_by_pixel:
        of_runs = _by_pixel(grad_out, x, norm, dx)
    else:
        of_runs = _by_channel(grad_out, x, norm, dx)
    if of_runs is not None and any(t is not None for t in (weight, bias, scale, shift)):
        _parameters(of_runs, weight, bias, scale, shift, of_parameters)
    return dx, *of_parameters


def _strides(grad_out, x):
    return *x.stride()[:4], *grad_out.stride()[:4]


def _by_pixel(grad_out, x, norm: Folded, dx):
    """Writes dx. Returns A and D, (B, T, runs, C, 2)."""
    B, T, H, W, C = x.shape
    tile = pixel_tile(C)
    tile["P"] = max(1, tile["P"] // 2)  # of twice as many values as forward
    runs = ceil_div(H * W, PIXEL_RUN)
    of_runs = sums(x, (B, T, runs, C, 2))
    launch(
        by_pixel, B * T * runs, grad_out, x, norm.table, dx, of_runs, T, H * W, W, C, runs, *_strides(grad_out, x), norm.eps,
        RUN=PIXEL_RUN, CENTRED=norm.kind == "layer", SILU=norm.act == "silu", **tile,
    )  # fmt: skip
    return of_runs


def _by_channel(grad_out, x, norm: Folded, dx):
    """Writes dx. Returns A and D, (B, T, runs, C, 2), or None where there is no norm."""
    B, T, H, W, C = x.shape
    tile = channel_tile(C, H * W)
    blocks = ceil_div(C, tile["C_"])
    of_runs = of_groups = None
    if norm.table is not None:
        runs = ceil_div(H * W, GROUP_RUN)
        of_runs = sums(x, (B, T, runs, C, 2))
        launch(
            sums_of_runs, B * T * runs * blocks, grad_out, x, norm.table, of_runs, T, H * W, W, C, runs, blocks, norm.frames,
            *_strides(grad_out, x), RUN=GROUP_RUN, SILU=norm.act == "silu", **tile,
        )  # fmt: skip
        rows, width = B * T // norm.frames, C // norm.groups
        of_groups = sums(x, (rows, norm.groups, 2))
        launch(
            sums_of_groups, rows * norm.groups, of_runs, norm.table, of_groups, norm.frames * runs, C, norm.groups,
            norm.frames * H * W * width, R_=min(16, power_of_2(norm.frames * runs)), C_=min(256, power_of_2(width)),
        )  # fmt: skip
    tiles = ceil_div(H * W, tile["P"])
    launch(
        by_channel, B * T * tiles * blocks, grad_out, x, norm.table, of_groups, dx, T, H * W, W, C, tiles, blocks, norm.frames,
        norm.groups, *_strides(grad_out, x), SILU=norm.act == "silu", **tile,
    )  # fmt: skip
    return of_runs


def _parameters(of_runs, weight, bias, scale, shift, results):
    B, T, runs, C, _ = of_runs.shape
    given = [None if t is None else t.contiguous() for t in (weight, bias, scale)]
    results = [None if t is None else result for t, result in zip((weight, bias, scale, shift), results)]
    tile = {"R_": block_of(T * runs, 64), "C_": block_of(C, 64)}
    launch(parameters, ceil_div(C, tile["C_"]), of_runs, *given, *results, B, T * runs, C, **tile)


@triton.jit
def by_pixel(
    p_grad, p_x, p_table, p_dx, p_runs,
    T, pixels, W, C, runs, s_b, s_t, s_h, s_w, sg_b, sg_t, sg_h, sg_w, eps,
    RUN: tl.constexpr, CENTRED: tl.constexpr, SILU: tl.constexpr, P: tl.constexpr, C_: tl.constexpr,
):  # fmt: skip
    frame, run = (tl.program_id(0) // runs).to(tl.int64), tl.program_id(0) % runs
    i_c = tl.arange(0, C_)  # [C_]
    p_x += frame // T * s_b + frame % T * s_t
    p_grad += frame // T * sg_b + frame % T * sg_t
    _, mul, add = columns(p_table, frame // T, i_c, C)
    of_dz, of_dzy = tl.zeros((C_,), tl.float32), tl.zeros((C_,), tl.float32)
    for start in range(0, tl.minimum(RUN, pixels - run * RUN), P):
        i_p = run * RUN + start + tl.arange(0, P)  # [P]
        seen = (i_p < pixels)[:, None] & (i_c < C)
        x = tl.load(p_x + pixel_offset(i_p, W, s_h, s_w)[:, None] + i_c, seen, 0).to(tl.float32)  # [P, C_]
        grad = tl.load(p_grad + pixel_offset(i_p, W, sg_h, sg_w)[:, None] + i_c, seen, 0).to(tl.float32)  # [P, C_]
        mean, rstd = pixel_moments(x, seen, C, eps, CENTRED)
        y = (x - mean[:, None]) * rstd[:, None]
        dz = grad * slope(y * mul + add, SILU)
        of_dz += tl.sum(dz, 0)
        of_dzy += tl.sum(dz * y, 0)
        dy = dz * mul
        dx = dy - y * (tl.sum(dy * y, 1) / C)[:, None]
        if CENTRED:
            dx -= (tl.sum(dy, 1) / C)[:, None]
        p = p_dx + (frame * pixels + i_p)[:, None] * C + i_c
        tl.store(p, (dx * rstd[:, None]).to(p_dx.dtype.element_ty), seen)
    p_runs += ((frame * runs + run) * C + i_c) * 2
    tl.store(p_runs, of_dz, i_c < C)
    tl.store(p_runs + 1, of_dzy, i_c < C)


@triton.jit
def sums_of_runs(
    p_grad, p_x, p_table, p_runs,
    T, pixels, W, C, runs, blocks, frames, s_b, s_t, s_h, s_w, sg_b, sg_t, sg_h, sg_w,
    RUN: tl.constexpr, SILU: tl.constexpr, P: tl.constexpr, C_: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    frame, run = (program // blocks // runs).to(tl.int64), program // blocks % runs
    i_c = program % blocks * C_ + tl.arange(0, C_)  # [C_]
    p_x += frame // T * s_b + frame % T * s_t
    p_grad += frame // T * sg_b + frame % T * sg_t
    mean, mul, add = columns(p_table, frame // frames, i_c, C)
    of_dz, of_dzx = tl.zeros((C_,), tl.float32), tl.zeros((C_,), tl.float32)
    for start in range(0, tl.minimum(RUN, pixels - run * RUN), P):
        i_p = run * RUN + start + tl.arange(0, P)  # [P]
        seen = (i_p < pixels)[:, None] & (i_c < C)
        x = tl.load(p_x + pixel_offset(i_p, W, s_h, s_w)[:, None] + i_c, seen, 0).to(tl.float32)  # [P, C_]
        grad = tl.load(p_grad + pixel_offset(i_p, W, sg_h, sg_w)[:, None] + i_c, seen, 0).to(tl.float32)  # [P, C_]
        centred = x - mean
        dz = grad * slope(centred * mul + add, SILU)
        of_dz += tl.sum(dz, 0)
        of_dzx += tl.sum(dz * centred, 0)
    rstd = tl.load(p_table + (frame // frames * ROWS + 3) * C + i_c, i_c < C, 0)
    p_runs += ((frame * runs + run) * C + i_c) * 2
    tl.store(p_runs, of_dz, i_c < C)
    tl.store(p_runs + 1, of_dzx * rstd, i_c < C)


@triton.jit
def sums_of_groups(p_runs, p_table, p_groups, runs, C, groups, count, R_: tl.constexpr, C_: tl.constexpr):
    """k1 and k2 of a row of the table and a group: from A and D of its runs."""
    row, group = (tl.program_id(0) // groups).to(tl.int64), tl.program_id(0) % groups
    width = C // groups
    k1, k2 = 0.0, 0.0
    for c in range(0, width, C_):
        i_c = c + tl.arange(0, C_)
        own = i_c < width
        i_c += group * width
        mul = tl.load(p_table + (row * ROWS + 1) * C + i_c, own, 0)  # [C_]
        for r in range(0, runs, R_):
            i_r = r + tl.arange(0, R_)
            p = p_runs + ((row * runs + i_r)[:, None] * C + i_c) * 2
            seen = (i_r < runs)[:, None] & own
            k1 += tl.sum(tl.sum(tl.load(p, seen, 0), 0) * mul, 0)
            k2 += tl.sum(tl.sum(tl.load(p + 1, seen, 0), 0) * mul, 0)
    rstd = tl.load(p_table + (row * ROWS + 3) * C + group * width)
    p_groups += tl.program_id(0).to(tl.int64) * 2
    tl.store(p_groups, k1 / count)
    tl.store(p_groups + 1, k2 * rstd / count)


@triton.jit
def by_channel(
    p_grad, p_x, p_table, p_groups, p_dx,
    T, pixels, W, C, tiles, blocks, frames, groups, s_b, s_t, s_h, s_w, sg_b, sg_t, sg_h, sg_w,
    SILU: tl.constexpr, P: tl.constexpr, C_: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    frame = (program // blocks // tiles).to(tl.int64)
    i_p = program // blocks % tiles * P + tl.arange(0, P)  # [P]
    i_c = program % blocks * C_ + tl.arange(0, C_)  # [C_]
    seen = (i_p < pixels)[:, None] & (i_c < C)
    p_x += frame // T * s_b + frame % T * s_t
    p_grad += frame // T * sg_b + frame % T * sg_t
    x = tl.load(p_x + pixel_offset(i_p, W, s_h, s_w)[:, None] + i_c, seen, 0).to(tl.float32)  # [P, C_]
    dx = tl.load(p_grad + pixel_offset(i_p, W, sg_h, sg_w)[:, None] + i_c, seen, 0).to(tl.float32)  # [P, C_]
    if p_table is None:
        dx *= slope(x, SILU)
    else:
        mean, mul, add = columns(p_table, frame // frames, i_c, C)
        p_groups += (frame // frames * groups + i_c // (C // groups)) * 2
        k1, k2 = tl.load(p_groups, i_c < C, 0), tl.load(p_groups + 1, i_c < C, 0)  # [C_]
        centred = x - mean
        dx = dx * slope(centred * mul + add, SILU) * mul - k1 - centred * k2
    tl.store(p_dx + (frame * pixels + i_p)[:, None] * C + i_c, dx.to(p_dx.dtype.element_ty), seen)


@triton.jit
def parameters(
    p_runs, p_weight, p_bias, p_scale, p_dweight, p_dbias, p_dscale, p_dshift, B, runs, C, R_: tl.constexpr, C_: tl.constexpr
):  # fmt: skip
    """Of a block of channels: from A and D of all runs."""
    i_c = tl.program_id(0) * C_ + tl.arange(0, C_)  # [C_]
    weight, bias = tl.full((C_,), 1, tl.float32), tl.zeros((C_,), tl.float32)
    if p_weight is not None:
        weight = tl.load(p_weight + i_c, i_c < C, 0).to(tl.float32)
    if p_bias is not None:
        bias = tl.load(p_bias + i_c, i_c < C, 0).to(tl.float32)
    dweight, dbias = tl.zeros((C_,), tl.float32), tl.zeros((C_,), tl.float32)
    for b in range(B):
        of_dz, of_dzy = tl.zeros((C_,), tl.float32), tl.zeros((C_,), tl.float32)
        for r in range(0, runs, R_):
            i_r = r + tl.arange(0, R_)
            p = p_runs + ((tl.cast(b, tl.int64) * runs + i_r)[:, None] * C + i_c) * 2
            seen = (i_r < runs)[:, None] & (i_c < C)
            of_dz += tl.sum(tl.load(p, seen, 0), 0)
            of_dzy += tl.sum(tl.load(p + 1, seen, 0), 0)
        scale = 1.0
        o_clip = tl.cast(b, tl.int64) * C + i_c
        if p_scale is not None:
            tl.store(p_dscale + o_clip, weight * of_dzy + bias * of_dz, i_c < C)
            scale = 1 + tl.load(p_scale + o_clip, i_c < C, 0).to(tl.float32)
        if p_dshift is not None:
            tl.store(p_dshift + o_clip, of_dz, i_c < C)
        dweight += scale * of_dzy
        dbias += scale * of_dz
    if p_weight is not None:
        tl.store(p_dweight + i_c, dweight, i_c < C)
    if p_bias is not None:
        tl.store(p_dbias + i_c, dbias, i_c < C)
