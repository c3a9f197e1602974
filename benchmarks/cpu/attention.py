"""The attention operators, q, k and v given, beside the definition in plain PyTorch and beside SDPA with the dense bias."""

from dataclasses import dataclass, replace

import torch

import vdiff_kernels as vdiff
from vdiff_kernels.bench.presets import CPU_LAYERS, UNET_ATTENTION, AttentionShape
from vdiff_kernels.bench.rivals import Frames, Pixels, dense_spatial, dense_temporal, eager, sdpa
from vdiff_kernels.bench.rooflines import work
from vdiff_kernels.bench.rows import Row
from vdiff_kernels.bench.timing import interleaved

FRAMES = [16, 8, 24, 32, 64]


@dataclass(frozen=True)
class Attention:
    """One call on slices of a packed qkv, with relative bias. backward: forward and backward, the bias gradient with them."""

    shape: AttentionShape
    backward: bool
    faster: dict
    of_floor: float | None = None

    @property
    def label(self) -> str:
        what = "fwd+bwd" if self.backward else "fwd"
        sizes = " ".join(f"{letter}{size}" for letter, size in zip("BTHWND", self.shape.rows))
        return f"{self.shape.kind} {what} f32 {sizes}"

    def contenders(self) -> dict:
        shape, temporal = self.shape, self.shape.kind == "temporal"
        layout = Frames if temporal else Pixels
        operator = getattr(vdiff, shape.operator)
        *outer, N, D = shape.rows
        qkv = torch.randn(*outer, 3, N, D, requires_grad=self.backward)
        rel_bias = torch.randn(shape.table, requires_grad=self.backward)

        def dense():
            return dense_temporal(rel_bias, shape.T) if temporal else dense_spatial(rel_bias, shape.H, shape.W)

        given = None if self.backward else dense()  # where gradients are wanted, the gather is part of what is differentiated
        calls = {
            "ours": lambda: operator(*qkv.unbind(4), rel_bias=rel_bias, backend="cpu"),
            "eager": lambda: eager(layout)(*qkv.unbind(4), dense() if given is None else given),
            "sdpa": lambda: sdpa(layout)(*qkv.unbind(4), dense() if given is None else given),
        }
        if not self.backward:
            return calls
        grad_out = torch.randn(shape.rows)

        def with_gradients(call):
            return lambda: torch.autograd.grad(call(), (qkv, rel_bias), grad_out)

        return {name: with_gradients(call) for name, call in calls.items()}

    def measure(self) -> Row:
        counted = work(self.shape.call(torch.float32), self.backward)
        return Row(self.label, interleaved(self.contenders()), "ours", counted, self.faster, self.of_floor)


def cases() -> list[Attention]:
    shapes = [
        AttentionShape("", "temporal", layer.B, T, layer.H, layer.W, layer.N, layer.C // layer.N, "rel")
        for T in FRAMES for layer in CPU_LAYERS
    ]  # fmt: skip
    temporal = [Attention(shape, False, {"eager": 3.5, "sdpa": 1.5}, 2) for shape in shapes]
    temporal += [Attention(shape, True, {"eager": 3}) for shape in shapes]
    temporal += [Attention(shape, backward, {"eager": 3}) for backward in (False, True) for shape in UNET_ATTENTION]
    # 16, 32 and 64 pixels a side
    square = AttentionShape("", "spatial", 1, 16, 16, 16, 4, 32, "rel")
    squares = [replace(square, T=T, H=side, W=side, D=D) for D in (32, 64) for side, T in ((16, 16), (32, 2), (64, 1))]
    return [*temporal, *(Attention(shape, backward, {"sdpa": 1.3}) for backward in (False, True) for shape in squares)]
