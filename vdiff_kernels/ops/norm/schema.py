"""Norms in the compiled library: schemas, fake kernels, and the calls taken apart."""

from torch import Tensor

from ..schema import KINDS, Kernels, contiguous, define, defined, named, shape_of, sums
from ..tensors import like_parameter, unit_stride
from .call import Norm, NormCall, StatsCall

# How a Norm travels through a schema. kind "none" normalises nothing; "group" computes stats where none are given.
NORM = (
    "str norm_kind, Tensor? norm_weight, Tensor? norm_bias, int norm_groups, float norm_eps, str norm_scope, "
    "Tensor? norm_scale, Tensor? norm_shift, str act, Tensor? stats"
)
_NO_NORM = Norm("none")

# stats (B, T, C, 2), acc: mean and biased variance over (H, W) of each frame's channel. Every group norm, whatever its groups
# and scope, follows from them.


@define("channel_stats", "Tensor x", "Tensor")
def _(x):
    return sums(x, (x.shape[0], x.shape[1], x.shape[4], 2))


@define("norm_act", f"Tensor x, {NORM}, Tensor? residual", "Tensor")
def _(x, kind, weight, bias, groups, eps, scope, scale, shift, act, stats, residual):
    return contiguous(x)


# dnorm_weight, dnorm_bias (C,), dscale, dshift (B, C): acc; absent where the argument is.
@define(
    "norm_act_backward",
    f"Tensor grad_out, Tensor x, {NORM}",
    "(Tensor dx, Tensor dnorm_weight, Tensor dnorm_bias, Tensor dscale, Tensor dshift)",
)
def _(grad_out, x, kind, weight, bias, groups, eps, scope, scale, shift, act, stats):
    return contiguous(x), *(sums(x, shape_of(t)) for t in (weight, bias, scale, shift))


# --------------------------------------------------------------------------------------------- calls, taken apart and served


def norm_arguments(norm: Norm | None, act: str | None, stats: Tensor | None) -> tuple:
    """The schemas' NORM."""
    norm = _NO_NORM if norm is None else norm
    return (
        norm.kind, norm.weight, norm.bias, norm.groups or 0, float(norm.eps), norm.scope, norm.scale, norm.shift, act or "none",
        stats,
    )  # fmt: skip


def kept_stats(channel_stats, x: Tensor, norm: Norm | None, stats: Tensor | None, save: bool) -> Tensor | None:
    """The channel statistics of x (B, T, H, W, C): those given, or, where backward is to have them, those that the norm needs."""
    if stats is not None or not save or norm is None or norm.kind != "group":
        return stats
    return channel_stats(x)


def stats_kernels(channel_stats, schemas=()) -> Kernels:
    """channel_stats by its operator."""

    def run(call: StatsCall, save: bool):
        return channel_stats(call.ready().x.detach().movedim(1, -1)), ()

    return Kernels(run, None, schemas)


def norm_kernels(channel_stats, forward, backward, schemas=()) -> Kernels:
    """norm_act by its operators."""

    def run(call: NormCall, save: bool):
        x = call.x.movedim(1, -1)  # (B, T, H, W, C)
        stats = kept_stats(channel_stats, x, call.norm, call.stats, save)
        residual = None if call.residual is None else call.residual.movedim(1, -1)
        out = forward(x, *norm_arguments(call.norm, call.act, stats), residual)
        return out.movedim(-1, 1), (stats,)

    def differentiate(call: NormCall, saved, grad_out, needs):
        (stats,) = saved
        grad_out = unit_stride(grad_out.movedim(1, -1))
        dx, *found = backward(grad_out, call.x.movedim(1, -1), *norm_arguments(call.norm, call.act, stats))
        dnorm = map(like_parameter, found, call.norm.tensors)
        return dx.movedim(-1, 1), grad_out.movedim(-1, 1) if needs[1] else None, *dnorm, None

    return Kernels(run, differentiate, schemas)


def _served(kind: str) -> dict[str, Kernels]:
    channel_stats, *norm_act = defined(kind, *(names := ("channel_stats", "norm_act", "norm_act_backward")))
    schemas = tuple(named(name, kind) for name in names)
    return {
        "channel_stats": stats_kernels(channel_stats, schemas[:1]),
        "norm_act": norm_kernels(channel_stats, *norm_act, schemas[1:]),
    }


NATIVE, TRITON = map(_served, KINDS)
