"""The one autograd rule of geglu, for every fused backend."""

import torch
from torch import Tensor

from ..checks import differentiable_once, unit_stride, wants_grad
from ..norm.autograd import like_parameter
from . import native

_KERNELS = {"cpu": native, "cuda": native}


def geglu(backend: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (M, C) to (M, E)."""
    x, weight = unit_stride(x), unit_stride(weight)
    if wants_grad(x, weight, bias):
        return _Geglu.apply(backend, x, weight, bias)
    return _KERNELS[backend].forward(x, weight, bias)


class _Geglu(torch.autograd.Function):
    """Saves x and weight; the projection is computed again."""

    @staticmethod
    def forward(ctx, backend, x, weight, bias):
        ctx.backend = backend
        ctx.save_for_backward(x, weight, bias)
        return _KERNELS[backend].forward(x, weight, bias)

    @staticmethod
    @differentiable_once
    def backward(ctx, grad_out):
        x, weight, bias = ctx.saved_tensors
        dx, dweight, dbias = _KERNELS[ctx.backend].backward(unit_stride(grad_out), x, weight, bias)
        return None, dx, dweight, like_parameter(dbias, bias)
