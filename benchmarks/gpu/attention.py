"""The attention operators beside eager PyTorch, each kernel of SDPA forced, and compiled flex attention: bfloat16.

SDPA and flex get q, k and v as they like them best, each (sequences, length, N, D) contiguous; the permutes with which a model
gets there are not in their times. Eager and ours read (B, T, H, W, N, D).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import vdiff_kernels as vdiff
from vdiff_kernels.bench.presets import SPATIAL, TEMPORAL, AttentionShape, small
from vdiff_kernels.bench.replays import sets_for
from vdiff_kernels.bench.rivals import Frames, Pixels, dense_spatial, dense_temporal, eager
from vdiff_kernels.bench.rooflines import work

from . import clock
from .day import Day, relative_error

SDPA = {
    "SDPA flash": SDPBackend.FLASH_ATTENTION,
    "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
    "SDPA efficient": SDPBackend.EFFICIENT_ATTENTION,
    "SDPA math": SDPBackend.MATH,
}
SLICE = 2  # frames or lines of pixels that are held to float32


# One clip: flex attention has a grid of sequences and heads, at most 65,535.
COMPILED = [replace(TEMPORAL["c512"], B=1), replace(TEMPORAL["animatediff-64"], B=1), SPATIAL["biased-32"]]


def measure_shape(day: Day, shape: AttentionShape, rivals: list[str] | None = None) -> None:
    if day.quick:
        shape = small(shape)
    for backward in (False, True):
        call = Call(day, shape, backward)
        chosen = {name: rival for name, rival in call.rivals().items() if rivals is None or name in rivals}
        counted = asdict(work(shape.call(torch.bfloat16), backward))
        fields = {"model": shape.model, "operator": shape.operator, "backward": backward, **counted}
        clock.measure(day, shape.name(backward), chosen, call.sets, call.error, **fields)


class Call:
    """The inputs of a shape, several sets of them, and its rivals: functions of the number of a set."""

    def __init__(self, day: Day, shape: AttentionShape, backward: bool):
        self.day, self.shape, self.backward = day, shape, backward
        rows, keys = shape.rows, shape.keys
        self.layout = Frames if shape.kind == "temporal" else Pixels
        self.sets = sets_for(4 * 2 * math.prod(rows))
        self.q, self.k, self.v, self.grad_out = (
            [day.randn(*size).requires_grad_(backward and size_is_input) for _ in range(self.sets)]
            for size, size_is_input in ((rows, True), (keys, True), (keys, True), (rows, False))
        )
        self.table = None if shape.table is None else torch.randn(shape.table, device=day.device).requires_grad_(backward)
        self.expected = self._expected()

    def _mask(self) -> Tensor | None:
        """The table as (N, L, S), gathered, in the dtype of q: what a rival that knows no offsets needs."""
        s = self.shape
        if self.table is None or s.bias == "dense":
            return None if self.table is None else self.table.to(torch.bfloat16)
        dense = dense_temporal(self.table, s.T) if s.kind == "temporal" else dense_spatial(self.table, s.H, s.W)
        return dense.to(torch.bfloat16)

    def arguments(self) -> dict:
        return {} if self.table is None else {"bias" if self.shape.bias == "dense" else "rel_bias": self.table}

    # ------------------------------------------------------------------------------------------------------------- rivals

    def rivals(self) -> dict[str, Callable[[int], object]]:
        given = None if self.backward else self._mask()  # where its gradient is wanted, the gather is part of the call

        def mask():
            return self._mask() if given is None else given

        found = {"vdiff": self._over_rows(self._ours), "eager": self._over_rows(lambda *rows: self._eager(*rows, mask()))}
        for name, backend in SDPA.items():
            found[name] = self._over_sequences(lambda *rows, backend=backend: forced(backend, *rows, mask()))
        found["flex compiled"] = self._over_sequences(self._flex)
        return found

    def _ours(self, q, k, v):
        operator = getattr(vdiff, self.shape.operator)
        return operator(q, k, v, backend=self.day.backend, **self.arguments())

    def _eager(self, q, k, v, mask):
        if self.shape.context:
            k, v = (t[:, None].expand(-1, self.shape.T, -1, -1, -1) for t in (k, v))
        return eager(self.layout)(q, k, v, mask)

    def _over_rows(self, call) -> Callable[[int], object]:
        def rival(i):
            q, k, v = self.q[i], self.k[i], self.v[i]
            return self._with_gradients(call(q, k, v), (q, k, v), self.grad_out[i])

        return rival

    def _over_sequences(self, call) -> Callable[[int], object]:
        """call(q, k, v) on (sequences, N, length, D)."""
        own = [[self._own(t).requires_grad_(self.backward) for t in each] for each in zip(self.q, self.k, self.v)]
        grads = [self._own(t).transpose(1, 2) for t in self.grad_out]

        def rival(i):
            return self._with_gradients(call(*(t.transpose(1, 2) for t in own[i])), own[i], grads[i])

        return rival

    def _own(self, t: Tensor) -> Tensor:
        """(sequences, length, N, D), contiguous"""
        t = t.detach()
        if t.dim() == 4:
            t = t[:, None].expand(-1, self.shape.T, -1, -1, -1)
        return self.layout.sequences(t).transpose(1, 2).contiguous()

    def _flex(self, q, k, v):
        table, (T, H, W) = self.table, (self.shape.T, self.shape.H, self.shape.W)

        def score(score, b, h, i, j):
            if self.shape.bias == "dense":
                return score + table[h, i, j]
            if self.shape.kind == "temporal":
                return score + table[h, j - i + T - 1]
            return score + table[h, j // W - i // W + H - 1, j % W - i % W + W - 1]

        # Smaller blocks than its own for spatial attention, which do not fit into a Hopper's shared memory with a bias.
        options = {"BLOCK_M": 64, "BLOCK_N": 64, "num_stages": 2} if self.shape.kind == "spatial" else None
        return flex()(q, k, v, score_mod=None if table is None else score, kernel_options=options)

    def _with_gradients(self, out, leaves, grad_out):
        if not self.backward:
            return (out,)
        tables = () if self.table is None else (self.table,)
        return out, *torch.autograd.grad(out, (*leaves, *tables), grad_out)

    # ------------------------------------------------------------------------------------------------------------- errors

    def _part(self, rows: Tensor) -> Tensor:
        """Sequences of their own: the first frames, or the first lines of pixels."""
        return rows[:1, :, :1, :SLICE] if self.shape.kind == "temporal" else rows[:1, :1]

    def _expected(self) -> Tensor:
        q, k, v = (t[0].detach() for t in (self.q, self.k, self.v))
        k, v = (t[:1] if t.dim() == 4 else self._part(t) for t in (k, v))
        operator = getattr(vdiff, self.shape.operator)
        table = {name: t.detach() for name, t in self.arguments().items()}
        return operator(self._part(q).float(), k.float(), v.float(), backend="reference", **table)

    def error(self, rival: str, result) -> float:
        """Of the forward result: `hostile` and `real` hold the gradients."""
        out = result[0]
        if out.dim() == 4:
            s = self.shape
            outer = (s.B, s.H, s.W) if s.kind == "temporal" else (s.B, s.T)
            out = out.unflatten(0, outer)
            out = out.permute(0, 4, 1, 2, 3, 5) if s.kind == "temporal" else out.transpose(2, 3).unflatten(2, (s.H, s.W))
        return relative_error(self._part(out), self.expected)


def forced(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[None])


def flex():
    """Compiled at its first call, which takes many seconds."""
    global _flex
    if _flex is None:
        from torch.nn.attention.flex_attention import flex_attention

        _flex = torch.compile(flex_attention, dynamic=False)
    return _flex


_flex = None
