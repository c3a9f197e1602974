"""lucidrains' video-diffusion-pytorch (Unet3D): temporal attention, mid spatial attention, residual blocks; (B, C, T, H, W)."""

import torch
from torch import Tensor, nn

from ..nn.layout import keep_format
from ..ops.attention.api import spatial_layer, temporal_layer
from ..ops.conv.api import norm_act_conv
from ..ops.norm.api import norm_act
from ..ops.norm.call import Norm
from .common import channels_last, pointwise, require, require_plain, weight_and_bias


def rotary_angles(rotary: nn.Module, num_frames: int) -> Tensor:
    """The angles (T, R//2), in radians, of a `RotaryEmbedding`."""
    require(not rotary.use_xpos and not rotary.learned_freq, rotary, "its angles are learned, or scaled with distance")
    frequency = rotary.freqs.detach()
    frequency = frequency.to(torch.promote_types(frequency.dtype, torch.float32))
    frame = torch.arange(num_frames, device=frequency.device, dtype=frequency.dtype) / rotary.interpolate_factor
    return torch.outer(frame, frequency)


def offset_bias(position_bias: nn.Module, num_frames: int) -> Tensor:
    """The table (N, 2T-1) of a `RelativePositionBias`: what its forward spreads over (N, T, T)."""
    offset = torch.arange(1 - num_frames, num_frames, device=position_bias.relative_attention_bias.weight.device)
    bucket = position_bias._relative_position_bucket(offset, position_bias.num_buckets, position_bias.max_distance)
    return position_bias.relative_attention_bias(bucket).T


def temporal_attention(
    block: nn.Module,
    x: Tensor,
    pos_bias: Tensor | None = None,
    focus_present_mask: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """`Residual(PreNorm(EinopsToAndFrom("b c f h w", "b (h w) f c", Attention)))`; x (B, C, T, H, W).

    pos_bias: (N, T, T), as Unet3D hands it to its layers, or (N, 2T-1) of `offset_bias`; focus_present_mask: (B,) bool.
    """
    attn = block.fn.fn.fn
    arguments = dict(focus_present=focus_present_mask)
    if pos_bias is not None:
        arguments["bias" if pos_bias.dim() == 3 else "rel_bias"] = pos_bias
    if attn.rotary_emb is not None:
        arguments["rotary"] = rotary_angles(attn.rotary_emb, x.shape[2])
    return _attention(block, x, temporal_layer, **arguments, backend=backend)


def spatial_attention(block: nn.Module, x: Tensor, *, backend: str | None = None) -> Tensor:
    """`Residual(PreNorm(EinopsToAndFrom("b c f h w", "b f (h w) c", Attention)))`; x (B, C, T, H, W)."""
    require(block.fn.fn.fn.rotary_emb is None, block, "its attention rotates positions along the pixels")
    return _attention(block, x, spatial_layer, backend=backend)


def _attention(block, x, layer, **arguments):
    norm, attn = block.fn.norm, block.fn.fn.fn
    for module, kind in ((block.fn, "PreNorm"), (block.fn.fn, "EinopsToAndFrom"), (norm, "LayerNorm")):
        require_plain(module, kind)
    require_plain(attn, "Attention", "SpatialLinearAttention")
    rows = channels_last(x).movedim(1, -1)  # (B, T, H, W, C)
    out = layer(
        rows, *weight_and_bias(attn.to_qkv), *weight_and_bias(attn.to_out), num_heads=attn.heads, scale=attn.scale,
        norm=Norm("layer", norm.gamma.flatten(), eps=norm.eps), residual=rows, **arguments,
    )  # fmt: skip
    return keep_format(out.movedim(-1, 1), x, 1)


def conv_block(
    block: nn.Module,
    x: Tensor,
    scale_shift: tuple[Tensor, Tensor] | None = None,
    *,
    residual: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """`Block`: SiLU(rms_norm(conv(x)) * (1 + scale) + shift) + residual; x (B, C, T, H, W), scale, shift (B, Co, 1, 1, 1)."""
    require_plain(block, "Block")
    require_plain(block.norm, "RMSNorm")
    h = norm_act_conv(x, *weight_and_bias(block.proj, "Conv3d"), backend=backend)
    scale, shift = (None, None) if scale_shift is None else (t.flatten(1) for t in scale_shift)
    # F.normalize divides by max(|h|, 1e-12), that is by sqrt(C) times the root mean square.
    eps = 1e-24 / h.shape[1]
    norm = Norm("rms", block.norm.gamma.flatten(), eps=eps, scale=scale, shift=shift)
    return keep_format(norm_act(h, norm, act="silu", residual=residual, backend=backend), x, 1)


def resnet_block(block: nn.Module, x: Tensor, time_emb: Tensor | None = None, *, backend: str | None = None) -> Tensor:
    """`ResnetBlock`: x (B, C, T, H, W), time_emb (B, E). Returns (B, Co, T, H, W)."""
    rows = channels_last(x)
    scale_shift = None if block.mlp is None else block.mlp(time_emb).chunk(2, dim=1)
    h = conv_block(block.block1, rows, scale_shift, backend=backend)
    shortcut = rows if isinstance(block.res_conv, nn.Identity) else pointwise(block.res_conv, rows)
    return keep_format(conv_block(block.block2, h, residual=shortcut, backend=backend), x, 1)
