"""The pieces that diffusers' video models share: attention, feed-forward, transformer blocks, residual blocks.

Inside, a clip is (B, T, H, W, C); diffusers' (B*T, C, H, W) is a view of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.layout import keep_format
from ..ops.attention.api import spatial_attention, temporal_attention, temporal_layer
from ..ops.conv.api import norm_act_conv
from ..ops.feedforward.api import geglu
from ..ops.norm.call import Norm
from ..ops.tensors import wants_grad
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

# Processors that compute plain attention; any other may compute something else.
PLAIN_PROCESSORS = ("AttnProcessor", "AttnProcessor2_0", "SlicedAttnProcessor", "XFormersAttnProcessor")


def split_frames(hidden_states: Tensor, num_frames: int) -> Tensor:
    """(B*T, C, H, W) as (B, T, H, W, C), a view."""
    return hidden_states.unflatten(0, (-1, num_frames)).movedim(2, -1)


def merge_frames(x: Tensor) -> Tensor:
    """(B, T, H, W, C) as (B*T, C, H, W): a view of what the operators return."""
    return x.movedim(-1, 2).flatten(0, 1)


# ---------------------------------------------------------------------------------------------------------- attention


def require_plain_attention(attn: nn.Module) -> None:
    """Raises unless an `Attention` computes to_out(softmax(scale * q k^T) v) and nothing more."""
    require_plain(attn, "Attention")
    processor = type(attn.processor).__name__
    require(processor in PLAIN_PROCESSORS, attn, f"its processor is {processor}; expected one of {', '.join(PLAIN_PROCESSORS)}")
    for name in ("group_norm", "spatial_norm", "norm_cross", "norm_q", "norm_k", "add_k_proj"):
        require(getattr(attn, name, None) is None, attn, f"it has {name}")
    require(attn.inner_kv_dim == attn.inner_dim, attn, "its keys have fewer heads than its queries")
    require(not attn.residual_connection and attn.rescale_output_factor == 1, attn, "it adds or scales its output")
    require_no_dropout(attn.to_out[1])


def self_attention(attn: nn.Module, x: Tensor, layer, *, backend: str | None, **around) -> Tensor:
    """`Attention` without a context. layer: temporal_layer or spatial_layer; around: its norm, pos_emb, residual."""
    require_plain_attention(attn)
    weights, biases = zip(*map(weight_and_bias, (attn.to_q, attn.to_k, attn.to_v)))
    b_qkv = None if biases[0] is None else torch.cat(biases)
    w_out, b_out = weight_and_bias(attn.to_out[0])
    # Joined every call: `.data +=`, by which adapters are merged, leaves no mark in a weight's version for a kept copy to see.
    w_qkv = torch.cat(weights)
    return layer(x, w_qkv, b_qkv, w_out, b_out, num_heads=attn.heads, scale=attn.scale, backend=backend, **around)


def cross_attention(
    attn: nn.Module,
    x: Tensor,
    context: Tensor,
    *,
    norm: Norm | None = None,
    pos_emb: Tensor | None = None,
    backend: str | None,
) -> Tensor:
    """x + `Attention` from every pixel of x to a context.

    context: (B, S, E) shared by all pixels, (B, T, S, E) per frame, or (B, S, H, W, E) per pixel and shared by its frames;
    pos_emb: (T, C), added after the norm.
    """
    require_plain_attention(attn)
    per_pixel = context.dim() == 5
    to_v, to_out = attn.to_v, attn.to_out[0]
    idle = [*(() if norm is None else norm.tensors), *attn.to_q.parameters(), *attn.to_k.parameters()]
    if context.shape[1 if per_pixel else -2] == 1 and not wants_grad(*idle):
        # The softmax over one token is 1: neither queries nor keys matter, and nobody waits for their zero gradients.
        out = to_out(to_v(context))
        return x + out.reshape(*out.shape[:-1], *[1] * (x.dim() - out.dim()), out.shape[-1])
    h = x if norm is None else normalize(x, norm, backend)
    if pos_emb is not None:
        h = h + pos_emb.to(h.dtype)[:, None, None, :]
    q, k, v = (t.unflatten(-1, (attn.heads, -1)) for t in (attn.to_q(h), attn.to_k(context), to_v(context)))  # (..., N, D)
    attend = temporal_attention if per_pixel else spatial_attention
    return x + to_out(attend(q, k, v, scale=attn.scale, backend=backend).flatten(-2))


def feed_forward(ff: nn.Module, x: Tensor, *, backend: str | None) -> Tensor:
    """`FeedForward`; x (..., C)."""
    require_plain(ff, "FeedForward")
    projection, _, out = ff.net[:3]
    require_no_dropout(*ff.net)
    if type(projection).__name__ == "GEGLU":
        require_plain(projection, "GEGLU")
        h = geglu(x, *weight_and_bias(projection.proj), backend=backend)
    else:
        h = projection(x)
    return out(h)


# ------------------------------------------------------------------------------------------------ transformer blocks


def transformer_block(block: nn.Module, x: Tensor, layer, *, context: Tensor | None = None, backend: str | None = None) -> Tensor:
    """`BasicTransformerBlock` with layer norms; x (B, T, H, W, C).

    layer: temporal_layer where its sequence is the frames, spatial_layer where it is the pixels. context: of attn2, as in
    `cross_attention`; without one attn2 attends as attn1 does.
    """
    require_plain(block, "BasicTransformerBlock")
    require(block.norm_type == "layer_norm", block, f"its norm_type is {block.norm_type!r}; expected 'layer_norm'")
    require(not block.only_cross_attention, block, "its attn1 attends to the context")
    pos_emb = None
    if block.pos_embed is not None:
        require_plain(block.pos_embed, "SinusoidalPositionalEmbedding")
        require(layer is temporal_layer, block, "it has position embeddings along the pixels")
        pos_emb = block.pos_embed.pe[0, : x.shape[1]]  # (T, C)
    x = self_attention(block.attn1, x, layer, norm=norm_of(block.norm1), pos_emb=pos_emb, residual=x, backend=backend)
    if block.attn2 is not None:
        around = dict(norm=norm_of(block.norm2), pos_emb=pos_emb, backend=backend)
        if context is None:
            x = self_attention(block.attn2, x, layer, residual=x, **around)
        else:
            x = cross_attention(block.attn2, x, context, **around)
    return x + feed_forward(block.ff, normalize(x, norm_of(block.norm3), backend), backend=backend)


def temporal_transformer(
    model: nn.Module,
    hidden_states: Tensor,
    num_frames: int,
    *,
    encoder_hidden_states: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """`TransformerTemporalModel` and `AnimateDiffTransformer3D`: group norm over the clip, then blocks over its frames.

    hidden_states: (B*T, C, H, W); encoder_hidden_states: (B*H*W, S, E). Returns (B*T, C, H, W).
    """
    x = split_frames(hidden_states, num_frames)
    B, _, H, W, _ = x.shape
    context = None if encoder_hidden_states is None else encoder_hidden_states.unflatten(0, (B, H, W)).movedim(3, 1)
    h = model.proj_in(normalize(x, norm_of(model.norm, scope="clip"), backend))
    for block in model.transformer_blocks:
        h = transformer_block(block, h, temporal_layer, context=context, backend=backend)
    return hidden_states + merge_frames(model.proj_out(h))


# --------------------------------------------------------------------------------------------------- residual blocks


def resnet_2d(
    block: nn.Module,
    hidden_states: Tensor,
    temb: Tensor | None = None,
    *,
    return_stats: bool = False,
    backend: str | None = None,
):
    """`ResnetBlock2D`; hidden_states (B, C, H, W), temb (B, E). Returns (B, Co, H, W), or with return_stats that and its
    channel statistics (B, 1, Co, 2).

    A batch of images is a batch of clips of one frame, so that embeddings of each image may scale and shift.
    """
    require_plain(block, "ResnetBlock2D")
    require(block.upsample is None and block.downsample is None, block, "it resamples between norm and convolution")
    require(isinstance(block.nonlinearity, nn.SiLU), block, "its activation is not SiLU")
    require(block.output_scale_factor == 1, block, f"its output_scale_factor is {block.output_scale_factor}")
    require_no_dropout(block.dropout)
    x = channels_last(hidden_states.unsqueeze(2))  # (B, C, 1, H, W)
    if block.time_emb_proj is None:
        temb = None
    else:
        temb = block.time_emb_proj(temb if block.skip_time_act else F.silu(temb))
    scale = shift = None
    if block.time_embedding_norm == "scale_shift":
        (scale, shift), temb = temb.chunk(2, dim=1), None
    (w_1, b_1), (w_2, b_2) = (weight_and_bias(conv, "Conv2d") for conv in (block.conv1, block.conv2))
    h, stats = norm_act_conv(
        x, w_1.unsqueeze(2), b_1, norm=norm_of(block.norm1), act="silu", temb=temb,
        return_stats=True, backend=backend,
    )  # fmt: skip
    out = norm_act_conv(
        h, w_2.unsqueeze(2), b_2, norm=norm_of(block.norm2, scale=scale, shift=shift), act="silu",
        residual=x if block.conv_shortcut is None else pointwise(block.conv_shortcut, x),
        stats=stats, return_stats=return_stats, backend=backend,
    )  # fmt: skip
    out, *stats = out if return_stats else (out,)
    out = keep_format(out.squeeze(2), hidden_states, 1)
    return (out, *stats) if return_stats else out
