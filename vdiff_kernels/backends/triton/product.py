"""The product of every pixel's channels, or of those of its neighbours, with a weight: linear layers and both convolutions.

    x (B, T, H, W, C), weight (N, taps, C): 1 tap; 3, of the frames t - 1, t, t + 1; or 9, of the 3 x 3 pixels around
    of every tile of P pixels of a frame and N_ outputs:
        acc = 0                                              # fp32
        for each tap and K_ channels:
            h = act(norm(x of the tap's pixels)) + pos_emb   # what is outside of the clip or image is 0, whatever the norm
            acc = acc + h weight^T
        y = (acc + bias + temb) * gate + residual
        out = y, and mean and variance of its columns, where they are asked for

x is read once for each tap and block of outputs, from the cache but for the first time; the weight once for each tile of pixels.
The norm costs its arithmetic that often too: `pays_on_load` says where this is less than a pass over memory of its own.
"""

import triton
import triton.language as tl

from ...ops.schema import sums
from .channel_stats import merge_runs
from .launch import launch
from .norm import Folded, activated, columns, moments
from .tiles import block_of, ceil_div, dot, pixel_offset
from .tuning import Config, config, narrowed, tuned

NO_NORM = Folded("none", "none", 0.0, 1, None, 1)
TILE_N = 128
# Reads of an element that cost as much as writing its activation and reading it again, 4 bytes in half precision: on an H100 a
# sigmoid takes two of 3.9e12 special functions a second, and a byte one of 3.0e12.
READS = 3


def pays_on_load(norm: Folded, taps: int, N: int) -> bool:
    """Whether a norm and activation are applied each time an element is read, in place of once, in a pass of their own."""
    return norm.act == "none" or taps * ceil_div(N, TILE_N) <= READS


def pixels_of_tile(pixels: int) -> int:
    """The largest tile that leaves at most a fifth of its rows idle, as frames of 9 x 16 pixels would of large ones."""
    return next(P for P in (128, 64, 32, 16) if P == 16 or ceil_div(pixels, P) * P <= 1.25 * pixels)


def product(
    x, weight, norm: Folded = NO_NORM, *, pos_emb=None, bias=None, temb=None, gate=None, residual=None, return_stats=False
):
    """(out (B, T, H, W, N), its channel statistics (B, T, N, 2) or None). temb, gate: (B, T, N) of any strides."""

    def run(one: Config):
        end = End(x, weight.shape[0], one.constants, bias, temb, gate, residual, return_stats)
        _product(x, weight, norm, pos_emb, end, one)
        return end.results()

    key = x.dtype, *x.shape[1:], *weight.shape[:2], norm.kind, norm.act
    return tuned("product", key, _configs(x, weight.shape[0]), run, x)


def inner_product(x, weight, other, norm: Folded = NO_NORM, *, bias=None, temb=None):
    """Of every frame, the sum of the product's elements times those of other (B, T, H, W, N): (B, T) fp32."""
    one = _configs(x, weight.shape[0])[0]
    end = End(x, weight.shape[0], one.constants, bias, temb, None, other, is_inner=True)
    _product(x, weight, norm, None, end, one)
    return end.of_tiles.flatten(2).sum(2)


def finished(y, *, bias=None, temb=None, gate=None, residual=None, return_stats=False):
    """The end of `product` alone, of a y (B, T, H, W, N) that is there."""
    N = y.shape[-1]
    end = End(
        y, N, {"P": pixels_of_tile(y.shape[2] * y.shape[3]), "N_": block_of(N, 64)}, bias, temb, gate, residual, return_stats
    )
    launch(
        tile_of_pass, end.programs, y, *end.tensors, *y.shape[1:4], N, end.tiles, end.blocks, *y.stride()[:4], *end.strides,
        **end.constants,
    )  # fmt: skip
    return end.results()


class End:
    """What follows the sums of a product of x's pixels with N outputs, and how the outputs are cut into tiles."""

    def __init__(self, x, N, tile, bias, temb, gate, residual, return_stats=False, is_inner=False):
        B, T, H, W = self.extents = x.shape[:4]
        self.N, self.return_stats, P, N_ = N, return_stats, tile["P"], tile["N_"]
        self.tiles, self.blocks = ceil_div(H * W, P), ceil_div(N, N_)
        self.programs = B * T * self.tiles * self.blocks
        shape = (B, T, self.tiles, self.blocks) if is_inner else (B, T, self.tiles, N, 2) if return_stats else None
        self.of_tiles = sums(x, shape)
        self.out = None if is_inner else x.new_empty((B, T, H, W, N))
        self.tensors = bias, temb, gate, residual, self.out, self.of_tiles
        self.strides = *_strides(temb, 3), *_strides(gate, 3), *_strides(residual, 4)
        self.constants = {"STATS": return_stats, "P": P, "N_": N_}

    def results(self):
        if not self.return_stats:
            return self.out, None
        (B, T, H, W), N, channels = self.extents, self.N, block_of(self.N, 64)
        stats, blocks = sums(self.out, (B, T, N, 2)), ceil_div(N, channels)
        run = {"RUN": self.constants["P"], "C_": channels}
        launch(merge_runs, B * T * blocks, self.of_tiles, stats, H * W, N, self.tiles, blocks, **run)
        return self.out, stats


def _strides(tensor, count: int):
    return (0,) * count if tensor is None else tensor.stride()[:count]


CONFIGS = {  # by bytes of an element: sums of 64 registers a thread, for all GPUs; then more for those with more of them
    2: (
        config(8, 3, P=128, N_=128, K_=32), config(4, 3, P=128, N_=64, K_=32), config(4, 3, P=64, N_=128, K_=32),
        config(8, 3, P=128, N_=128, K_=64), config(4, 4, P=64, N_=64, K_=64),
    ),
    4: (config(8, 2, P=64, N_=64, K_=16), config(8, 2, P=128, N_=64, K_=16), config(4, 2, P=64, N_=32, K_=32)),
}  # fmt: skip


def _configs(x, N: int) -> tuple[Config, ...]:
    P = pixels_of_tile(x.shape[2] * x.shape[3])
    return narrowed(CONFIGS[x.element_size()], P=P, N_=block_of(N, TILE_N), K_=block_of(x.shape[-1], 64))


def _product(x, weight, norm, pos_emb, end: End, one: Config):
    _, T, H, W, C = x.shape
    N, taps, _ = weight.shape
    launch(
        tile_of_product, end.programs, x, weight, norm.table, moments(x, norm), pos_emb, *end.tensors,
        T, H, W, C, N, end.tiles, end.blocks, norm.frames, *x.stride()[:4], *end.strides,
        TAPS=taps, KIND=norm.kind, SILU=norm.act == "silu", STATS=end.return_stats, **one.options,
    )  # fmt: skip


@triton.jit
def neighbours(tap, exists, i_y, i_x, t, T, H, W, TAPS: tl.constexpr):
    """Of a tap: which of the pixels [P] have a neighbour there, and how many frames, lines and pixels away."""
    if TAPS == 9:
        dy, dx = tap // 3 - 1, tap % 3 - 1
        return exists & (i_y + dy >= 0) & (i_y + dy < H) & (i_x + dx >= 0) & (i_x + dx < W), 0, dy, dx
    if TAPS == 3:
        return exists & (t + tap >= 1) & (t + tap <= T), tap - 1, 0, 0
    return exists, 0, 0, 0


@triton.jit
def tile_of_product(
    p_x, p_weight, p_table, p_moments, p_pos, p_bias, p_temb, p_gate, p_residual, p_out, p_tiles,
    T, H, W, C, N, tiles, blocks, frames,
    s_b, s_t, s_h, s_w, st_b, st_t, st_n, sg_b, sg_t, sg_n, sr_b, sr_t, sr_h, sr_w,
    TAPS: tl.constexpr, KIND: tl.constexpr, SILU: tl.constexpr, STATS: tl.constexpr,
    P: tl.constexpr, N_: tl.constexpr, K_: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    frame, tile = (program // blocks // tiles).to(tl.int64), program // blocks % tiles
    b, t = frame // T, frame % T
    i_p = tile * P + tl.arange(0, P)  # [P]
    i_n = program % blocks * N_ + tl.arange(0, N_)  # [N_]
    i_y, i_x = i_p // W, i_p % W
    exists = i_p < H * W
    o_x = b * s_b + t * s_t + i_y.to(tl.int64) * s_h + i_x.to(tl.int64) * s_w
    p_weight += i_n.to(tl.int64)[None, :] * (TAPS * C)
    steps = tl.cdiv(C, K_)
    acc = tl.zeros((P, N_), tl.float32)
    for step in range(0, TAPS * steps):
        tap = step // steps
        i_k = step % steps * K_ + tl.arange(0, K_)  # [K_]
        inside, dt, dy, dx = neighbours(tap, exists, i_y, i_x, t, T, H, W, TAPS)
        source = frame + dt
        o_tap = o_x + dt * s_t + dy * s_h + dx * s_w
        seen = inside[:, None] & (i_k < C)
        h = tl.load(p_x + o_tap[:, None] + i_k, seen, 0)  # [P, K_]
        if (KIND != "none") or SILU or (p_pos is not None):
            z = h.to(tl.float32)
            if KIND != "none":
                row = tl.minimum(tl.maximum(source, b * T), b * T + T - 1) // frames  # of a frame that there is
                mean, mul, add = columns(p_table, row, i_k, C)
                if KIND == "group":
                    z = (z - mean) * mul + add
                else:
                    p = p_moments + (source * H * W + i_p + dy * W + dx) * 2
                    z = (z - tl.load(p, inside, 0)[:, None]) * tl.load(p + 1, inside, 0)[:, None] * mul + add
            z = activated(z, SILU)
            if p_pos is not None:
                z += tl.load(p_pos + t * C + i_k, i_k < C, 0).to(tl.float32)
            h = tl.where(seen, z, 0).to(h.dtype)
        w = tl.load(p_weight + tap * C + i_k[:, None], (i_k < C)[:, None] & (i_n < N), 0)  # [K_, N_]
        acc = dot(h, w, acc)
    end_of_tile(
        acc, program, frame, tile, i_p, i_n, exists, p_bias, p_temb, p_gate, p_residual, p_out, p_tiles,
        T, H, W, N, tiles, st_b, st_t, st_n, sg_b, sg_t, sg_n, sr_b, sr_t, sr_h, sr_w, STATS, P,
    )  # fmt: skip


@triton.jit
def tile_of_pass(
    p_y, p_bias, p_temb, p_gate, p_residual, p_out, p_tiles,
    T, H, W, N, tiles, blocks,
    s_b, s_t, s_h, s_w, st_b, st_t, st_n, sg_b, sg_t, sg_n, sr_b, sr_t, sr_h, sr_w,
    STATS: tl.constexpr, P: tl.constexpr, N_: tl.constexpr,
):  # fmt: skip
    """What follows a product that the library made."""
    program = tl.program_id(0)
    frame, tile = (program // blocks // tiles).to(tl.int64), program // blocks % tiles
    i_p = tile * P + tl.arange(0, P)  # [P]
    i_n = program % blocks * N_ + tl.arange(0, N_)  # [N_]
    exists = i_p < H * W
    p_y += frame // T * s_b + frame % T * s_t + pixel_offset(i_p, W, s_h, s_w)[:, None]
    y = tl.load(p_y + i_n, exists[:, None] & (i_n < N), 0).to(tl.float32)  # [P, N_]
    end_of_tile(
        y, program, frame, tile, i_p, i_n, exists, p_bias, p_temb, p_gate, p_residual, p_out, p_tiles,
        T, H, W, N, tiles, st_b, st_t, st_n, sg_b, sg_t, sg_n, sr_b, sr_t, sr_h, sr_w, STATS, P,
    )  # fmt: skip


@triton.jit
def end_of_tile(
    y, program, frame, tile, i_p, i_n, exists, p_bias, p_temb, p_gate, p_residual, p_out, p_tiles,
    T, H, W, N, tiles, st_b, st_t, st_n, sg_b, sg_t, sg_n, sr_b, sr_t, sr_h, sr_w,
    STATS: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """(y + bias + temb) * gate + residual [P, N_] to p_out, its statistics to p_tiles; without p_out, its inner product."""
    b, t = frame // T, frame % T
    there = exists[:, None] & (i_n < N)
    if p_bias is not None:
        y += tl.load(p_bias + i_n, i_n < N, 0).to(tl.float32)
    if p_temb is not None:
        y += tl.load(p_temb + b * st_b + t * st_t + i_n * st_n, i_n < N, 0).to(tl.float32)
    if p_gate is not None:
        y *= tl.load(p_gate + b * sg_b + t * sg_t + i_n * sg_n, i_n < N, 0).to(tl.float32)
    other = tl.zeros(y.shape, tl.float32)
    if p_residual is not None:
        p_residual += b * sr_b + t * sr_t + pixel_offset(i_p, W, sr_h, sr_w)[:, None]
        other = tl.load(p_residual + i_n, there, 0).to(tl.float32)
    if p_out is None:
        tl.store(p_tiles + program, tl.sum(tl.sum(y * other, 1), 0))
    else:
        out = (y + other).to(p_out.dtype.element_ty)
        tl.store(p_out + (frame * H * W + i_p)[:, None] * N + i_n, out, there)
        if STATS:
            n = tl.minimum(H * W - tile * P, P).to(tl.float32)
            value = tl.where(there, out.to(tl.float32), 0)
            mean = tl.sum(value, 0) / n
            apart = tl.where(there, value - mean, 0)
            p_tiles += ((frame * tiles + tile) * N + i_n) * 2
            tl.store(p_tiles, mean, i_n < N)
            tl.store(p_tiles + 1, tl.sum(apart * apart, 0) / n, i_n < N)
