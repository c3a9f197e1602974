"""The `TemporalAttention` module, without norm and residual, beside its two bare matrix products and its three rivals."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

import vdiff_kernels as vdiff

from ..bytes_moved import Frames
from ..timing import Row, interleaved
from .attention import SHAPES, dense_temporal, sdpa

FRAMES = 16
SHARE_OF_PRODUCTS = {64: 0.7, 128: 0.85, 320: 1.0, 640: 1.03}  # that it may take at most


@dataclass(frozen=True)
class Module:
    """training: forward and every gradient; beside eager autograd alone."""

    H: int
    W: int
    C: int
    N: int
    training: bool

    @property
    def label(self) -> str:
        return f"TemporalAttention {'fwd+bwd' if self.training else 'fwd'} f32 T{FRAMES} H{self.H} W{self.W} C{self.C} N{self.N}"

    def contenders(self) -> dict:
        modules = {
            name: vdiff.nn.TemporalAttention(self.C, self.N, FRAMES, position="offset", backend=backend)
            for name, backend in (("ours", "cpu"), ("eager", "reference"))
        }
        module = modules["ours"]
        modules["eager"].load_state_dict(module.state_dict())
        x = torch.randn(1, FRAMES, self.H, self.W, self.C, requires_grad=self.training)
        if self.training:
            grad_out = torch.randn_like(x)

            def with_gradients(call):
                leaves = [x, *call.parameters()]
                return lambda: torch.autograd.grad(call(x), leaves, grad_out)

            return {name: with_gradients(each) for name, each in modules.items()}

        def by_sdpa():
            qkv = module.to_qkv(x).unflatten(-1, (3, self.N, -1))
            dense = dense_temporal(module.position(FRAMES)["rel_bias"], FRAMES)
            return module.proj_out(sdpa(Frames)(*qkv.unbind(-3), dense).flatten(-2))

        def products():
            return F.linear(F.linear(x.flatten(0, 3), module.to_qkv.weight)[:, : self.C], module.proj_out.weight)

        compiled = torch.compile(modules["eager"])
        calls = {
            "ours": lambda: module(x), "eager": lambda: modules["eager"](x), "sdpa": by_sdpa,
            "compile": lambda: compiled(x), "products": products,
        }  # fmt: skip
        return {name: torch.no_grad()(call) for name, call in calls.items()}

    def measure(self) -> Row:
        rows, C, T = FRAMES * self.H * self.W, self.C, FRAMES
        times = interleaved(self.contenders())
        # x read, the output written; both products and the two of the attention. backward: x and grad_out read, dx written
        flops = 2 * rows * C * 4 * C + 4 * rows * T * C
        if self.training:
            return Row(self.label, times, "ours", 5 * rows * C * 4, 3 * flops, {"eager": 1})
        faster = {"eager": 1, "sdpa": 1, "compile": 1, "products": 1 / SHARE_OF_PRODUCTS[C]}
        return Row(self.label, times, "ours", 2 * rows * C * 4, flops, faster)


def cases() -> list[Module]:
    return [Module(*shape, training) for training in (False, True) for shape in SHAPES]
