"""The factorized convolutions, forward and backward: x (B, T, H, W, C), weight (N, C, 1, 3, 3) or (N, C, 3, 1, 1).

Each is a product of K = 9 C or 3 C (product.py) that reads its taps in place. The norm and activation are applied as the product
reads, or once before it, whichever costs less. The gradient of x is the same product with the weight turned around, then that of
the norm; that of the weight is summed in splits (weight_gradient.py) from the activation, which is computed again.

A 1x3x3 of many channels in half precision goes to PyTorch's library between two passes of ours: tensor cores bound it, the passes
take a fifth of its time, and the library's product is the better one. In float32 it would round to 10 bits.
"""

import torch
import torch.nn.functional as F

from ...ops.checks import HALF
from ...ops.conv.call import FEW_CHANNELS
from ...ops.schema import absent
from ...ops.tensors import unit_stride
from .channel_stats import channel_stats
from .norm import folded
from .norm_act import applied
from .norm_act_backward import norm_act_backward
from .product import finished, inner_product, pays_on_load, product
from .weight_gradient import weight_gradient


def norm_act_conv(
    x, weight, bias, kind, norm_weight, norm_bias, groups, eps, scope, scale, shift, act, stats, temb, residual, mix, return_stats
):  # fmt: skip
    B, T = x.shape[:2]
    N = weight.shape[0]
    norm = folded(x, kind, norm_weight, norm_bias, groups, eps, scope, scale, shift, act, stats)
    gate = None if mix is None else (1 - mix)[..., None].expand(B, T, N)
    more = {"bias": bias, "temb": temb, "gate": gate, "residual": residual, "return_stats": return_stats}
    if is_librarys(x, weight):
        out, out_stats = finished(_library_conv(applied(x, norm), weight), **more)
    elif pays_on_load(norm, weight[0, 0].numel(), N):
        out, out_stats = product(x, by_tap(weight), norm, **more)
    else:
        out, out_stats = product(applied(x, norm), by_tap(weight), **more)
    return out, absent(x) if out_stats is None else out_stats


def norm_act_conv_backward(
    grad_out, x, weight, bias, kind, norm_weight, norm_bias, groups, eps, scope, scale, shift, act, stats, temb, mix,
    need_x, need_weight, need_mix,
):  # fmt: skip
    norm_arguments = kind, norm_weight, norm_bias, groups, eps, scope, scale, shift, act, stats
    dx, dweight, dmix, dtemb, dbias, *dnorm = (absent(x) for _ in range(9))  # no two are one
    norm = folded(x, *norm_arguments)
    grad = grad_out if mix is None else (grad_out * (1 - mix)[:, :, None, None, None]).to(x.dtype)
    if bias is not None or temb is not None:
        frames = channel_stats(grad)[..., 0] * (x.shape[2] * x.shape[3])  # (B, T, N)
        dtemb = absent(x) if temb is None else frames
        dbias = absent(x) if bias is None else frames.flatten(0, 1).sum(0)
    if need_mix:
        dmix = -inner_product(x, by_tap(weight), grad_out, norm, bias=bias, temb=temb)
    if is_librarys(x, weight):
        dh, dweight = _library_gradients(grad, applied(x, norm), weight, need_x, need_weight)
    else:
        if need_weight:
            dweight = of_weight(weight_gradient(grad, applied(x, norm), weight[0, 0].numel()), weight)
        if need_x:
            dh, _ = product(grad, by_tap(weight.transpose(0, 1).flip(2, 3, 4)))
    if need_x:
        dx, *dnorm = (dh, *dnorm) if norm.is_nothing else norm_act_backward(dh, x, *norm_arguments)
    return dx, dweight, dbias, *dnorm, dtemb, dmix


def by_tap(weight):
    """(N, C, 1, 3, 3) or (N, C, 3, 1, 1) as (N, taps, C): a view of channels_last_3d, else a copy."""
    return weight.movedim(1, -1).flatten(1, 3).contiguous()


def of_weight(gradient, weight):
    """(N, taps, C) in the weight's shape and dtype."""
    return gradient.unflatten(1, weight.shape[2:]).movedim(-1, 1).to(weight.dtype, memory_format=torch.contiguous_format)


def is_librarys(x, weight) -> bool:
    """Whether PyTorch's library makes the product."""
    return weight.shape[3] == 3 and x.dtype in HALF and max(weight.shape[:2]) > FEW_CHANNELS


def _library_conv(h, weight):
    frames = h.flatten(0, 1).movedim(-1, 1)  # (B * T, C, H, W), channels_last
    y = F.conv2d(frames, weight.squeeze(2), padding=1).movedim(1, -1)
    return unit_stride(y).unflatten(0, h.shape[:2])


def _library_gradients(grad, h, weight, need_x, need_weight):
    """(dh, dweight), each where it is needed."""
    grad_frames, frames = (t.flatten(0, 1).movedim(-1, 1) for t in (grad, h))
    dh, dweight, _ = torch.ops.aten.convolution_backward(
        grad_frames, frames, weight.squeeze(2), None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (need_x, need_weight, False)
    )
    dh = unit_stride(dh.movedim(1, -1)).unflatten(0, h.shape[:2]) if need_x else None
    return dh, dweight.unsqueeze(2).contiguous() if need_weight else absent(h)
