"""norm_act and channel_stats: each makes its call."""

from torch import Tensor

from ..autograd import run
from ..tensors import autocast_dtype
from .call import Norm, NormCall, StatsCall


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
        backend: None (auto), "reference", "composed", "cpu", "cuda" or "triton".

    Returns (B, C, T, H, W) in x's dtype, channels_last_3d. The fused backends save x and the statistics for backward.

    Raises ValueError or TypeError, naming the argument, before anything runs.
    Source: Wu and He 2018 (group), Ba et al. 2016 (layer), Zhang and Sennrich 2019 (rms).
    """
    if residual is None or autocast_dtype(x) is None:
        return run(NormCall("norm_act", x, norm, act, residual, stats), backend)
    # As eager PyTorch under autocast: the norm in x's own dtype, the sum in the wider.
    call = NormCall("norm_act", x, norm, act, residual.to(x.dtype) if isinstance(residual, Tensor) else residual, stats)
    call.check()
    return run(NormCall("norm_act", x, norm, act, None, stats), backend) + residual


def channel_stats(x: Tensor, *, backend: str | None = None) -> Tensor:
    """The mean and biased variance of each frame's channel over (H, W): x (B, C, T, H, W) to (B, T, C, 2), float32 (float64 for
    float64), a constant. What `norm_act_conv(..., return_stats=True)` gives of its result, of any x.
    """
    return run(StatsCall("channel_stats", x), backend)
