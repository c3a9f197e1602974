"""The gradient of a convolution's weight: grad (B, T, H, W, N), h (B, T, H, W, C) as it was read, to (N, taps, C) fp32.

    of every block of outputs and of channels, tap and split of all tiles of pixels:
        acc = 0                                     # fp32
        for each tile of P pixels of the split:
            acc = acc + grad^T h of the tap's pixels
    sum the splits

The splits are as many as fill a GPU, by the shapes alone, so that sums have a fixed order. h is read once for each block of
outputs and tap, grad once for each block of channels and tap, from the cache but for the first time.
"""

import triton
import triton.language as tl

from ...ops.schema import sums
from .launch import launch
from .product import neighbours
from .tiles import block_of, ceil_div, dot
from .tuning import Config, config, narrowed, tuned

PROGRAMS = 1024  # some for each of a large GPU's multiprocessors
TILES = 8  # of a split, at least

CONFIGS = {  # by bytes of an element
    2: (config(4, 3, N_=64, C_=64, P=32), config(4, 3, N_=64, C_=64, P=64), config(8, 3, N_=128, C_=64, P=32)),
    4: (config(8, 2, N_=64, C_=64, P=16), config(4, 2, N_=64, C_=64, P=16), config(4, 2, N_=32, C_=64, P=32)),
}


def weight_gradient(grad, h, taps: int):
    B, T, H, W, N = grad.shape
    C = h.shape[-1]

    def run(one: Config):
        tile = one.constants
        blocks = ceil_div(N, tile["N_"]), ceil_div(C, tile["C_"])
        tiles = B * T * ceil_div(H * W, tile["P"])
        outputs = blocks[0] * blocks[1] * taps
        splits = max(1, min(tiles // TILES, PROGRAMS // outputs))
        of_splits = sums(grad, (splits, N, taps, C))
        launch(
            block_of_gradient, splits * outputs, grad, h, of_splits, T, H, W, C, N, tiles, splits, *blocks,
            *grad.stride()[:4], *h.stride()[:4], TAPS=taps, **one.options,
        )  # fmt: skip
        return of_splits.sum(0)

    configs = narrowed(CONFIGS[grad.element_size()], N_=block_of(N, 128), C_=block_of(C, 128), P=block_of(H * W, 128))
    return tuned("weight_gradient", (grad.dtype, B * T, H, W, N, C, taps), configs, run, grad)


@triton.jit
def block_of_gradient(
    p_grad, p_h, p_splits,
    T, H, W, C, N, tiles, splits, n_blocks, c_blocks, sg_b, sg_t, sg_h, sg_w, s_b, s_t, s_h, s_w,
    TAPS: tl.constexpr, P: tl.constexpr, N_: tl.constexpr, C_: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    i_c = program % c_blocks * C_ + tl.arange(0, C_)  # [C_]
    i_n = program // c_blocks % n_blocks * N_ + tl.arange(0, N_)  # [N_]
    tap = program // c_blocks // n_blocks % TAPS
    split = program // c_blocks // n_blocks // TAPS
    of_frame = tl.cdiv(H * W, P)
    acc = tl.zeros((N_, C_), tl.float32)
    for tile in range(split, tiles, splits):
        frame = (tile // of_frame).to(tl.int64)
        i_p = tile % of_frame * P + tl.arange(0, P)  # [P]
        i_y, i_x = i_p // W, i_p % W
        inside, dt, dy, dx = neighbours(tap, i_p < H * W, i_y, i_x, frame % T, T, H, W, TAPS)
        o_grad = frame // T * sg_b + frame % T * sg_t + i_y.to(tl.int64) * sg_h + i_x.to(tl.int64) * sg_w
        o_h = frame // T * s_b + (frame % T + dt) * s_t + (i_y.to(tl.int64) + dy) * s_h + (i_x.to(tl.int64) + dx) * s_w
        grad = tl.load(p_grad + o_grad[:, None] + i_n, inside[:, None] & (i_n < N), 0)  # [P, N_]
        h = tl.load(p_h + o_h[:, None] + i_c, inside[:, None] & (i_c < C), 0)  # [P, C_]
        acc = dot(tl.trans(grad), h, acc)
    p_splits += ((split.to(tl.int64) * N + i_n) * TAPS + tap)[:, None] * C + i_c
    tl.store(p_splits, acc, (i_n < N)[:, None] & (i_c < C))
