"""geglu, beside the bare linear layer to both of its halves and the same in plain PyTorch."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

import vdiff_kernels as vdiff
from vdiff_kernels.bench.rooflines import work
from vdiff_kernels.bench.rows import Row
from vdiff_kernels.bench.timing import interleaved
from vdiff_kernels.ops.feedforward.call import GegluCall

# rows, C; E is 4 C
SHAPES = [(65536, 64), (16384, 128), (16384, 320), (4096, 640)]


@dataclass(frozen=True)
class Geglu:
    """backward: forward and every gradient."""

    M: int
    C: int
    backward: bool

    @property
    def label(self) -> str:
        return f"geglu {'fwd+bwd' if self.backward else 'fwd'} f32 M{self.M} C{self.C} E{4 * self.C}"

    def measure(self) -> Row:
        M, C, E = self.M, self.C, 4 * self.C
        x, weight, bias = torch.randn(M, C), torch.randn(2 * E, C) / C**0.5, torch.randn(2 * E)
        leaves = [x, weight, bias]
        for leaf in leaves:
            leaf.requires_grad_(self.backward)

        def eager():
            a, b = F.linear(x, weight, bias).chunk(2, -1)
            return a * F.gelu(b)

        calls = {
            "ours": lambda: vdiff.geglu(x, weight, bias, backend="cpu"),
            "linear": lambda: F.linear(x, weight, bias),
            "eager": eager,
        }
        if self.backward:
            grads = {name: torch.randn(M, 2 * E if name == "linear" else E) for name in calls}

            def with_gradients(name, call):
                return lambda: torch.autograd.grad(call(), leaves, grads[name])

            calls = {name: with_gradients(name, call) for name, call in calls.items()}
        counted = work(GegluCall("geglu", x, weight, bias), self.backward)
        return Row(self.label, interleaved(calls), "ours", counted, {"linear": 1})


def cases() -> list[Geglu]:
    return [Geglu(M, C, backward) for backward in (False, True) for M, C in SHAPES]
