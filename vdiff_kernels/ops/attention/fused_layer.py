"""The attention layers of the fused backends: whole on the CPU, elsewhere composed of norm_act, linear, attention and linear."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import differentiable_once, unit_stride, wants_grad
from ..norm.autograd import like_parameter, norm_act
from ..norm.spec import Norm
from . import native
from .autograd import attention_packed

MAX_TABLE = 1 << 18  # Entries of a bias whose gradient the whole layer sums: each of its tasks has a table of its own.


def layer(kind, backend, x, w_qkv, b_qkv, w_out, b_out, bias, rel_bias, options, *, num_heads, norm, pos_emb, gate, residual):
    """gate * linear(attention(linear(norm(x) + pos_emb))) + residual on checked arguments; kind as in `attention_packed`."""
    table = bias if rel_bias is None else rel_bias
    whole = backend == "cpu" and gate is None and not (wants_grad(table) and table.numel() > MAX_TABLE)
    with torch.autocast(x.device.type, enabled=False):
        if norm is not None and not (whole and _is_by_pixel(norm)):
            x, norm = norm_act(backend, x, norm), None
        if whole:
            return _whole(kind, x, w_qkv, b_qkv, w_out, b_out, num_heads, norm, pos_emb, residual, bias, rel_bias, options)
        return _composed(
            kind, backend, x, w_qkv, b_qkv, w_out, b_out, num_heads, pos_emb, gate, residual, bias, rel_bias, options
        )


def _is_by_pixel(norm: Norm) -> bool:
    """Whether a pixel is normalised by itself, with the same weights in every clip, so that a block of rows needs no others."""
    return norm.kind in ("layer", "rms") and norm.scale is None and norm.shift is None


def _composed(
    kind, backend, h, w_qkv, b_qkv, w_out, b_out, num_heads, pos_emb, gate, residual, bias, rel_bias, options
) -> Tensor:  # fmt: skip
    if pos_emb is not None:
        h = h + pos_emb.to(h.dtype)[:, None, None, :]
    # No chunk and no concatenation stands between projection and kernel, in either direction.
    qkv = F.linear(h, w_qkv, b_qkv).unflatten(-1, (3, num_heads, -1))  # (B, T, H, W, 3, N, D)
    out = attention_packed(kind, backend, qkv, bias, rel_bias, options)
    out = F.linear(out.flatten(-2), w_out, b_out)
    if gate is not None:
        gate = gate.to(out.dtype)[:, None, None, None, :]  # (B, 1, 1, 1, Co)
        return gate * out if residual is None else torch.addcmul(residual, gate, out)
    return out if residual is None else out + residual


def _whole(kind, x, w_qkv, b_qkv, w_out, b_out, num_heads, norm, pos_emb, residual, bias, rel_bias, options) -> Tensor:
    residual_is_x = residual is x
    x = unit_stride(x)
    residual = None if residual is None or residual_is_x else unit_stride(residual)
    norm_kind, norm_weight, norm_bias, eps = "none", None, None, 0.0
    if norm is not None:
        norm_kind, norm_weight, norm_bias, eps = norm.kind, norm.weight, norm.bias, float(norm.eps)
    constants, masks = options
    call = kind, num_heads, norm_kind, eps, constants, residual_is_x
    tensors = x, residual, w_qkv, b_qkv, w_out, b_out, norm_weight, norm_bias, pos_emb, bias, rel_bias
    if wants_grad(*tensors):
        return _Layer.apply(call, *tensors, *masks)
    return _forward(call, *tensors, *masks)


def _forward(call, x, residual, w_qkv, b_qkv, w_out, b_out, norm_weight, norm_bias, pos_emb, bias, rel_bias, *masks) -> Tensor:
    kind, num_heads, norm_kind, eps, constants, residual_is_x = call
    return native.layer_forward[kind](
        x, w_qkv, b_qkv, w_out, b_out, num_heads, norm_kind, norm_weight, norm_bias, eps, pos_emb,
        x if residual_is_x else residual, bias, rel_bias, *constants, *masks,
    )  # fmt: skip


class _Layer(torch.autograd.Function):
    """Saves x, the weights and the bias: nothing that the layer computes."""

    @staticmethod
    def forward(ctx, call, x, residual, *tensors):
        ctx.call = call
        ctx.save_for_backward(x, *tensors)
        return _forward(call, x, residual, *tensors)

    @staticmethod
    @differentiable_once
    def backward(ctx, grad_out):
        kind, num_heads, norm_kind, eps, constants, residual_is_x = ctx.call
        x, w_qkv, b_qkv, w_out, b_out, norm_weight, norm_bias, pos_emb, bias, rel_bias, *masks = ctx.saved_tensors
        need_bias_grad = ctx.needs_input_grad[10] or ctx.needs_input_grad[11]
        dx, *sums, dtable = native.layer_backward[kind](
            unit_stride(grad_out), x, w_qkv, b_qkv, w_out, b_out, num_heads, norm_kind, norm_weight, norm_bias, eps, pos_emb,
            bias, rel_bias, *constants, *masks, residual_is_x, need_bias_grad,
        )  # fmt: skip
        parameters = w_qkv, b_qkv, w_out, b_out, norm_weight, norm_bias, pos_emb
        gradients = [like_parameter(gradient, parameter) for gradient, parameter in zip(sums, parameters)]
        table = rel_bias if bias is None else bias
        dtable = dtable.to(table.dtype) if need_bias_grad else None
        dbias, drel_bias = (dtable, None) if rel_bias is None else (None, dtable)
        dresidual = grad_out if ctx.needs_input_grad[2] else None
        return None, dx, dresidual, *gradients, dbias, drel_bias, *[None] * len(masks)
