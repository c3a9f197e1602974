"""The call of the gated feed-forward projection: what it takes, and what of it is allowed."""

from dataclasses import dataclass

from torch import Tensor

from .. import checks
from ..call import Call
from ..tensors import unit_stride


@dataclass(slots=True)
class GegluCall(Call):
    """geglu: a * gelu(b), [a | b] = linear(x, weight, bias)."""

    operator: str
    x: Tensor  # (..., C)
    weight: Tensor
    bias: Tensor | None

    def tensors(self):
        return self.x, self.weight, self.bias

    def holding(self, tensors):
        return GegluCall(self.operator, *tensors)

    def ready(self):
        """With an x that is one matrix (M, C) in another shape."""
        x = self.x
        if x.dim() != 2 and not x.is_contiguous():
            x = x.reshape(-1, x.shape[-1]).view(x.shape)
        x, weight = unit_stride(x), unit_stride(self.weight)
        return self if x is self.x and weight is self.weight else GegluCall(self.operator, x, weight, self.bias)

    def check(self):
        op, x, weight = self.operator, self.x, self.weight
        checks.require_floating_tensor(op, "x", x)
        if x.dim() < 1:
            raise ValueError(f"{op}: x has shape (); expected at least 1 dimension (..., C)")
        checks.require_extents(op, "x", x, C=x.shape[-1])
        checks.require_like(op, "weight", weight, "x", x)
        if weight.dim() != 2 or weight.shape[0] % 2 != 0 or weight.shape[0] < 2 or weight.shape[1] != x.shape[-1]:
            raise ValueError(f"{op}: weight has shape {tuple(weight.shape)}; expected (2E, C) with C = {x.shape[-1]}")
        if self.bias is not None:
            checks.require_parameter(op, "bias", self.bias, "x", x, "(2E,)", (weight.shape[0],))
