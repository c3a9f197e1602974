"""norm_act_conv and pseudo3d_conv: check the arguments once, choose the backend, call it."""

import torch
from torch import Tensor

from .. import checks
from ..backend import resolve
from ..library import acc_dtype
from ..norm.spec import ACTIVATIONS, Norm, require_norm, require_stats
from . import autograd, reference

_X = "(B, Ci, T, H, W)"
_KERNELS = {(1, 3, 3): "(Co, Ci, 1, 3, 3)", (3, 1, 1): "(Co, Ci, 3, 1, 1)"}


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
        backend: None (auto), "reference", "cpu", "cuda" or "triton".

    Returns out (B, Co, T, H, W) in x's dtype, channels_last_3d; or (out, stats). The fused backends save x, weight and the
    statistics for backward; the normalised operand is computed again.

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: the residual blocks of Ho et al. 2022 (arXiv 2204.03458) and diffusers' TemporalConvLayer, TemporalResnetBlock.
    """
    x, weight, temb, residual = checks.autocast(x, weight, temb, residual)
    _check_norm_act_conv(x, weight, bias, norm, act, temb, residual, mix, stats, return_stats)
    B, _, T = x.shape[:3]
    name = resolve(backend, "norm_act_conv", x)
    if name == "reference":
        with torch.autocast(x.device.type, enabled=False):
            return reference.norm_act_conv(
                x, weight, bias, norm=norm, act=act, temb=temb, residual=residual, mix=mix, stats=stats, return_stats=return_stats
            )
    if temb is not None:
        temb = reference.per_frame(temb.to(acc_dtype(x.dtype)), 2).expand(B, T, weight.shape[0])
    if mix is not None:
        mix = reference.per_frame(mix.to(acc_dtype(x.dtype)), 1).expand(B, T)
    residual = None if residual is None else residual.movedim(1, -1)
    out, out_stats = autograd.norm_act_conv(
        name, x.movedim(1, -1), weight, bias, norm, act, temb, residual, mix, stats, return_stats
    )
    out = out.movedim(-1, 1)
    return (out, out_stats) if return_stats else out


@checks.once
def _check_norm_act_conv(x, weight, bias, norm, act, temb, residual, mix, stats, return_stats) -> None:
    op = "norm_act_conv"
    checks.require_tensor(op, "x", x)
    checks.require_floating(op, "x", x)
    checks.require_rank(op, "x", x, _X)
    B, Ci, T, H, W = x.shape
    checks.require_extents(op, "x", x, Ci=Ci, T=T, H=H, W=W)
    Co = _require_weight(op, "weight", weight, x, Ci, tuple(_KERNELS))
    if bias is not None:
        checks.require_parameter(op, "bias", bias, "x", x, "(Co,)", (Co,))
    if norm is not None:
        require_norm(op, norm, x, Ci)
    checks.require_choice(op, "act", act, ACTIVATIONS)
    if temb is not None:
        checks.require_parameter(op, "temb", temb, "x", x, "(B, Co) or (B, T, Co)", (B, Co), (B, T, Co))
    if residual is not None:
        checks.require_like(op, "residual", residual, "x", x)
        checks.require_shape(op, "residual", residual, "(B, Co, T, H, W)", (B, Co, T, H, W))
    if mix is not None:
        _require_mix(op, mix, residual, x, B, T)
    if stats is not None:
        require_stats(op, stats, norm, x, (B, T, Ci))
    checks.require_bool(op, "return_stats", return_stats)


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
        backend: None (auto), "reference", "cpu", "cuda" or "triton".

    Returns (B, Co, T, H, W) in x's dtype, channels_last_3d. The fused backends compose it of two norm_act_conv.

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: Singer et al. 2022 (Make-A-Video, arXiv 2209.14792), section 3.2.
    """
    x, w_spatial, w_temporal = checks.autocast(x, w_spatial, w_temporal)
    _check_pseudo3d_conv(x, w_spatial, b_spatial, w_temporal, b_temporal)
    name = resolve(backend, "pseudo3d_conv", x)
    if name == "reference":
        with torch.autocast(x.device.type, enabled=False):
            return reference.pseudo3d_conv(x, w_spatial, b_spatial, w_temporal, b_temporal)
    y = norm_act_conv(x, w_spatial, b_spatial, backend=name)
    return norm_act_conv(y, w_temporal, b_temporal, backend=name)


@checks.once
def _check_pseudo3d_conv(x, w_spatial, b_spatial, w_temporal, b_temporal) -> None:
    op = "pseudo3d_conv"
    checks.require_tensor(op, "x", x)
    checks.require_floating(op, "x", x)
    checks.require_rank(op, "x", x, _X)
    _, Ci, T, H, W = x.shape
    checks.require_extents(op, "x", x, Ci=Ci, T=T, H=H, W=W)
    Cm = _require_weight(op, "w_spatial", w_spatial, x, Ci, ((1, 3, 3),))
    Co = _require_weight(op, "w_temporal", w_temporal, x, Cm, ((3, 1, 1),))
    for name, value, letters, size in (("b_spatial", b_spatial, "(Cm,)", Cm), ("b_temporal", b_temporal, "(Co,)", Co)):
        if value is not None:
            checks.require_parameter(op, name, value, "x", x, letters, (size,))


def _require_weight(op: str, name: str, weight, x: Tensor, channels: int, kernels: tuple) -> int:
    """Returns Co."""
    checks.require_like(op, name, weight, "x", x)
    allowed = " or ".join(_KERNELS[kernel] for kernel in kernels)
    if weight.dim() != 5 or tuple(weight.shape[2:]) not in kernels or weight.shape[1] != channels or weight.shape[0] < 1:
        raise ValueError(f"{op}: {name} has shape {tuple(weight.shape)}; expected {allowed} with Ci = {channels}")
    return weight.shape[0]


def _require_mix(op: str, mix, residual, x: Tensor, B: int, T: int) -> None:
    checks.require_table(op, "mix", mix, "x", x)
    checks.require_shape(op, "mix", mix, "() or (B,) or (B, T)", (), (B,), (B, T))
    if residual is None:
        raise ValueError(f"{op}: mix is given without residual; expected both, as out = residual + (1 - mix) * y")
