"""Floors: what a call must move and multiply at the least, and how fast a machine does either."""

from dataclasses import dataclass

import torch

from .. import library
from ..ops.attention.call import AttentionCall, LayerCall
from ..ops.call import Call
from ..ops.conv.call import ConvCall
from ..ops.feedforward.call import GegluCall
from ..ops.linear.call import LinearCall
from ..ops.norm.call import NormCall, StatsCall
from .place import processor
from .timing import interleaved


@dataclass(frozen=True)
class Work:
    """bytes: each operand read once and each result written once, without tables of a bias. flops: of the products."""

    bytes: float
    flops: float


def work(call: Call, backward: bool = False) -> Work:
    """What a call must move and multiply. backward: with every gradient. Its tensors may be `Described`.

    Raises KeyError for pseudo3d_conv, whose work is that of its two convolutions.
    """
    moved, flops = _COUNTED[type(call)](call, backward)
    return Work(moved * call.main.dtype.itemsize, flops)


def _attention(call: AttentionCall, backward: bool) -> tuple[int, int]:
    """q, k, v, out; backward: q, k, v and grad_out read, three gradients written. Two products, then five."""
    rows, keys = call.q.numel(), call.k.numel()
    moved = 2 * rows + 2 * keys + (3 * rows + 4 * keys if backward else 0)
    return moved, (14 if backward else 4) * rows * call.lengths[1]


def _layer(call: LayerCall, backward: bool) -> tuple[int, int]:
    """x, a residual beside it, out; backward: x and grad_out read, dx written. Two linear layers and the attention."""
    inner, C = call.w_qkv.shape[0] // 3, call.x.shape[-1]
    rows, Co = call.x.numel() // C, call.w_out.shape[0]
    is_beside = call.residual is not None and call.residual is not call.x
    moved = rows * (C + Co * (1 + is_beside) + (2 * C + Co if backward else 0))
    flops = 2 * rows * inner * (3 * C + Co) + 4 * rows * inner * call.core().lengths[1]
    return moved, flops * (3 if backward else 1)


def _conv(call: ConvCall, backward: bool) -> tuple[int, int]:
    """x, a residual, out; backward: x and grad_out read, dx written. A group norm needs sums over x before anything else, and in
    backward over x and grad_out: each is read twice.
    """
    x, (Co, Ci, *taps) = call.x.numel(), call.weight.shape
    out = x // Ci * Co
    passes = 2 if call.norm is not None and call.norm.kind == "group" and call.stats is None else 1
    moved = x * passes + out * (1 + (call.residual is not None)) + (x * (passes + 1) + out * passes if backward else 0)
    return moved, 2 * out * Ci * taps[0] * taps[1] * taps[2] * (3 if backward else 1)


def _norm(call: NormCall, backward: bool) -> tuple[int, int]:
    """As a convolution's x, residual and out."""
    passes = 2 if call.norm.kind == "group" and call.stats is None else 1
    return call.x.numel() * (passes + 1 + (call.residual is not None) + (2 * passes + 1 if backward else 0)), 0


def _stats(call: StatsCall, backward: bool) -> tuple[int, int]:
    return call.x.numel(), 0


def _linear(call: LinearCall, backward: bool) -> tuple[int, int]:
    """As a convolution of one tap."""
    x, (Co, C) = call.x.numel(), call.weight.shape
    out = x // C * Co
    passes = 2 if call.norm is not None and call.norm.kind == "group" else 1
    moved = x * passes + out * (1 + (call.residual is not None)) + (x * (passes + 1) + out * passes if backward else 0)
    return moved, 2 * out * C * (3 if backward else 1)


def _geglu(call: GegluCall, backward: bool) -> tuple[int, int]:
    """x, weight, out; backward: x, weight and grad_out read, dx and dweight written."""
    C, weight = call.x.shape[-1], call.weight.numel()
    M, E = call.x.numel() // C, weight // C // 2
    moved = M * (C + E) + weight + (M * (2 * C + E) + 2 * weight if backward else 0)
    return moved, 2 * M * weight * (3 if backward else 1)


_COUNTED = {
    AttentionCall: _attention, LayerCall: _layer, ConvCall: _conv, NormCall: _norm, StatsCall: _stats, LinearCall: _linear,
    GegluCall: _geglu,
}  # fmt: skip


@dataclass(frozen=True)
class Roofline:
    """What a machine reaches: bytes read and written a second, FLOP a second."""

    bytes_rate: float
    flops_rate: float

    def seconds(self, work: Work) -> float:
        """The floor: nothing that does this work comes below it."""
        return max(work.bytes / self.bytes_rate, work.flops / self.flops_rate)


@dataclass(frozen=True)
class Machine:
    """This one's CPU. roofline: of a large copy, and of a large product in float32."""

    roofline: Roofline

    @classmethod
    def measure(cls) -> "Machine":
        source, target = torch.ones(1 << 26), torch.empty(1 << 26)  # 256 MiB each, beyond every cache
        a, b, c = torch.randn(2048, 2048), torch.randn(2048, 2048), torch.empty(2048, 2048)
        times = interleaved({"copy": lambda: target.copy_(source), "product": lambda: torch.mm(a, b, out=c)}, rounds=9)
        return cls(Roofline(2 * source.nbytes / times["copy"].seconds, 2 * 2048**3 / times["product"].seconds))

    def __str__(self):
        return (
            f"{processor()}, {torch.get_num_threads()} threads, {library.instruction_set()} kernels, torch {torch.__version__}: "
            f"copies {self.roofline.bytes_rate / 1e9:.1f} GB/s, multiplies {self.roofline.flops_rate / 1e9:.0f} GFLOP/s"
        )
