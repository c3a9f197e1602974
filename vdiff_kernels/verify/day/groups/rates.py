"""What this GPU's memory and tensor cores reach through PyTorch: what every share is a share of."""

import torch

from ....bench.contest import Contest
from ....bench.rooflines import Work
from .. import clock
from ..rows import Day


def run(day: Day) -> None:
    elements, side = (1 << 20, 256) if day.quick else (1 << 30, 8192)
    source = day.randn(elements)
    target = torch.empty_like(source)
    a, b, c = day.randn(side, side), day.randn(side, side), torch.empty(side, side, device=day.device, dtype=torch.bfloat16)
    copies = {"copy_": lambda i: target.copy_(source), "neg": lambda i: torch.neg(source, out=target)}
    clock.measure(day, Contest("copy", "copy", False, copies, 1, _exact, Work(2 * source.nbytes, 0)))
    product = {"torch": lambda i: torch.mm(a, b, out=c)}
    clock.measure(day, Contest("matrix product", "product", False, product, 1, _exact, Work(0, 2 * side**3)))


def _exact(rival: str, result) -> float:
    return 0.0
