"""The definition of the pseudo-3D convolutions, in eager PyTorch. Every backend is held to it.

`compute_dtype` as in ops/norm/reference.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..norm.call import Norm
from ..norm.reference import activate, channel_stats, normalize
from ..tensors import acc_dtype


def norm_act_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: Norm | None = None,
    act: str | None = None,
    temb: Tensor | None = None,
    residual: Tensor | None = None,
    mix: Tensor | None = None,
    stats: Tensor | None = None,
    return_stats: bool = False,
    compute_dtype: torch.dtype | None = None,
):
    """y = conv(act(norm(x))) + bias + temb; out = y, y + residual, or residual + (1 - mix) * y.

    x: (B, Ci, T, H, W); weight: (Co, Ci, 1, 3, 3) or (Co, Ci, 3, 1, 1), zero padding 1 after the activation, stride 1;
    temb: (B, Co) or (B, T, Co); residual: (B, Co, T, H, W); mix: (), (B,) or (B, T); stats: (B, T, Ci, 2).
    Returns out (B, Co, T, H, W) in x's dtype, channels_last_3d; with return_stats (out, its channel statistics).
    """
    dtype = compute_dtype or acc_dtype(x.dtype)
    h = x.to(dtype)
    if norm is not None:
        h = normalize(h.movedim(1, -1), norm, stats).movedim(-1, 1)
    padding = tuple(size // 2 for size in weight.shape[2:])
    y = F.conv3d(activate(h, act), weight.to(dtype), None if bias is None else bias.to(dtype), padding=padding)
    y = epilogue(y, temb, None if residual is None else residual.to(dtype), mix)
    out = y.to(x.dtype).contiguous(memory_format=torch.channels_last_3d)
    return (out, channel_stats(out)) if return_stats else out


def epilogue(y: Tensor, temb: Tensor | None = None, residual: Tensor | None = None, mix: Tensor | None = None) -> Tensor:
    """What follows a convolution's y (B, Co, T, H, W), in y's dtype but for a sum with a wider residual."""
    if temb is not None:
        y = y + per_frame(temb.to(y.dtype), 2).movedim(-1, 1)[..., None, None]
    if mix is not None:
        y = (1 - per_frame(mix.to(acc_dtype(y.dtype)), 1).to(y.dtype))[:, None, :, None, None] * y
    return y if residual is None else residual + y


def per_frame(tensor: Tensor, trailing: int) -> Tensor:
    """(), (B,) or (B, T) with trailing 1, (B, Co) or (B, T, Co) with trailing 2: as (B or 1, T or 1, ...)."""
    while tensor.dim() < trailing + 1:
        tensor = tensor.unsqueeze(min(1, tensor.dim()))
    return tensor


def pseudo3d_conv(
    x: Tensor,
    w_spatial: Tensor,
    b_spatial: Tensor | None,
    w_temporal: Tensor,
    b_temporal: Tensor | None,
    *,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """1x3x3, then 3x1x1, rounded to x's dtype between: x (B, Ci, T, H, W), w_spatial (Cm, Ci, 1, 3, 3), w_temporal
    (Co, Cm, 3, 1, 1). Returns (B, Co, T, H, W), channels_last_3d.
    """
    y = norm_act_conv(x, w_spatial, b_spatial, compute_dtype=compute_dtype)
    return norm_act_conv(y, w_temporal, b_temporal, compute_dtype=compute_dtype)
