"""What a normalisation is, the `Norm` argument of the fused operators, and the calls of norm_act and of the statistics."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .. import checks
from ..call import Call
from ..tensors import acc_dtype, channels_innermost

KINDS = ("group", "layer", "rms")
SCOPES = ("frame", "clip")
ACTIVATIONS = (None, "silu")


@dataclass(frozen=True)
class Norm:
    """A normalisation over channels, folded into the operator it is given to.

    kind: "group" (needs groups), "layer" (each pixel over its channels) or "rms" (x * rsqrt(mean(x^2) + eps), each pixel).
    weight, bias: (C,) or None; x's dtype, or float32 beside a half x.
    scope: the pixels that a group's statistics run over: one "frame" (H, W) or the whole "clip" (T, H, W).
        Variance is biased. layer and rms have no use for it.
    scale, shift: (B, C) or None: the result becomes y * (1 + scale) + shift, as adaptive norms do.
    """

    kind: str
    weight: Tensor | None = None
    bias: Tensor | None = None
    groups: int | None = None
    eps: float = 1e-5
    scope: str = "frame"
    scale: Tensor | None = None
    shift: Tensor | None = None

    @classmethod
    def of(cls, module: nn.Module, *, scope: str = "frame", scale: Tensor | None = None, shift: Tensor | None = None) -> "Norm":
        """The Norm of an nn.GroupNorm, nn.LayerNorm or nn.RMSNorm over channels. Raises TypeError for any other module."""
        if isinstance(module, nn.GroupNorm):
            return cls("group", module.weight, module.bias, module.num_groups, module.eps, scope, scale, shift)
        if not isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            allowed = "nn.GroupNorm, nn.LayerNorm or nn.RMSNorm"
            raise TypeError(f"Norm.of: module is {checks.shown(module)}; expected {allowed}")
        if len(module.normalized_shape) != 1:
            raise ValueError(f"Norm.of: module has normalized_shape {module.normalized_shape}; expected (C,), channels alone")
        if isinstance(module, nn.LayerNorm):
            return cls("layer", module.weight, module.bias, None, module.eps, "frame", scale, shift)
        eps = torch.finfo(torch.float32).eps if module.eps is None else module.eps
        return cls("rms", module.weight, None, None, eps, "frame", scale, shift)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.weight, self.bias, self.scale, self.shift

    def holding(self, tensors: tuple[Tensor | None, ...]) -> "Norm":
        """The same normalisation with other tensors, in the order of `tensors`."""
        weight, bias, scale, shift = tensors
        return Norm(self.kind, weight, bias, self.groups, self.eps, self.scope, scale, shift)

    @property
    def is_by_pixel(self) -> bool:
        """Whether a pixel is normalised by itself, with the same weights in every clip, so that it needs no others."""
        return self.kind in ("layer", "rms") and self.scale is None and self.shift is None


@dataclass(slots=True)
class NormCall(Call):
    """norm_act: act(norm(x)) + residual."""

    operator: str
    x: Tensor  # (B, C, T, H, W)
    norm: Norm
    act: str | None = None
    residual: Tensor | None = None
    stats: Tensor | None = None

    unsaved = (1,)

    def tensors(self):
        return self.x, self.residual, *self.norm.tensors, self.stats

    def holding(self, tensors):
        x, residual, *norm, stats = tensors
        return NormCall(self.operator, x, self.norm.holding(norm), self.act, residual, stats)

    def ready(self):
        x, residual = channels_innermost(self.x), channels_innermost(self.residual)
        if x is self.x and residual is self.residual:
            return self
        return NormCall(self.operator, x, self.norm, self.act, residual, self.stats)

    def check(self):
        op, x = self.operator, self.x
        checks.require_floating_tensor(op, "x", x, "(B, C, T, H, W)")
        B, C, T = x.shape[:3]
        require_norm(op, self.norm, x, C)
        checks.require_choice(op, "act", self.act, ACTIVATIONS)
        if self.residual is not None:
            checks.require_like(op, "residual", self.residual, "x", x)
            checks.require_shape(op, "residual", self.residual, "(B, C, T, H, W)", tuple(x.shape))
        if self.stats is not None:
            require_stats(op, self.stats, self.norm, x, (B, T, C))


@dataclass(slots=True)
class StatsCall(Call):
    """channel_stats: what `norm_act_conv(..., return_stats=True)` gives of its result, of any x (B, C, T, H, W). A constant."""

    operator: str
    x: Tensor

    def tensors(self):
        return (self.x,)

    def holding(self, tensors):
        return StatsCall(self.operator, *tensors)

    def ready(self):
        return StatsCall(self.operator, channels_innermost(self.x))

    def check(self):
        checks.require_floating_tensor(self.operator, "x", self.x, "(B, C, T, H, W)")


# ---------------------------------------------------------------------------------------------------------------- checks


def require_norm(op: str, norm, x: Tensor, channels: int) -> None:
    """Raises unless norm is a Norm that fits x, whose batch is dimension 0."""
    if not isinstance(norm, Norm):
        raise TypeError(f"{op}: norm is {checks.shown(norm)}; expected a vdiff_kernels.Norm")
    checks.require_choice(op, "norm.kind", norm.kind, KINDS)
    checks.require_choice(op, "norm.scope", norm.scope, SCOPES)
    checks.require_eps(op, "norm.eps", norm.eps)
    if norm.kind == "group":
        checks.require_positive_int(op, "norm.groups", norm.groups)
        if channels % norm.groups != 0:
            raise ValueError(f"{op}: norm.groups is {norm.groups}; expected a divisor of C = {channels}")
    elif norm.groups is not None:
        raise ValueError(f"{op}: norm.groups is {checks.shown(norm.groups)}; expected None, as norm.kind is {norm.kind!r}")
    for name, value in (("weight", norm.weight), ("bias", norm.bias)):
        if value is not None:
            checks.require_parameter(op, f"norm.{name}", value, "x", x, "(C,)", (channels,))
    for name, value in (("scale", norm.scale), ("shift", norm.shift)):
        if value is not None:
            checks.require_parameter(op, f"norm.{name}", value, "x", x, "(B, C)", (x.shape[0], channels))


def require_stats(op: str, stats, norm: Norm | None, x: Tensor, letters_shape: tuple[int, int, int]) -> None:
    """Raises unless stats are the channel statistics (B, T, C, 2) of x and norm is the group norm that uses them."""
    checks.require_tensor(op, "stats", stats)
    if norm is None or norm.kind != "group":
        kind = None if norm is None else norm.kind
        raise ValueError(f"{op}: stats given with norm {kind!r}; expected a norm of kind 'group'")
    checks.require_device(op, "stats", stats, "x", x)
    if stats.dtype != acc_dtype(x.dtype):
        raise TypeError(f"{op}: stats has dtype {stats.dtype}; expected {acc_dtype(x.dtype)}")
    checks.require_shape(op, "stats", stats, "(B, T, C, 2)", (*letters_shape, 2))
    checks.require_no_grad(op, "stats", stats)
