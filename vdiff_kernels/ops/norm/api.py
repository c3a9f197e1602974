"""norm_act: check the arguments once, choose the backend, call it."""

import torch
from torch import Tensor

from .. import checks
from ..backend import resolve
from . import autograd, reference
from .spec import ACTIVATIONS, Norm, require_norm, require_stats


def norm_act(
    x: Tensor,
    norm: Norm,
    *,
    act: str | None = None,
    residual: Tensor | None = None,
    stats: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """act(norm(x)) + residual, for blocks that normalise after the convolution.

    Args:
        x: (B, C, T, H, W), float32, float64, float16 or bfloat16. Read in place where C has unit stride
            (channels_last_3d), else copied once.
        norm: over the channels of x.
        act: None or "silu".
        residual: (B, C, T, H, W), x's dtype; added last.
        stats: (B, T, C, 2), the channel statistics of x, as `norm_act_conv(..., return_stats=True)` gives them; for a norm of
            kind "group". The value follows them; the gradient is that of the norm of x.
        backend: None (auto), "reference", "cpu", "cuda" or "triton".

    Returns (B, C, T, H, W) in x's dtype, channels_last_3d. The fused backends save x and the statistics for backward.

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: Wu and He 2018 (group), Ba et al. 2016 (layer), Zhang and Sennrich 2019 (rms).
    """
    x, residual = checks.autocast(x, residual)
    _check_norm_act(x, norm, act, residual, stats)
    name = resolve(backend, "norm_act", x)
    if name == "reference":
        with torch.autocast(x.device.type, enabled=False):
            return reference.norm_act(x, norm, act=act, residual=residual, stats=stats)
    residual = None if residual is None else residual.movedim(1, -1)
    return autograd.norm_act(name, x.movedim(1, -1), norm, act, residual, stats).movedim(-1, 1)


@checks.once
def _check_norm_act(x, norm, act, residual, stats) -> None:
    op = "norm_act"
    checks.require_tensor(op, "x", x)
    checks.require_floating(op, "x", x)
    checks.require_rank(op, "x", x, "(B, C, T, H, W)")
    B, C, T = x.shape[:3]
    require_norm(op, norm, x, C)
    checks.require_choice(op, "act", act, ACTIVATIONS)
    if residual is not None:
        checks.require_like(op, "residual", residual, "x", x)
        checks.require_shape(op, "residual", residual, "(B, C, T, H, W)", tuple(x.shape))
    if stats is not None:
        require_stats(op, stats, norm, x, (B, T, C))
