"""The call of a linear layer with what stands around it: what it takes, and what of it is allowed."""

from dataclasses import dataclass

from torch import Tensor

from .. import checks
from ..call import Call, Described
from ..norm.call import Norm, NormCall, require_norm
from ..tensors import unit_stride

_X = "(B, T, H, W, C)"
_NO_NORM = Norm("none")


@dataclass(slots=True)
class LinearCall(Call):
    """norm_linear: gate * linear(norm(x) + pos_emb, weight, bias) + residual."""

    operator: str
    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    norm: Norm | None = None
    pos_emb: Tensor | None = None
    gate: Tensor | None = None
    residual: Tensor | None = None

    unsaved = (4,)

    def tensors(self):
        norm = (None, None, None, None) if self.norm is None else self.norm.tensors
        return self.x, self.weight, self.bias, self.gate, self.residual, self.pos_emb, *norm

    def holding(self, tensors):
        x, weight, bias, gate, residual, pos_emb, *norm = tensors
        norm = None if self.norm is None else self.norm.holding(norm)
        return LinearCall(self.operator, x, weight, bias, norm, pos_emb, gate, residual)

    def ready(self):
        x, weight = unit_stride(self.x), unit_stride(self.weight)
        residual = None if self.residual is None else unit_stride(self.residual)
        if x is self.x and weight is self.weight and residual is self.residual:
            return self
        return LinearCall(self.operator, x, weight, self.bias, self.norm, self.pos_emb, self.gate, residual)

    def core(self) -> NormCall:
        """The norm, if only that of nothing, of a tensor that is not there yet: the rest is the library's product."""
        B, T, H, W, C = self.x.shape
        image = Described((B, C, T, H, W), self.x.dtype, self.x.device, self.x.requires_grad)
        return NormCall("norm_act", image, self.norm or _NO_NORM)

    def check(self):
        op, x, weight = self.operator, self.x, self.weight
        checks.require_floating_tensor(op, "x", x, _X)
        B, T, H, W, C = x.shape
        checks.require_extents(op, "x", x, T=T, H=H, W=W, C=C)
        checks.require_like(op, "weight", weight, "x", x)
        if weight.dim() != 2 or weight.shape[1] != C or weight.shape[0] < 1:
            raise ValueError(f"{op}: weight has shape {tuple(weight.shape)}; expected (Co, C) with C = {C}")
        Co = weight.shape[0]
        if self.bias is not None:
            checks.require_parameter(op, "bias", self.bias, "x", x, "(Co,)", (Co,))
        if self.norm is not None:
            require_norm(op, self.norm, x, C)
        if self.pos_emb is not None:
            checks.require_parameter(op, "pos_emb", self.pos_emb, "x", x, "(T, C)", (T, C))
        if self.gate is not None:
            checks.require_parameter(op, "gate", self.gate, "x", x, "(B, Co)", (B, Co))
        if self.residual is not None:
            checks.require_like(op, "residual", self.residual, "x", x)
            checks.require_shape(op, "residual", self.residual, "(B, T, H, W, Co)", (B, T, H, W, Co))
