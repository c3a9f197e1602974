"""Layers whose forward takes the place of another module's, as `kernelize` of Hugging Face's `kernels` does it.

Such a forward runs on a module that another class made: `self` has that class's parameters, children and attributes, and nothing
of the class here, which therefore has no constructor and no other method. `kernels` allows no members but the two flags.
"""

from torch import Tensor, nn

from .nn.attention import attention_layer
from .nn.children import conv_norm_silu, gated, hooks_of, normed
from .nn.layout import keep_format, require_frames
from .ops import checks
from .ops.norm.call import Norm


class TemporalAttention(nn.Module):
    """Replaces the TemporalAttention of the seed text, as nn.TemporalAttention does.

    Of the module it reads `to_qkv`, `proj_out`, `rel_pos_emb` (1, N, Tmax, Tmax), `num_heads` and `scale`.
    """

    can_torch_compile = True
    has_backward = True

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, H, W, C), floating. Returns the same. Raises ValueError for more than Tmax frames."""
        checks.require_floating_tensor(type(self).__name__, "x", x, "(B, T, H, W, C)")
        return _attention(self, x)


class Pseudo3DBlock(nn.Module):
    """Replaces the Pseudo3DBlock of the seed text, as nn.Pseudo3DBlock does.

    Of the module it reads `spatial_conv` (Conv2d, GroupNorm, SiLU), `norm` (LayerNorm) and `temporal_attn`; where that has the
    forward above, the norm and the residual are fused with it.
    """

    can_torch_compile = True
    has_backward = True

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, C, H, W), floating. Returns (B, T, Co, H, W) in x's memory format. Raises ValueError for too many frames."""
        checks.require_floating_tensor(type(self).__name__, "x", x, "(B, T, C, H, W)")
        h = conv_norm_silu(self.spatial_conv, x, None).movedim(1, -1)  # (B, T, H, W, Co)
        if _is_served(self.temporal_attn):
            normal, norm = normed(self.norm, h)
            out = _attention(self.temporal_attn, normal, norm=norm, residual=h)
        else:
            out = h + self.temporal_attn(self.norm(h))
        return keep_format(out.movedim(-1, 2), x, 2)


class GEGLU(nn.Module):
    """Replaces diffusers' GEGLU: a * gelu(b), [a | b] = proj(hidden_states). Of the module it reads `proj`."""

    can_torch_compile = True
    has_backward = True

    def forward(self, hidden_states: Tensor, *args, **kwargs) -> Tensor:
        """hidden_states: (..., C), floating. Returns (..., E). More arguments are ignored, as diffusers does."""
        return gated(self.proj, hidden_states, None)


def _attention(module: nn.Module, x: Tensor, norm: Norm | None = None, residual: Tensor | None = None) -> Tensor:
    T = x.shape[1]
    require_frames(module, x, module.rel_pos_emb.shape[-1])
    return attention_layer(
        "temporal", (module.to_qkv,), module.proj_out, x, num_heads=module.num_heads, norm=norm, residual=residual, backend=None,
        bias=module.rel_pos_emb[0, :, :T, :T], scale=module.scale,
    )  # fmt: skip


def _is_served(module: nn.Module) -> bool:
    """Whether calling the module does what TemporalAttention's forward does and nothing more."""
    return getattr(module.forward, "__func__", None) is TemporalAttention.forward and hooks_of(module) is None
