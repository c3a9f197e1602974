"""The one autograd rule of norm_act, for every fused backend, channels last; and how a Norm travels to a kernel."""

import torch
from torch import Tensor

from ..checks import differentiable_once, unit_stride, wants_grad
from . import native
from .spec import Norm

_KERNELS = {"cpu": native, "cuda": native}

NO_NORM = Norm("none")


def norm_arguments(backend: str, x: Tensor, norm: Norm | None, act: str | None, stats: Tensor | None) -> tuple:
    """(tensors, constants) of a norm of x (B, T, H, W, C); group statistics are computed where none are given."""
    norm = NO_NORM if norm is None else norm
    if norm.kind == "group" and stats is None:
        stats = _KERNELS[backend].channel_stats(x.detach())
    constants = (norm.kind, norm.groups or 0, float(norm.eps), norm.scope, act or "none")
    return (*norm.tensors, stats), constants


def schema_order(tensors: tuple, constants: tuple) -> tuple:
    """The ten arguments of a norm, as the schema has them."""
    weight, bias, scale, shift, stats = tensors
    kind, groups, eps, scope, act = constants
    return kind, weight, bias, groups, eps, scope, scale, shift, act, stats


def like_parameter(grad: Tensor, parameter: Tensor | None) -> Tensor | None:
    """A summed gradient in its parameter's dtype; None for a parameter that was not given."""
    return None if parameter is None else grad.to(parameter.dtype)


def norm_act(backend: str, x: Tensor, norm: Norm, act=None, residual: Tensor | None = None, stats=None) -> Tensor:
    """act(norm(x)) + residual; x, residual (B, T, H, W, C)."""
    x = unit_stride(x)
    residual = None if residual is None else unit_stride(residual)
    tensors, constants = norm_arguments(backend, x, norm, act, stats)
    if wants_grad(x, residual, *norm.tensors):
        return _NormAct.apply(backend, constants, x, residual, *tensors)
    return _KERNELS[backend].forward(x, *schema_order(tensors, constants), residual)


class _NormAct(torch.autograd.Function):
    """Saves x, the norm's parameters and, for a group norm, the channel statistics (B, T, C, 2)."""

    @staticmethod
    def forward(ctx, backend, constants, x, residual, *tensors):
        ctx.call = backend, constants
        ctx.save_for_backward(x, *tensors)
        return _KERNELS[backend].forward(x, *schema_order(tensors, constants), residual)

    @staticmethod
    @differentiable_once
    def backward(ctx, grad_out):
        backend, constants = ctx.call
        x, *tensors = ctx.saved_tensors
        grad_out = unit_stride(grad_out)
        dx, *sums = _KERNELS[backend].backward(grad_out, x, *schema_order(tensors, constants))
        dparameters = [like_parameter(grad, parameter) for grad, parameter in zip(sums, tensors)]
        return None, None, dx, grad_out if ctx.needs_input_grad[3] else None, *dparameters, None
