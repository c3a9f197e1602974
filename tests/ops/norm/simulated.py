"""The CUDA operators of norms, simulated: what csrc/norm/operators.cpp does, with launches that tests/ptxsim executes."""

import torch

from tests import ptxsim
from tests.ops.simulated import DTYPES, STREAM, launchers_of, taken_by_auto
from vdiff_kernels.ops.norm.schema import norm_kernels, stats_kernels

KINDS = ("none", "group", "layer", "rms")  # NormKind, of csrc/norm/params.h

NORM_PARAMS = "i??2xqd5Q"  # NormParams


def launchers():
    return launchers_of("norm")


def kernels_of(run):
    """Those of each operator. run: `simulate.launcher`, or its like."""
    operators = SimulatedNorms(run)
    return {
        "channel_stats": stats_kernels(operators.channel_stats),
        "norm_act": norm_kernels(operators.channel_stats, operators.forward, operators.backward),
    }


def simulated_by_default(run):
    """Auto takes the simulated CUDA kernels on the CPU."""
    return taken_by_auto(kernels_of(run))


class SimulatedNorms:
    """The compiled library's operators, with the arguments of their schemas (vdiff_kernels/ops/norm/schema.py).

    run: `simulate.launcher`, `clean_run(..)`, or their like. outputs: makes them; those of ptxsim are held to be written whole.
    reports: of each kernel that was launched, in order.
    """

    def __init__(self, run, outputs=ptxsim.empty):
        self.run, self.empty, self.reports = run, outputs, []

    def channel_stats(self, x):
        """(B, T, C, 2) of x (B, T, H, W, C), unit stride over C."""
        B, T, _, _, C = x.shape
        acc = torch.float64 if x.dtype == torch.float64 else torch.float32
        stats = self.empty(B, T, C, 2, dtype=acc)
        params = ptxsim.Struct("<QQ9qi4x", x, stats, *x.shape, *x.stride()[:4], DTYPES.index(x.dtype))
        chunks = launchers().call("channel_stats_chunks", params)
        partials = self.empty(B * T, chunks, C, 2, dtype=acc)
        self._call("launch_channel_stats", params, partials, ())
        self._assert_written(stats)
        return stats

    def forward(self, x, *arguments):
        *norm, residual = arguments
        values, tensors = self.values_of(x, *norm)
        out = self.empty(*x.shape, dtype=x.dtype)
        strides = (0, 0, 0, 0) if residual is None else residual.stride()[:4]
        params = ptxsim.Struct(
            f"<3Q5q8q{NORM_PARAMS}i4x", x, 0 if residual is None else residual, out, *x.shape, *x.stride()[:4], *strides, *values,
            DTYPES.index(x.dtype),
        )  # fmt: skip
        self._launch("fwd", params, tensors)
        self._assert_written(out)
        return out

    def backward(self, grad_out, x, *norm):
        values, tensors = self.values_of(x, *norm)
        dx = self.empty(*x.shape, dtype=x.dtype)
        given = [norm[i] for i in (1, 2, 6, 7)]
        found = [torch.empty(0) if t is None else self.empty(*t.shape) for t in given]
        params = ptxsim.Struct(
            f"<7Q5q8q{NORM_PARAMS}i?3x", grad_out, x, dx, *(0 if t is None else gradient for t, gradient in zip(given, found)),
            *x.shape, *grad_out.stride()[:4], *x.stride()[:4], *values, DTYPES.index(x.dtype), False,
        )  # fmt: skip
        self._launch("bwd", params, tensors)
        self._assert_written(dx, *found)
        return dx, *found

    def values_of(self, x, kind, weight, bias, groups, eps, scope, scale, shift, act, stats):
        """(the values of NormParams, the tensors that they point to)."""
        if kind == "group" and stats is None:
            stats = self.channel_stats(x)
        vectors = [None if t is None else t.float().contiguous() for t in (weight, bias, scale, shift, stats)]
        values = KINDS.index(kind), scope == "clip", act == "silu", groups, eps, *(0 if t is None else t for t in vectors)
        return values, vectors

    def _launch(self, direction, params, tensors):
        scratch = ptxsim.empty(max(4, launchers().call(f"norm_act_{direction}_scratch", params) // 4))
        self._call(f"launch_norm_act_{direction}", params, scratch, tuple(t for t in tensors if t is not None))

    def _call(self, function, params, scratch, tensors):
        self.reports += self.run(launchers(), function, params, scratch, STREAM, memory=tensors)
        assert launchers().streams <= {STREAM}

    def _assert_written(self, *outputs):
        if self.empty is ptxsim.empty:
            assert all(ptxsim.unwritten(t) == 0 for t in outputs if t.numel())
