"""The operators on a module's children, honouring what each child has become.

A fused operator reads a child's weight and never calls the child. So where calling it would do anything else than its weight says
(an adapter in its place, a hook, pruning, quantised or offloaded weights), the operator is called in parts, the child among them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as _module

from ..ops.conv.api import norm_act_conv
from ..ops.conv.reference import epilogue
from ..ops.feedforward.api import geglu
from ..ops.norm.api import channel_stats, norm_act
from ..ops.norm.call import Norm
from ..ops.tensors import by_frame

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(f"_global{name}" for name in _HOOKS)

# The forwards that do what the weight and bias say. nn/conv.py adds its own.
PLAIN_FORWARDS = {kind.forward for kind in (nn.Linear, nn.Conv2d, nn.Conv3d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)}


def what_is_around(module: nn.Module) -> str | None:
    """What calling the module would run beside its class's forward, or None."""
    if "forward" in module.__dict__:
        return "its forward is replaced on the instance"
    return hooks_of(module)


def hooks_of(module: nn.Module) -> str | None:
    """What calling the module would run beside its forward, wherever that came from, or None."""
    hooks = [name for name in _HOOKS if getattr(module, name)] + [name for name in _GLOBAL_HOOKS if getattr(_module, name)]
    return f"it has hooks ({hooks[0]})" if hooks else None


def is_plain(child: nn.Module) -> bool:
    """Whether calling the child does what its weight and bias say: a linear layer, convolution or norm of PyTorch's or of this
    package, with nothing wrapped around it. A parametrization is plain: it acts whenever the weight is read.
    """
    if type(child).forward not in PLAIN_FORWARDS or what_is_around(child) is not None:
        return False
    return not hasattr(type(child.weight), "__tensor_flatten__")  # quantised and distributed tensors have it


def normed(child: nn.Module, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> tuple[Tensor, Norm | None]:
    """(x, the child's norm over the last dimension, to be fused), or (the child's result, None).

    scale, shift: (B, C) of an adaptive norm.
    """
    if is_plain(child):
        return x, Norm.of(child, scale=scale, shift=shift)
    return modulated(child(x), scale, shift, -1), None


def modulated(y: Tensor, scale: Tensor | None, shift: Tensor | None, channel_dim: int) -> Tensor:
    """y * (1 + scale) + shift of y (B, ..., C, ...) with scale and shift (B, C) or None."""
    rows = y.movedim(channel_dim, -1)
    between = (slice(None), *[None] * (rows.dim() - 2))
    rows = rows if scale is None else rows * (1 + scale[between])
    rows = rows if shift is None else rows + shift[between]
    return rows.movedim(-1, channel_dim)


def norm_conv(
    norm: nn.GroupNorm | None,
    conv: nn.Module,
    x: Tensor,
    *,
    scope: str = "frame",
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    act: str | None = None,
    stats: Tensor | None = None,
    return_stats: bool = False,
    of_frames: bool = False,
    backend: str | None = None,
    **after: Tensor | None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`norm_act_conv` of x (B, C, T, H, W) with a group norm and a convolution of five- or, of frames, four-dimensional weights.

    scale, shift: (B, C) of an adaptive norm. of_frames: whether the convolution is called with each frame by itself. after: its
    temb, residual and mix.
    """
    fused, x = group_normed(norm, x, scope, scale, shift)
    if is_plain(conv) and is_same_conv(conv):
        weight = conv.weight if conv.weight.dim() == 5 else conv.weight.unsqueeze(2)
        return norm_act_conv(
            x, weight, conv.bias, norm=fused, act=act, stats=None if fused is None else stats, return_stats=return_stats,
            backend=backend, **after,
        )  # fmt: skip
    if fused is not None:
        x = norm_act(x, fused, act=act, stats=stats, backend=backend)
    elif act is not None:
        x = F.silu(x)
    y = by_frame(conv, x) if of_frames else conv(x)
    out = epilogue(y, **after).contiguous(memory_format=torch.channels_last_3d)
    return (out, channel_stats(out, backend=backend)) if return_stats else out


def is_same_conv(conv: nn.Conv2d | nn.Conv3d) -> bool:
    """Whether a convolution is one step over 1 or 3 taps a dimension, with as many zeros around as its result needs."""
    taps = conv.kernel_size
    if conv.groups != 1 or conv.padding_mode != "zeros" or set(taps) - {1, 3}:
        return False
    ones = (1,) * len(taps)
    return (conv.stride, conv.dilation, conv.padding) == (ones, ones, tuple(tap // 2 for tap in taps))


def conv_norm_silu(layers: nn.Module, x: Tensor, backend: str | None) -> Tensor:
    """layers of every frame, an nn.Sequential of a 3x3 Conv2d, GroupNorm and SiLU: x (B, T, C, H, W) to (B, Co, T, H, W)."""
    if not _is_conv_norm_silu(layers):
        return layers(x.flatten(0, 1)).unflatten(0, x.shape[:2]).transpose(1, 2)
    conv, group_norm, _ = layers
    h, stats = norm_conv(None, conv, x.transpose(1, 2), return_stats=True, of_frames=True, backend=backend)
    return norm_act(h, Norm.of(group_norm), act="silu", stats=stats, backend=backend)


def _is_conv_norm_silu(layers: nn.Module) -> bool:
    if type(layers) is not nn.Sequential or what_is_around(layers):
        return False
    if [type(layer).forward for layer in layers] != [nn.Conv2d.forward, nn.GroupNorm.forward, nn.SiLU.forward]:
        return False
    conv, group_norm, act = layers
    return is_plain(conv) and is_same_conv(conv) and is_plain(group_norm) and not what_is_around(act)


def group_normed(
    norm: nn.Module | None, x: Tensor, scope: str, scale: Tensor | None = None, shift: Tensor | None = None
) -> tuple[Norm | None, Tensor]:
    """(the group norm over the channels of x (B, C, T, H, W), to be fused; x), or (None; its result)."""
    if norm is None:
        return None, x
    if is_plain(norm) and isinstance(norm, nn.GroupNorm):
        return Norm.of(norm, scope=scope, scale=scale, shift=shift), x
    return None, modulated(by_frame(norm, x) if scope == "frame" else norm(x), scale, shift, 1)


def gated(projection: nn.Module, x: Tensor, backend: str | None) -> Tensor:
    """`geglu` with the projection."""
    if is_plain(projection):
        return geglu(x, projection.weight, projection.bias, backend=backend)
    a, b = projection(x).chunk(2, dim=-1)
    return a * F.gelu(b)
