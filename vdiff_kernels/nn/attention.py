"""Temporal, spatial and factorized self-attention layers."""

import torch
from torch import Tensor, nn

from ..ops import checks
from ..ops.attention.api import spatial_attention, spatial_layer, temporal_attention, temporal_layer
from ..ops.attention.call import require_focus_present
from ..ops.norm.api import norm_act
from ..ops.norm.call import Norm
from .children import is_plain, normed
from .layout import require_backend, require_frames, require_heads, require_input
from .position import KINDS, RelativePositionBias


class TemporalAttention(nn.Module):
    """Self-attention over frames at each pixel, with a learned relative position bias.

    position "dense" replaces, with the same state_dict, the TemporalAttention of the seed text: `to_qkv`, `proj_out`,
    `rel_pos_emb` (1, N, max_frames, max_frames), of which the first T x T entries are used. "offset" and "t5" have a
    RelativePositionBias `position` of that kind in its stead; "t5" has buckets up to max_frames and takes any number of frames.
    """

    def __init__(
        self,
        dim: int,                    # C.
        num_heads: int = 8,          # N. Divides dim.
        max_frames: int = 32,        # Longest clip; a longer one is an error, but for "t5".
        position: str = "dense",     # Kind of the bias: "dense", "offset" or "t5".
        backend: str | None = None,
    ):  # fmt: skip
        super().__init__()
        require_heads(self, "dim", dim, num_heads)
        checks.require_positive_int(type(self).__name__, "max_frames", max_frames)
        checks.require_choice(type(self).__name__, "position", position, KINDS)
        require_backend(self, backend)
        self.dim, self.num_heads, self.backend = dim, num_heads, backend
        self.max_frames = None if position == "t5" else max_frames
        self.to_qkv = nn.Linear(dim, dim * 3)
        self.proj_out = nn.Linear(dim, dim)
        if position == "dense":
            self.rel_pos_emb = nn.Parameter(torch.randn(1, num_heads, max_frames, max_frames))
        else:
            self.position = RelativePositionBias(num_heads, position, max_frames, max_distance=max_frames)

    def forward(
        self,
        x: Tensor,                            # (B, T, H, W, C)
        *,
        norm: Norm | None = None,             # Over the channels of x, before the projection.
        residual: Tensor | None = None,       # (B, T, H, W, C), added to the result.
        causal: bool = False,
        focus_present: Tensor | None = None,  # (B,) or (B, T) bool.
        rotary: Tensor | None = None,         # (T, R//2) angles.
    ) -> Tensor:  # fmt: skip
        """Returns (B, T, H, W, C). Raises ValueError for more frames than max_frames."""
        require_input(self, x, "(B, T, H, W, C)", -1, self.dim, self.to_qkv)
        require_frames(self, x, self.max_frames)
        return attention_layer(
            "temporal", (self.to_qkv,), self.proj_out, x, num_heads=self.num_heads, norm=norm, residual=residual,
            backend=self.backend, **self._bias(x.shape[1]), causal=causal, focus_present=focus_present, rotary=rotary,
        )  # fmt: skip

    def _bias(self, T: int) -> dict[str, Tensor]:
        if hasattr(self, "position"):
            return self.position(T)
        return {"bias": self.rel_pos_emb[0, :, :T, :T]}


class SpatialAttention(nn.Module):
    """Self-attention over the pixels of each frame; with max_size, a learned bias per two-dimensional offset.

    Parameters `to_qkv`, `proj_out`, and `rel_pos_emb` (N, 2*Hmax-1, 2*Wmax-1), whose centre serves smaller frames.
    Source: Ho et al. 2022 (arXiv 2204.03458), section 3; offsets as in Liu et al. 2021 (Swin, arXiv 2103.14030).
    """

    def __init__(
        self,
        dim: int,                                # C.
        num_heads: int = 8,                      # N. Divides dim.
        max_size: tuple[int, int] | None = None, # (Hmax, Wmax) of the bias; None for no bias.
        backend: str | None = None,
    ):  # fmt: skip
        super().__init__()
        require_heads(self, "dim", dim, num_heads)
        _require_max_size(self, max_size)
        require_backend(self, backend)
        self.dim, self.num_heads, self.max_size, self.backend = dim, num_heads, max_size, backend
        self.to_qkv = nn.Linear(dim, dim * 3)
        self.proj_out = nn.Linear(dim, dim)
        if max_size is not None:
            Hmax, Wmax = max_size
            self.rel_pos_emb = nn.Parameter(torch.randn(num_heads, 2 * Hmax - 1, 2 * Wmax - 1) * 0.02)

    def forward(self, x: Tensor, *, norm: Norm | None = None, residual: Tensor | None = None) -> Tensor:
        """x, residual: (B, T, H, W, C). Returns the same. Raises ValueError for a frame larger than max_size."""
        require_input(self, x, "(B, T, H, W, C)", -1, self.dim, self.to_qkv)
        return attention_layer(
            "spatial", (self.to_qkv,), self.proj_out, x, num_heads=self.num_heads, norm=norm, residual=residual,
            backend=self.backend, rel_bias=self._table(*x.shape[2:4]),
        )  # fmt: skip

    def _table(self, H: int, W: int) -> Tensor | None:
        if self.max_size is None:
            return None
        Hmax, Wmax = self.max_size
        if H > Hmax or W > Wmax:
            raise ValueError(f"{type(self).__name__}: x has frames of {(H, W)}; expected at most max_size = {(Hmax, Wmax)}")
        return self.rel_pos_emb[:, Hmax - H : Hmax + H - 1, Wmax - W : Wmax + W - 1]


def _require_max_size(module, max_size) -> None:
    if max_size is None:
        return
    name = type(module).__name__
    if not isinstance(max_size, (tuple, list)) or len(max_size) != 2:
        raise TypeError(f"{name}: max_size is {checks.shown(max_size)}; expected None or two ints (Hmax, Wmax)")
    for place, size in enumerate(max_size):
        checks.require_positive_int(name, f"max_size[{place}]", size)


class FactorizedAttention(nn.Module):
    """Spatial, then temporal attention, each after a layer norm and with its residual: x + spatial(norm(x)), then time.

    Parameters `spatial_norm`, `spatial_attn`, `temporal_norm`, `temporal_attn`.
    Source: Ho et al. 2022 (arXiv 2204.03458), section 3.
    """

    def __init__(
        self,
        dim: int,                                 # C.
        num_heads: int = 8,                       # N. Divides dim.
        max_frames: int = 32,
        max_size: tuple[int, int] | None = None,  # Of the spatial bias.
        temporal_position: str = "dense",         # Kind of the temporal bias, as TemporalAttention's position.
        backend: str | None = None,
    ):  # fmt: skip
        super().__init__()
        require_heads(self, "dim", dim, num_heads)
        checks.require_positive_int(type(self).__name__, "max_frames", max_frames)
        _require_max_size(self, max_size)
        require_backend(self, backend)
        self.spatial_attn = SpatialAttention(dim, num_heads, max_size, backend)
        self.temporal_attn = TemporalAttention(dim, num_heads, max_frames, temporal_position, backend)
        self.spatial_norm = nn.LayerNorm(dim)
        self.temporal_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, *, focus_present: Tensor | None = None) -> Tensor:
        """x: (B, T, H, W, C); focus_present: (B,) or (B, T) bool. Returns (B, T, H, W, C)."""
        # All of it before the first layer runs.
        require_input(self, x, "(B, T, H, W, C)", -1, self.spatial_attn.dim, self.spatial_attn.to_qkv)
        require_frames(self, x, self.temporal_attn.max_frames)
        if focus_present is not None:
            require_focus_present(type(self).__name__, focus_present, "x", x, *x.shape[:2])
        h, norm = normed(self.spatial_norm, x)
        x = self.spatial_attn(h, norm=norm, residual=x)
        h, norm = normed(self.temporal_norm, x)
        return self.temporal_attn(h, norm=norm, residual=x, focus_present=focus_present)


LAYERS = {"temporal": temporal_layer, "spatial": spatial_layer}
ATTENTION = {"temporal": temporal_attention, "spatial": spatial_attention}


def attention_layer(
    kind: str,
    projections: tuple[nn.Module, ...],
    to_out: nn.Module,
    x: Tensor,
    *,
    num_heads: int,
    norm: Norm | None = None,
    pos_emb: Tensor | None = None,
    gate: Tensor | None = None,
    residual: Tensor | None = None,
    backend: str | None,
    **options,
) -> Tensor:
    """`temporal_layer` or `spatial_layer` (kind) of x (B, T, H, W, C); options: of the attention.

    projections: (to_qkv,), or (to_q, to_k, to_v), of which the weights are joined, or what they make where that is less.
    """
    few_rows = len(projections) > 1 and x.numel() < x.shape[-1] ** 2
    if all(map(is_plain, (*projections, to_out))) and not few_rows:
        w_qkv, b_qkv = _joined(projections)
        return LAYERS[kind](
            x, w_qkv, b_qkv, to_out.weight, to_out.bias, num_heads=num_heads, norm=norm, pos_emb=pos_emb, gate=gate,
            residual=residual, backend=backend, **options,
        )  # fmt: skip
    if norm is not None:
        x = norm_act(x.movedim(-1, 1), norm, backend=backend).movedim(1, -1)
    x = x if pos_emb is None else x + pos_emb.to(x.dtype)[:, None, None]
    rows = torch.cat([projection(x) for projection in projections], -1) if len(projections) > 1 else projections[0](x)
    q, k, v = rows.unflatten(-1, (3, num_heads, -1)).unbind(-3)
    out = to_out(ATTENTION[kind](q, k, v, backend=backend, **options).flatten(-2))
    out = out if gate is None else out * gate[:, None, None, None]
    return out if residual is None else out + residual


def _joined(projections: tuple[nn.Module, ...]) -> tuple[Tensor, Tensor | None]:
    """The weight and bias of all of them as one.

    Joined at every call: `.data +=`, by which adapters are merged, leaves no mark in a weight's version for a kept copy to see.
    """
    if len(projections) == 1:
        return projections[0].weight, projections[0].bias
    biases = [projection.bias for projection in projections]
    bias = None if all(one is None for one in biases) else torch.cat(biases)
    return torch.cat([projection.weight for projection in projections]), bias
