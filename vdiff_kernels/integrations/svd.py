"""Stable Video Diffusion (diffusers' UNetSpatioTemporalConditionModel and its temporal decoder)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.children import norm_conv, normed
from ..nn.layout import keep_format
from .adapter import Adapter
from .common import channels_last, group_normalize, normalize
from .diffusers_resnets import require_resnet_2d, resnet_2d, shortcut
from .diffusers_transformers import (
    cross_attention,
    feed_forward,
    merge_frames,
    require_attention,
    require_block,
    require_feed_forward,
    require_no_checkpoints,
    self_attention,
    split_frames,
    transformer_block,
)  # fmt: skip
from .guards import require, require_idle, require_known, require_silu


def spatial_share(blender: nn.Module, image_only_indicator: Tensor | None) -> Tensor:
    """How much of the spatial tensor an `AlphaBlender` keeps: () or, with images among the frames, (B, T)."""
    alpha = blender.mix_factor.reshape(())
    if blender.merge_strategy != "fixed":
        alpha = torch.sigmoid(alpha)
    if blender.merge_strategy == "learned_with_images":
        alpha = alpha.expand(image_only_indicator.shape).masked_fill(image_only_indicator.bool(), 1.0)
    return 1 - alpha if blender.switch_spatial_to_temporal_mix else alpha


def require_temporal_resnet(block: nn.Module) -> None:
    require_known(block, "TemporalResnetBlock")
    require_silu(block.nonlinearity)
    require_idle(block.dropout)


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
    require_temporal_resnet(block)
    require(mix is None or block.conv_shortcut is None, block, "it changes the width of what it is mixed with")
    given, x = x, channels_last(x)
    temb = None if block.time_emb_proj is None else block.time_emb_proj(F.silu(temb))
    h, stats = norm_conv(
        block.norm1, block.conv1, x, scope="clip", act="silu", temb=temb, stats=stats, return_stats=True, backend=backend
    )
    out = norm_conv(
        block.norm2,
        block.conv2,
        h,
        scope="clip",
        act="silu",
        stats=stats,
        residual=shortcut(block, x, "clips"),
        mix=mix,
        backend=backend,
    )
    return keep_format(out, given, 1)


def require_spatio_temporal_resnet(block: nn.Module) -> None:
    require_known(block, "SpatioTemporalResBlock")
    require_known(block.time_mixer, "AlphaBlender")
    require_resnet_2d(block.spatial_res_block)
    require_temporal_resnet(block.temporal_res_block)
    require(block.temporal_res_block.conv_shortcut is None, block, "its second half changes the width")


def spatio_temporal_resnet(
    block: nn.Module,
    hidden_states: Tensor,
    temb: Tensor | None = None,
    image_only_indicator: Tensor | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """`SpatioTemporalResBlock`: hidden_states (B*T, C, H, W), temb (B*T, E), image_only_indicator (B, T)."""
    require_spatio_temporal_resnet(block)
    require(image_only_indicator is not None, block, "it is given no image_only_indicator")
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


def require_temporal_block(block: nn.Module) -> None:
    require_known(block, "TemporalBasicTransformerBlock")
    require(block._chunk_size is None, block, "its feed-forward layers are chunked")
    require_feed_forward(block.ff_in)
    require_feed_forward(block.ff)
    require_attention(block.attn1)
    if block.attn2 is not None:
        require_attention(block.attn2)


def temporal_block(block: nn.Module, x: Tensor, context: Tensor | None, *, backend: str | None = None) -> Tensor:
    """`TemporalBasicTransformerBlock`: x (B, T, H, W, C), context (B, S, E), the same for every pixel and frame."""
    h = feed_forward(block.ff_in, normalize(block.norm_in, x, backend=backend), backend=backend)
    x = h + x if block.is_res else h
    h, norm = normed(block.norm1, x)
    x = self_attention(block.attn1, h, "temporal", norm=norm, residual=x, backend=backend)
    if block.attn2 is not None:
        x = cross_attention(block.attn2, x, context, norm=block.norm2, backend=backend)
    h = feed_forward(block.ff, normalize(block.norm3, x, backend=backend), backend=backend)
    return h + x if block.is_res else h


def require_spatio_temporal_transformer(model: nn.Module) -> None:
    require_known(model, "TransformerSpatioTemporalModel")
    require_known(model.time_mixer, "AlphaBlender")
    require_no_checkpoints(model)
    for spatial, temporal in zip(model.transformer_blocks, model.temporal_transformer_blocks):
        require_block(spatial, "spatial")
        require(spatial.norm_type == "layer_norm", spatial, "its norm is adaptive")
        require_temporal_block(temporal)


def spatio_temporal_transformer(
    model: nn.Module,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    image_only_indicator: Tensor | None = None,
    *,
    backend: str | None = None,
):
    """`TransformerSpatioTemporalModel`: hidden_states (B*T, C, H, W), encoder_hidden_states (B*T, S, E), of which the
    temporal blocks see the first frame's, image_only_indicator (B, T). Returns (B*T, C, H, W).
    """
    require_spatio_temporal_transformer(model)
    given = encoder_hidden_states is not None and image_only_indicator is not None
    require(given, model, "it is given no context or no image_only_indicator")
    T = image_only_indicator.shape[-1]
    context = encoder_hidden_states.unflatten(0, (-1, T))  # (B, T, S, E)
    h = model.proj_in(group_normalize(model.norm, split_frames(hidden_states, T), scope="frame", backend=backend))
    frame = torch.arange(T, device=h.device)
    frame_emb = model.time_pos_embed(model.time_proj(frame).to(h.dtype))  # (T, C)
    keep = spatial_share(model.time_mixer, image_only_indicator).to(h.dtype)[..., None, None, None]
    for spatial, temporal in zip(model.transformer_blocks, model.temporal_transformer_blocks):
        h = transformer_block(spatial, h, "spatial", context=context, backend=backend)
        moved = temporal_block(temporal, h + frame_emb[:, None, None], context[:, 0], backend=backend)
        h = torch.lerp(moved, h, keep)
    return hidden_states + merge_frames(model.proj_out(h))


def transformer_spatio_temporal_model(
    model: nn.Module,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    image_only_indicator: Tensor | None = None,
    return_dict: bool = True,
    *,
    backend: str | None = None,
):
    """`TransformerSpatioTemporalModel` as it is called: (B*T, C, H, W) to the same."""
    out = spatio_temporal_transformer(model, hidden_states, encoder_hidden_states, image_only_indicator, backend=backend)
    if not return_dict:
        return (out,)
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModelOutput

    return TransformerTemporalModelOutput(sample=out)


def temporal_resnet_block(block: nn.Module, input_tensor: Tensor, temb: Tensor | None = None, *, backend: str | None = None):
    """`TemporalResnetBlock` by itself, where what holds it is not served."""
    return temporal_resnet(block, input_tensor, temb, backend=backend)


ADAPTERS = {
    "SpatioTemporalResBlock": Adapter(
        spatio_temporal_resnet, require_spatio_temporal_resnet, ("convolution",),
        "norm, SiLU, embedding, residual and blend in the convolutions",
    ),
    "TemporalResnetBlock": Adapter(
        temporal_resnet_block, require_temporal_resnet, ("convolution",),
        "norm, SiLU, embedding and residual in the 3x1x1 convolutions",
    ),
    "TransformerSpatioTemporalModel": Adapter(
        transformer_spatio_temporal_model, require_spatio_temporal_transformer, ("attention", "feedforward"),
        "norms, attention over pixels and frames and GEGLU fused, no permutes; one-token context as its exact shortcut",
    ),
}  # fmt: skip
