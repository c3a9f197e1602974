"""Factorized convolutions, alone and with the norm and activation before them."""

from torch import Tensor, nn

from ..ops import checks
from ..ops.conv.api import norm_act_conv, pseudo3d_conv
from ..ops.norm.call import ACTIVATIONS, SCOPES
from .children import PLAIN_FORWARDS, is_plain, norm_conv
from .layout import keep_format, require_backend, require_input, require_multiple

_LETTERS = "(B, C, T, H, W)"


class _FactorizedConv(nn.Conv3d):
    """Keeps the memory format of its input: contiguous in, contiguous out; channels_last_3d in, channels_last_3d out."""

    taps: tuple[int, int, int]

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True, backend: str | None = None):
        _require_conv(self, in_channels, out_channels, bias, backend)
        padding = tuple(tap // 2 for tap in self.taps)
        super().__init__(in_channels, out_channels, self.taps, padding=padding, bias=bias)
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, in_channels, T, H, W). Returns (B, out_channels, T, H, W)."""
        require_input(self, x, _LETTERS, 1, self.in_channels, self)
        return keep_format(norm_act_conv(x, self.weight, self.bias, backend=self.backend), x, 1)


PLAIN_FORWARDS.add(_FactorizedConv.forward)


def _require_conv(module, in_channels, out_channels, bias, backend) -> None:
    name = type(module).__name__
    checks.require_positive_int(name, "in_channels", in_channels)
    checks.require_positive_int(name, "out_channels", out_channels)
    checks.require_bool(name, "bias", bias)
    require_backend(module, backend)


class SpatialConv(_FactorizedConv):
    """A 3x3 convolution of every frame: nn.Conv3d(in_channels, out_channels, (1, 3, 3), padding=(0, 1, 1)), same state_dict."""

    taps = (1, 3, 3)


class TemporalConv(_FactorizedConv):
    """A convolution over 3 frames: nn.Conv3d(in_channels, out_channels, (3, 1, 1), padding=(1, 0, 0)), same state_dict."""

    taps = (3, 1, 1)


CONVS = {"spatial": SpatialConv, "temporal": TemporalConv}


class Pseudo3DConv(nn.Module):
    """A 1x3x3 convolution, then a 3x1x1 that starts as the identity. Parameters `spatial.*`, `temporal.*`.

    Source: Singer et al. 2022 (Make-A-Video, arXiv 2209.14792), section 3.2.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True, backend: str | None = None):
        super().__init__()
        _require_conv(self, in_channels, out_channels, bias, backend)
        self.in_channels = in_channels
        self.spatial = SpatialConv(in_channels, out_channels, bias, backend)
        self.temporal = TemporalConv(out_channels, out_channels, bias, backend)
        nn.init.dirac_(self.temporal.weight)
        if bias:
            nn.init.zeros_(self.temporal.bias)
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, in_channels, T, H, W). Returns (B, out_channels, T, H, W) in x's memory format."""
        require_input(self, x, _LETTERS, 1, self.in_channels, self.spatial)
        if not (is_plain(self.spatial) and is_plain(self.temporal)):
            return keep_format(self.temporal(self.spatial(x)), x, 1)
        weights = self.spatial.weight, self.spatial.bias, self.temporal.weight, self.temporal.bias
        return keep_format(pseudo3d_conv(x, *weights, backend=self.backend), x, 1)


class NormActConv(nn.Module):
    """conv(act(group_norm(x))), fused. Parameters `norm.*` as nn.GroupNorm, `conv.*` as nn.Conv3d."""

    def __init__(
        self,
        in_channels: int,           # Ci. A multiple of groups.
        out_channels: int,          # Co.
        kernel: str = "spatial",    # "spatial" 1x3x3 or "temporal" 3x1x1.
        groups: int = 32,
        eps: float = 1e-5,
        scope: str = "frame",       # Pixels of a group's statistics: a "frame" or the whole "clip".
        act: str | None = "silu",
        backend: str | None = None,
    ):  # fmt: skip
        super().__init__()
        name = type(self).__name__
        checks.require_choice(name, "kernel", kernel, tuple(CONVS))
        checks.require_choice(name, "scope", scope, SCOPES)
        checks.require_choice(name, "act", act, ACTIVATIONS)
        require_multiple(self, "in_channels", in_channels, "groups", groups)
        checks.require_positive_int(name, "out_channels", out_channels)
        checks.require_eps(name, "eps", eps)
        require_backend(self, backend)
        self.norm = nn.GroupNorm(groups, in_channels, eps)
        self.conv = CONVS[kernel](in_channels, out_channels, backend=backend)
        self.in_channels = in_channels
        self.scope, self.act, self.backend = scope, act, backend

    def forward(
        self,
        x: Tensor,                       # (B, Ci, T, H, W)
        *,
        temb: Tensor | None = None,      # (B, Co) or (B, T, Co)
        residual: Tensor | None = None,  # (B, Co, T, H, W)
        mix: Tensor | None = None,       # (), (B,) or (B, T)
    ) -> Tensor:  # fmt: skip
        """Returns (B, Co, T, H, W) in x's memory format."""
        require_input(self, x, _LETTERS, 1, self.in_channels, self.conv)
        out = norm_conv(
            self.norm, self.conv, x, scope=self.scope, act=self.act, temb=temb, residual=residual, mix=mix, backend=self.backend
        )
        return keep_format(out, x, 1)
