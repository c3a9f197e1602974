"""Latte (diffusers' LatteTransformer3DModel): spatial and temporal transformer blocks in turn, with adaLN-single."""

import torch
from torch import Tensor, nn

from ..nn.layout import keep_format
from ..ops.attention.api import spatial_layer, temporal_layer
from .common import norm_of, normalize, require, require_plain
from .diffusers_blocks import cross_attention, feed_forward, self_attention


def transformer_block(
    block: nn.Module,
    x: Tensor,
    timestep: Tensor,
    layer,
    *,
    context: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """`BasicTransformerBlock` with norm_type "ada_norm_single"; x (B, T, H, W, C), timestep (B, 6*C).

    layer: spatial_layer or temporal_layer. context: (B, S, C), where the block has an attn2; attn2 has no norm here.
    """
    require_plain(block, "BasicTransformerBlock")
    require(block.norm_type == "ada_norm_single", block, f"its norm_type is {block.norm_type!r}; expected 'ada_norm_single'")
    modulation = block.scale_shift_table + timestep.unflatten(-1, (6, -1))  # (B, 6, C)
    shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = modulation.unbind(1)
    norm = norm_of(block.norm1, scale=scale_msa, shift=shift_msa)
    x = self_attention(block.attn1, x, layer, norm=norm, gate=gate_msa, residual=x, backend=backend)
    if block.attn2 is not None:
        x = cross_attention(block.attn2, x, context, backend=backend)
    norm = norm_of(block.norm2, scale=scale_mlp, shift=shift_mlp)
    h = feed_forward(block.ff, normalize(x, norm, backend), backend=backend)
    return torch.addcmul(x, gate_mlp[:, None, None, None], h)


def transformer(
    model: nn.Module,
    hidden_states: Tensor,
    timestep: Tensor,
    encoder_hidden_states: Tensor,
    *,
    enable_temporal_attentions: bool = True,
    backend: str | None = None,
) -> Tensor:
    """`LatteTransformer3DModel`: hidden_states (B, C, T, H, W), timestep (B,), encoder_hidden_states (B, S, E).

    Returns (B, Co, T, H, W). The tokens stay (B, T, H, W, C) from the first block to the last.
    """
    B, _, T, height, width = hidden_states.shape
    p = model.config.patch_size
    x = model.pos_embed(hidden_states.transpose(1, 2).flatten(0, 1))  # (B*T, H*W, C)
    x = x.contiguous().view(B, T, height // p, width // p, -1)
    sizes = {"resolution": None, "aspect_ratio": None}
    modulation, embedded = model.adaln_single(timestep, sizes, batch_size=B, hidden_dtype=x.dtype)  # (B, 6*C), (B, C)
    context = model.caption_projection(encoder_hidden_states)
    for i, (spatial, temporal) in enumerate(zip(model.transformer_blocks, model.temporal_transformer_blocks)):
        x = transformer_block(spatial, x, modulation, spatial_layer, context=context, backend=backend)
        if enable_temporal_attentions:
            if i == 0 and T > 1:
                x = x + model.temp_pos_embed[0, :, None, None].to(x.dtype)
            x = transformer_block(temporal, x, modulation, temporal_layer, backend=backend)
    shift, scale = (model.scale_shift_table + embedded[:, None]).unbind(1)
    x = model.proj_out(normalize(x, norm_of(model.norm_out, scale=scale, shift=shift), backend))
    x = x.unflatten(-1, (p, p, -1)).transpose(3, 4)  # (B, T, H, p, W, p, Co)
    out = x.reshape(B, T, height // p * p, width // p * p, -1).movedim(-1, 1)
    return keep_format(out, hidden_states, 1)
