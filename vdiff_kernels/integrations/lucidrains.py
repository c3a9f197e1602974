"""lucidrains' video-diffusion-pytorch (Unet3D): temporal attention, mid spatial attention, residual blocks; (B, C, T, H, W)."""

import torch
from torch import Tensor, nn

from ..nn.attention import attention_layer
from ..nn.children import norm_conv, what_is_around
from ..nn.layout import keep_format
from ..ops.norm.api import norm_act
from ..ops.norm.call import Norm
from .adapter import Adapter
from .common import channels_last, pointwise, some_at_a_time
from .guards import class_of, require, require_known, require_nothing_around, require_silu


def require_rotary(rotary: nn.Module) -> None:
    require(not rotary.use_xpos and not rotary.learned_freq, rotary, "its angles are learned, or scaled with distance")
    require_nothing_around(rotary)


def rotary_angles(rotary: nn.Module, num_frames: int) -> Tensor:
    """The angles (T, R//2), in radians, of a `RotaryEmbedding`."""
    frequency = rotary.freqs.detach()
    frequency = frequency.to(torch.promote_types(frequency.dtype, torch.float32))
    frame = torch.arange(num_frames, device=frequency.device, dtype=frequency.dtype) / rotary.interpolate_factor
    return torch.outer(frame, frequency)


def offset_bias(position_bias: nn.Module, num_frames: int) -> Tensor:
    """The table (N, 2T-1) of a `RelativePositionBias`: what its forward spreads over (N, T, T)."""
    offset = torch.arange(1 - num_frames, num_frames, device=position_bias.relative_attention_bias.weight.device)
    bucket = position_bias._relative_position_bucket(offset, position_bias.num_buckets, position_bias.max_distance)
    return position_bias.relative_attention_bias(bucket).T


AT_A_TIME = 1 << 18  # elements of an input of linear attention

# What EinopsToAndFrom makes the sequence of an Attention.
SEQUENCES = {"b (h w) f c": "temporal", "b f (h w) c": "spatial"}


def require_attention(block: nn.Module) -> str:
    """Raises Unserved unless a `Residual` is one of the attention layers; else which: "temporal", "spatial" or "linear"."""
    require_known(block, "Residual")
    require(class_of(block.fn).__name__ == "PreNorm", block, "it is not around a norm and an attention")
    require_known(block.fn, "PreNorm")
    require_known(block.fn.norm, "LayerNorm")
    inner = block.fn.fn
    if class_of(inner).__name__ == "SpatialLinearAttention":
        require_known(inner, "SpatialLinearAttention")
        return "linear"
    require_known(inner, "EinopsToAndFrom")
    kind = SEQUENCES.get(inner.to_einops) if inner.from_einops == "b c f h w" else None
    require(kind is not None, inner, f"it rearranges {inner.from_einops!r} to {inner.to_einops!r}")
    attn = inner.fn
    require_known(attn, "Attention")
    if attn.rotary_emb is not None:
        require(kind == "temporal", block, "its attention rotates positions along the pixels")
        require_rotary(attn.rotary_emb)
    return kind


def residual(
    block: nn.Module,
    x: Tensor,
    pos_bias: Tensor | None = None,
    focus_present_mask: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """`Residual(PreNorm(...))` of the three attention layers; x (B, C, T, H, W).

    pos_bias: (N, T, T), as Unet3D hands it to its layers, or (N, 2T-1) of `offset_bias`; focus_present_mask: (B,) bool.
    """
    kind = require_attention(block)
    given = pos_bias is not None or focus_present_mask is not None
    require(kind == "temporal" or not given, block, "its attention over pixels is given a bias or mask over frames")
    norm, attn = block.fn.norm, block.fn.fn
    rows = channels_last(x).movedim(1, -1)  # (B, T, H, W, C)
    norm = Norm("layer", norm.gamma.flatten(), eps=norm.eps)
    if kind == "linear":
        normal = norm_act(rows.movedim(-1, 1), norm, backend=backend).movedim(1, -1)
        out = rows + _linear_attention(attn, normal)
        return keep_format(out.movedim(-1, 1), x, 1)
    attn, masks = attn.fn, {}
    if pos_bias is not None:
        masks["bias" if pos_bias.dim() == 3 else "rel_bias"] = pos_bias
    if kind == "temporal":
        masks["focus_present"] = focus_present_mask
        masks["rotary"] = None if attn.rotary_emb is None else rotary_angles(attn.rotary_emb, x.shape[2])
    out = attention_layer(
        kind, (attn.to_qkv,), attn.to_out, rows, num_heads=attn.heads, scale=attn.scale, norm=norm, residual=rows,
        backend=backend, **masks,
    )  # fmt: skip
    return keep_format(out.movedim(-1, 1), x, 1)


def _linear_attention(attn: nn.Module, rows: Tensor) -> Tensor:
    """`SpatialLinearAttention` of (B, T, H, W, C): its queries, keys and values take many times the memory of its input."""
    frames = rows.flatten(0, 1)
    most = max(1, AT_A_TIME // frames.shape[1:].numel())
    layers = attn.to_qkv, attn.to_out
    return some_at_a_time(lambda some: _attend_linearly(attn, some), frames, most, layers).view_as(rows)


def _attend_linearly(attn: nn.Module, frames: Tensor) -> Tensor:
    """Of (M, H, W, C). The pixels meet in one D x D matrix a head."""
    q, k, v = pointwise(attn.to_qkv, frames[:, None], "frames").unflatten(-1, (3, attn.heads, -1)).flatten(1, 3).unbind(2)
    q, k = q.softmax(-1) * attn.scale, k.softmax(1)  # (M, L, N, D)
    context = torch.einsum("mlnd, mlne -> mnde", k, v)
    out = torch.einsum("mlnd, mnde -> mlne", q, context)
    return pointwise(attn.to_out, out.reshape(*frames.shape[:1], 1, *frames.shape[1:3], -1), "frames")[:, 0]


def require_conv_block(block: nn.Module) -> None:
    require_known(block, "Block")
    require_known(block.norm, "RMSNorm")
    require_silu(block.act)


def conv_block(
    block: nn.Module,
    x: Tensor,
    scale_shift: tuple[Tensor, Tensor] | None = None,
    *,
    residual: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """`Block`: SiLU(rms_norm(conv(x)) * (1 + scale) + shift) + residual; x (B, C, T, H, W), scale, shift (B, Co, 1, 1, 1)."""
    require_conv_block(block)
    h = norm_conv(None, block.proj, x, backend=backend)
    scale, shift = (None, None) if scale_shift is None else (t.flatten(1) for t in scale_shift)
    # F.normalize divides by max(|h|, 1e-12), that is by sqrt(C) times the root mean square.
    eps = 1e-24 / h.shape[1]
    norm = Norm("rms", block.norm.gamma.flatten(), eps=eps, scale=scale, shift=shift)
    return keep_format(norm_act(h, norm, act="silu", residual=residual, backend=backend), x, 1)


def require_resnet_block(block: nn.Module) -> None:
    require_known(block, "ResnetBlock")
    require_conv_block(block.block1)
    require_conv_block(block.block2)


def resnet_block(block: nn.Module, x: Tensor, time_emb: Tensor | None = None, *, backend: str | None = None) -> Tensor:
    """`ResnetBlock`: x (B, C, T, H, W), time_emb (B, E). Returns (B, Co, T, H, W)."""
    require_resnet_block(block)
    require(block.mlp is None or time_emb is not None, block, "it is given no time embedding")
    rows = channels_last(x)
    scale_shift = None if block.mlp is None else block.mlp(time_emb).chunk(2, dim=1)
    h = conv_block(block.block1, rows, scale_shift, backend=backend)
    is_identity = type(block.res_conv) is nn.Identity and what_is_around(block.res_conv) is None
    shortcut = rows if is_identity else pointwise(block.res_conv, rows.movedim(1, -1), "clips").movedim(-1, 1)
    return keep_format(conv_block(block.block2, h, residual=shortcut, backend=backend), x, 1)


ADAPTERS = {
    "Residual": Adapter(
        residual, require_attention, ("attention",), "norm, rotation, position bias and attention fused, no rearranging"
    ),
    "ResnetBlock": Adapter(resnet_block, require_resnet_block, ("convolution",), "one pass for norm, scale, shift, SiLU and sum"),
}
