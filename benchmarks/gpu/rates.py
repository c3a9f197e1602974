"""What this GPU's memory and tensor cores reach through PyTorch: what every share is a share of."""

import torch

from . import clock
from .day import Day


def run(day: Day) -> None:
    elements, side = (1 << 20, 256) if day.quick else (1 << 30, 8192)
    source = day.randn(elements)
    target = torch.empty_like(source)
    a, b, c = day.randn(side, side), day.randn(side, side), torch.empty(side, side, device=day.device, dtype=torch.bfloat16)
    fine = lambda rival, result: 0.0  # noqa: E731
    copies = {"copy_": lambda i: target.copy_(source), "neg": lambda i: torch.neg(source, out=target)}
    clock.measure(day, "copy", copies, 1, fine, bytes=2 * source.nbytes)
    clock.measure(day, "matrix product", {"torch": lambda i: torch.mm(a, b, out=c)}, 1, fine, flops=2 * side**3)
