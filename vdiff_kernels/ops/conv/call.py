"""Calls of the factorized convolutions: what they take, and what of it is allowed."""

from dataclasses import dataclass

from torch import Tensor

from .. import checks
from ..call import Call
from ..norm.call import ACTIVATIONS, Norm, require_norm, require_stats
from ..tensors import channels_innermost

_X = "(B, Ci, T, H, W)"
FEW_CHANNELS = 128
_KERNELS = {(1, 3, 3): "(Co, Ci, 1, 3, 3)", (3, 1, 1): "(Co, Ci, 3, 1, 1)"}


@dataclass(slots=True)
class ConvCall(Call):
    """norm_act_conv: a convolution over space or time, what goes before it and what follows."""

    operator: str
    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    norm: Norm | None = None
    act: str | None = None
    temb: Tensor | None = None
    residual: Tensor | None = None
    mix: Tensor | None = None
    stats: Tensor | None = None
    return_stats: bool = False

    unsaved = (4,)

    @property
    def kind(self) -> str:
        """Over what it convolves."""
        return "temporal" if self.weight.shape[3] == 1 else "spatial"

    @property
    def has_few_channels(self) -> bool:
        """Whether memory bounds it rather than its product."""
        return max(self.weight.shape[:2]) <= FEW_CHANNELS

    def tensors(self):
        norm = (None, None, None, None) if self.norm is None else self.norm.tensors
        return self.x, self.weight, self.bias, self.temb, self.residual, self.mix, *norm, self.stats

    def holding(self, tensors):
        x, weight, bias, temb, residual, mix, *norm, stats = tensors
        norm = None if self.norm is None else self.norm.holding(norm)
        return ConvCall(self.operator, x, weight, bias, norm, self.act, temb, residual, mix, stats, self.return_stats)

    def ready(self):
        x, residual = channels_innermost(self.x), channels_innermost(self.residual)
        if x is self.x and residual is self.residual:
            return self
        return ConvCall(
            self.operator, x, self.weight, self.bias, self.norm, self.act, self.temb, residual, self.mix, self.stats,
            self.return_stats,
        )  # fmt: skip

    def check(self):
        op, x = self.operator, self.x
        checks.require_floating_tensor(op, "x", x, _X)
        B, Ci, T, H, W = x.shape
        checks.require_extents(op, "x", x, Ci=Ci, T=T, H=H, W=W)
        Co = _require_weight(op, "weight", self.weight, x, Ci, tuple(_KERNELS))
        if self.bias is not None:
            checks.require_parameter(op, "bias", self.bias, "x", x, "(Co,)", (Co,))
        if self.norm is not None:
            require_norm(op, self.norm, x, Ci)
        checks.require_choice(op, "act", self.act, ACTIVATIONS)
        if self.temb is not None:
            checks.require_parameter(op, "temb", self.temb, "x", x, "(B, Co) or (B, T, Co)", (B, Co), (B, T, Co))
        if self.residual is not None:
            checks.require_like(op, "residual", self.residual, "x", x)
            checks.require_shape(op, "residual", self.residual, "(B, Co, T, H, W)", (B, Co, T, H, W))
        if self.mix is not None:
            checks.require_table(op, "mix", self.mix, "x", x)
            checks.require_shape(op, "mix", self.mix, "() or (B,) or (B, T)", (), (B,), (B, T))
            if self.residual is None:
                raise ValueError(f"{op}: mix is given without residual; expected both, as out = residual + (1 - mix) * y")
        if self.stats is not None:
            require_stats(op, self.stats, self.norm, x, (B, T, Ci))
        checks.require_bool(op, "return_stats", self.return_stats)


@dataclass(slots=True)
class Pseudo3DCall(Call):
    """pseudo3d_conv: a 1x3x3 convolution, then a 3x1x1, rounded to x's dtype between."""

    operator: str
    x: Tensor
    w_spatial: Tensor
    b_spatial: Tensor | None
    w_temporal: Tensor
    b_temporal: Tensor | None

    def tensors(self):
        return self.x, self.w_spatial, self.b_spatial, self.w_temporal, self.b_temporal

    def holding(self, tensors):
        return Pseudo3DCall(self.operator, *tensors)

    def core(self) -> ConvCall:
        """The first convolution. The second's x is of its kind."""
        return ConvCall("norm_act_conv", self.x, self.w_spatial, self.b_spatial)

    def check(self):
        op, x = self.operator, self.x
        checks.require_floating_tensor(op, "x", x, _X)
        _, Ci, T, H, W = x.shape
        checks.require_extents(op, "x", x, Ci=Ci, T=T, H=H, W=W)
        Cm = _require_weight(op, "w_spatial", self.w_spatial, x, Ci, ((1, 3, 3),))
        Co = _require_weight(op, "w_temporal", self.w_temporal, x, Cm, ((3, 1, 1),))
        biases = ("b_spatial", self.b_spatial, "(Cm,)", Cm), ("b_temporal", self.b_temporal, "(Co,)", Co)
        for name, value, letters, size in biases:
            if value is not None:
                checks.require_parameter(op, name, value, "x", x, letters, (size,))


def _require_weight(op: str, name: str, weight, x: Tensor, channels: int, kernels: tuple) -> int:
    """Returns Co."""
    checks.require_like(op, name, weight, "x", x)
    allowed = " or ".join(_KERNELS[kernel] for kernel in kernels)
    if weight.dim() != 5 or tuple(weight.shape[2:]) not in kernels or weight.shape[1] != channels or weight.shape[0] < 1:
        raise ValueError(f"{op}: {name} has shape {tuple(weight.shape)}; expected {allowed} with Ci = {channels}")
    return weight.shape[0]
