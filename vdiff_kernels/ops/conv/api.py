"""norm_act_conv and pseudo3d_conv: each makes its call."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..autograd import run
from ..norm.api import channel_stats, norm_act
from ..norm.call import Norm
from ..tensors import autocast
from .call import ConvCall, Pseudo3DCall
from .reference import epilogue


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
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """A convolution over space or time with the norm and activation before it, and what follows it, folded in.

    y = conv(act(norm(x))) + bias + temb; out = y, or y + residual, or with mix residual + (1 - mix) * y.

    Args:
        x: (B, Ci, T, H, W), float32, float64, float16 or bfloat16. Read in place where Ci has unit stride
            (channels_last_3d), else copied once.
        weight: (Co, Ci, 1, 3, 3) or (Co, Ci, 3, 1, 1), x's dtype; zero padding 1 after the activation, stride 1.
        bias: (Co,), x's dtype, or float32 beside a half x.
        norm: over the channels of x; None for none.
        act: None or "silu".
        temb: (B, Co) or (B, T, Co), x's dtype, or float32 beside a half x.
        residual: (B, Co, T, H, W), x's dtype.
        mix: (), (B,) or (B, T), any floating dtype: how much of the residual alone is kept (`AlphaBlender`). Needs residual.
        stats: (B, T, Ci, 2), the channel statistics of x (mean and biased variance over (H, W)), for a norm of kind "group".
            The value follows them; the gradient is that of the norm of x.
        return_stats: also return the channel statistics of out, (B, T, Co, 2) float32 (float64 for float64), a constant.
        backend: None (auto), "reference", "composed", "cpu", "cuda" or "triton".

    Returns out (B, Co, T, H, W) in x's dtype, channels_last_3d; or (out, stats). The fused backends save x, weight and the
    statistics for backward; the normalised operand is computed again.

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: the residual blocks of Ho et al. 2022 (arXiv 2204.03458) and diffusers' TemporalConvLayer, TemporalResnetBlock.
    """
    cast_x, weight, temb, cast_residual = autocast(x, weight, temb, residual)
    call = ConvCall("norm_act_conv", cast_x, weight, bias, norm, act, temb, cast_residual, mix, stats, return_stats)
    if cast_x is x and cast_residual is residual:
        return run(call, backend)
    call.check()
    return _under_autocast(call, x, residual, backend)


def _under_autocast(call: ConvCall, x: Tensor, residual: Tensor | None, backend: str | None):
    """As eager PyTorch: norm and activation in x's own dtype, the convolution in autocast's, the sum in the wider."""
    mix, return_stats = call.mix, call.return_stats
    call.residual, call.mix, call.return_stats = None, None, False
    if call.x is not x:
        if call.norm is not None:
            x = norm_act(x, call.norm, act=call.act, stats=call.stats, backend=backend)
        elif call.act is not None:
            x = F.silu(x)
        call.x, call.norm, call.act, call.stats = x.to(call.x.dtype), None, None, None
    out = epilogue(run(call, backend), residual=residual, mix=mix).contiguous(memory_format=torch.channels_last_3d)
    return (out, channel_stats(out, backend=backend)) if return_stats else out


def pseudo3d_conv(
    x: Tensor,
    w_spatial: Tensor,
    b_spatial: Tensor | None,
    w_temporal: Tensor,
    b_temporal: Tensor | None,
    *,
    backend: str | None = None,
) -> Tensor:
    """A 1x3x3 convolution, then a 3x1x1, rounded to x's dtype between.

    Args:
        x: (B, Ci, T, H, W), as in `norm_act_conv`.
        w_spatial: (Cm, Ci, 1, 3, 3); b_spatial: (Cm,) or None; w_temporal: (Co, Cm, 3, 1, 1); b_temporal: (Co,) or None.
        backend: None (auto), "reference", "composed", "cpu", "cuda" or "triton".

    Returns (B, Co, T, H, W) in x's dtype, channels_last_3d. The fused backends compose it of two norm_act_conv.

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: Singer et al. 2022 (Make-A-Video, arXiv 2209.14792), section 3.2.
    """
    x, w_spatial, w_temporal = autocast(x, w_spatial, w_temporal)
    return run(Pseudo3DCall("pseudo3d_conv", x, w_spatial, b_spatial, w_temporal, b_temporal), backend, _one_after_the_other)


def _one_after_the_other(call: Pseudo3DCall, backend: str) -> Tensor:
    y = run(ConvCall("norm_act_conv", call.x, call.w_spatial, call.b_spatial), backend, is_part=True)
    return run(ConvCall("norm_act_conv", y, call.w_temporal, call.b_temporal), backend, is_part=True)
