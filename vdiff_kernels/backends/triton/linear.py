"""gate * linear(norm(x) + pos_emb) + residual, forward and backward: x (B, T, H, W, C), weight (Co, C).

Forward is one product (product.py): no normalised x is written, and nothing is read again for what follows. Backward, with g the
incoming gradient times gate:

    dh = g weight                     then the norm's own backward
    dweight = g^T h, dbias = sum g    h = norm(x) + pos_emb, computed again
    dgate = sum grad_out * (h weight^T + bias)

The products of backward, which have nothing to fold in, are PyTorch's.
"""

import torch

from ...ops.schema import absent
from ...ops.tensors import acc_dtype
from .norm import folded
from .norm_act import applied
from .norm_act_backward import norm_act_backward
from .product import product


def norm_linear(
    x, weight, bias, kind, norm_weight, norm_bias, groups, eps, scope, scale, shift, act, stats, pos_emb, gate, residual
):  # fmt: skip
    B, T = x.shape[:2]
    norm = folded(x, kind, norm_weight, norm_bias, groups, eps, scope, scale, shift, act, stats)
    gate = None if gate is None else gate[:, None].expand(B, T, gate.shape[1])
    pos_emb = None if pos_emb is None else pos_emb.contiguous()
    return product(x, weight[:, None], norm, pos_emb=pos_emb, bias=bias, gate=gate, residual=residual)[0]


def norm_linear_backward(
    grad_out, x, weight, bias, kind, norm_weight, norm_bias, groups, eps, scope, scale, shift, act, stats, pos_emb, gate,
    need_x, need_weight,
):  # fmt: skip
    acc = acc_dtype(x.dtype)
    norm_arguments = kind, norm_weight, norm_bias, groups, eps, scope, scale, shift, act, stats
    dx, dweight, dbias, dgate, dpos_emb, *dnorm = (absent(x) for _ in range(9))  # no two are one
    norm = folded(x, *norm_arguments)
    rows = grad_out if gate is None else (grad_out * gate[:, None, None, None]).to(x.dtype)
    rows = rows.flatten(0, 3)
    if need_weight or gate is not None:
        h = applied(x, norm)
        h = h if pos_emb is None else (h + pos_emb[:, None, None]).to(x.dtype)
    if need_weight:
        dweight = rows.T @ h.flatten(0, 3)
    if bias is not None:
        dbias = rows.sum(0, dtype=acc)
    if gate is not None:
        y = torch.nn.functional.linear(h, weight, None if bias is None else bias.to(x.dtype))
        dgate = (grad_out * y).sum((1, 2, 3), dtype=acc)
    if need_x:
        dx = (rows @ weight).view(x.shape)
        if pos_emb is not None:
            dpos_emb = dx.sum((0, 2, 3), dtype=acc)
        if not norm.is_nothing:
            dx, *dnorm = norm_act_backward(dx, x, *norm_arguments)
    return dx, dweight, dbias, dgate, dpos_emb, *dnorm
