"""The one autograd rule of norm_act_conv, for every fused backend, channels last."""

import torch
from torch import Tensor

from ..checks import differentiable_once, unit_stride, wants_grad
from ..norm.autograd import like_parameter, norm_arguments, schema_order
from ..norm.spec import Norm
from . import native

_KERNELS = {"cpu": native, "cuda": native}


def norm_act_conv(
    backend: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    norm: Norm | None,
    act: str | None,
    temb: Tensor | None,
    residual: Tensor | None,
    mix: Tensor | None,
    stats: Tensor | None,
    return_stats: bool,
) -> tuple[Tensor, Tensor]:
    """(out, out_stats); x (B, T, H, W, Ci), temb (B, T, Co), residual and out (B, T, H, W, Co), mix (B, T)."""
    x = unit_stride(x)
    residual = None if residual is None else unit_stride(residual)
    tensors, constants = norm_arguments(backend, x, norm, act, stats)
    if wants_grad(x, weight, bias, temb, residual, mix, *tensors):
        return _NormActConv.apply(backend, constants, return_stats, x, weight, bias, temb, residual, mix, *tensors)
    arguments = schema_order(tensors, constants)
    return _KERNELS[backend].forward(x, weight, bias, *arguments, temb, residual, mix, return_stats)


class _NormActConv(torch.autograd.Function):
    """Saves x, weight, the small parameters and, for a group norm, the channel statistics; not the normalised operand."""

    @staticmethod
    def forward(ctx, backend, constants, return_stats, x, weight, bias, temb, residual, mix, *tensors):
        ctx.call = backend, constants
        ctx.save_for_backward(x, weight, bias, temb, mix, *tensors)
        arguments = schema_order(tensors, constants)
        out, stats = _KERNELS[backend].forward(x, weight, bias, *arguments, temb, residual, mix, return_stats)
        ctx.mark_non_differentiable(stats)
        return out, stats

    @staticmethod
    @differentiable_once
    def backward(ctx, grad_out, _grad_stats):
        backend, constants = ctx.call
        x, weight, bias, temb, mix, *tensors = ctx.saved_tensors
        need_x, need_weight, _, _, need_residual, need_mix, *need_norm = ctx.needs_input_grad[3:]
        need_x = need_x or any(need_norm)
        grad_out = unit_stride(grad_out)
        arguments = schema_order(tensors, constants)
        dx, dweight, dbias, *dnorm, dtemb, dmix = _KERNELS[backend].backward(
            grad_out, x, weight, bias, *arguments, temb, mix, need_x, need_weight, need_mix
        )
        return (
            None, None, None,
            dx if need_x else None,
            dweight if need_weight else None,
            like_parameter(dbias, bias),
            like_parameter(dtemb, temb),
            grad_out if need_residual else None,
            dmix if need_mix else None,
            *(like_parameter(grad, tensor) if need_x else None for grad, tensor in zip(dnorm, tensors)),
            None,
        )  # fmt: skip
