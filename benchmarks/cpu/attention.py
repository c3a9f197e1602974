"""The attention operators, q, k and v given, beside the definition in plain PyTorch and beside SDPA with the dense bias."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import vdiff_kernels as vdiff

from ..bytes_moved import Frames, Pixels, eager
from ..timing import Row, interleaved

# H, W, C, N
SHAPES = [(32, 32, 320, 5), (64, 64, 64, 4), (32, 32, 128, 4), (16, 16, 640, 10)]
FRAMES = [16, 8, 24, 32, 64]


def sdpa(layout):
    """SDPA on permuted views, the bias dense as its mask, the output permuted back."""

    def call(q, k, v, bias):
        rows = map(layout.sequences, (q, k, v))
        return layout.rows(F.scaled_dot_product_attention(*rows, attn_mask=bias), q.shape)

    return call


def dense_temporal(rel_bias: Tensor, T: int) -> Tensor:
    i, j = torch.arange(T)[:, None], torch.arange(T)
    return rel_bias[:, j - i + T - 1]


def dense_spatial(rel_bias: Tensor, H: int, W: int) -> Tensor:
    y, x = torch.arange(H * W) // W, torch.arange(H * W) % W
    return rel_bias[:, y - y[:, None] + H - 1, x - x[:, None] + W - 1]


@dataclass(frozen=True)
class Attention:
    """One call on slices of a packed qkv, with relative bias. backward: forward and backward, the bias gradient with them."""

    kind: str  # "temporal" or "spatial"
    B: int
    T: int
    H: int
    W: int
    N: int
    D: int
    backward: bool
    faster: dict
    of_floor: float | None = None

    @property
    def label(self) -> str:
        what = "fwd+bwd" if self.backward else "fwd"
        return f"{self.kind} {what} f32 B{self.B} T{self.T} H{self.H} W{self.W} N{self.N} D{self.D}"

    def contenders(self) -> dict:
        temporal = self.kind == "temporal"
        layout = Frames if temporal else Pixels
        rel_shape = (self.N, 2 * self.T - 1) if temporal else (self.N, 2 * self.H - 1, 2 * self.W - 1)
        operator = vdiff.temporal_attention if temporal else vdiff.spatial_attention
        qkv = torch.randn(self.B, self.T, self.H, self.W, 3, self.N, self.D, requires_grad=self.backward)
        rel_bias = torch.randn(rel_shape, requires_grad=self.backward)

        def dense():
            return dense_temporal(rel_bias, self.T) if temporal else dense_spatial(rel_bias, self.H, self.W)

        given = None if self.backward else dense()  # where gradients are wanted, the gather is part of what is differentiated
        calls = {
            "ours": lambda: operator(*qkv.unbind(4), rel_bias=rel_bias, backend="cpu"),
            "eager": lambda: eager(layout)(*qkv.unbind(4), dense() if given is None else given),
            "sdpa": lambda: sdpa(layout)(*qkv.unbind(4), dense() if given is None else given),
        }
        if not self.backward:
            return calls
        grad_out = torch.randn(self.B, self.T, self.H, self.W, self.N, self.D)

        def with_gradients(call):
            return lambda: torch.autograd.grad(call(), (qkv, rel_bias), grad_out)

        return {name: with_gradients(call) for name, call in calls.items()}

    def measure(self) -> Row:
        temporal = self.kind == "temporal"
        rows = self.B * self.T * self.H * self.W * self.N * self.D  # elements of q, and of k, v and out
        S = self.T if temporal else self.H * self.W
        # forward: q, k, v read, out written; q k^T and p v. backward: q, k, v and grad_out read, three gradients written; five products
        moved, products = (4 + 7, 2 + 5) if self.backward else (4, 2)
        times = interleaved(self.contenders())
        return Row(self.label, times, "ours", moved * rows * 4, products * 2 * rows * S, self.faster, self.of_floor)


def cases() -> list[Attention]:
    shapes = [(T, H, W, N, C // N) for T in FRAMES for H, W, C, N in SHAPES]
    temporal = [Attention("temporal", 1, *shape, False, {"eager": 3.5, "sdpa": 1.5}, 2) for shape in shapes]
    temporal += [Attention("temporal", 1, *shape, True, {"eager": 3}) for shape in shapes]
    # the reference UNet's own: a clip of 16 and an image frame, heads of 32
    own = [(8, 17, side, side, N, 32) for side, N in ((16, 1), (8, 2), (4, 4))]
    temporal += [Attention("temporal", *shape, backward, {"eager": 3}) for backward in (False, True) for shape in own]
    # 16, 32 and 64 pixels a side
    squares = [(1, frames, side, side, 4, D) for D in (32, 64) for side, frames in ((16, 16), (32, 2), (64, 1))]
    spatial = [Attention("spatial", *s, backward, {"sdpa": 1.3}) for backward in (False, True) for s in squares]
    return [*temporal, *spatial]
