"""The attention operators beside eager PyTorch, each kernel of SDPA forced, and compiled flex attention.

SDPA and flex get q, k and v as they like them best, each (sequences, length, N, D) contiguous; the permutes with which a model
gets there are not in their times. Eager and ours read (B, T, H, W, N, D).
"""

import math
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..ops.attention import api
from .contest import Contest, Setting, relative_error, with_gradients
from .counting import require_memory
from .presets import AttentionShape
from .replays import sets_for
from .rivals import Frames, Pixels, dense_spatial, dense_temporal, eager
from .rooflines import work

SDPA = {
    "SDPA flash": SDPBackend.FLASH_ATTENTION,
    "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
    "SDPA efficient": SDPBackend.EFFICIENT_ATTENTION,
    "SDPA math": SDPBackend.MATH,
}
ON_CPU = ("SDPA flash", "SDPA math")
FLEX = "flex compiled"
SLICE = 2  # frames or lines of pixels that are held to float32


def contest(shape: AttentionShape, setting: Setting, backward: bool) -> Contest:
    call = _Call(shape, setting, backward)
    counted = work(shape.call(setting.dtype), backward)
    return Contest(shape.name(backward), shape.operator, backward, call.rivals(), call.sets, call.error, counted, shape.model)


class _Call:
    """The inputs of a shape, several sets of them, and its rivals: functions of the number of a set."""

    def __init__(self, shape: AttentionShape, setting: Setting, backward: bool):
        self.shape, self.setting, self.backward = shape, setting, backward
        rows, keys = shape.rows, shape.keys
        self.operator = {"temporal": api.temporal_attention, "spatial": api.spatial_attention}[shape.kind]
        self.layout = Frames if shape.kind == "temporal" else Pixels
        self.sets = sets_for(4 * setting.dtype.itemsize * math.prod(rows))
        self.q, self.k, self.v, self.grad_out = (
            [setting.randn(*size).requires_grad_(backward and size_is_input) for _ in range(self.sets)]
            for size, size_is_input in ((rows, True), (keys, True), (keys, True), (rows, False))
        )
        self.table = None
        if shape.table is not None:
            self.table = setting.randn(*shape.table, dtype=torch.float32).requires_grad_(backward)
        self.expected = self._expected()

    def _mask(self) -> Tensor | None:
        """The table as (N, L, S), gathered, in the dtype of q: what a rival that knows no offsets needs."""
        s = self.shape
        if self.table is None or s.bias == "dense":
            return None if self.table is None else self.table.to(self.setting.dtype)
        dense = dense_temporal(self.table, s.T) if s.kind == "temporal" else dense_spatial(self.table, s.H, s.W)
        return dense.to(self.setting.dtype)

    def arguments(self) -> dict:
        return {} if self.table is None else {"bias" if self.shape.bias == "dense" else "rel_bias": self.table}

    # ------------------------------------------------------------------------------------------------------------- rivals

    def rivals(self) -> dict[str, Callable[[int], object]]:
        given = None if self.backward else self._mask()  # where its gradient is wanted, the gather is part of the call

        def mask():
            return self._mask() if given is None else given

        found = {name: self._over_rows(self._ours(backend)) for name, backend in self.setting.backends.items()}
        found["eager"] = self._with_scores(self._over_rows(lambda *rows: self._eager(*rows, mask())))
        for name in SDPA if self.setting.device.type == "cuda" else ON_CPU:
            found[name] = self._over_sequences(lambda *rows, name=name: forced(SDPA[name], *rows, mask()))
        found["SDPA math"] = self._with_scores(found["SDPA math"])
        found[FLEX] = self._over_sequences(self._flex)
        return found

    def _with_scores(self, rival: Callable[[int], object]) -> Callable[[int], object]:
        """One that has every score in memory, several times."""
        shape = self.shape
        queries, keys = shape.lengths
        scores = math.prod(shape.rows[:5]) // queries * queries * keys
        needed = scores * self.setting.dtype.itemsize * (5 if self.backward else 3)

        def run(i):
            require_memory(needed, self.setting.device)
            return rival(i)

        return run

    def _ours(self, backend: str | None):
        return lambda q, k, v: self.operator(q, k, v, backend=backend, **self.arguments())

    def _eager(self, q, k, v, mask):
        if self.shape.context:
            k, v = (t[:, None].expand(-1, self.shape.T, -1, -1, -1) for t in (k, v))
        return eager(self.layout)(q, k, v, mask)

    def _tables(self) -> list[Tensor]:
        return [] if self.table is None else [self.table]

    def _over_rows(self, call) -> Callable[[int], object]:
        inputs = list(zip(self.q, self.k, self.v))

        def rival(i):
            return with_gradients(call, inputs, self._tables(), self.grad_out[i], self.backward)(i)

        return rival

    def _over_sequences(self, call) -> Callable[[int], object]:
        """call(q, k, v) on (sequences, N, length, D), made of them when it is called first."""
        own, grads = [], []

        def transposed(*rows):
            return call(*(each.transpose(1, 2) for each in rows))

        def rival(i):
            if not own:
                own.extend(
                    tuple(self._own(t).requires_grad_(self.backward) for t in rows) for rows in zip(self.q, self.k, self.v)
                )
                grads.extend(self._own(t).transpose(1, 2) for t in self.grad_out)
            return with_gradients(transposed, own, self._tables(), grads[i], self.backward)(i)

        return rival

    def _own(self, t: Tensor) -> Tensor:
        """(sequences, length, N, D), contiguous"""
        wants_grad, t = t.requires_grad, t.detach()
        if t.dim() == 4:
            t = t[:, None].expand(-1, self.shape.T, -1, -1, -1)
        return self.layout.sequences(t).transpose(1, 2).contiguous().requires_grad_(wants_grad)

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

    # ------------------------------------------------------------------------------------------------------------- errors

    def _part(self, rows: Tensor) -> Tensor:
        """Sequences of their own: the first frames, or the first lines of pixels."""
        return rows[:1, :, :1, :SLICE] if self.shape.kind == "temporal" else rows[:1, :1]

    def _expected(self) -> Tensor:
        q, k, v = (t[0].detach() for t in (self.q, self.k, self.v))
        k, v = (t[:1] if t.dim() == 4 else self._part(t) for t in (k, v))
        table = {name: t.detach() for name, t in self.arguments().items()}
        return self.operator(self._part(q).float(), k.float(), v.float(), backend="reference", **table)

    def error(self, rival: str, result) -> float:
        """Of the forward result: `vdiff verify` holds the gradients."""
        out = result[0]
        if out.dim() == 4:
            s = self.shape
            outer = (s.B, s.H, s.W) if s.kind == "temporal" else (s.B, s.T)
            out = out.unflatten(0, outer)
            out = out.permute(0, 4, 1, 2, 3, 5) if s.kind == "temporal" else out.transpose(2, 3).unflatten(2, (s.H, s.W))
        return relative_error(self._part(out), self.expected)


def forced(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    with sdpa_kernel(backend), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # why a kernel does not run: it raises, too
        return F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[None])


def flex():
    """Compiled at its first call, which takes many seconds."""
    global _flex
    if _flex is None:
        from torch.nn.attention.flex_attention import flex_attention

        _flex = torch.compile(flex_attention, dynamic=False)
    return _flex


_flex = None
