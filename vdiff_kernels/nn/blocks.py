"""Residual blocks of video U-Nets."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import checks
from ..ops.norm.call import SCOPES
from .attention import TemporalAttention
from .children import conv_norm_silu, norm_conv, normed
from .conv import CONVS
from .layout import keep_format, require_backend, require_fits, require_frames, require_heads, require_input, require_multiple


class ResnetBlock3D(nn.Module):
    """A residual block of two [group norm, SiLU, convolution] over space or over time, with an embedding between them.

    Parameters `norm1`, `conv1`, `time_emb_proj`, `norm2`, `conv2` and, where the width changes, `conv_shortcut`: the
    state_dict of diffusers' TemporalResnetBlock (kernel "temporal", scope "clip") and, whose four-dimensional weights are
    taken as 1x3x3, of ResnetBlock2D (kernel "spatial", scope "frame").
    Source: Ho et al. 2022 (arXiv 2204.03458), section 3.
    """

    def __init__(
        self,
        in_channels: int,                  # C. A multiple of groups.
        out_channels: int | None = None,   # Co. Default in_channels; a multiple of groups.
        temb_channels: int | None = None,  # Width of temb; None for none.
        kernel: str = "spatial",           # "spatial" 1x3x3 or "temporal" 3x1x1.
        groups: int = 32,
        eps: float = 1e-5,
        scope: str = "frame",              # Pixels of a group's statistics: a "frame" or the whole "clip".
        backend: str | None = None,
    ):  # fmt: skip
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        name = type(self).__name__
        checks.require_choice(name, "kernel", kernel, tuple(CONVS))
        checks.require_choice(name, "scope", scope, SCOPES)
        require_multiple(self, "in_channels", in_channels, "groups", groups)
        require_multiple(self, "out_channels", out_channels, "groups", groups)
        if temb_channels is not None:
            checks.require_positive_int(name, "temb_channels", temb_channels)
        checks.require_eps(name, "eps", eps)
        require_backend(self, backend)
        conv = CONVS[kernel]
        self.in_channels, self.temb_channels, self.scope, self.backend = in_channels, temb_channels, scope, backend
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1 = conv(in_channels, out_channels)
        self.time_emb_proj = None if temb_channels is None else nn.Linear(temb_channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = conv(out_channels, out_channels)
        self.conv_shortcut = nn.Conv3d(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.register_load_state_dict_pre_hook(_take_2d_weights)

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        """x: (B, C, T, H, W); temb: (B, E) or (B, T, E), before its SiLU. Returns (B, Co, T, H, W) in x's memory format."""
        name = type(self).__name__
        require_input(self, x, "(B, C, T, H, W)", 1, self.in_channels, self.conv1)
        B, _, T, H, W = x.shape
        checks.require_extents(name, "x", x, T=T, H=H, W=W)
        E = self.temb_channels
        if temb is not None and E is None:
            raise ValueError(f"{name}: temb is given; expected None, as temb_channels is None")
        if E is not None:
            checks.require_floating_tensor(name, "temb", temb)
            checks.require_shape(name, "temb", temb, "(B, E) or (B, T, E)", (B, E), (B, T, E))
            require_fits(self, "temb", temb, self.time_emb_proj)
            temb = self.time_emb_proj(F.silu(temb))
        h, stats = norm_conv(
            self.norm1, self.conv1, x, scope=self.scope, act="silu", temb=temb, return_stats=True, backend=self.backend
        )
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        out = norm_conv(
            self.norm2, self.conv2, h, scope=self.scope, act="silu", residual=shortcut, stats=stats, backend=self.backend
        )
        return keep_format(out, x, 1)


def _take_2d_weights(module, state_dict, prefix, *_):
    for name in ("conv1.weight", "conv2.weight", "conv_shortcut.weight"):
        weight = state_dict.get(prefix + name)
        if weight is not None and weight.dim() == 4:
            state_dict[prefix + name] = weight.unsqueeze(2)


class Pseudo3DBlock(nn.Module):
    """A convolution of every frame with group norm and SiLU, then temporal attention after a layer norm, with its residual.

    Replaces, with the same state_dict, the Pseudo3DBlock of the seed text: `spatial_conv.0` (Conv2d), `spatial_conv.1`
    (GroupNorm of 8), `temporal_attn.*`, `norm.*` (LayerNorm).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,           # A multiple of 8 and of num_heads.
        num_heads: int = 8,          # N.
        backend: str | None = None,
    ):  # fmt: skip
        super().__init__()
        checks.require_positive_int(type(self).__name__, "in_channels", in_channels)
        require_multiple(self, "out_channels", out_channels, "groups", 8)
        require_heads(self, "out_channels", out_channels, num_heads)
        require_backend(self, backend)
        self.in_channels, self.backend = in_channels, backend
        self.spatial_conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.GroupNorm(8, out_channels), nn.SiLU()
        )
        self.temporal_attn = TemporalAttention(out_channels, num_heads, backend=backend)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, C, H, W). Returns (B, T, Co, H, W) in x's memory format."""
        require_input(self, x, "(B, T, C, H, W)", 2, self.in_channels, self.spatial_conv[0])
        require_frames(self, x, self.temporal_attn.max_frames)
        h = conv_norm_silu(self.spatial_conv, x, self.backend).movedim(1, -1)  # (B, T, H, W, Co)
        normal, norm = normed(self.norm, h)
        out = self.temporal_attn(normal, norm=norm, residual=h)
        return keep_format(out.movedim(-1, 2), x, 2)
