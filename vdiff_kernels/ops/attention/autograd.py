"""The one autograd rule of attention, for every fused backend; backward runs on forward's backend.

An autograd.Function around plain operators, rather than `register_autograd` on them: 22 us a forward call on tiny input
against 52, forward and backward 121 against 180, where the bare operator takes 7 (benchmarks/call_overhead.py). Where nothing
requires grad, the operator is called bare.
"""

import torch
from torch import Tensor

from ..checks import differentiable_once, unit_stride, wants_grad
from . import native

_KERNELS = {"cpu": native, "cuda": native}


def attention(kind: str, backend: str, q: Tensor, k: Tensor, v: Tensor, bias, rel_bias, options: tuple) -> Tensor:
    """Attention of kind "temporal" or "spatial". options: the operator's (constants, tensors) from rel_bias to return_lse."""
    constants, tensors = options
    if wants_grad(q, k, v, bias, rel_bias):
        return _Attention.apply(kind, backend, constants, q, k, v, bias, rel_bias, *tensors)
    return _KERNELS[backend].forward[kind](q, k, v, bias, rel_bias, *constants, *tensors, False)[0]


def attention_packed(kind: str, backend: str, qkv: Tensor, bias, rel_bias, options: tuple) -> Tensor:
    """The same with q, k and v as the slices of one qkv (B, T, H, W, 3, N, D), whose gradient is written as one tensor."""
    constants, tensors = options
    if wants_grad(qkv, bias, rel_bias):
        return _Attention.apply(kind, backend, constants, qkv, None, None, bias, rel_bias, *tensors)
    return _KERNELS[backend].forward[kind](*qkv.unbind(4), bias, rel_bias, *constants, *tensors, False)[0]


class _Attention(torch.autograd.Function):
    """Saves q, k, v (or qkv), the biases and what else the backend's backward needs: out, the log-sum-exp (B, T, H, W, N)."""

    @staticmethod
    def forward(ctx, kind, backend, constants, q, k, v, bias, rel_bias, *tensors):
        rows = q.unbind(4) if k is None else (q, k, v)
        need_out, need_lse = _KERNELS[backend].backward_needs(kind, *rows[:2])
        out, lse = _KERNELS[backend].forward[kind](*rows, bias, rel_bias, *constants, *tensors, need_lse)
        ctx.call = kind, backend, constants
        ctx.save_for_backward(q, k, v, out if need_out else None, lse if need_lse else None, bias, rel_bias, *tensors)
        return out

    @staticmethod
    @differentiable_once
    def backward(ctx, grad_out):
        kind, backend, constants = ctx.call
        q, k, v, out, lse, bias, rel_bias, *tensors = ctx.saved_tensors
        packed = k is None
        rows = q.unbind(4) if packed else (q, k, v)
        table = rel_bias if bias is None else bias
        need_bias_grad = ctx.needs_input_grad[6] or ctx.needs_input_grad[7]
        dq, dk, dv, dtable = _KERNELS[backend].backward[kind](
            unit_stride(grad_out), *rows, out, lse, bias, rel_bias, *constants, *tensors, packed, need_bias_grad
        )
        if packed:
            dk = dv = None
        dtable = dtable.to(table.dtype) if need_bias_grad else None
        dbias, drel_bias = (dtable, None) if rel_bias is None else (None, dtable)
        return None, None, None, dq, dk, dv, dbias, drel_bias, *[None] * len(tensors)
