"""Stable Video Diffusion (diffusers' UNetSpatioTemporalConditionModel and its temporal decoder)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.layout import keep_format
from ..ops.attention.api import spatial_layer, temporal_layer
from ..ops.conv.api import norm_act_conv
from .common import (
    channels_last,
    norm_of,
    normalize,
    pointwise,
    require,
    require_no_dropout,
    require_plain,
    weight_and_bias,
)  # fmt: skip
from .diffusers_blocks import (
    cross_attention,
    feed_forward,
    merge_frames,
    resnet_2d,
    self_attention,
    split_frames,
    transformer_block,
)  # fmt: skip


def spatial_share(blender: nn.Module, image_only_indicator: Tensor | None) -> Tensor:
    """How much of the spatial tensor an `AlphaBlender` keeps: () or, with images among the frames, (B, T)."""
    require_plain(blender, "AlphaBlender")
    alpha = blender.mix_factor.reshape(())
    if blender.merge_strategy != "fixed":
        alpha = torch.sigmoid(alpha)
    if blender.merge_strategy == "learned_with_images":
        alpha = alpha.expand(image_only_indicator.shape).masked_fill(image_only_indicator.bool(), 1.0)
    return 1 - alpha if blender.switch_spatial_to_temporal_mix else alpha


def temporal_resnet(
    block: nn.Module,
    x: Tensor,
    temb: Tensor | None = None,
    *,
    mix: Tensor | None = None,
    stats: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """`TemporalResnetBlock`: x (B, C, T, H, W), temb (B, T, E). Returns (B, Co, T, H, W).

    mix: keep so much of x and the rest of the block's output; (), (B,) or (B, T). stats: of x, as norm_act_conv gives them.
    """
    require_plain(block, "TemporalResnetBlock")
    require(mix is None or block.conv_shortcut is None, block, "it changes the width of what it is mixed with")
    require_no_dropout(block.dropout)
    given, x = x, channels_last(x)
    (w_1, b_1), (w_2, b_2) = (weight_and_bias(conv, "Conv3d") for conv in (block.conv1, block.conv2))
    temb = None if block.time_emb_proj is None else block.time_emb_proj(F.silu(temb))
    h, stats = norm_act_conv(
        x, w_1, b_1, norm=norm_of(block.norm1, scope="clip"), act="silu", temb=temb,
        stats=stats, return_stats=True, backend=backend,
    )  # fmt: skip
    out = norm_act_conv(
        h, w_2, b_2, norm=norm_of(block.norm2, scope="clip"), act="silu", stats=stats,
        residual=x if block.conv_shortcut is None else pointwise(block.conv_shortcut, x), mix=mix, backend=backend,
    )  # fmt: skip
    return keep_format(out, given, 1)


def spatio_temporal_resnet(
    block: nn.Module,
    hidden_states: Tensor,
    temb: Tensor | None,
    image_only_indicator: Tensor,
    *,
    backend: str | None = None,
) -> Tensor:
    """`SpatioTemporalResBlock`: hidden_states (B*T, C, H, W), temb (B*T, E), image_only_indicator (B, T)."""
    clip = (-1, image_only_indicator.shape[-1])
    rows = hidden_states.contiguous(memory_format=torch.channels_last)
    spatial, stats = resnet_2d(block.spatial_res_block, rows, temb, return_stats=True, backend=backend)
    out = temporal_resnet(
        block.temporal_res_block,
        spatial.unflatten(0, clip).transpose(1, 2),
        None if temb is None else temb.unflatten(0, clip),
        mix=spatial_share(block.time_mixer, image_only_indicator),
        stats=stats.squeeze(1).unflatten(0, clip),
        backend=backend,
    )
    return keep_format(out.transpose(1, 2).flatten(0, 1), hidden_states, 1)


def temporal_block(block: nn.Module, x: Tensor, context: Tensor | None, *, backend: str | None = None) -> Tensor:
    """`TemporalBasicTransformerBlock`: x (B, T, H, W, C), context (B, S, E), the same for every pixel and frame."""
    require_plain(block, "TemporalBasicTransformerBlock")
    h = feed_forward(block.ff_in, normalize(x, norm_of(block.norm_in), backend), backend=backend)
    x = h + x if block.is_res else h
    x = self_attention(block.attn1, x, temporal_layer, norm=norm_of(block.norm1), residual=x, backend=backend)
    if block.attn2 is not None:
        x = cross_attention(block.attn2, x, context, norm=norm_of(block.norm2), backend=backend)
    h = feed_forward(block.ff, normalize(x, norm_of(block.norm3), backend), backend=backend)
    return h + x if block.is_res else h


def spatio_temporal_transformer(
    model: nn.Module,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor,
    image_only_indicator: Tensor,
    *,
    backend: str | None = None,
) -> Tensor:
    """`TransformerSpatioTemporalModel`: hidden_states (B*T, C, H, W), encoder_hidden_states (B*T, S, E), of which the
    temporal blocks see the first frame's, image_only_indicator (B, T). Returns (B*T, C, H, W).
    """
    T = image_only_indicator.shape[-1]
    context = encoder_hidden_states.unflatten(0, (-1, T))  # (B, T, S, E)
    h = model.proj_in(normalize(split_frames(hidden_states, T), norm_of(model.norm), backend))
    frame = torch.arange(T, device=h.device)
    frame_emb = model.time_pos_embed(model.time_proj(frame).to(h.dtype))  # (T, C)
    keep = spatial_share(model.time_mixer, image_only_indicator).to(h.dtype)[..., None, None, None]
    for spatial, temporal in zip(model.transformer_blocks, model.temporal_transformer_blocks):
        h = transformer_block(spatial, h, spatial_layer, context=context, backend=backend)
        moved = temporal_block(temporal, h + frame_emb[:, None, None], context[:, 0], backend=backend)
        h = torch.lerp(moved, h, keep)
    return hidden_states + merge_frames(model.proj_out(h))
