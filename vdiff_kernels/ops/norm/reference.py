"""The definition of normalisation, in eager PyTorch. Every backend is held to it.

`compute_dtype` is the dtype of the arithmetic: by default float32 for half types, float64 for float64. Error budgets pass the
input's own low precision, to learn what eager PyTorch makes of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tensors import acc_dtype
from .call import Norm


def channel_stats(x: Tensor, *, compute_dtype: torch.dtype | None = None) -> Tensor:
    """Mean and biased variance over (H, W): x (B, C, T, H, W) to (B, T, C, 2), float32 (float64 for float64)."""
    acc = acc_dtype(x.dtype)
    var, mean = torch.var_mean(x.detach().to(compute_dtype or acc), dim=(3, 4), correction=0)
    return torch.stack((mean, var), dim=-1).transpose(1, 2).contiguous().to(acc)


def normalize(x: Tensor, norm: Norm, stats: Tensor | None = None) -> Tensor:
    """norm(x), channels last: x (B, T, H, W, C). stats (B, T, C, 2) stand in for the group statistics of x.

    With stats the value follows them and the derivative follows x, of which they are the statistics.
    """
    C = x.shape[-1]
    weight, bias, scale, shift = (None if t is None else t.to(x.dtype) for t in norm.tensors)
    if norm.kind == "group" and stats is None:
        y = _group_norm(x, norm, weight, bias)
    elif norm.kind == "group":
        y = _group_norm_from_stats(x, norm, weight, bias, stats)
        if torch.is_grad_enabled():
            own = _group_norm(x, norm, weight, bias)
            y = y.detach() + (own - own.detach())  # own - own is exactly nothing, and has its derivative
    elif norm.kind == "layer":
        y = F.layer_norm(x, (C,), weight, bias, norm.eps)
    else:
        y = F.rms_norm(x, (C,), weight, norm.eps)
        y = y if bias is None else y + bias
    if scale is not None:
        y = y * (1 + scale[:, None, None, None, :])
    if shift is not None:
        y = y + shift[:, None, None, None, :]
    return y


def _group_norm(x, norm, weight, bias):
    frames = x.flatten(0, 1) if norm.scope == "frame" else x  # statistics never cross dimension 0
    # Contiguous, because PyTorch's group norm of channels-last memory is the less exact one.
    y = torch.group_norm(frames.movedim(-1, 1).contiguous(), norm.groups, weight, bias, norm.eps)
    return y.movedim(1, -1).reshape(x.shape)


def _group_norm_from_stats(x, norm, weight, bias, stats):
    mean, var = stats.unflatten(2, (norm.groups, -1)).unbind(-1)  # (B, T, G, C/G)
    over = (-1,) if norm.scope == "frame" else (1, -1)
    group_mean = mean.mean(over, keepdim=True)
    group_var = (var + (mean - group_mean) ** 2).mean(over, keepdim=True)
    centred = x.unflatten(-1, (norm.groups, -1)) - group_mean[:, :, None, None]  # (B, T, H, W, G, C/G)
    y = (centred * torch.rsqrt(group_var + norm.eps)[:, :, None, None]).to(x.dtype).flatten(-2)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def activate(x: Tensor, act: str | None) -> Tensor:
    return F.silu(x) if act == "silu" else x


def norm_act(
    x: Tensor,
    norm: Norm,
    *,
    act: str | None = None,
    residual: Tensor | None = None,
    stats: Tensor | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """act(norm(x)) + residual, for blocks that normalise after the convolution.

    x, residual: (B, C, T, H, W); stats: (B, T, C, 2). Returns x's shape and dtype in channels_last_3d.
    """
    dtype = compute_dtype or acc_dtype(x.dtype)
    y = activate(normalize(x.movedim(1, -1).to(dtype), norm, stats), act)
    if residual is not None:
        y = y + residual.movedim(1, -1).to(dtype)
    return y.to(x.dtype).contiguous().movedim(-1, 1)
